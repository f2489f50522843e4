"""The metrics of every epoch, and a check for values that are not finite."""

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from matinee.errors import Diverged
from matinee.files import checkpoint_path
from matinee.training.processes import gathered
from matinee.training.tasks.base import LightningTask

CHECK_EVERY = 50  # steps between checks of the losses; each check waits for the accelerator


class EpochMetrics(Callback):
    """Logs the metrics of train, validation and test once per epoch, as the task computes them.

    The metrics of train come from sums over the steps of the running epoch, which survive a resume in
    the middle of the epoch. Steps are summed in groups, because each look at their values waits for the
    accelerator. A loss or a prediction that is not finite ends the fit in all processes, before it can
    reach a checkpoint.
    """

    def __init__(self) -> None:
        self._steps: list[dict[str, Tensor]] = []  # what the task returned, not summed yet
        self._sums: dict[str, float] = {}
        self._outputs: list[dict[str, Tensor]] = []  # of the steps of validation or test

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the last epoch."""
        self._steps.clear()
        self._sums.clear()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep what the step returned, and sum up now and then."""
        if not outputs:
            return
        self._steps.append({name: value for name, value in outputs.items() if name != "loss"})
        if len(self._steps) == CHECK_EVERY or trainer.is_last_batch:
            self._sum_up(trainer, pl_module)

    @torch.no_grad()
    def _sum_up(self, trainer: pl.Trainer, task: LightningTask[Any]) -> None:
        columns = {name: [step[name] for step in self._steps] for name in self._steps[0]}
        self._steps.clear()
        losses = finite_losses(columns.pop("data_loss"), trainer)
        for name, value in task.running_sums(losses, columns).items():
            self._sums[name] = self._sums.get(name, 0.0) + value

    def _all_sums(self, trainer: pl.Trainer) -> dict[str, float]:
        """Return the sums of the epoch over the steps of all processes."""
        everywhere = gathered(self._sums, trainer)
        names = dict.fromkeys(name for sums in everywhere for name in sums)
        return {name: sum(sums.get(name, 0.0) for sums in everywhere) for name in names}

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Log the metrics of train."""
        if sums := self._all_sums(trainer):
            _log(pl_module.running_metrics(sums), "train", pl_module)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]
    ) -> None:
        """Keep the sums of an epoch that is saved in its middle."""
        if self._steps:
            self._sum_up(trainer, pl_module)
        checkpoint["train_sums"] = self._all_sums(trainer)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]
    ) -> None:
        """Restore the sums of an epoch that was saved in its middle, in the first process."""
        sums = {name: float(value) for name, value in checkpoint["train_sums"].items()}
        self._sums = sums if trainer.is_global_zero else {}

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the last pass."""
        self._outputs.clear()

    on_test_epoch_start = on_validation_epoch_start

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, *batch: Any, **index: Any
    ) -> None:
        """Keep what the task returned for a batch."""
        self._outputs.append(outputs)

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Log the metrics of validation."""
        self._measure("val", trainer, pl_module)

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Log the metrics of test."""
        self._measure("test", trainer, pl_module)

    def _measure(self, stage: str, trainer: pl.Trainer, task: LightningTask[Any]) -> None:
        columns = {
            name: torch.cat([output[name] for output in self._outputs]).cpu().numpy()
            for name in self._outputs[0]
        }
        self._outputs.clear()
        for name, values in columns.items():
            if not np.isfinite(values).all():
                raise Diverged(
                    _diverged(f"one of the {name}", float("nan"), trainer, trainer.global_step)
                )
        # all processes measured the same, and have to decide the same
        _log(trainer.strategy.broadcast(task.epoch_metrics(columns)), stage, task)


def _log(metrics: Mapping[str, float], stage: str, task: pl.LightningModule) -> None:
    task.log_dict({f"{stage}/{name}": value for name, value in metrics.items()})


def finite_losses(losses: list[Tensor], trainer: pl.Trainer) -> Tensor:
    """Return the losses of the last steps as float64 on the host, (steps,).

    Raises:
        Diverged: If one is not finite, naming its step.
    """
    values = torch.stack(losses).cpu().double()
    found = None
    if not values.isfinite().all():
        first = int((~values.isfinite()).nonzero()[0])
        found = trainer.global_step - len(values) + first + 1, values[first].item()
    if any(everywhere := gathered(found, trainer)):
        step, value = min(found for found in everywhere if found)
        raise Diverged(_diverged("the training loss", value, trainer, step))
    return values


def _diverged(what: str, value: float, trainer: pl.Trainer, step: int) -> str:
    kept = checkpoint_path(trainer.default_root_dir, "last").exists()
    return (
        f"{what} became {value} at step {step} (epoch {trainer.current_epoch}); lower optimizer.lr or "
        f"check the data.{' The checkpoints of earlier epochs are kept.' * kept}"
    )
