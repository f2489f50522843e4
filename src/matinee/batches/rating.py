"""Rated pairs of a split, for rating prediction."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from matinee.batches.base import PARTS, SplitDataModule
from matinee.batches.loading import BatchLoader, in_order, shuffled
from matinee.data.interactions import Interactions
from matinee.data.segments import Evaluated
from matinee.data.splits import Rows, Split, warm_ids
from matinee.errors import MatineeError


class RatingBatch(NamedTuple):
    """Rated pairs, one row each; every tensor has shape (batch,)."""

    user_ids: Tensor  # int32, 0 where unknown
    item_ids: Tensor  # int32, 0 where unknown
    ratings: Tensor  # float32


class RatingDataModule(SplitDataModule):
    """Rated pairs of a split, for rating prediction.

    Args:
        interactions: The whole table, with ratings.
        split: Which rows are train, validation and test.
        batch_size: Pairs per training batch, at least 1.
        eval_batch_size: Pairs per batch outside training, at least 1; results do not depend on it.
        segments: Subsets to report metrics for as well, see :mod:`matinee.data.segments`.
        seed: Seed of the order of the training batches, at least 0.

    Raises:
        MatineeError: If there are no ratings, a number is out of range or a segment is unknown.
    """

    def __init__(
        self,
        interactions: Interactions,
        split: Split,
        batch_size: int = 1024,
        eval_batch_size: int = 65536,
        segments: Sequence[str] = ("warmth",),
        seed: int = 0,
    ) -> None:
        if interactions.ratings is None:
            raise MatineeError(
                "rating models need ratings and the dataset has none; "
                "name the column with dataset.rating=..., or choose data=sequence for next items."
            )
        sizes = {"batch_size": batch_size, "eval_batch_size": eval_batch_size}
        super().__init__(interactions, split, segments, seed, **sizes)
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size

    def columns(self, stage: str) -> RatingBatch:
        """Return all rows of a stage (``train``, ``val`` or ``test``) as one batch."""
        rows: Rows = getattr(self.split, PARTS[stage])
        table = self.interactions
        assert table.ratings is not None
        columns = (table.user_ids, table.item_ids, table.ratings)
        return RatingBatch(*(torch.from_numpy(column[rows]) for column in columns))

    @cached_property
    def warm(self) -> tuple[Tensor, Tensor]:
        """Return which user ids and which item ids occur in train."""
        users, items = warm_ids(self.interactions, self.split.train)
        return torch.from_numpy(users), torch.from_numpy(items)

    def evaluated(self, stage: str) -> Evaluated:
        """Return the pairs of a stage, in the order of :meth:`columns`."""
        train, users, items = self.split.train, *self.columns(stage)[:2]
        counts = np.bincount(
            self.interactions.user_ids[train], minlength=self.interactions.num_users + 1
        )
        warm = self.warm[0][users] & self.warm[1][items]
        return Evaluated(users.numpy(), items.numpy(), counts[users], warm.numpy())

    def train_dataloader(self, rank: int = 0, world_size: int = 1) -> BatchLoader:
        """Return the training batches, in an order that is a function of (seed, epoch)."""
        columns = self.columns("train")
        plan = shuffled(len(columns.ratings), self.batch_size, self.seed, rank, world_size)
        share = -(-len(columns.ratings) // world_size)
        return BatchLoader(plan, _take(columns), -(-share // self.batch_size))

    def evaluation_dataloader(self, stage: str) -> BatchLoader:
        """Return the batches of a stage in the order of its rows, train included."""
        columns = self.columns(stage)
        num_batches = -(-len(columns.ratings) // self.eval_batch_size)
        plan = in_order(len(columns.ratings), self.eval_batch_size)
        return BatchLoader(plan, _take(columns), num_batches)

    def memorizable_batch(self, examples: int) -> RatingBatch:
        """Take the ratings of the most active users for the most rated items, each pair once.

        Biases alone do not explain such a dense block, so a model has to use its factors.
        """
        columns = self.columns("train")
        pairs = np.stack((columns.user_ids.numpy(), columns.item_ids.numpy()))
        _, first = np.unique(pairs, axis=1, return_index=True)
        ranks = [
            (-np.bincount(ids)).argsort(kind="stable").argsort()[ids] for ids in pairs[:, first]
        ]
        block = np.maximum(*ranks).argsort(kind="stable")[:examples]
        return _take(columns)(torch.from_numpy(np.sort(first[block])))


def _take(columns: RatingBatch) -> Callable[[Tensor | slice], RatingBatch]:
    def take(chosen: Tensor | slice) -> RatingBatch:
        if isinstance(chosen, slice):
            return RatingBatch(*(column[chosen] for column in columns))
        return RatingBatch(*(column.index_select(0, chosen) for column in columns))

    return take
