"""Loggers: TensorBoard's event files, in the run folder itself."""

from collections.abc import Mapping

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
