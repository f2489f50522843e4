"""Measuring: the figures of every epoch, and a guard against figures that are none."""

from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from matinee.datamodules import RatingBatch
from matinee.errors import Diverged
from matinee.metrics import ranking_metrics, rating_metrics

CHECK_EVERY = 50  # steps between looks at the losses; each look waits for the accelerator


class RatingMetrics(Callback):
    """Logs the loss of train, and RMSE and MAE of train, validation and test, once an epoch.

    The figures of train are those of the running epoch, with dropout and moving weights. A loss or a
    prediction that is not finite ends the fit before it can reach a checkpoint.
    """

    def __init__(self) -> None:
        self._steps: list[tuple[Tensor, Tensor, Tensor]] = []  # data loss, scores, ratings
        self._sums = np.zeros(4)  # loss * rows, squared error, absolute error, rows
        self._predictions: list[tuple[Tensor, Tensor]] = []  # predictions, ratings

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the last epoch."""
        self._steps.clear()
        self._sums[:] = 0

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: RatingBatch,
        batch_idx: int,
    ) -> None:
        """Keep the step's scores; look at them now and then."""
        if not outputs:
            return
        self._steps.append((outputs["data_loss"], outputs["scores"], batch.ratings))
        if len(self._steps) == CHECK_EVERY or trainer.is_last_batch:
            self._look(trainer, pl_module)

    @torch.no_grad()
    def _look(self, trainer: pl.Trainer, pl_module: Any) -> None:
        losses = finite_losses([loss for loss, _, _ in self._steps], trainer)
        ratings = torch.cat([ratings for _, _, ratings in self._steps])
        scores = torch.cat([scores for _, scores, _ in self._steps])
        errors = (pl_module.rating(scores) - ratings).cpu().double()
        sizes = torch.tensor([len(ratings) for _, _, ratings in self._steps], dtype=torch.float64)
        self._sums += (
            float(losses @ sizes),
            float(errors.square().sum()),
            float(errors.abs().sum()),
            len(errors),
        )
        self._steps.clear()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep the sums of an epoch that is saved in its middle."""
        if self._steps:
            self._look(trainer, pl_module)
        checkpoint["train_sums"] = self._sums.tolist()

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take up the sums of an epoch that was saved in its middle."""
        self._sums[:] = checkpoint["train_sums"]

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the running figures of train."""
        loss, squared, absolute, rows = self._sums
        if rows > 0:
            pl_module.log_dict(
                {
                    "train/loss": loss / rows,
                    "train/rmse": (squared / rows) ** 0.5,
                    "train/mae": absolute / rows,
                }
            )

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the last pass."""
        self._predictions.clear()

    on_test_epoch_start = on_validation_epoch_start

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: RatingBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the batch's predictions."""
        self._predictions.append((outputs, batch.ratings))

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the metrics of validation."""
        self._log(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the metrics of test."""
        self._log(trainer, pl_module, "test")

    def _log(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        predictions, ratings = (
            torch.cat(column).cpu().numpy() for column in zip(*self._predictions, strict=True)
        )
        if not np.isfinite(predictions).all():
            raise Diverged(
                _diverged("a predicted rating", float("nan"), trainer, trainer.global_step)
            )
        metrics = rating_metrics(predictions, ratings)
        pl_module.log_dict({f"{stage}/{name}": value for name, value in metrics.items()})
        self._predictions.clear()


class RankingMetrics(Callback):
    """Logs the loss of train and the ranking metrics of validation and test, once an epoch.

    A loss that is not finite ends the fit before it can reach a checkpoint.
    """

    def __init__(self) -> None:
        self._steps: list[tuple[Tensor, Tensor]] = []  # data loss, targets
        self._sums = np.zeros(2)  # loss * targets, targets
        self._ranks: list[Tensor] = []

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
        """Keep the step's loss; look at the losses now and then."""
        if not outputs:
            return
        self._steps.append((outputs["data_loss"], outputs["count"]))
        if len(self._steps) == CHECK_EVERY or trainer.is_last_batch:
            self._look(trainer)

    def _look(self, trainer: pl.Trainer) -> None:
        losses = finite_losses([loss for loss, _ in self._steps], trainer)
        counts = torch.stack([count for _, count in self._steps]).cpu().double()
        self._sums += float(losses @ counts), float(counts.sum())
        self._steps.clear()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep the sums of an epoch that is saved in its middle."""
        if self._steps:
            self._look(trainer)
        checkpoint["train_sums"] = self._sums.tolist()

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take up the sums of an epoch that was saved in its middle."""
        self._sums[:] = checkpoint["train_sums"]

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the loss of train over its targets."""
        total, count = self._sums
        if count > 0:
            pl_module.log("train/loss", total / count)

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the last pass."""
        self._ranks.clear()

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
        """Keep the batch's ranks."""
        self._ranks.append(outputs["ranks"])

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the metrics of validation."""
        self._log(pl_module, "val")

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the metrics of test."""
        self._log(pl_module, "test")

    def _log(self, pl_module: Any, stage: str) -> None:
        metrics = ranking_metrics(torch.cat(self._ranks).cpu().numpy(), pl_module.top_k)
        pl_module.log_dict({f"{stage}/{name}": value for name, value in metrics.items()})
        self._ranks.clear()


def finite_losses(losses: list[Tensor], trainer: pl.Trainer) -> Tensor:
    """Return the losses of the last steps as float64 on the host, (steps,).

    Raises:
        Diverged: If one is not finite, naming its step.
    """
    values = torch.stack(losses).cpu().double()
    if not values.isfinite().all():
        first = int((~values.isfinite()).nonzero()[0])
        step = trainer.global_step - len(values) + first + 1
        raise Diverged(_diverged("the training loss", values[first].item(), trainer, step))
    return values


def _diverged(what: str, value: float, trainer: pl.Trainer, step: int) -> str:
    return (
        f"{what} became {value} at step {step} (epoch {trainer.current_epoch}); lower optimizer.lr or "
        "check the data. The checkpoints of earlier epochs are kept."
    )
