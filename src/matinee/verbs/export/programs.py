"""A task as a program: what it computes from arrays of ids, for any batch and any length."""

import contextlib
import logging
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from matinee.contracts import Network
from matinee.errors import MatineeError
from matinee.training.tasks.base import LightningTask
from matinee.training.tasks.live import LiveRatingTask
from matinee.training.tasks.next_item import NextItemTask
from matinee.training.tasks.rating import RatingTask
from matinee.verbs.export.onnx_operations import DECOMPOSED, translations

INT64, FLOAT32 = "int64", "float32"


@dataclass(frozen=True)
class Port:
    """An input or an output of a program.

    Attributes:
        name: Its name, in both programs.
        dtype: ``int64`` or ``float32``.
        shape: Names of the sizes that a caller chooses, and numbers.
        meaning: What it holds.
    """

    name: str
    dtype: str
    shape: tuple[str | int, ...]
    meaning: str


class NextItemProgram(nn.Module):
    """Score all items after histories, as :meth:`matinee.training.tasks.next_item.NextItemTask.forward`."""

    warm_users: Tensor
    warm_items: Tensor

    def __init__(self, task: NextItemTask) -> None:
        super().__init__()
        self.network: Any = task.network
        self.needs_times = getattr(task.network, "needs_times", False)
        self.register_buffer("warm_users", task.warm_users)
        self.register_buffer("warm_items", task.warm_items)
        self.num_items = len(task.warm_items) - 1
        limits = [part.max_length for part in task.network.modules() if hasattr(part, "max_length")]  # type: ignore[attr-defined]
        self.max_length: int | None = min(limits, default=None)

    def forward(
        self, histories: Tensor, lengths: Tensor, user_ids: Tensor, times: Tensor | None = None
    ) -> Tensor:
        """Score all items, see :meth:`matinee.training.tasks.next_item.NextItemTask.forward`."""
        histories = histories * self.warm_items[histories]
        users = user_ids * self.warm_users[user_ids]
        context = () if times is None else (times,)
        scores: Tensor = self.network.score_next(histories, lengths, users, *context)
        return scores

    @property
    def inputs(self) -> tuple[Port, ...]:
        """What the program reads."""
        histories = (
            "item ids, each row beginning with 0, oldest first, padded with 0 on the right; 0 for an "
            "unknown item"
        )
        ports = (
            Port("histories", INT64, ("batch", "length"), histories),
            Port("lengths", INT64, ("batch",), "positions that are not padding, at least 1"),
            Port("user_ids", INT64, ("batch",), "the users; 0 for an unknown one"),
        )
        seconds = (
            "seconds since the first item, 0 for the first position and where times are unknown"
        )
        times = Port("times", INT64, ("batch", "length"), seconds)
        return (*ports, times) if self.needs_times else ports

    @property
    def output(self) -> Port:
        """What the program returns."""
        meaning = "column j is the score of item id j; column 0 is minus infinity"
        return Port("scores", FLOAT32, ("batch", self.num_items + 1), meaning)


class RatingProgram(nn.Module):
    """Predict ratings of pairs, as :meth:`matinee.training.tasks.rating.RatingTask.forward`."""

    warm_users: Tensor
    warm_items: Tensor
    max_length: int | None = None

    def __init__(self, task: RatingTask) -> None:
        super().__init__()
        self.network: Any = task.network
        self.loss: Any = task.loss
        self.rating_scale = task.rating_scale
        self.register_buffer("warm_users", task.warm_users)
        self.register_buffer("warm_items", task.warm_items)

    def forward(self, user_ids: Tensor, item_ids: Tensor) -> Tensor:
        """Predict ratings: ids of shape (batch,) to ratings of shape (batch,)."""
        users = user_ids * self.warm_users[user_ids]
        items = item_ids * self.warm_items[item_ids]
        ratings: Tensor = self.loss.rating(self.network(users, items)).clamp(*self.rating_scale)
        return ratings

    inputs = (
        Port("user_ids", INT64, ("batch",), "the users; 0 for an unknown one"),
        Port("item_ids", INT64, ("batch",), "the items; 0 for an unknown one"),
    )
    output = Port("ratings", FLOAT32, ("batch",), "predicted ratings on the scale of the data")


Program = NextItemProgram | RatingProgram


def program_of(task: LightningTask[Any]) -> Program:
    """Return what a task computes as a module without its training.

    Raises:
        MatineeError: If the task neither ranks next items nor predicts ratings.
    """
    program: Program
    if isinstance(task, LiveRatingTask):
        raise MatineeError(
            f"{type(task.network).__name__} cannot be exported: it reads running offsets, which "
            "matinee.batches.running_biases adds up from all earlier ratings one after another, in NumPy; "
            "choose a model of pairs, such as model=mf_bias."
        )
    if isinstance(task, NextItemTask) and isinstance(task.network, nn.Module):
        program = NextItemProgram(task)
    elif isinstance(task, RatingTask):
        program = RatingProgram(task)
    else:
        raise MatineeError(
            f"{type(task).__name__} neither ranks next items nor predicts ratings, and only these can be "
            "exported."
        )
    return program.eval().requires_grad_(False)


def exported(program: Program) -> ExportedProgram:
    """Trace a program for any batch and any length, with :func:`torch.export.export`.

    Raises:
        MatineeError: If its network contains what a program cannot express; it says what.
    """
    sizes = {"batch": Dim("batch", min=1), "length": Dim("length", min=1, max=program.max_length)}
    example = [torch.zeros(3, 5, dtype=torch.int64), torch.full((3,), 4), torch.tensor([0, 0, 0])]
    if isinstance(program, RatingProgram):
        example = [example[2], example[2].clone()]
    elif program.needs_times:
        example.append(example[0].clone())
    shapes = tuple(
        {place: sizes[str(size)] for place, size in enumerate(port.shape)}
        for port in program.inputs
    )
    with _quietly(), _blamed(program.network, "torch.export"), torch.no_grad():
        return torch.export.export(program, tuple(example), dynamic_shapes=shapes)


def onnx_program(program: ExportedProgram, network: Network, output: str) -> Any:
    """Translate a traced program to ONNX.

    Args:
        program: From :func:`exported`.
        network: The network inside, for the message of an error.
        output: Name of the output.

    Returns:
        A :class:`torch.onnx.ONNXProgram`.

    Raises:
        MatineeError: If an operation has no counterpart in ONNX, or none that can be relied on; it names the
            operation.
    """
    with _quietly(), _blamed(network, "ONNX"), torch.no_grad():
        called = {node.target for node in program.graph.nodes if node.op == "call_function"}
        if table := {operation: DECOMPOSED[operation] for operation in called & {*DECOMPOSED}}:
            program = program.run_decompositions(dict(table))
        translated: Any = torch.onnx.export(
            program,
            output_names=[output],
            custom_translation_table=translations(),
            dynamo=True,
            verbose=False,
        )
    for node in translated.model.graph:
        reduction = node.attributes.get("reduction")
        if node.op_type == "ScatterND" and reduction and reduction.value != "none":
            raise MatineeError(
                f"{type(network).__name__} cannot be exported to ONNX: it adds to places that repeat by "
                "index_add or index_put, which ONNX Runtime does in parallel and loses sums; use scatter_add."
            )
    return translated


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Silence what PyTorch reports of its own parts."""
    loggers = [
        logging.getLogger(name) for name in ("torch", "torch.onnx", "torch.fx", "onnxscript")
    ]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextlib.contextmanager
def _blamed(network: object, target: str) -> Iterator[None]:
    """Report an operation that cannot be translated, with its reason.

    Raises:
        MatineeError: In place of any error, since PyTorch raises many types.
    """
    try:
        yield
    except Exception as error:
        raise MatineeError(
            f"{type(network).__name__} cannot be exported to {target}: {_reason(error)}; choose another "
            "model, or write this operation with others."
        ) from error


def _reason(error: BaseException) -> str:
    """Return the operation that an error names, or its first line."""
    text = str(error)
    if found := re.search(r"No ONNX function found for <OpOverload\(op='([\w.]+)'", text):
        return f"ONNX has no counterpart of the operation {found[1]}"
    if "data-dependent" in text:
        where = re.search(r'File "[^"]*", line \d+, in \w+', text)
        return f"a size or a branch depends on values{f' ({where[0]})' if where else ''}"
    lines = [line.strip(" -") for line in text.splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
