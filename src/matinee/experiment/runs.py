"""Runs: train one from Python, and read its folder as tables."""

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from matinee.batches import PARTS
from matinee.config.composing import compose
from matinee.data.interactions import Interactions
from matinee.errors import MatineeError
from matinee.experiment import measuring, refitting, running
from matinee.experiment.building import Experiment
from matinee.experiment.reading import read_arrays, read_text
from matinee.experiment.run_folder import METRICS, PER_USER, asked_folder, read_result
from matinee.experiment.trainer import make_trainer


class Run(os.PathLike[str]):
    """A run folder, read as tables. It can be given wherever a folder is asked for.

    Args:
        folder: A run folder.

    Attributes:
        folder: The run folder.

    Raises:
        MatineeError: If the folder holds no run.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder: Path = asked_folder(os.fspath(folder))

    def __fspath__(self) -> str:
        return str(self.folder)

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    def metrics(self) -> pd.DataFrame:
        """Return the metrics of ``result.json``.

        Returns:
            A row for each stage (``train``, ``val``, ``test``), a column for each metric.

        Raises:
            MatineeError: If the run has not finished or the file is broken.
        """
        return _by_stage(read_result(self.folder)["metrics"])

    def history(self) -> pd.DataFrame:
        """Return ``metrics.csv``.

        Returns:
            A row for each epoch, a column for each logged metric, such as ``val/rmse``.

        Raises:
            MatineeError: If the file is missing or broken.
        """
        path = self.folder / METRICS
        try:
            return pd.read_csv(io.StringIO(read_text(self.folder, METRICS) or ""))
        except ValueError as error:
            raise MatineeError(f"{path} cannot be read ({error}); restore it.") from error

    def per_user(self) -> pd.DataFrame:
        """Return ``per_user.npz``, the metrics of test.

        Returns:
            A row for each user, or for each window of a sequence model; ``user`` holds raw ids.

        Raises:
            MatineeError: If the file is missing or broken.
        """
        try:
            return pd.DataFrame(read_arrays(self.folder, PER_USER))
        except ValueError as error:  # arrays of different lengths
            path = self.folder / PER_USER
            raise MatineeError(f"{path} cannot be read ({error}); restore it.") from error


def train(*overrides: str, dataset: Interactions | None = None) -> Run:
    """Train, evaluate and record one run, as ``matinee train`` does.

    Args:
        overrides: What would follow ``matinee train``, such as ``"experiment=user_based/gru"``.
        dataset: The data, such as ``Interactions.from_frame(frame, "user", "item")``; None takes those that
            the overrides name. The run records their fingerprint, and needs them again wherever it is
            loaded or resumed.

    Raises:
        Stopped: If a signal ended the training; :func:`resume` continues it.
        MatineeError: If an override is wrong, the training fails, or the run cannot be written.
    """
    if dataset is not None:
        if any(entry.startswith("dataset") for entry in overrides):
            raise MatineeError(
                "dataset is given twice, as interactions and as an override; give one."
            )
        overrides = ("dataset=in_memory", f"dataset.sha256={dataset.fingerprint}", *overrides)
    return Run(running.train(compose(*overrides), overrides, dataset))


def resume(run: str | os.PathLike[str], dataset: Interactions | None = None) -> Run:
    """Continue a run that was stopped, from its last checkpoint; a finished run stays as it is.

    Args:
        run: The run folder.
        dataset: The data of the run, if they were handed over in Python.

    Raises:
        MatineeError: If the folder holds no run, or it cannot be continued.
    """
    return Run(running.resume(Path(run), dataset))


def refit(
    run: str | os.PathLike[str],
    run_folder: str | None = None,
    log_dir: str = "lightning_logs",
    dataset: Interactions | Mapping[str, str | None] | None = None,
) -> Run:
    """Train the model of a finished run on all of its data, see :mod:`matinee.experiment.refitting`."""
    return Run(refitting.refit(run, run_folder, log_dir, dataset))


def evaluate(experiment: Experiment, stages: Sequence[str] = tuple(PARTS)) -> pd.DataFrame:
    """Evaluate a loaded run with the weights that it has now.

    Args:
        experiment: A loaded run.
        stages: One or more of ``train``, ``val`` and ``test``.

    Returns:
        A row for each stage, a column for each metric.
    """
    trainer = make_trainer(experiment.config, None)
    return _by_stage(measuring.evaluate(experiment, trainer, stages).metrics)


def _by_stage(metrics: dict[str, float]) -> pd.DataFrame:
    rows: dict[str, dict[str, float]] = {}
    for name, value in metrics.items():
        stage, _, metric = name.partition("/")
        rows.setdefault(stage, {})[metric] = value
    return pd.DataFrame.from_dict(rows, orient="index")
