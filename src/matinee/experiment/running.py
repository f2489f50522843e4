"""Running: train one run from its config to its record, and resume one that was stopped."""

import itertools
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import lightning.pytorch as pl
from omegaconf import DictConfig, OmegaConf

from matinee.config.checking import check_config
from matinee.data.interactions import Interactions
from matinee.errors import AtWork, MatineeError, NotWritten, Refitted, Stopped
from matinee.experiment.building import Experiment, build, check_data_dir, load_weights
from matinee.experiment.measuring import Measured, evaluate, write_per_user
from matinee.experiment.parents import PARENT, check_refit, read_parent, record_of
from matinee.experiment.reading import read_checkpoint
from matinee.experiment.run_folder import (
    CONFIG,
    OVERRIDES,
    PROTOCOL,
    RESULT,
    asked_folder,
    check_protocol,
    check_same,
    claim_folder,
    environment,
    has_begun,
    load_config,
    read_result,
    remove_lock,
    sole_writer,
    write_json,
    write_yaml,
)
from matinee.experiment.trainer import fit, make_trainer
from matinee.experiment.warm_start import freeze, start_from
from matinee.files import check_plain_files, checkpoint_path, remove_parts, writing
from matinee.training.callbacks import Checkpoints, MeasuredRun, RunCallback
from matinee.training.loggers import reporting_once
from matinee.training.processes import is_first_process, take_part

if sys.platform != "win32":
    import resource

FILES = ("path", "validation_path", "test_path", "data_dir")  # keys of datasets that name files
Hold = Callable[[Path], AbstractContextManager[Any]]  # keeps a run folder for this process


_runs = itertools.count()  # of this process


class _Start(NamedTuple):
    """When a run of this process began, and whether it is the first one."""

    seconds: float
    is_first: bool

    @classmethod
    def now(cls) -> "_Start":
        return cls(time.perf_counter(), next(_runs) == 0)

    def peak_memory_of_run(self) -> int | None:
        """Return the peak of the process in bytes; None if earlier runs may have left memory behind."""
        return _peak_memory() if self.is_first else None


def _peak_memory() -> int:
    """Return the largest resident memory that this process has had, in bytes; 0 if it is unknown."""
    if sys.platform == "win32":
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def train(
    config: DictConfig,
    overrides: Sequence[str],
    dataset: Interactions | None = None,
    parent: Mapping[str, Any] | None = None,
) -> Path:
    """Fit, measure and record one run.

    With several processes, the first one does all of this; the others take part in the fit and exit.

    Args:
        config: A composed ``train`` config, with its ``name`` set.
        overrides: The overrides that composed it, for the record.
        dataset: The data; None makes those that the config describes.
        parent: The record of the run that this one refits, see :mod:`matinee.experiment.parents`.

    Returns:
        The run folder.

    Raises:
        Stopped: If a signal ended the run; it can be resumed.
        NotWritten: If the disk is full.
        MatineeError: For any error the user can fix; a run without a checkpoint leaves no folder.
    """
    return _train(config, overrides, sole_writer, dataset, parent)


def _train(
    config: DictConfig,
    overrides: Sequence[str],
    hold: Hold,
    dataset: Interactions | None = None,
    parent: Mapping[str, Any] | None = None,
) -> Path:
    config = check_config(config, "train")
    name_places(config.dataset)
    _name_start(config)
    if parent is None and config["from"] is not None:
        parent = record_of(Path(config["from"]), "start")
    started = _Start.now()
    experiment = build(config, dataset)
    _check_parts(experiment, parent)
    if not is_first_process():
        _help(experiment, Path(config.run_folder or config.log_dir))
    folder = claim_folder(config.run_folder, Path(config.log_dir) / config.name)
    with hold(folder):
        try:
            config.run_folder = str(folder)
            trainer = _trainer(experiment, folder)
            if parent is not None:
                write_json(folder / PARENT, parent)
            write_yaml(folder / OVERRIDES, list(overrides))
            write_json(folder / PROTOCOL, experiment.datamodule.protocol)
            write_yaml(folder / CONFIG, config)  # last, for a run with a config can be resumed
            _fit_and_record(experiment, trainer, folder, started)
        except Stopped:
            raise
        except BaseException:
            if not checkpoint_path(folder, "last").exists():
                shutil.rmtree(folder, ignore_errors=True)
            raise
    return folder


def name_places(dataset: DictConfig) -> None:
    """Make the file paths of a dataset absolute, so that its run works from any folder."""
    for key, value in dataset.items():
        if isinstance(value, DictConfig):
            name_places(value)
        elif key in FILES and isinstance(value, str) and value.strip():
            dataset[key] = str(Path(value).expanduser().absolute())


def _name_start(config: DictConfig) -> None:
    """Make the folder of the run to start from absolute."""
    if config["from"] is not None:
        config["from"] = str(asked_folder(config["from"]).expanduser().absolute())
    elif config.freeze is not None or config.optimizer_state:
        option = "freeze" if config.freeze is not None else "optimizer_state"
        raise MatineeError(f"{option} belongs to from=...; name a run to start from.")


def resume(folder: Path, dataset: Interactions | None = None) -> Path:
    """Resume a stopped run from its last checkpoint; a finished run is not changed.

    Args:
        folder: The run folder.
        dataset: The data of the run, if they were handed over in Python.

    Raises:
        AtWork: If another process works on the run.
        MatineeError: If the folder holds no run, its checkpoint cannot be read, or its data or split
            have changed since it began.
    """
    config = load_config(folder)
    if dataset is None:
        check_data_dir(config.dataset)
    if (folder / RESULT).exists():
        remove_lock(folder)
    else:
        hold: Hold = sole_writer if is_first_process() else nullcontext
        with hold(folder):
            _go_on(folder, dataset)
    with suppress(Refitted):
        read_result(folder)
    return folder


def _go_on(folder: Path, dataset: Interactions | None = None) -> None:
    check_plain_files(folder)
    if (folder / RESULT).exists():  # another process has finished it, before the folder was ours
        return
    started = _Start.now()
    experiment = build(load_config(folder), dataset)
    check_protocol(folder, experiment.datamodule.protocol)
    _check_parts(experiment, read_parent(folder))
    if not is_first_process():
        _help(experiment, folder)
    remove_parts(folder)
    remove_parts(checkpoint_path(folder, "last").parent)
    trainer = _trainer(experiment, folder)
    _fit_and_record(experiment, trainer, folder, started)


def train_or_resume(config: DictConfig, overrides: Sequence[str]) -> Path | None:
    """Finish one run, whatever its state, so that a grid can be started again.

    Args:
        config: See :func:`train`, with ``run_folder`` set. A finished run there is not changed; one that
            was stopped or killed is resumed from its last checkpoint, if it has one.
        overrides: See :func:`train`.

    Returns:
        The run folder, or None if another process works on it.

    Raises:
        MatineeError: See :func:`train` and :func:`resume`; also if ``run_folder`` is not set or holds a
            run with another config.
    """
    if config.run_folder is None:
        raise MatineeError("resume=true goes on with what run_folder=... holds; name one.")
    config = check_config(config, "train")
    name_places(config.dataset)
    _name_start(config)
    folder = Path(config.run_folder)
    if not is_first_process():
        return train(config, overrides)
    try:
        with sole_writer(folder):
            if has_begun(folder):
                check_same(folder, config)
                _go_on(folder)
                read_result(folder)
                return folder
            _clear_what_a_kill_left(folder)
            return _train(config, overrides, nullcontext)
    except AtWork:
        return None


def _clear_what_a_kill_left(folder: Path) -> None:
    """Remove a run that was killed before its config was written; keep anything else."""
    begun = (CONFIG, OVERRIDES, PROTOCOL, PARENT)
    for name in begun:
        remove_parts(folder, name)
    found = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if CONFIG in found and found <= {*begun}:
        shutil.rmtree(folder)


def _check_parts(experiment: Experiment, parent: Mapping[str, Any] | None) -> None:
    """Check that a refit has the data of its parent, and that any other run has rows to measure."""
    if parent is not None and parent["kind"] == "refit":
        check_refit(parent, experiment.datamodule.protocol)
    elif not _is_measured(experiment):
        raise MatineeError(
            f"split={experiment.datamodule.split.name} leaves nothing to measure; use matinee refit, or "
            "choose another split."
        )


def _is_measured(experiment: Experiment) -> bool:
    """Return whether there are rows to select the best epoch by; a refit has none."""
    return len(experiment.datamodule.split.validation) > 0


def _trainer(experiment: Experiment, folder: Path) -> pl.Trainer:
    unmeasured = {} if _is_measured(experiment) else {"limit_val_batches": 0}
    alone = experiment.task.closed_form
    return make_trainer(experiment.config, folder, alone=alone, **unmeasured)


def _fit_and_record(
    experiment: Experiment, trainer: pl.Trainer, folder: Path, started: _Start
) -> None:
    config = experiment.config
    device = trainer.strategy.root_device.type
    device = device if trainer.world_size == 1 else f"{trainer.world_size} x {device}"
    print(f"{config.name}, seed {config.seed}, on {device}: {folder}", file=sys.stderr)
    prepared = time.perf_counter()
    with _resumable(folder), reporting_once():
        _fit(experiment, trainer, folder)
        _record(experiment, trainer, folder, started, prepared)


@contextmanager
def _resumable(folder: Path) -> Iterator[None]:
    """Name the command that continues a run which has a checkpoint.

    Raises:
        Stopped: If Ctrl-C ended the run.
        NotWritten: If a file could not be written.
    """
    command = f"'matinee train resume={folder}'"
    try:
        yield
    except (KeyboardInterrupt, NotWritten) as error:
        if not checkpoint_path(folder, "last").exists():
            raise
        if isinstance(error, NotWritten):
            raise NotWritten(error.what, f"go on with {command}") from error
        raise Stopped(command, status=130) from error


def _record(
    experiment: Experiment, trainer: pl.Trainer, folder: Path, started: _Start, prepared: float
) -> None:
    """Measure the best epoch and write its metrics; ``result.json``, the last file, completes the run."""
    config, datamodule, task = experiment.config, experiment.datamodule, experiment.task
    fitted = time.perf_counter()
    checkpoints = next(c for c in trainer.callbacks if isinstance(c, Checkpoints))  # type: ignore[attr-defined]
    seconds = checkpoints.seconds
    load_weights(task, checkpoint_path(folder, "best"))
    measured = None
    if _is_measured(experiment):
        measured = evaluate(experiment, make_trainer(config, None), datamodule.measured)
    parent = read_parent(folder)
    result = {
        "metrics": {} if measured is None else measured.metrics,
        "headline": asdict(task.headline),
        "fit": {
            "best_epoch": checkpoints.best_epoch,
            "epochs": trainer.current_epoch,
            "steps": trainer.global_step,
            "parameters": sum(p.numel() for p in task.parameters()),
        },
        **({} if parent is None else {"parent": parent}),
        "protocol": {**datamodule.protocol, **task.protocol},
        "environment": {
            **environment(config),
            "accelerator": type(trainer.accelerator).__name__,
            "devices": trainer.world_size,
            "seconds": {
                "prepare": round(prepared - started.seconds, 3),
                "fit": round(seconds, 3),
                "evaluate": round(time.perf_counter() - fitted, 3),
            },
            "peak_memory_bytes": started.peak_memory_of_run(),
        },
    }
    if measured is not None:
        _tell(experiment, trainer, folder, measured, result)
    write_json(folder / RESULT, result)


def _tell(
    experiment: Experiment,
    trainer: pl.Trainer,
    folder: Path,
    measured: Measured,
    result: Mapping[str, Any],
) -> None:
    """Write the metrics of every user, and call the callbacks for a run that has been measured."""
    config = experiment.config
    write_per_user(experiment, folder, measured.per_user)
    plain: Any = OmegaConf.to_container(config, resolve=True)
    text = OmegaConf.to_yaml(config)
    run = MeasuredRun(
        experiment.task, experiment.datamodule, measured.predictions, result, plain, text
    )
    with writing(folder):
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, RunCallback):
                callback.on_measured(trainer, run)


def _fit(experiment: Experiment, trainer: pl.Trainer, folder: Path) -> None:
    last = checkpoint_path(folder, "last")
    if last.exists():  # read it first, for a clear message if it is broken
        _check_resumable(last, trainer)
        load_weights(experiment.task, last)
        experiment.task.train()
    elif experiment.config["from"] is not None:
        trainer.callbacks += start_from(experiment, Path(experiment.config["from"]))  # type: ignore[attr-defined]
    if experiment.config.freeze:
        freeze(experiment, experiment.config.freeze)
    checkpoint = last if last.exists() else None
    fit(trainer, experiment.task, experiment.datamodule, folder, checkpoint)


def _check_resumable(path: Path, trainer: pl.Trainer) -> None:
    """Refuse a checkpoint that lacks the state of a callback: Lightning would begin it anew.

    Raises:
        MatineeError: Also if the checkpoint cannot be read or holds weights alone.
    """
    checkpoint = read_checkpoint(path)
    if "loops" not in checkpoint:
        raise MatineeError(f"{path} holds weights alone and cannot be resumed; train again.")
    states = checkpoint.get("callbacks")
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        known = isinstance(states, Mapping) and isinstance(states.get(callback.state_key), Mapping)
        if callback.state_dict() and not known:
            raise MatineeError(
                f"{path} lacks the state of {type(callback).__name__}; restore it or train again."
            )


def _help(experiment: Experiment, folder: Path) -> NoReturn:
    """Take part in the fit that the first process leads, and exit."""
    if experiment.task.closed_form:  # there is nothing to share
        sys.exit(0)
    trainer = _trainer(experiment, folder)
    take_part(lambda: _fit(experiment, trainer, folder))
