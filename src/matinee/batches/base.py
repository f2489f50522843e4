"""What every datamodule is: the parts of a split, their segments and their loaders."""

from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import torch

from matinee.batches.loading import BatchLoader, to_device
from matinee.data.interactions import Interactions
from matinee.data.segments import Evaluated, Masks, check_segments, segment_masks
from matinee.data.splits import Split
from matinee.errors import MatineeError

PARTS = {"train": "train", "val": "validation", "test": "test"}  # logged prefix -> part of a split


class SplitDataModule(pl.LightningDataModule):
    """A table that was split; stages are ``train``, ``val`` and ``test``.

    Subclasses say what a stage evaluates and load it.

    Args:
        interactions: The whole table.
        split: Which rows are train, validation and test.
        segments: Subsets that metrics are told for, too, see :mod:`matinee.data.segments`.
        seed: Seed of the order of training, at least 0.
        sizes: Options that are whole numbers of at least 1, by name.

    Raises:
        MatineeError: If a size is out of range or a segment is unknown.
    """

    def __init__(
        self,
        interactions: Interactions,
        split: Split,
        segments: Sequence[str],
        seed: int,
        **sizes: int,
    ) -> None:
        super().__init__()
        for option, size in sizes.items():
            if not 1 <= size < 2**31:
                raise MatineeError(
                    f"data.{option} is {size}; give a whole number from 1 to {2**31 - 1}."
                )
        self.interactions = interactions
        self.split = split
        self.segment_names = check_segments(segments, interactions)
        self.seed = seed

    def evaluated(self, stage: str) -> Evaluated:
        """Tell what a stage evaluates, in the order of its loader."""
        raise NotImplementedError

    def evaluation_dataloader(self, stage: str) -> BatchLoader:
        """Batches of any stage in order, train included, for measuring."""
        raise NotImplementedError

    def segments(self, stage: str) -> Masks:
        """Mark what lies in each segment, in the order of :meth:`evaluated`."""
        names, table, train = self.segment_names, self.interactions, self.split.train
        return segment_masks(names, self.evaluated(stage), table, train) if names else {}

    @property
    def protocol(self) -> dict[str, Any]:
        """What must be equal for figures to be comparable, for the record of a run."""
        table, split = self.interactions, self.split
        return {
            "dataset": {
                "sha256": table.fingerprint,
                "rows": len(table),
                "users": table.num_users,
                "items": table.num_items,
                "duplicates_resolved": table.duplicates_resolved,
                **({"source": dict(table.source)} if table.source else {}),
            },
            "split": {
                "name": split.name,
                "options": dict(split.options),
                "fingerprint": split.fingerprint,
                "rows": split.sizes,
                "cold": split.cold(table),
            },
        }

    @property
    def process(self) -> tuple[int, int]:
        """This process's number among those that share an epoch, and how many they are."""
        trainer: Any = self.trainer
        return (trainer.global_rank, trainer.world_size) if trainer else (0, 1)

    def val_dataloader(self) -> BatchLoader:
        """Batches of validation, in order."""
        return self.evaluation_dataloader("val")

    def test_dataloader(self) -> BatchLoader:
        """Batches of test, in order."""
        return self.evaluation_dataloader("test")

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Move a batch; one that is there already costs nothing."""
        return to_device(batch, device)
