"""Experiments: from a config to objects, a fit, its measurement and the run folder that records it."""

import json
import logging
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf

from matinee.callbacks import AtomicCheckpointIO
from matinee.configuration import check_config
from matinee.datamodules import PARTS
from matinee.errors import MatineeError
from matinee.run_folder import (
    CONFIG,
    OVERRIDES,
    PER_USER,
    RESULT,
    checkpoint_path,
    claim_folder,
    environment,
    load_config,
    read_checkpoint,
    read_result,
    write_whole,
)

# Lightning announces its products and devices
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)

ADVICE = (  # of Lightning, for loaders and fits of another kind than ours
    ".*configure_optimizers` returned `None`.*",
    ".*`training_step` returned `None`.*",
    ".*is smaller than the logging interval.*",
    ".*LeafSpec.*is deprecated.*",  # Lightning 2.6 on PyTorch 2.13
)


@contextmanager
def _without_advice() -> Iterator[None]:
    with warnings.catch_warnings():
        for advice in ADVICE:
            warnings.filterwarnings("ignore", advice)
        yield


@dataclass(frozen=True)
class Experiment:
    """The objects behind one config: the split data, and the task that is to be fitted to them."""

    config: DictConfig
    datamodule: Any
    task: Any


def build(config: DictConfig) -> Experiment:
    """Make data and task from a config; nothing is trained and nothing is written.

    Args:
        config: A composed ``train`` config, with ``run_folder`` set or not.

    Raises:
        MatineeError: If a part of the config cannot be built, naming the part and the reason.
    """
    pl.seed_everything(config.seed, verbose=False)
    interactions = _make(config, "dataset")
    split = _call("split", _make(config, "split"), interactions)
    datamodule = _call("data", _make(config, "data"), interactions, split)
    groups = ("model", "loss", "sampler", "optimizer", "scheduler")
    parts = {group: part for group in groups if (part := _make(config, group)) is not None}
    task = _call("model", _make(config, "task"), datamodule, **parts)
    _call(
        "optimizer", task.configure_optimizers
    )  # refuse a wrong option before anything is written
    return Experiment(config, datamodule, task)


def train(config: DictConfig, overrides: Sequence[str]) -> Path:
    """Fit, measure and record one run.

    Args:
        config: A composed ``train`` config, with its ``name`` set.
        overrides: The overrides that composed it, for the record.

    Returns:
        The run folder.

    Raises:
        MatineeError: For everything a user can mend; nothing is left behind if the fit never began.
    """
    check_config(config, "train")
    started = time.perf_counter()
    experiment = build(config)
    folder = claim_folder(config.run_folder, Path(config.log_dir) / config.name)
    try:
        config.run_folder = str(folder)
        trainer = make_trainer(config, folder)
        OmegaConf.save(config, folder / CONFIG, resolve=True)
        OmegaConf.save(OmegaConf.create(list(overrides)), folder / OVERRIDES)
    except BaseException:
        for left in folder.iterdir():
            left.unlink()
        folder.rmdir()
        raise
    _fit_and_record(experiment, trainer, folder, started)
    return folder


def resume(folder: Path) -> Path:
    """Go on with a run that was stopped, from its last checkpoint; a finished run stays as it is.

    Raises:
        MatineeError: If the folder holds no run, or its checkpoint cannot be read.
    """
    config = load_config(folder)
    if not (folder / RESULT).exists():
        started = time.perf_counter()
        experiment = build(config)
        _fit_and_record(experiment, make_trainer(config, folder), folder, started)
    return folder


def load_run(folder: Path, checkpoint: str = "best") -> Experiment:
    """Rebuild a run's data and task and load its weights.

    Args:
        folder: The run folder.
        checkpoint: ``best`` or ``last``.

    Returns:
        The experiment, its task in evaluation mode.

    Raises:
        MatineeError: If the folder, its config or its checkpoint is missing or broken, or if the data
            are no longer those that the run was trained on.
    """
    experiment = build(load_config(folder))
    found = experiment.datamodule.interactions.fingerprint
    if (folder / RESULT).exists():
        recorded = read_result(folder)["protocol"]["dataset"]["sha256"]
        if recorded != found:
            raise MatineeError(
                f"the data of {folder} have changed since it was trained (SHA-256 {recorded[:12]}... "
                f"then, {found[:12]}... now); restore them or train again."
            )
    _load_weights(experiment.task, checkpoint_path(folder, checkpoint))
    return experiment


def evaluate(
    experiment: Experiment, trainer: pl.Trainer
) -> tuple[dict[str, float], dict[str, Any]]:
    """Measure a task as it stands on train, validation and test.

    Returns:
        Metrics named ``STAGE/METRIC``, and the test metrics of every user as arrays.
    """
    metrics: dict[str, float] = {}
    per_user: dict[str, Any] = {}
    for stage in PARTS:
        loader = experiment.datamodule.evaluation_dataloader(stage)
        with _without_advice():
            predictions = trainer.predict(experiment.task, dataloaders=loader)
        figures, per_user = experiment.task.measure(predictions, experiment.datamodule, stage)
        metrics |= {f"{stage}/{metric}": value for metric, value in figures.items()}
    return metrics, per_user


def make_trainer(config: DictConfig, folder: Path | None) -> pl.Trainer:
    """Make the Trainer of a config; without a folder it measures only and writes nothing.

    Raises:
        MatineeError: If the accelerator, its devices or another option cannot be had.
    """
    options: dict[str, Any] = {
        "enable_checkpointing": False,
        "logger": False,
        "enable_progress_bar": False,
    }
    if folder is not None:
        callbacks = _make(config, "callbacks") or {}
        loggers = _make(config, "logger") or {}
        options = {
            "callbacks": [callback for callback in callbacks.values() if callback],
            "logger": [logger(save_dir=str(folder)) for logger in loggers.values() if logger]
            or False,
            "plugins": [AtomicCheckpointIO()],
            "default_root_dir": str(folder),
        }
    trainer: pl.Trainer = _call("trainer", _make(config, "trainer"), **options)
    return trainer


def _fit_and_record(
    experiment: Experiment, trainer: pl.Trainer, folder: Path, started: float
) -> None:
    last = checkpoint_path(folder, "last")
    prepared = time.perf_counter()
    if last.exists():
        read_checkpoint(last)  # a clear sentence if it is broken
    with _without_advice():
        trainer.fit(
            experiment.task,
            datamodule=experiment.datamodule,
            ckpt_path=str(last) if last.exists() else None,
            weights_only=True,
        )
    if trainer.interrupted:
        raise KeyboardInterrupt
    fitted = time.perf_counter()
    _load_weights(experiment.task, checkpoint_path(folder, "best"))
    metrics, per_user = evaluate(experiment, make_trainer(experiment.config, None))
    datamodule, task = experiment.datamodule, experiment.task
    best_epoch = next(c.best_epoch for c in trainer.callbacks if hasattr(c, "best_epoch"))  # type: ignore[attr-defined]
    result = {
        "metrics": metrics,
        "fit": {
            "best_epoch": best_epoch,
            "epochs": trainer.current_epoch,
            "steps": trainer.global_step,
            "parameters": sum(p.numel() for p in task.parameters()),
        },
        "protocol": {**datamodule.protocol, **task.protocol},
        "environment": {
            **environment(),
            "accelerator": type(trainer.accelerator).__name__,
            "devices": trainer.num_devices,
            "seconds": {
                "prepare": round(prepared - started, 3),
                "fit": round(fitted - prepared, 3),
                "evaluate": round(time.perf_counter() - fitted, 3),
            },
        },
    }
    raw_ids = datamodule.interactions.users["raw_id"].loc[per_user.pop("user_id")].to_numpy()
    write_whole(
        folder / PER_USER,
        lambda file: np.savez_compressed(file, user=raw_ids.astype(str), **per_user),
    )
    write_whole(
        folder / RESULT, lambda file: file.write((json.dumps(result, indent=2) + "\n").encode())
    )


def _make(config: DictConfig, group: str) -> Any:
    node = config.get(group)
    return _call(group, instantiate, node) if node else None


def _call(group: str, function: Any, *args: Any, **kwargs: Any) -> Any:
    """Call, and tell a refused value as the user's mistake in ``group``."""
    try:
        return function(*args, **kwargs)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, MatineeError):
            raise cause from error
        if isinstance(cause, ValueError | TypeError | MisconfigurationException):
            raise MatineeError(_refused(group, cause)) from error
        raise
    except (ValueError, TypeError, MisconfigurationException) as error:
        if isinstance(error, TypeError) and group not in ("trainer", "model"):
            raise
        raise MatineeError(_refused(group, error)) from error


def _refused(group: str, error: Exception) -> str:
    return f"{group} cannot be built: {str(error).splitlines()[0]}"


def _load_weights(task: Any, path: Path) -> None:
    try:
        task.load_state_dict(read_checkpoint(path)["state_dict"])
    except RuntimeError as error:
        raise MatineeError(
            f"the checkpoint {path} does not fit the model that its config.yaml describes; "
            "restore both from one run."
        ) from error
    task.eval()
