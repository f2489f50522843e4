"""Measuring: compute the metrics of a task with its current weights, and record them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Measured:
    """The metrics of a task.

    Attributes:
        metrics: Values by name, ``STAGE/METRIC``.
        per_user: Those of every user or window of the last stage, as arrays.
        predictions: The predictions for the last stage, batch by batch.
    """

    metrics: dict[str, float]
    per_user: dict[str, Any]
    predictions: Sequence[Any]


def evaluate(
    experiment: Experiment, trainer: pl.Trainer, stages: Sequence[str] = tuple(PARTS)
) -> Measured:
    """Measure a task with its current weights.

    Args:
        experiment: Data and task.
        trainer: One that measures only.
        stages: One or more of ``train``, ``val`` and ``test``.

    Raises:
        MatineeError: If a metric is not finite.
    """
    metrics: dict[str, float] = {}
    per_user: dict[str, Any] = {}
    predictions: Sequence[Any] = ()
    for stage in stages:
        loader = experiment.datamodule.evaluation_dataloader(stage)
        with without_advice():
            try:
                predictions = trainer.predict(experiment.task, dataloaders=loader) or ()
            except SystemExit as stop:  # Lightning raises it on Ctrl-C
                raise KeyboardInterrupt from stop
        figures, per_user = experiment.task.measure(predictions, experiment.datamodule, stage)
        metrics |= {f"{stage}/{metric}": value for metric, value in figures.items()}
    if broken := [name for name, value in metrics.items() if not math.isfinite(value)]:
        raise MatineeError(
            f"{broken[0]} is {metrics[broken[0]]}; check the data and the weights of this epoch."
        )
    return Measured(metrics, per_user, predictions)


def record_evaluation(
    experiment: Experiment,
    folder: Path,
    options: Mapping[str, Any],
    measured: Measured,
) -> None:
    """Write what :func:`evaluate` returned to evaluation.json and per_user.npz.

    Args:
        experiment: What was measured.
        folder: Where to; it is made if missing, and the files of an earlier evaluation are replaced.
        options: What was asked for, plain values for the record.
        measured: The metrics and the arrays.

    Raises:
        MatineeError: If the folder or its files cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MatineeError(f"output={folder} cannot be made ({error}); name another.") from error
    write_per_user(experiment, folder, measured.per_user)
    protocol = {**experiment.datamodule.protocol, **experiment.task.protocol}
    made_in = environment(experiment.config)
    content = {**options, "metrics": measured.metrics, "protocol": protocol, "environment": made_in}
    write_json(folder / EVALUATION, content)


def write_per_user(experiment: Experiment, folder: Path, per_user: Mapping[str, Any]) -> None:
    """Write ``per_user.npz``: the arrays that :func:`evaluate` returned, with raw user ids."""
    raw_ids = experiment.datamodule.interactions.users["raw_id"].loc[per_user["user_id"]]
    others = {name: values for name, values in per_user.items() if name != "user_id"}
    values = {"user": raw_ids.to_numpy().astype(str), **others}
    write_whole(folder / PER_USER, lambda file: np.savez_compressed(file, **values))
