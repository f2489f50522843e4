"""Checkpoints and the table of epochs, written so that a kill or a full disk damages no existing file."""

import csv
import itertools
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback, Checkpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning_utilities.core.apply_func import apply_to_collection

from matinee.errors import MatineeError, NotWritten
from matinee.files import checkpoint_path, part_file
from matinee.training.loggers import TensorBoard


class Checkpoints(Checkpoint):
    """Writes ``checkpoints/best.ckpt`` (weights only) and ``checkpoints/last.ckpt`` (all a resume needs).

    Both are written at the end of an epoch, after validation. If SIGTERM or Ctrl-C ends a fit between
    two training steps, ``last.ckpt`` holds the step just finished; during validation, the checkpoint of
    the previous epoch remains. A fit that failed is not saved.

    Args:
        monitor: Name of the logged metric that decides which epoch is the best; None takes the last
            epoch.
        mode: Whether a lower or a higher value is better, ``min`` or ``max``.

    Attributes:
        best_score: The monitored value of the best epoch.
        best_epoch: The best epoch, from 0.
        trains: Whether training has started, so that a checkpoint to resume from has been restored.
    """

    def __init__(self, monitor: str | None, mode: str) -> None:
        self.monitor = monitor
        if mode not in ("min", "max"):
            raise ValueError(f"mode is {mode}; choose min or max.")
        self.sign = 1.0 if mode == "min" else -1.0
        self.best_score: float | None = None
        self.best_epoch: int | None = None
        self.trains = False
        self._stopped = False
        self._began = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Duration of the fit, with the time of earlier processes up to the checkpoint."""
        return time.perf_counter() - self._began

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Start the clock."""
        self._began = time.perf_counter()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop again if the resumed run had stopped early: Lightning's loops forget it."""
        self.trains = True
        trainer.should_stop = trainer.should_stop or self._stopped

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the checkpoints of the epoch; callbacks that stop a fit early were called before."""
        self._stopped = trainer.should_stop
        if self._is_best(trainer):
            self.best_epoch = trainer.current_epoch
            trainer.save_checkpoint(
                checkpoint_path(trainer.default_root_dir, "best"), weights_only=True
            )
        trainer.save_checkpoint(checkpoint_path(trainer.default_root_dir, "last"))

    def _is_best(self, trainer: pl.Trainer) -> bool:
        if self.monitor is None:
            return True
        metrics = trainer.callback_metrics  # collected again at every access
        if self.monitor not in metrics:
            known = ", ".join(sorted(metrics))
            raise MatineeError(
                f"callbacks.checkpoints.monitor={self.monitor} is not logged each epoch; logged were {known}."
            )
        score = metrics[self.monitor].item()
        if self.best_score is None or self.sign * score < self.sign * self.best_score:
            self.best_score = score
            return True
        return False

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Save the step just finished, if the fit was interrupted by a signal."""
        if isinstance(exception, SIGTERMException) and trainer.training:
            trainer.save_checkpoint(checkpoint_path(trainer.default_root_dir, "last"))

    def state_dict(self) -> dict[str, Any]:
        """Return the best epoch and the state of the fit as a whole."""
        return {
            "best_score": self.best_score,
            "best_epoch": self.best_epoch,
            "stopped": self._stopped,
            "seconds": self.seconds,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best epoch and the state of the fit as a whole."""
        score, epoch = state_dict["best_score"], state_dict["best_epoch"]
        self.best_score = None if score is None else float(score)
        self.best_epoch = None if epoch is None else int(epoch)
        self._stopped = bool(state_dict["stopped"])
        self._began -= float(state_dict["seconds"])


class EpochTable(Callback):
    """Writes ``metrics.csv`` in the run folder: a row per epoch, a column per logged metric.

    The rows are part of the checkpoint, so a resumed run writes the file again as it was. It also shows
    them in TensorBoard again, because a killed process loses what it has not yet written there.
    """

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []

    def state_dict(self) -> dict[str, Any]:
        """Return the rows."""
        return {"rows": self._rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the rows.

        Raises:
            ValueError: If they are not numbers of the epochs from 0 on.
        """
        rows = [dict(row) for row in state_dict["rows"]]
        numbers = all(isinstance(value, int | float) for row in rows for value in row.values())
        if not numbers or [row["epoch"] for row in rows] != list(range(len(rows))):
            raise ValueError("the rows of metrics.csv are broken")
        self._rows = rows

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the rows of the checkpoint that is resumed, also if no epoch is left to train."""
        if not self._rows or not trainer.is_global_zero:
            return
        self._write(self._path(trainer))
        boards = [logger for logger in trainer.loggers if isinstance(logger, TensorBoard)]
        for board, row in itertools.product(boards, self._rows):
            metrics = {name: row[name] for name in row if name not in ("epoch", "step")}
            board.log_metrics(metrics, row["step"] - 1)  # where Lightning has logged them

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the row of the epoch."""
        if not trainer.is_global_zero:
            return
        metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
        row = {"epoch": trainer.current_epoch, "step": trainer.global_step, **metrics}
        self._rows.append(row)
        path = self._path(trainer)
        if len(self._rows) == 1 or list(row) != list(self._rows[-2]) or not path.exists():
            self._write(path)
        else:
            with path.open("a", newline="") as file:
                csv.DictWriter(file, list(row)).writerow(row)

    def _write(self, path: Path) -> None:
        with part_file(path) as part, part.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys(k for r in self._rows for k in r)))
            writer.writeheader()
            writer.writerows(self._rows)

    @staticmethod
    def _path(trainer: pl.Trainer) -> Path:
        return Path(trainer.default_root_dir) / "metrics.csv"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint to a temporary file and renames it, so a full disk damages no existing one.

    Tensors are moved to the host first, so a checkpoint can be read without the accelerator.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint atomically.

        Raises:
            NotWritten: If it cannot be written; an earlier file of that name is untouched.
        """
        path = Path(path)
        if any(weight.device.type != "cpu" for weight in checkpoint.get("state_dict", {}).values()):
            checkpoint = apply_to_collection(checkpoint, torch.Tensor, torch.Tensor.cpu)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with part_file(path) as part, part.open("wb") as file:
                torch.save(checkpoint, file)  # given the path, torch would store the temporary name
        except (OSError, RuntimeError) as error:
            raise NotWritten(f"the checkpoint {path} could not be written ({error})") from error
