"""The hook of callbacks for a run that has been measured, which Lightning does not have."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from matinee.contracts import DataModule
from matinee.training.tasks.base import LightningTask


@dataclass(frozen=True)
class MeasuredRun:
    """A run whose best epoch has been measured.

    Attributes:
        task: The task with the weights of the best epoch.
        datamodule: Its data.
        predictions: What ``predict_step`` returned for test, batch by batch.
        result: What ``result.json`` will hold.
        config: The config as plain values.
        config_text: The config as YAML.
    """

    task: LightningTask[Any]
    datamodule: DataModule
    predictions: Sequence[Any]
    result: Mapping[str, Any]
    config: Mapping[str, Any]
    config_text: str


class RunCallback(Callback):
    """A callback that is also called after the fit, when the run has been measured.

    An experiment calls :meth:`on_measured` of every such callback before it writes ``result.json``, which
    completes the run. If the process is killed in between, a resume calls it again.
    """

    def on_measured(self, trainer: pl.Trainer, run: MeasuredRun) -> None:
        """Use a measured run.

        Args:
            trainer: The Trainer of the fit.
            run: The run.
        """
