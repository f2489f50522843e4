"""Loggers: TensorBoard's event files, in the run folder itself."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger


class TensorBoard(TensorBoardLogger):
    """Lightning's TensorBoard logger without subfolders, extra files and uninformative curves.

    Args:
        save_dir: The run folder.
    """

    def __init__(self, save_dir: str) -> None:
        super().__init__(save_dir, name="", version="", default_hp_metric=False)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write metrics, without the number of the epoch."""
        shown = {name: value for name, value in metrics.items() if name != "epoch"}
        super().log_metrics(shown, step)

    def save(self) -> None:
        """Write pending events; the hyperparameters are in the run folder's ``config.yaml`` already."""
        self.experiment.flush()


@contextmanager
def reporting_once() -> Iterator[None]:
    """Print no traceback where a thread of TensorBoard cannot write: the logger raises the same error."""

    def report(failure: Any) -> None:
        if not issubclass(failure.exc_type, OSError):
            before(failure)

    before, threading.excepthook = threading.excepthook, report
    try:
        yield
    finally:
        threading.excepthook = before
