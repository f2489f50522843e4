"""The batches of a data module, as a Trainer asks for them."""

from collections.abc import Iterable
from typing import Any

import lightning.pytorch as pl
import torch

from matinee.batches.loading import to_device
from matinee.contracts import DataModule


class Loaders(pl.LightningDataModule):
    """Give a Trainer the batches of a data module.

    Args:
        data: The data module.
    """

    def __init__(self, data: DataModule) -> None:
        super().__init__()
        self.data = data

    def train_dataloader(self) -> Iterable[Any]:
        """Return this process's share of the training batches."""
        trainer: Any = self.trainer
        return self.data.train_dataloader(trainer.global_rank, trainer.world_size)

    def val_dataloader(self) -> Iterable[Any]:
        """Return the batches of validation, in order."""
        return self.data.evaluation_dataloader("val")

    def test_dataloader(self) -> Iterable[Any]:
        """Return the batches of test, in order."""
        return self.data.evaluation_dataloader("test")

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Move a batch to the device; one that is there already costs nothing."""
        return to_device(batch, device)
