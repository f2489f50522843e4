"""Small weights: tables of items and users as int8, and what that costs in the headline metric."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from matinee.errors import MatineeError
from matinee.experiment.building import Experiment
from matinee.training.tasks.base import LightningTask
from matinee.verbs.export.parity import Answer
from matinee.verbs.export.programs import Program

NARROW = 8  # columns; a narrower table, such as one of biases, would save little


class Int8Rows(nn.Module):
    r"""Write a table as int8 codes and one step for each row, :math:`x_{ij} \approx s_i c_{ij}`.

    The step is the largest absolute value of the row over 127, so a value is off by at most half a step.
    """

    def forward(self, codes: Tensor, steps: Tensor) -> Tensor:
        """Return the table: codes (rows, columns) and steps (rows, 1) to float32 (rows, columns)."""
        return codes * steps

    def right_inverse(self, table: Tensor) -> tuple[Tensor, Tensor]:
        """Return the codes and the steps of a table."""
        steps = table.abs().amax(1, keepdim=True) / 127
        steps = steps.clamp(min=torch.finfo(table.dtype).tiny)  # a row of zeros
        return (table / steps).round().to(torch.int8), steps


def with_int8_tables(task: LightningTask[Any]) -> LightningTask[Any]:
    """Return a copy of a task whose tables with a row for each item or user are int8.

    Raises:
        MatineeError: If its network has no such table of at least 8 columns.
    """
    small = copy.copy(task)
    network = copy.deepcopy(task.network)
    small._modules = {**task._modules, "network": network}  # type: ignore[dict-item]
    sizes = {len(task.warm_items), len(task.warm_users)}
    found = [
        (module, name)
        for module in (network.modules() if isinstance(network, nn.Module) else ())
        for name, table in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
        if table.dtype == torch.float32
        and table.dim() == 2
        and len(table) in sizes
        and table.shape[1] >= NARROW
    ]  # fmt: skip
    for module, name in found:
        getattr(module, name).requires_grad_(False)
        parametrize.register_parametrization(module, name, Int8Rows(), unsafe=True)
    if not found:
        raise MatineeError(
            f"{type(task.network).__name__} has no table of items or users to store as int8; leave out "
            "weights=int8."
        )
    return small


def headline_values(
    experiment: Experiment, program: Program, answers: Mapping[str, Answer]
) -> dict[str, Any]:
    """Measure the headline metric of a run and of its programs, on test or else on validation.

    All are measured by the task itself, with its forward pass replaced by the answers of a program.

    Args:
        experiment: The loaded run.
        program: What was exported.
        answers: Its programs, by file name.

    Returns:
        The name of the metric under ``metric``, its value for the run under ``run``, and those of the
        programs; nothing if no rows were held out.

    Raises:
        MatineeError: If evaluated histories are longer than a program reads.
    """
    datamodule, task = experiment.datamodule, experiment.task
    split = datamodule.split
    stage = "test" if len(split.test) else "val"
    if not len(split.test) + len(split.validation):
        return {}
    longest = getattr(datamodule, "eval_length", 0)
    if program.max_length is not None and longest > program.max_length:
        raise MatineeError(
            f"the programs read {program.max_length} positions and evaluation shows {longest}, so that the "
            "metric of int8 weights cannot be measured; leave out weights=int8."
        )
    names = [port.name for port in program.inputs]

    def measured(answer: Answer | None) -> float:
        asked = copy.copy(task)
        if answer is not None:
            asked.forward = lambda *arrays: torch.from_numpy(  # type: ignore[method-assign]
                answer({name: array.long().numpy() for name, array in zip(names, arrays, strict=False)})
            )  # fmt: skip
        batches = datamodule.evaluation_dataloader(stage)
        with torch.no_grad():
            predictions = [asked.predict_step(batch) for batch in batches]
        metrics, _ = asked.measure(predictions, datamodule, stage)
        return float(metrics[task.headline.metric])

    values = {name: measured(answer) for name, answer in answers.items()}
    return {"metric": f"{stage}/{task.headline.metric}", "run": measured(None), **values}
