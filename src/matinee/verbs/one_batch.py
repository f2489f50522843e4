"""One batch: a fixed subset of train that every kind of network here can learn completely.

It is chosen by rule, not drawn. The least possible loss is 0, since rated pairs are distinct, and next
items follow histories that differ as sets (an order-blind encoder tells them apart) and belong to
different users (so does one that knows the user alone).
"""

from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch

from matinee.batches import (
    RankingBatch,
    RatingBatch,
    RatingDataModule,
    SequenceDataModule,
    met_before,
)
from matinee.batches.loading import BatchLoader
from matinee.batches.windows import gather, last_target_only


def fixed_batch(datamodule: Any, examples: int) -> RatingBatch | RankingBatch:
    """Choose a batch of train that can be learnt completely.

    Args:
        datamodule: The split data.
        examples: Size of the batch; less, if train has no more.

    Returns:
        Rated pairs, or histories whose last items are the targets.
    """
    if isinstance(datamodule, SequenceDataModule):
        return _one_target_a_user(datamodule, examples)
    return _densest_corner(datamodule, examples)


def _densest_corner(datamodule: RatingDataModule, examples: int) -> RatingBatch:
    """Take the ratings of the busiest users on the most rated items, whom no bias alone explains."""
    columns = datamodule.columns("train")
    pairs = np.stack((columns.user_ids.numpy(), columns.item_ids.numpy()))
    _, first = np.unique(pairs, axis=1, return_index=True)
    ranks = [(-np.bincount(ids)).argsort(kind="stable").argsort()[ids] for ids in pairs[:, first]]
    corner = np.maximum(*ranks).argsort(kind="stable")[:examples]
    index = torch.from_numpy(np.sort(first[corner]))
    return RatingBatch(*(column[index] for column in columns))


def _one_target_a_user(datamodule: SequenceDataModule, examples: int) -> RankingBatch:
    """Take histories that differ as sets, long ones first, each of another user."""
    histories, windows = datamodule.evaluation("train")
    items = torch.from_numpy(histories.item_ids)
    taken: list[int] = []
    users: set[int] = set()
    met: set[frozenset[int]] = set()
    columns = [column.numpy() for column in windows]
    for number in reversed(range(len(windows.starts))):
        start, length, user = (int(column[number]) for column in columns)
        history = frozenset(histories.item_ids[start : start + length - 1].tolist())
        if user not in users and history not in met:
            taken.append(number)
            users.add(user)
            met.add(history)
        if len(taken) == examples:
            break
    chosen = windows.take(torch.tensor(taken))
    seen = (torch.zeros(0, dtype=torch.int64),) * 2
    if datamodule.filter_seen:
        seen = met_before(items, torch.from_numpy(histories.offsets), chosen)
    return RankingBatch(*last_target_only(gather(items, chosen)), *seen)


class OneBatch(pl.LightningDataModule):
    """One batch: for every step of a single epoch, and for validation after it.

    Args:
        batch: The batch.
        steps: Steps of the epoch.
    """

    def __init__(self, batch: RatingBatch | RankingBatch, steps: int) -> None:
        super().__init__()
        self.batch = batch
        self.steps = steps

    def train_dataloader(self) -> BatchLoader:
        """Return the batch again and again."""
        return BatchLoader(lambda epoch: range(self.steps), lambda step: self.batch, self.steps)

    def val_dataloader(self) -> BatchLoader:
        """Return the batch once."""
        return BatchLoader(lambda epoch: [0], lambda step: self.batch, 1)
