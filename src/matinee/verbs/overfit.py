"""``matinee overfit``: check that a model can memorize one small batch, as every correct one can.

The same batch is used for training and validation. The data module chooses it by a rule, so that the
lowest possible error is 0, and the task says how the error is measured: rating models by the squared
error of their ratings, which means the same under any loss; ranking models by their loss, and by the
ranks of the targets.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig
from torch import Tensor

from matinee.batches.loading import BatchLoader
from matinee.config.checking import check_config
from matinee.config.parts import make_part
from matinee.display.metrics import metric_title
from matinee.errors import MatineeError
from matinee.experiment.building import build
from matinee.experiment.run_folder import CONFIG, claim_folder, write_json, write_yaml
from matinee.experiment.trainer import make_trainer, probe, refuse_parent, refuse_several
from matinee.files import write_whole
from matinee.training.tasks.base import LightningTask

RECORD = "overfit.json"
REGULARIZERS = {
    "dropout", "user_dropout", "weight_decay", "l2", "unknown_users", "unknown_items",
}  # fmt: skip
LAST = 10  # steps whose mean error counts: sampled losses differ from step to step
OWN_KEYS = ("examples", "steps")  # of configs/overfit.yaml


@dataclass(frozen=True)
class Overfit:
    """Result of the one-batch overfitting check.

    Attributes:
        judged_by: What ``losses`` holds: ``squared error``, or the name of a loss.
        losses: Error of every step, (steps,).
        threshold: Value that the mean error of the last steps must reach.
        fault: What is wrong with the predictions for the batch; empty if they are right.
        unmoved: Names of the weights that training did not change.
        headline: Name of the headline metric on validation.
        metrics: Validation metrics, on the same batch.
        seconds: Duration of the fit.
    """

    judged_by: str
    losses: list[float]
    threshold: float
    fault: str
    unmoved: list[str]
    headline: str
    metrics: dict[str, float]
    seconds: float

    @property
    def final(self) -> float:
        """Mean loss of the last steps."""
        return float(np.mean(self.losses[-LAST:]))

    @property
    def faults(self) -> list[str]:
        """Reasons why the check fails; empty if it passes."""
        found = []
        if not self.final <= self.threshold:
            found.append("error above the threshold")
        if self.fault:
            found.append(self.fault)
        if self.unmoved:
            found.append(f"{', '.join(self.unmoved)} did not change")
        return found

    @property
    def passed(self) -> bool:
        """Whether there are no faults."""
        return not self.faults


def overfit(config: DictConfig, loss: str | None = None) -> Overfit:
    """Train the model of a config on one batch until it is memorized or the steps are used up.

    Args:
        config: A composed ``overfit`` config; its regularization is switched off.
        loss: Name of the chosen loss, for the result; None takes the name of its class.

    Raises:
        MatineeError: If the model is solved in closed form, the data offer no such batch, no
            gradient reaches a weight, or a part of the config cannot be built.
    """
    check_config(config, "overfit")
    for key in OWN_KEYS:
        if config[key] < 1:
            raise MatineeError(f"{key} is {config[key]!r}; give a whole number of at least 1.")
    for group in ("model", "task", "optimizer"):
        _switch_off(config[group])
    config.scheduler = {}
    config.trainer.max_epochs = 1
    refuse_several(config, "overfit")
    refuse_parent(config, "overfit")
    experiment = build(config)
    task = experiment.task
    if task.closed_form:
        raise MatineeError(
            f"{type(task.network).__name__} is solved in closed form and does not train on batches; "
            "choose a model that is trained."
        )
    batch = experiment.datamodule.memorizable_batch(config.examples)
    before = {name: weight.detach().clone() for name, weight in task.named_parameters()}
    until_memorized = _UntilMemorized(task)
    callbacks = make_part(config, "callbacks")
    watching = [callbacks[name] for name in ("metrics", "seed_each_step") if callbacks.get(name)]
    trainer = make_trainer(config, None, callbacks=[*watching, until_memorized])
    started = time.perf_counter()
    probe(trainer.fit, task, datamodule=OneBatch(batch, config.steps))
    metrics = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
    weights = {name: weight.detach().cpu() for name, weight in task.named_parameters()}
    return Overfit(
        judged_by=task.judged_by or loss or type(task.loss).__name__,
        losses=until_memorized.losses,
        threshold=until_memorized.threshold,
        fault=task.memorization_fault(batch),
        unmoved=[name for name, weight in weights.items() if weight.equal(before[name])],
        headline=task.headline.monitor,
        metrics=metrics,
        seconds=time.perf_counter() - started,
    )


def record(config: DictConfig, result: Overfit) -> Path:
    """Write the config, the losses and the result into a new folder below ``log_dir/overfit``.

    Raises:
        MatineeError: If the folder is in use or cannot be written.
    """
    folder = claim_folder(config.run_folder, Path(config.log_dir) / "overfit" / config.name)
    steps = [f"{step},{loss:.9g}\n" for step, loss in enumerate(result.losses, start=1)]
    table = "".join(["step,loss\n", *steps]).encode()
    write_yaml(folder / CONFIG, config)
    write_whole(folder / "loss.csv", lambda file: file.write(table))
    write_json(
        folder / RECORD,
        {
            "name": config.name,
            "judged_by": result.judged_by,
            "examples": config.examples,
            "steps": len(result.losses),
            "start_loss": result.losses[0],
            "final_loss": result.final,
            "threshold": result.threshold,
            "metrics": result.metrics,
            "passed": result.passed,
            "faults": result.faults,
            "seconds": round(result.seconds, 3),
        },
    )
    return folder


def row(config: DictConfig, result: Overfit) -> dict[str, str]:
    """Return the result as a row of a table."""
    title = metric_title(result.headline)
    outcome = "pass" if result.passed else f"FAIL: {'; '.join(result.faults)}"
    return {
        "model": Path(config.name).name,
        "judged by": result.judged_by,
        "start": f"{result.losses[0]:.4f}",
        "final": f"{result.final:.4f}",
        "threshold": f"{result.threshold:.4f}",
        "validation": f"{title.removeprefix('validation ')} {result.metrics[result.headline]:.4f}",
        "steps": str(len(result.losses)),
        "seconds": f"{result.seconds:.1f}",
        "outcome": outcome,
    }


class OneBatch(pl.LightningDataModule):
    """Provides one batch for every step of a single epoch and for the validation after it.

    Args:
        batch: The batch.
        steps: Number of steps of the epoch.
    """

    def __init__(self, batch: Any, steps: int) -> None:
        super().__init__()
        self.batch = batch
        self.steps = steps

    def train_dataloader(self) -> BatchLoader:
        """Return a loader that repeats the batch for every step."""
        return BatchLoader(lambda epoch: range(self.steps), lambda step: self.batch, self.steps)

    def val_dataloader(self) -> BatchLoader:
        """Return a loader with the batch once."""
        return BatchLoader(lambda epoch: [0], lambda step: self.batch, 1)


class _UntilMemorized(Callback):
    """Records the error of every step and ends the fit when the batch is memorized."""

    def __init__(self, task: LightningTask[Any]) -> None:
        self.task = task
        self.losses: list[float] = []
        self.threshold = 0.0

    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor
    ) -> None:
        if not loss.requires_grad:
            raise MatineeError(
                f"no gradient reaches a weight of {type(self.task.network).__name__}; its scores do not "
                "depend on its parameters."
            )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.losses.append(self.task.memorization_error(outputs))
        if len(self.losses) == 1:
            tolerance = self.task.memorization_tolerance
            # a batch that starts within the tolerance, such as one of equal ratings, is memorized
            self.threshold = (
                tolerance if self.losses[0] <= tolerance else min(tolerance, self.losses[0] / 10)
            )
        memorized = len(self.losses) >= LAST and np.mean(self.losses[-LAST:]) <= self.threshold
        if memorized and not self.task.memorization_fault(batch):
            trainer.should_stop = True


def _switch_off(node: DictConfig) -> None:
    for key in map(str, node):
        if isinstance(node[key], DictConfig):
            _switch_off(node[key])
        elif key in REGULARIZERS:
            node[key] = 0.0
