"""Measuring: the figures of every epoch, and a guard against figures that are none."""

from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from matinee.batches import RatingBatch
from matinee.errors import Diverged, MatineeError
from matinee.metrics import ranking_metrics, rating_metrics
from matinee.training.processes import gathered

CHECK_EVERY = 50  # steps between looks at the losses; each look waits for the accelerator


class EpochMetrics(Callback):
    """Sums over the steps of the running epoch of train; all that the task says of val and test.

    The sums are whole again after a resume in the middle of an epoch. Steps are looked at in
    groups, since each look waits for the accelerator. A loss that is not finite ends the fit, in
    all processes, before it can reach a checkpoint.

    Args:
        num_sums: How many sums there are.
    """

    choice: str  # of the group callbacks, as the task names it

    def __init__(self, num_sums: int) -> None:
        self._steps: list[tuple[Tensor, ...]] = []  # the data loss first
        self._sums = np.zeros(num_sums)
        self._outputs: list[dict[str, Tensor]] = []  # of the steps of validation or test

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse a task of the other question.

        Raises:
            MatineeError: If the task asks for other callbacks.
        """
        wanted = getattr(pl_module, "callbacks_choice", self.choice)
        if wanted != self.choice:
            raise MatineeError(
                f"callbacks={self.choice} cannot measure what {type(pl_module).__name__} answers; add "
                f"callbacks={wanted}."
            )

    def keep(self, outputs: dict[str, Tensor], batch: Any) -> tuple[Tensor, ...]:
        """Choose what a step's sums are made of, its data loss first, detached."""
        raise NotImplementedError

    def add_up(self, losses: Tensor, columns: list[tuple[Tensor, ...]], pl_module: Any) -> Any:
        """Sum over some steps.

        Args:
            losses: Their data losses, float64 on the host, shape (steps,).
            columns: What else :meth:`keep` chose, one tuple over the steps for each.
            pl_module: The task.

        Returns:
            As many numbers as there are sums.
        """
        raise NotImplementedError

    def measure(
        self, outputs: dict[str, Any], trainer: pl.Trainer, pl_module: Any
    ) -> dict[str, float]:
        """Measure a whole pass of validation or test.

        Args:
            outputs: The columns of what the task's steps returned, as arrays over all rows.
            trainer: The Trainer.
            pl_module: The task.
        """
        raise NotImplementedError

    def sums(self, trainer: pl.Trainer) -> Any:
        """Return the epoch's sums over the steps of all processes."""
        return np.sum(gathered(self._sums, trainer), axis=0)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the last epoch."""
        self._steps.clear()
        self._sums[:] = 0

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Keep what the step's sums are made of; look at the steps now and then."""
        if not outputs:
            return
        self._steps.append(self.keep(outputs, batch))
        if len(self._steps) == CHECK_EVERY or trainer.is_last_batch:
            self._look(trainer, pl_module)

    @torch.no_grad()
    def _look(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        losses, *columns = zip(*self._steps, strict=True)
        self._sums += self.add_up(finite_losses(list(losses), trainer), columns, pl_module)
        self._steps.clear()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep the sums of an epoch that is saved in its middle."""
        if self._steps:
            self._look(trainer, pl_module)
        checkpoint["train_sums"] = self.sums(trainer).tolist()

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take up the sums of an epoch that was saved in its middle, in the first process."""
        self._sums[:] = checkpoint["train_sums"] if trainer.is_global_zero else 0

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the last pass."""
        self._outputs.clear()

    on_test_epoch_start = on_validation_epoch_start

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep what the task says of a batch."""
        self._outputs.append(outputs)

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the metrics of validation."""
        self._log("val", trainer, pl_module)

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the metrics of test."""
        self._log("test", trainer, pl_module)

    def _log(self, stage: str, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        columns = {
            name: torch.cat([output[name] for output in self._outputs]).cpu().numpy()
            for name in self._outputs[0]
        }
        self._outputs.clear()
        log_agreed(self.measure(columns, trainer, pl_module), stage, trainer, pl_module)


class RatingMetrics(EpochMetrics):
    """Logs the loss of train, and RMSE and MAE of train, validation and test, once an epoch.

    The figures of train are those of the running epoch, with dropout and moving weights. A loss or a
    prediction that is not finite ends the fit before it can reach a checkpoint.
    """

    choice = "rating"

    def __init__(self) -> None:
        super().__init__(num_sums=4)  # loss * rows, squared error, absolute error, rows

    def keep(self, outputs: dict[str, Tensor], batch: RatingBatch) -> tuple[Tensor, ...]:
        """Choose loss, scores and ratings."""
        return outputs["data_loss"], outputs["scores"], batch.ratings

    def add_up(self, losses: Tensor, columns: list[tuple[Tensor, ...]], pl_module: Any) -> Any:
        """Sum the loss and the errors over rows."""
        scores, ratings = columns
        errors = (pl_module.rating(torch.cat(scores)) - torch.cat(ratings)).cpu().double()
        sizes = torch.tensor([len(step) for step in ratings], dtype=torch.float64)
        squared, absolute = float(errors.square().sum()), float(errors.abs().sum())
        return float(losses @ sizes), squared, absolute, len(errors)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the running figures of train."""
        loss, squared, absolute, rows = self.sums(trainer)
        if rows > 0:
            pl_module.log_dict(
                {
                    "train/loss": loss / rows,
                    "train/rmse": (squared / rows) ** 0.5,
                    "train/mae": absolute / rows,
                }
            )

    def measure(
        self, outputs: dict[str, Any], trainer: pl.Trainer, pl_module: Any
    ) -> dict[str, float]:
        """Measure predicted ratings."""
        predictions = outputs["predictions"]
        if not np.isfinite(predictions).all():
            raise Diverged(
                _diverged("a predicted rating", float("nan"), trainer, trainer.global_step)
            )
        return rating_metrics(predictions, outputs["ratings"])


class RankingMetrics(EpochMetrics):
    """Logs the loss of train and the ranking metrics of validation and test, once an epoch.

    A loss that is not finite ends the fit before it can reach a checkpoint.
    """

    choice = "ranking"

    def __init__(self) -> None:
        super().__init__(num_sums=2)  # loss * targets, targets

    def keep(self, outputs: dict[str, Tensor], batch: Any) -> tuple[Tensor, ...]:
        """Choose loss and number of targets."""
        return outputs["data_loss"], outputs["count"]

    def add_up(self, losses: Tensor, columns: list[tuple[Tensor, ...]], pl_module: Any) -> Any:
        """Sum the loss over targets."""
        counts = torch.stack(columns[0]).cpu().double()
        return float(losses @ counts), float(counts.sum())

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the loss of train over its targets."""
        total, count = self.sums(trainer)
        if count > 0:
            pl_module.log("train/loss", total / count)

    def measure(
        self, outputs: dict[str, Any], trainer: pl.Trainer, pl_module: Any
    ) -> dict[str, float]:
        """Measure the ranks of the targets."""
        return ranking_metrics(outputs["ranks"], pl_module.top_k)


def log_agreed(
    metrics: dict[str, float], stage: str, trainer: pl.Trainer, pl_module: pl.LightningModule
) -> None:
    """Log the figures that the first process has: all measured the same, and must decide the same."""
    agreed = trainer.strategy.broadcast(metrics)
    pl_module.log_dict({f"{stage}/{name}": value for name, value in agreed.items()})


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
    return (
        f"{what} became {value} at step {step} (epoch {trainer.current_epoch}); lower optimizer.lr or "
        "check the data. The checkpoints of earlier epochs are kept."
    )
