"""Callbacks: what is measured, kept and guarded around a fit, whatever the model."""

import csv
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback, Checkpoint, ProgressBar
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor
from tqdm import tqdm

from matinee.datamodules import RatingBatch
from matinee.errors import MatineeError
from matinee.loading import mix_seed
from matinee.metrics import ranking_metrics, rating_metrics
from matinee.run_folder import checkpoint_path

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
            raise MatineeError(
                _diverged("a predicted rating", float("nan"), trainer, trainer.global_step)
            )
        metrics = rating_metrics(predictions, ratings)
        pl_module.log_dict({f"{stage}/{name}": value for name, value in metrics.items()})
        self._predictions.clear()


def _diverged(what: str, value: float, trainer: pl.Trainer, step: int) -> str:
    return (
        f"{what} became {value} at step {step} (epoch {trainer.current_epoch}); lower optimizer.lr or "
        "check the data. The checkpoints of earlier epochs are kept."
    )


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
        MatineeError: If one is not finite, naming its step.
    """
    values = torch.stack(losses).cpu().double()
    if not values.isfinite().all():
        first = int((~values.isfinite()).nonzero()[0])
        step = trainer.global_step - len(values) + first + 1
        raise MatineeError(_diverged("the training loss", values[first].item(), trainer, step))
    return values


class SeedEachStep(Callback):
    """Makes every random draw of a training step a function of (seed, step, process).

    Dropout, replaced ids and sampled negatives of a resumed run are thereby those of the
    uninterrupted one, on any accelerator, with no generator state in a checkpoint.

    Args:
        seed: The run's seed, at least 0.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed the generators of the host and of the device in use."""
        seed = mix_seed(self.seed, trainer.global_step, trainer.global_rank)
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would cost a millisecond
        if pl_module.device.type != "cpu":
            torch.get_device_module(pl_module.device).manual_seed(seed)


class Checkpoints(Checkpoint):
    """Keeps ``checkpoints/best.ckpt`` (weights alone) and ``checkpoints/last.ckpt`` (all to go on).

    Both are written at the end of an epoch, after validation. When SIGTERM or Ctrl-C ends a fit between
    two training steps, ``last.ckpt`` holds the step just finished; during a validation pass the
    checkpoint of the epoch before stays the last one. A fit that failed is not kept.

    Args:
        monitor: Name of the logged metric that makes an epoch the best.
        mode: ``min`` or ``max``.
    """

    def __init__(self, monitor: str, mode: str) -> None:
        self.monitor = monitor
        if mode not in ("min", "max"):
            raise ValueError(f"callbacks.checkpoints.mode is {mode}; choose min or max.")
        self.sign = 1.0 if mode == "min" else -1.0
        self.best_score: float | None = None
        self.best_epoch: int | None = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the epoch's checkpoints."""
        if self.monitor not in trainer.callback_metrics:
            known = ", ".join(sorted(trainer.callback_metrics))
            raise MatineeError(
                f"callbacks.checkpoints.monitor={self.monitor} is not logged each epoch; logged were {known}."
            )
        score = trainer.callback_metrics[self.monitor].item()
        if self.best_score is None or self.sign * score < self.sign * self.best_score:
            self.best_score, self.best_epoch = score, trainer.current_epoch
            trainer.save_checkpoint(
                checkpoint_path(trainer.default_root_dir, "best"), weights_only=True
            )
        trainer.save_checkpoint(checkpoint_path(trainer.default_root_dir, "last"))

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Save the step that was just finished, if the fit was only interrupted."""
        if isinstance(exception, SIGTERMException) and trainer.training:
            trainer.save_checkpoint(checkpoint_path(trainer.default_root_dir, "last"))

    def state_dict(self) -> dict[str, Any]:
        """Return what is known of the best epoch."""
        return {"best_score": self.best_score, "best_epoch": self.best_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what was known of the best epoch."""
        self.best_score, self.best_epoch = state_dict["best_score"], state_dict["best_epoch"]


class EpochTable(Callback):
    """Writes ``metrics.csv`` in the run folder: one row an epoch, one column a logged metric."""

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take over the rows that a resumed run has already written."""
        path = self._path(trainer)
        if path.exists():
            with path.open(newline="") as file:
                rows = list(csv.DictReader(file))
            self._rows = [row for row in rows if int(row["epoch"]) < trainer.current_epoch]

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the epoch that has ended."""
        metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
        row = {"epoch": trainer.current_epoch, "step": trainer.global_step, **metrics}
        self._rows.append(row)
        if not trainer.is_global_zero:
            return
        path = self._path(trainer)
        if len(self._rows) == 1 or list(row) != list(self._rows[-2]) or not path.exists():
            part = path.with_suffix(".part")
            with part.open("w", newline="") as file:
                writer = csv.DictWriter(file, list(dict.fromkeys(k for r in self._rows for k in r)))
                writer.writeheader()
                writer.writerows(self._rows)
            os.replace(part, path)
        else:
            with path.open("a", newline="") as file:
                csv.DictWriter(file, list(row)).writerow(row)

    @staticmethod
    def _path(trainer: pl.Trainer) -> Path:
        return Path(trainer.default_root_dir) / "metrics.csv"


class FitProgress(ProgressBar):
    """One bar for the whole fit on standard error, with the epoch and the monitored metric.

    Args:
        monitor: Name of the logged metric to show.
    """

    def __init__(self, monitor: str) -> None:
        super().__init__()
        self.monitor = monitor
        self._bar: tqdm[Any] | None = None

    def disable(self) -> None:
        """Show nothing, on all processes but the first."""
        self._bar = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar at the step where the fit starts."""
        if trainer.is_global_zero and next(pl_module.parameters(), None) is not None:
            epochs, batches = trainer.max_epochs or 0, int(trainer.num_training_batches)
            total = epochs * batches if epochs > 0 else None
            self._bar = tqdm(
                total=total,
                initial=trainer.global_step,
                unit="step",
                file=sys.stderr,
                mininterval=0.5,
                desc="fit",
                leave=False,
            )

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Move the bar now and then."""
        if self._bar is not None and (trainer.is_last_batch or batch_idx % CHECK_EVERY == 0):
            self._bar.update(trainer.global_step - self._bar.n)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the epoch's figure."""
        if self._bar is not None:
            figure = trainer.callback_metrics.get(self.monitor, float("nan"))
            epoch = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
            self._bar.set_description(f"{epoch}, {self.monitor} {figure:.4f}", False)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Close the bar, so that a message starts on a line of its own."""
        self.on_train_end(trainer, pl_module)


class NoProfiler(PassThroughProfiler):
    """Measures nothing, at the cost of nothing: Lightning enters it dozens of times a step."""

    _nothing = nullcontext()

    def profile(self, action_name: str) -> Any:
        """Return a context that does nothing."""
        return self._nothing


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its target and renames it, so a full disk costs no old one."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Save ``checkpoint`` as ``path``, whole or not at all.

        Raises:
            MatineeError: If it cannot be written; an earlier file of that name is untouched.
        """
        path = Path(path)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except (OSError, RuntimeError) as error:
            part.unlink(missing_ok=True)
            raise MatineeError(
                f"the checkpoint {path} could not be written ({error}); "
                "free disk space or choose another run_folder=... and resume."
            ) from error
