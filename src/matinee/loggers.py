"""Loggers: TensorBoard's event files, in the run folder itself."""

from lightning.pytorch.loggers import TensorBoardLogger


class TensorBoard(TensorBoardLogger):
    """Lightning's TensorBoard logger without folders of its own and without ``hparams.yaml``.

    Args:
        save_dir: The run folder.
    """

    def __init__(self, save_dir: str) -> None:
        super().__init__(save_dir, name="", version="", default_hp_metric=False)

    def save(self) -> None:
        """Write out pending events; the hyperparameters stand in the run folder's ``config.yaml``."""
        self.experiment.flush()
