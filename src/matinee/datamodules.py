"""Datamodules: a split becomes loaders of whole batches.

Batches are taken by tensor indexing, never row by row. The order of training rows is a function of
(seed, epoch) alone, and a loader's place within an epoch is part of a checkpoint, so a resumed run
sees exactly the batches that the uninterrupted one would have seen.
"""

from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor

from matinee.errors import MatineeError
from matinee.interactions import Interactions
from matinee.splits import Rows, Split

PARTS = {"train": "train", "val": "validation", "test": "test"}  # logged prefix -> part of a split


class RatingBatch(NamedTuple):
    """Rated pairs, one row each; every tensor has shape (batch,)."""

    user_ids: Tensor  # int32, 0 where unknown
    item_ids: Tensor  # int32, 0 where unknown
    ratings: Tensor  # float32


class RatingLoader:
    """Iterates over whole batches of rated pairs.

    Args:
        rows: All rows, one tensor a column.
        batch_size: Rows of a batch; the last one may be smaller.
        shuffle_seed: Seed of the order, which changes every epoch; None keeps the order of the rows.
        rank: This process's number among ``world_size`` processes, each of which gets every
            ``world_size``-th batch slice of the common order.
        world_size: Number of processes that share an epoch.
    """

    batch_sampler = None  # where Lightning would look first

    def __init__(
        self,
        rows: RatingBatch,
        batch_size: int,
        shuffle_seed: int | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.rows = rows
        self.batch_size = batch_size
        self.shuffle_seed = shuffle_seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self._next_batch = 0
        self._start_batch = 0

    @property
    def sampler(self) -> "RatingLoader":
        """Where Lightning looks for :meth:`set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the coming epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Number of batches that each process gets in an epoch."""
        return -(-self._rows_per_process // self.batch_size)

    @property
    def _rows_per_process(self) -> int:
        return -(-len(self.rows.ratings) // self.world_size)

    def __iter__(self) -> Iterator[RatingBatch]:
        order = self._order()
        start, self._start_batch = self._start_batch, 0
        for batch in range(start, len(self)):
            self._next_batch = (batch + 1) % len(self)
            chosen = slice(batch * self.batch_size, (batch + 1) * self.batch_size)
            if order is None:
                yield RatingBatch(*(column[chosen] for column in self.rows))
            else:
                yield RatingBatch(*(column[order[chosen]] for column in self.rows))

    def _order(self) -> Tensor | None:
        if self.shuffle_seed is None and self.world_size == 1:
            return None
        num_rows = len(self.rows.ratings)
        if self.shuffle_seed is None:
            order = torch.arange(num_rows)
        else:
            generator = torch.Generator().manual_seed(mix_seed(self.shuffle_seed, self.epoch))
            order = torch.randperm(num_rows, generator=generator)
        # every process gets equally many rows: the first ones are repeated to fill the last round
        repeated = torch.arange(self._rows_per_process * self.world_size) % num_rows
        return order[repeated[self.rank :: self.world_size]]

    def state_dict(self) -> dict[str, int]:
        """Return the place within the epoch, for a checkpoint taken in its middle."""
        return {"next_batch": self._next_batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue the next iteration where the checkpoint was taken."""
        self._start_batch = state["next_batch"]


class RatingDataModule(pl.LightningDataModule):
    """Rated pairs of a split, for rating prediction.

    Args:
        interactions: The whole table, with ratings.
        split: Which rows are train, validation and test.
        batch_size: Pairs of a training batch, at least 1.
        eval_batch_size: Pairs of a batch outside training, at least 1; results do not depend on it.
        seed: Seed of the order of training rows.

    Raises:
        MatineeError: If the interactions have no ratings or a batch size is not positive.
    """

    def __init__(
        self,
        interactions: Interactions,
        split: Split,
        batch_size: int = 1024,
        eval_batch_size: int = 65536,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if interactions.ratings is None:
            raise MatineeError(
                "rating models need ratings and the dataset has none; name the column with dataset.rating=..."
            )
        for option, size in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size)):
            if size < 1:
                raise MatineeError(f"data.{option} is {size}; give a whole number of at least 1.")
        self.interactions = interactions
        self.split = split
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.seed = seed

    def rows(self, stage: str) -> Rows:
        """Return the row positions behind a stage: ``train``, ``val`` or ``test``."""
        rows: Rows = getattr(self.split, PARTS[stage])
        return rows

    def columns(self, stage: str) -> RatingBatch:
        """Return all rows of a stage as one batch."""
        rows = self.rows(stage)
        table = self.interactions
        assert table.ratings is not None
        return RatingBatch(
            torch.from_numpy(table.user_ids[rows]),
            torch.from_numpy(table.item_ids[rows]),
            torch.from_numpy(table.ratings[rows]),
        )

    @cached_property
    def warm(self) -> tuple[Tensor, Tensor]:
        """Which user ids and which item ids occur in train: bool, (num_users + 1,), (num_items + 1,)."""
        train = self.split.train
        users = np.zeros(self.interactions.num_users + 1, dtype=bool)
        items = np.zeros(self.interactions.num_items + 1, dtype=bool)
        users[self.interactions.user_ids[train]] = True
        items[self.interactions.item_ids[train]] = True
        return torch.from_numpy(users), torch.from_numpy(items)

    @property
    def protocol(self) -> dict[str, Any]:
        """What was split how, for the record of a run."""
        return {
            "dataset": {
                "sha256": self.interactions.fingerprint,
                "rows": len(self.interactions),
                "users": self.interactions.num_users,
                "items": self.interactions.num_items,
                "duplicates_resolved": self.interactions.duplicates_resolved,
            },
            "split": {
                "name": self.split.name,
                "options": dict(self.split.options),
                "fingerprint": self.split.fingerprint,
                "rows": self.split.sizes,
                "cold": self.split.cold(self.interactions),
            },
        }

    def train_dataloader(self) -> RatingLoader:
        """Batches of train, in an order of (seed, epoch)."""
        return self._loader("train", self.batch_size, self.seed)

    def val_dataloader(self) -> RatingLoader:
        """Batches of validation, in order."""
        return self._loader("val", self.eval_batch_size)

    def test_dataloader(self) -> RatingLoader:
        """Batches of test, in order."""
        return self._loader("test", self.eval_batch_size)

    def evaluation_dataloader(self, stage: str) -> RatingLoader:
        """Batches of any stage in the order of its rows, train included, for measuring."""
        return self._loader(stage, self.eval_batch_size)

    def transfer_batch_to_device(
        self, batch: RatingBatch, device: torch.device, dataloader_idx: int
    ) -> RatingBatch:
        """Move a batch; one that is there already costs nothing."""
        moved: RatingBatch = to_device(batch, device)
        return moved

    def _loader(self, stage: str, batch_size: int, shuffle_seed: int | None = None) -> RatingLoader:
        trainer: Any = self.trainer
        rank, world_size = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        return RatingLoader(self.columns(stage), batch_size, shuffle_seed, rank, world_size)


def to_device(batch: Any, device: torch.device) -> Any:
    """Move a batch, a named tuple of tensors, to a device; return it as it is if it is there."""
    if batch[0].device == device:
        return batch
    return type(batch)(*(column.to(device, non_blocking=True) for column in batch))


def mix_seed(*numbers: int) -> int:
    """Hash whole numbers of at least 0 to one 32-bit seed, so that neighbours share nothing.

    >>> mix_seed(0, 1), mix_seed(1, 0)
    (2939677055, 1949917470)
    """
    mixed = 0
    for number in numbers:  # SplitMix64 (Steele, Lea & Flood, OOPSLA 2014), one round a number
        mixed = (mixed + number + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        mixed ^= mixed >> 31
    return mixed & 0xFFFFFFFF
