"""A callback."""

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback


class WeightNorm(Callback):
    """Log the norm of all parameters as ``weight_norm`` after each epoch."""

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the norm; it becomes a column of ``metrics.csv``."""
        norms = [parameter.detach().norm() for parameter in pl_module.parameters()]
        pl_module.log("weight_norm", torch.stack(norms).norm())
