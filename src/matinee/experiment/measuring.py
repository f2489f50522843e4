"""Measuring: the metrics of a task as it stands, and their record."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np

from matinee.batches import PARTS
from matinee.errors import MatineeError
from matinee.experiment.building import Experiment
from matinee.experiment.run_folder import EVALUATION, PER_USER, environment, write_json
from matinee.experiment.trainer import without_advice
from matinee.files import write_whole


def evaluate(
    experiment: Experiment, trainer: pl.Trainer, stages: Sequence[str] = tuple(PARTS)
) -> tuple[dict[str, float], dict[str, Any]]:
    """Measure a task as it stands.

    Args:
        experiment: Data and task.
        trainer: One that measures only.
        stages: Some of ``train``, ``val`` and ``test``.

    Returns:
        Metrics named ``STAGE/METRIC``, and those of every user or window of the last stage as arrays.
    """
    metrics: dict[str, float] = {}
    per_user: dict[str, Any] = {}
    for stage in stages:
        loader = experiment.datamodule.evaluation_dataloader(stage)
        with without_advice():
            try:
                predictions = trainer.predict(experiment.task, dataloaders=loader)
            except SystemExit as stop:  # what Lightning makes of Ctrl-C
                raise KeyboardInterrupt from stop
        figures, per_user = experiment.task.measure(predictions, experiment.datamodule, stage)
        metrics |= {f"{stage}/{metric}": value for metric, value in figures.items()}
    return metrics, per_user


def record_evaluation(
    experiment: Experiment,
    folder: Path,
    options: Mapping[str, Any],
    metrics: Mapping[str, float],
    per_user: dict[str, Any],
) -> None:
    """Keep what :func:`evaluate` returned, as evaluation.json and per_user.npz.

    Args:
        experiment: What was measured.
        folder: Where to; it is made if need be, and what it holds of an earlier evaluation replaced.
        options: What was asked for, plain values for the record.
        metrics: The figures.
        per_user: The arrays.

    Raises:
        MatineeError: If the folder or its files cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MatineeError(f"output={folder} cannot be made ({error}); name another.") from error
    write_per_user(experiment, folder, per_user)
    protocol = {**experiment.datamodule.protocol, **experiment.task.protocol}
    made_in = environment(experiment.config)
    content = {**options, "metrics": metrics, "protocol": protocol, "environment": made_in}
    write_json(folder / EVALUATION, content)


def write_per_user(experiment: Experiment, folder: Path, per_user: dict[str, Any]) -> None:
    """Write ``per_user.npz``: the arrays that :func:`evaluate` returned, with raw user ids."""
    raw_ids = experiment.datamodule.interactions.users["raw_id"].loc[per_user.pop("user_id")]
    values = {"user": raw_ids.to_numpy().astype(str), **per_user}
    write_whole(folder / PER_USER, lambda file: np.savez_compressed(file, **values))
