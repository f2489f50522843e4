"""Building: make the data and the task that a config describes, or those of a finished run."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from omegaconf import DictConfig

from matinee.config.parts import blame, make_part
from matinee.contracts import DataModule
from matinee.data.interactions import Interactions
from matinee.data.sources.fetch import cache_dir
from matinee.errors import MatineeError
from matinee.experiment.reading import read_checkpoint
from matinee.experiment.run_folder import check_protocol, load_config
from matinee.files import checkpoint_path
from matinee.training.tasks.base import LightningTask


@dataclass(frozen=True)
class Experiment:
    """The objects that a config describes: the split data, and the task to be fitted to them."""

    config: DictConfig
    datamodule: DataModule
    task: LightningTask[Any]


def build(config: DictConfig, dataset: Interactions | None = None) -> Experiment:
    """Make the data and the task of a config, without training or writing anything.

    Args:
        config: A composed ``train`` config, with ``run_folder`` set or not.
        dataset: The data; None makes those that the config describes.

    Raises:
        MatineeError: If a part of the config cannot be built; the message names it and the reason.
    """
    pl.seed_everything(config.seed, verbose=False)
    interactions = make_part(config, "dataset") if dataset is None else dataset
    split = make_part(config, "split")(interactions)
    datamodule = make_part(config, "data")(interactions, split)
    return Experiment(config, datamodule, make_task(config, datamodule))


def make_task(config: DictConfig, datamodule: DataModule) -> LightningTask[Any]:
    """Make the task of a config for data that are already split.

    Raises:
        MatineeError: If a part of the config cannot be built; the message names it and the reason.
    """
    groups = ("model", "loss", "sampler", "optimizer", "scheduler")
    parts = {group: part for group in groups if (part := make_part(config, group)) is not None}
    task: LightningTask[Any] = make_part(config, "task")(datamodule, **parts)
    with blame("optimizer"):  # refuse a wrong option before anything is written
        task.configure_optimizers()
    return task


def load_run(
    folder: str | os.PathLike[str],
    checkpoint: str = "best",
    segments: Sequence[str] | None = None,
    histories: str | None = None,
    dataset: Interactions | Mapping[str, str | None] | None = None,
) -> Experiment:
    """Rebuild a run's data and task and load its weights.

    Args:
        folder: The run folder, or the :class:`matinee.Run`.
        checkpoint: ``best`` or ``last``.
        segments: Subsets to measure, see :mod:`matinee.data.segments`; None takes those of the run.
        histories: Changed histories to predict from, see :mod:`matinee.batches.perturbation`; None
            changes nothing.
        dataset: The data of the run, if they were passed in Python; or where its files are now, if they have
            moved: new values for keys of its dataset, such as ``{"path": "data/ratings.csv"}``. The data
            must have the fingerprint of the run.

    Returns:
        The experiment, its task in evaluation mode.

    Raises:
        MatineeError: If the folder, its config or its checkpoint is missing or broken, or if data or
            split are no longer those it began with; or if there are no such histories.
    """
    if checkpoint not in ("best", "last"):
        raise MatineeError(f"checkpoint is {checkpoint!r}; choose best or last.")
    folder = Path(folder)
    config = load_config(folder)
    if segments is not None:
        config.data.segments = segments
    handed_over = dataset if isinstance(dataset, Interactions) else None
    if handed_over is None:
        places = {} if dataset is None else dataset
        move_dataset(config, places)
        check_data_dir(config.dataset, places.get("data_dir"))  # type: ignore[union-attr]
    experiment = build(config, handed_over)
    check_protocol(folder, experiment.datamodule.protocol)
    load_weights(experiment.task, checkpoint_path(folder, checkpoint))
    if histories is not None:
        experiment.datamodule.perturb(histories)
    return experiment


def move_dataset(config: DictConfig, places: Any) -> None:
    """Say where the files of a dataset are now.

    Args:
        config: A config, which gets the new places.
        places: Values by keys of its dataset; None leaves a key as it is.

    Raises:
        MatineeError: If the dataset has no such key, or the places are no mapping.
    """
    if not isinstance(places, Mapping):
        raise MatineeError(
            f"dataset is {places!r}; give interactions, or dataset.path of its files."
        )
    for key, place in places.items():
        if place is None:
            continue
        if key not in config.dataset:
            raise MatineeError(
                f"dataset.{key} does not belong to this run's dataset, whose keys are "
                f"{', '.join(str(known) for known in config.dataset if known != '_target_')}."
            )
        config.dataset[key] = str(Path(place).expanduser().absolute())


def check_data_dir(dataset: Any, given: Any = None) -> None:
    """Reject a data folder that only a run folder names, because copies of the data are written there.

    Args:
        dataset: The dataset of the run.
        given: The data folder that the user names, or None.

    Raises:
        MatineeError: If the dataset has a data folder that is neither this one nor :func:`cache_dir`.
    """
    own = [Path(folder).expanduser().absolute() for folder in (cache_dir(), given) if folder]
    for key, value in dataset.items():
        if isinstance(value, DictConfig):
            check_data_dir(value, given)
        elif key == "data_dir" and value is not None and Path(value) not in own:
            raise MatineeError(
                f"the run names {value} as its data_dir, which is not your data folder; if you trust it, add "
                "dataset.data_dir=... to the command or set MATINEE_DATA."
            )


def load_weights(task: LightningTask[Any], path: Path) -> None:
    """Load a checkpoint's weights into a task and set it to evaluation mode.

    Raises:
        MatineeError: If the checkpoint is broken, does not fit the task or holds weights that are not
            finite.
    """
    try:
        task.load_state_dict(read_checkpoint(path)["state_dict"])
    except (RuntimeError, AttributeError, TypeError) as error:
        raise MatineeError(
            f"the checkpoint {path} does not fit the model that its config.yaml describes; "
            "restore both from one run."
        ) from error
    for name, weight in task.named_parameters():
        if not weight.isfinite().all():
            raise MatineeError(
                f"the checkpoint {path} has weights that are not finite ({name}); restore it or train again."
            )
    task.eval()
