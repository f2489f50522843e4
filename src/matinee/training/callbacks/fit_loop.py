"""The loop of a fit: seeds, stopping several processes together, the progress bar, no profiler."""

import sys
from contextlib import nullcontext
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, ProgressBar
from lightning.pytorch.profilers import PassThroughProfiler
from tqdm import tqdm

from matinee.batches.loading import mix_seed

SHOW_EVERY = 50  # steps between updates of the bar
AGREE_EVERY = 50  # steps between checks for a signal, which wait for all processes


class SeedEachStep(Callback):
    """Makes every random draw of a training step a function of (seed, step, process).

    If gradients are accumulated, each batch counts as a step. Dropout, replaced ids and sampled
    negatives of a resumed run are therefore the same as without the interruption, on any accelerator,
    and checkpoints need no generator state.

    Args:
        seed: The run's seed, at least 0.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed the generators of the host and of the device."""
        seed = mix_seed(self.seed, trainer.fit_loop.total_batch_idx, trainer.global_rank)
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would cost a millisecond
        if pl_module.device.type != "cpu":
            torch.get_device_module(pl_module.device).manual_seed(seed)


class StopTogether(Callback):
    """Stops all processes of a fit after the same step when a signal arrives.

    The first process decides. The others learn of a SIGTERM or Ctrl-C within 50 steps, or at the end of
    the epoch. Lightning would broadcast in the signal handler, between the collectives of a step.
    """

    def __init__(self) -> None:
        self._asked = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Replace what Lightning's handler calls, which is installed later."""
        if trainer.world_size > 1:
            trainer._signal_connector._sigterm_notifier_fn = self._ask  # type: ignore[method-assign,assignment]

    def _ask(self, number: Any, frame: Any) -> None:
        self._asked = True

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Check for a signal every few steps; Lightning's loops do the rest."""
        if trainer.world_size == 1 or trainer.fit_loop._should_accumulate():
            return
        is_due = trainer.is_last_batch or trainer.global_step % AGREE_EVERY == 1
        if is_due and trainer.strategy.broadcast(self._asked):
            trainer._signal_connector.received_sigterm = True


class UnfusedOptimizers(Callback):
    """Turns fused optimizers off on NPUs: not every version of CANN has their kernels."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Change the parameter groups, which an optimizer reads at every step."""
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                group["fused"] = False


class FitProgress(ProgressBar):
    """Shows one bar for the whole fit on standard error, with epoch, loss and the monitored metric.

    If standard error is not a terminal, it prints a line per epoch instead.

    Args:
        monitor: Name of the logged metric to show.
    """

    def __init__(self, monitor: str) -> None:
        super().__init__()
        self.monitor = monitor
        self._bar: tqdm[Any] | None = None

    def disable(self) -> None:
        """Show nothing; called on all processes but the first."""
        self._bar = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar at the first step of the fit."""
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
                disable=not sys.stderr.isatty(),
            )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the bar every few steps."""
        if self._bar is not None and (trainer.is_last_batch or batch_idx % SHOW_EVERY == 0):
            self._bar.update(trainer.global_step - self._bar.n)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the metrics of the epoch."""
        if self._bar is not None:
            metrics = trainer.callback_metrics
            told = [f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"]
            told += [f"{k} {metrics[k]:.4f}" for k in ("train/loss", self.monitor) if k in metrics]
            self._bar.set_description(", ".join(told), False)
            if self._bar.disable:
                print(", ".join(told), file=sys.stderr)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Close the bar, so that the message starts on a new line."""
        self.on_train_end(trainer, pl_module)


class NoProfiler(PassThroughProfiler):
    """Measures nothing at no cost: Lightning enters a profiler dozens of times per step."""

    _nothing = nullcontext()

    def profile(self, action_name: str) -> Any:
        """Return a context that does nothing."""
        return self._nothing
