"""The steps of a training epoch, without what Lightning does around each and a plain fit does not need."""

from collections.abc import Callable, Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.plugins import Precision
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor
from torch.optim import Optimizer

from matinee.batches.loading import to_device
from matinee.training.callbacks.fit_loop import NoProfiler
from matinee.training.devices import MixedTraining
from matinee.training.tasks.base import LightningTask

IN_ORDER = (  # what callbacks may do in a step
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)
OF_TASKS = (
    *IN_ORDER,
    "on_before_batch_transfer",
    "transfer_batch_to_device",
    "on_after_batch_transfer",
    "backward",
    "optimizer_step",
    "optimizer_zero_grad",
    "configure_gradient_clipping",
)


class StepLoop(_TrainingEpochLoop):
    """Takes the steps of an epoch; in a plain fit it calls only the hooks that somebody implements.

    For a small network, Lightning's own loop takes as long as the computations: it makes about 60 calls
    in a step that do nothing. A fit is plain if it has one process, one optimizer without a gradient scaler,
    no accumulation or profiler, none of the user's own strategies, and a task that overrides none of the
    hooks of a step. Any other fit uses Lightning's loop. Both lead to the same weights, counters and
    checkpoints, and call the hooks in the same order.

    Args:
        trainer: The trainer whose loop this replaces.
    """

    def __init__(self, trainer: pl.Trainer) -> None:
        super().__init__(trainer, trainer.min_steps, trainer.max_steps)
        self._hooks: Mapping[str, list[Callable[..., Any]]] = {}
        self._plain = False

    def on_run_start(self, data_fetcher: Any) -> None:
        """Find out once per epoch which hooks there are."""
        super().on_run_start(data_fetcher)
        self._plain = self._is_plain()
        callbacks: list[Callback] = self.trainer.callbacks
        self._hooks = {
            name: [getattr(one, name) for one in callbacks if overrides(one, name, Callback)]
            for name in IN_ORDER
        }

    def _is_plain(self) -> bool:
        trainer, task = self.trainer, self.trainer.lightning_module
        return (
            type(trainer.strategy) is SingleDeviceStrategy
            and type(trainer.precision_plugin) in (Precision, MixedTraining)
            and getattr(trainer.precision_plugin, "scaler", None) is None
            and trainer.accumulate_grad_batches == 1
            and isinstance(trainer.profiler, NoProfiler)
            and not overrides(task, "training_step", LightningTask)
            and task.automatic_optimization
            and not task.closed_form
            and not self.automatic_optimization._skip_backward
            and not any(overrides(task, name, pl.LightningModule) for name in OF_TASKS)
        )

    def advance(self, data_fetcher: Any) -> None:
        """Take a step, by Lightning's loop if it is the first after a resume or the fit is not plain."""
        if self.restarting or not self._plain:
            super().advance(data_fetcher)
            return
        self.val_loop.restarting = False
        trainer, progress = self.trainer, self.batch_progress
        batch, _, _ = next(data_fetcher)
        progress.is_last_batch = data_fetcher.done
        batch = to_device(batch, trainer.strategy.root_device)
        progress.increment_ready()
        trainer._logger_connector.on_batch_start(batch)
        self._call("on_train_batch_start", batch, self.batch_idx)
        progress.increment_started()
        outputs = self._optimize(trainer.optimizers[0], batch)
        progress.increment_processed()
        self.update_lr_schedulers("step", update_plateau_schedulers=False)
        if self._num_ready_batches_reached():
            self.update_lr_schedulers("epoch", update_plateau_schedulers=False)
        self._call("on_train_batch_end", outputs, batch, self.batch_idx)
        logged = any(metric.meta.on_step for metric in self._results.values())
        if logged:
            trainer._logger_connector.on_batch_end()
        self._results.batch = self._results.batch_size = None
        progress.increment_completed()
        if logged:
            trainer._logger_connector.update_train_step_metrics()

    def _should_check_val_fx(self, data_fetcher: Any) -> bool:
        """Ask Lightning, which takes long to answer, only after steps that validation may follow."""
        trainer = self.trainer
        at_ends = (
            trainer.val_check_batch == trainer.num_training_batches
            and trainer.check_val_every_n_epoch is not None
        )
        if at_ends and not self.batch_progress.is_last_batch and not trainer.should_stop:
            return False
        return super()._should_check_val_fx(data_fetcher)

    def on_advance_end(self, data_fetcher: Any) -> None:
        """End a batch; a signal ends the fit only where no checkpoint would lose accumulated gradients."""
        signals = self.trainer._signal_connector
        waits = signals.received_sigterm and self._should_accumulate()
        if waits:  # written only then: a signal may arrive at any time
            signals.received_sigterm = False
        super().on_advance_end(data_fetcher)
        if waits:
            signals.received_sigterm = True

    def _optimize(self, optimizer: Optimizer, batch: Any) -> dict[str, Tensor]:
        trainer, task = self.trainer, self.trainer.lightning_module
        step = self.automatic_optimization.optim_progress.optimizer.step
        outputs: list[dict[str, Tensor]] = []

        def closure() -> Any:
            outputs.append(self._descend(optimizer, batch))
            self._call("on_before_optimizer_step", optimizer)
            if trainer.gradient_clip_val is not None:
                task.configure_gradient_clipping(
                    optimizer, trainer.gradient_clip_val, trainer.gradient_clip_algorithm
                )
            return outputs[-1].get("loss")

        step.increment_ready()
        optimizer.step(closure=closure)
        if not outputs:
            raise MisconfigurationException(
                f"{type(optimizer).__name__}.step did not call its closure, which computes the gradients."
            )
        step.increment_completed()
        return outputs[-1]

    @torch.enable_grad()
    def _descend(self, optimizer: Optimizer, batch: Any) -> dict[str, Tensor]:
        """Compute the loss and its gradients; a task that returns None skips the batch."""
        task = self.trainer.lightning_module
        zero_grad = self.automatic_optimization.optim_progress.optimizer.zero_grad
        task._current_fx_name = "training_step"
        with self.trainer.precision_plugin.train_step_context():
            outputs = task.training_step(batch, self.batch_idx)
        if outputs is not None and "loss" not in outputs:
            raise MisconfigurationException(f"{type(task).__name__}.step returned no loss.")
        zero_grad.increment_ready()
        self._call("on_before_zero_grad", optimizer)
        zero_grad.increment_started()
        optimizer.zero_grad()
        zero_grad.increment_completed()
        if outputs is None:
            return {}
        loss = outputs["loss"]
        self._call("on_before_backward", loss)
        loss.backward()
        self._call("on_after_backward")
        return {**outputs, "loss": loss.detach()}

    def _call(self, name: str, *args: Any) -> None:
        task = self.trainer.lightning_module
        for hook in self._hooks[name]:
            task._current_fx_name = name
            hook(self.trainer, task, *args)
        task._current_fx_name = None


def overrides(one: object, name: str, base: type) -> bool:
    """Return whether an object has another method of a name than the base class; None is no method."""
    method = getattr(one, name)
    return callable(method) and getattr(method, "__func__", method) is not getattr(base, name)
