"""Running: seeds, a stop that all processes make together, the progress bar, a profiler for free."""

import sys
from contextlib import nullcontext
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, ProgressBar
from lightning.pytorch.profilers import PassThroughProfiler
from tqdm import tqdm

from matinee.batches.loading import mix_seed

SHOW_EVERY = 50  # steps between moves of the bar
AGREE_EVERY = 50  # steps between looks at a signal, which wait for all processes


class SeedEachStep(Callback):
    """Makes every random draw of a training step a function of (seed, step, process).

    Where gradients are accumulated, the batches of a step are counted one by one.
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
        seed = mix_seed(self.seed, trainer.fit_loop.total_batch_idx, trainer.global_rank)
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would cost a millisecond
        if pl_module.device.type != "cpu":
            torch.get_device_module(pl_module.device).manual_seed(seed)


class StopTogether(Callback):
    """Lets a signal end a fit of several processes after the same step in all of them.

    The first process decides: the others learn of a SIGTERM or Ctrl-C that reached it within 50
    steps, at the latest at the end of an epoch. Lightning would broadcast in the signal handler,
    between the collectives of a step.
    """

    def __init__(self) -> None:
        self._asked = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Take over from Lightning's handler, which is installed after this."""
        if trainer.world_size > 1:
            trainer._signal_connector._sigterm_notifier_fn = self._ask  # type: ignore[method-assign,assignment]

    def _ask(self, number: Any, frame: Any) -> None:
        self._asked = True

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Agree now and then; Lightning's loops do the rest."""
        if trainer.world_size == 1:
            return
        if (trainer.is_last_batch or batch_idx % AGREE_EVERY == 0) and trainer.strategy.broadcast(
            self._asked
        ):
            trainer._signal_connector.received_sigterm = True


class UnfusedOptimizers(Callback):
    """Turns fused optimizers off, for NPUs: not every version of CANN has their kernels."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Change the groups of the optimizers; an optimizer looks there at every step."""
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                group["fused"] = False


class FitProgress(ProgressBar):
    """One bar for the whole fit on standard error, with the epoch, its loss and the monitored metric.

    Where standard error is no terminal it prints a line an epoch instead.

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
                disable=not sys.stderr.isatty(),
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
        if self._bar is not None and (trainer.is_last_batch or batch_idx % SHOW_EVERY == 0):
            self._bar.update(trainer.global_step - self._bar.n)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the epoch's figure."""
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
        """Close the bar, so that a message starts on a line of its own."""
        self.on_train_end(trainer, pl_module)


class NoProfiler(PassThroughProfiler):
    """Measures nothing, at the cost of nothing: Lightning enters it dozens of times a step."""

    _nothing = nullcontext()

    def profile(self, action_name: str) -> Any:
        """Return a context that does nothing."""
        return self._nothing
