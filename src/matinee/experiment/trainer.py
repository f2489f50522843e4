"""The Trainer of a config, and what happens when a fit is stopped or fails."""

import logging
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig, OmegaConf

from matinee.config.parts import blame, make_part
from matinee.contracts import DataModule
from matinee.errors import MatineeError, Stopped
from matinee.files import writing
from matinee.training.callbacks import (
    AtomicCheckpointIO,
    Checkpoints,
    StopTogether,
    UnfusedOptimizers,
)
from matinee.training.devices import DataParallel, hardware
from matinee.training.host import keep_freed_memory
from matinee.training.loaders import Loaders
from matinee.training.processes import is_first_process
from matinee.training.steps import StepLoop
from matinee.training.tasks.base import LightningTask

LOST = re.compile("gloo|NCCL|HCCL")  # in errors of the collectives
MALFORMED = (AttributeError, IndexError, KeyError, TypeError, ValueError)
HARDWARE = ("accelerator", "devices", "num_nodes", "precision", "strategy")

# Lightning logs advertisements and devices
for announcer in ("lightning.pytorch", "lightning.fabric"):
    logging.getLogger(announcer).setLevel(logging.WARNING)

ADVICE = (  # warnings of Lightning that do not apply to our loaders and fits
    ".*configure_optimizers` returned `None`.*",
    ".*`training_step` returned `None`.*",
    ".*is smaller than the logging interval.*",
    ".*LeafSpec.*is deprecated.*",  # Lightning 2.6 on PyTorch 2.13
    ".*sync_dist=True.*",  # we log the same values in every process
    ".*available but not used.*",  # the config chose the device
)


def make_trainer(
    config: DictConfig, folder: Path | None, alone: bool = False, **instead: Any
) -> pl.Trainer:
    """Make the Trainer of a config.

    From then on cuDNN computes float32 in float32 in this process: training in ``32-true``, and metrics
    whatever the precision of training. The host keeps freed memory for the next tensors.

    Args:
        config: A config with a ``trainer``.
        folder: The run folder; None to measure on the first device and write nothing.
        alone: Whether to fit on the first device only, because a network in closed form trains nothing.
        instead: Options of the Trainer that replace those of the config.

    Raises:
        MatineeError: If the accelerator, its devices or another option is not available.
    """
    epochs = config.trainer.get("max_epochs")
    if epochs is None or epochs < 1:
        raise MatineeError(f"trainer.max_epochs is {epochs}; give a whole number of at least 1.")
    for option in ("limit_train_batches", "limit_val_batches", "max_steps"):
        if folder is not None and config.trainer.get(option) == 0:
            raise MatineeError(f"trainer.{option} is 0, so no epoch can be selected; leave it out.")
    if config.trainer.get("accumulate_grad_batches", 1) < 1:
        raise MatineeError(
            f"trainer.accumulate_grad_batches is {config.trainer.accumulate_grad_batches}; give a whole "
            "number of at least 1."
        )
    wanted = _wanted_hardware(config)
    if folder is None or alone:
        first = wanted["devices"][:1] if isinstance(wanted.get("devices"), list) else 1
        wanted |= {"devices": first, "num_nodes": 1, "strategy": "auto"}
    with _blame("trainer"):
        options: dict[str, Any] = wanted | hardware(**wanted)
    if folder is None:
        options |= {
            "enable_checkpointing": False,
            "logger": False,
            "enable_progress_bar": False,
            "limit_predict_batches": 1.0,
        }
    else:
        with _blame("callbacks"):
            callbacks = make_part(config, "callbacks") or {}
        for name in ("metrics", "checkpoints"):
            if not callbacks.get(name):
                raise MatineeError(f"callbacks.{name} cannot be left out: the best epoch needs it.")
        loggers = make_part(config, "logger") or {}
        options |= {
            "callbacks": [
                *(callback for callback in callbacks.values() if callback),
                *([StopTogether()] if options["strategy"] != "auto" else ()),
                *([UnfusedOptimizers()] if options["accelerator"] == "npu" else ()),
            ],
            "logger": [logger(save_dir=str(folder)) for logger in loggers.values() if logger]
            or False,
            "plugins": [*options["plugins"], AtomicCheckpointIO()],
            "default_root_dir": str(folder),
            "enable_progress_bar": bool(callbacks.get("progress_bar")),
        }
    options |= instead
    with _blame("trainer"), without_advice():
        trainer: pl.Trainer = make_part(config, "trainer")(**options)
    trainer.fit_loop.epoch_loop = StepLoop(trainer)
    keep_freed_memory()
    # by default cuDNN's cells and convolutions round float32 to the 10 bits of TF32
    torch.backends.cudnn.allow_tf32 = False
    if folder is not None and not alone:
        _check_processes(trainer)
    found, expected = trainer.strategy.root_device.type, trainer.accelerator.name()
    if found != expected:
        raise MatineeError(
            f"trainer.accelerator={wanted['accelerator']} would run on {found} instead of {expected}; "
            "leave trainer.strategy out."
        )
    return trainer


@contextmanager
def _blame(group: str) -> Iterator[None]:
    try:
        with blame(group):
            yield
    except MisconfigurationException as error:
        raise MatineeError(f"{group} cannot be built: {error}") from error


def several_processes(config: DictConfig) -> bool:
    """Return whether the fit of a config uses more than one process.

    Raises:
        MatineeError: If its accelerator or its devices are not available.
    """
    wanted = _wanted_hardware(config)
    with _blame("trainer"):
        strategy = hardware(**wanted | {"strategy": "auto"})["strategy"]
    return isinstance(strategy, DataParallel)


def refuse_several(config: DictConfig, verb: str) -> None:
    """Reject several devices for a verb that uses one.

    Raises:
        MatineeError: If the config asks for more than one device.
    """
    if several_processes(config):
        raise MatineeError(f"{verb} uses one device; set trainer.devices=1 (DEVICES=1).")


def refuse_parent(config: DictConfig, verb: str) -> None:
    """Reject a run to start from for a verb that begins with random weights.

    Raises:
        MatineeError: If the config names one.
    """
    if config["from"] is not None:
        raise MatineeError(f"{verb} begins with random weights; leave from=... out.")


def _wanted_hardware(config: DictConfig) -> dict[str, Any]:
    wanted: Any = OmegaConf.to_container(config.trainer)
    devices = wanted.get("devices", 1)
    numbers = devices if isinstance(devices, list) else [] if devices in ("auto", -1) else [devices]
    least = 0 if isinstance(devices, list) else 1
    if devices == [] or not all(type(one) is int and one >= least for one in numbers):
        raise MatineeError(
            f"trainer.devices is {devices!r}; give how many, a list of their numbers, or -1 for all."
        )
    return {option: wanted[option] for option in HARDWARE if option in wanted}


def _check_processes(trainer: pl.Trainer) -> None:
    """Reject processes, started by torchrun or a cluster, that the config does not ask for."""
    expected = trainer.num_nodes * trainer.num_devices
    if expected > 1 and torch.distributed.is_initialized():
        raise MatineeError(
            "this process has led a fit on several devices already, and its helpers would start with that "
            "one again; start each by a command of its own."
        )
    started = int(os.environ.get("WORLD_SIZE", expected))
    if started != expected or trainer.is_global_zero != is_first_process():
        raise MatineeError(
            f"this is one of several processes (WORLD_SIZE={started}), and the config asks for {expected}; "
            "set trainer.devices to the processes of one machine and trainer.num_nodes to the machines."
        )


def fit(
    trainer: pl.Trainer,
    task: LightningTask[Any],
    datamodule: DataModule,
    folder: Path,
    checkpoint: Path | None,
) -> None:
    """Fit a task, from a checkpoint if there is one.

    Raises:
        Stopped: If SIGTERM or Ctrl-C ended the fit; its state is saved.
        NotWritten: If the folder cannot be written.
        MatineeError: If the fit fails, or the checkpoint cannot be restored.
    """
    interrupted = threading.Event()
    try:
        with (
            _restoring(trainer, checkpoint),
            writing(folder),
            without_advice(),
            _interrupt_between_steps(interrupted),
        ):
            trainer.fit(
                task,
                datamodule=Loaders(datamodule),
                ckpt_path=checkpoint and str(checkpoint),
                weights_only=True,
            )
    except SIGTERMException as stop:
        command = f"'matinee train resume={folder}'"
        raise Stopped(command, status=130 if interrupted.is_set() else 143) from stop
    except (MisconfigurationException, ArithmeticError) as error:
        raise MatineeError(f"the fit cannot go on: {error}") from error
    except RuntimeError as error:
        if trainer.world_size > 1 and LOST.search(str(error)):
            raise MatineeError(
                f"the processes of the fit have lost each other ({str(error).splitlines()[0]}); see what "
                f"another one said, then go on with 'matinee train resume={folder}'."
            ) from error
        if "Early stopping conditioned" not in str(error):
            raise
        raise MatineeError(f"callbacks.early_stopping.monitor is not logged: {error}") from error


@contextmanager
def _restoring(trainer: pl.Trainer, checkpoint: Path | None) -> Iterator[None]:
    """Blame the checkpoint for what goes wrong before the training that continues it."""
    try:
        yield
    except MatineeError:
        raise
    except (*MALFORMED, MisconfigurationException) as error:
        callbacks: Any = trainer.callbacks  # type: ignore[attr-defined]
        trains = any(isinstance(one, Checkpoints) and one.trains for one in callbacks)
        if checkpoint is None or trains:
            raise
        raise MatineeError(
            f"{checkpoint} does not hold what its run needs to go on ({error!r}); restore it or train again."
        ) from error


def probe(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function that fits briefly, as a test; it cannot be resumed.

    Raises:
        SystemExit: With status 130 or 143, as soon as Ctrl-C or SIGTERM arrives.
        MatineeError: If the fit fails.
    """

    def stop(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    signals = [signal.SIGINT, signal.SIGTERM]
    if threading.current_thread() is not threading.main_thread():
        signals = []
    before = {number: signal.signal(number, stop) for number in signals}
    try:
        with without_advice():
            return function(*args, **kwargs)
    except SystemExit:
        print("matinee: stopped; nothing was kept.", file=sys.stderr)
        raise
    except (MisconfigurationException, ArithmeticError) as error:
        raise MatineeError(f"the fit cannot go on: {error}") from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def without_advice() -> Iterator[None]:
    """Silence warnings of Lightning that do not apply."""
    with warnings.catch_warnings():
        for advice in ADVICE:
            warnings.filterwarnings("ignore", advice)
        yield


@contextmanager
def _interrupt_between_steps(interrupted: threading.Event) -> Iterator[None]:
    """Let Ctrl-C end a fit as SIGTERM does, after the current step; a second one ends it immediately."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_interrupt(number: int, frame: Any) -> None:
        interrupted.set()
        signal.signal(signal.SIGINT, before)
        signal.raise_signal(signal.SIGTERM)

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
