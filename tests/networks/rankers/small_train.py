"""Sizes of the small train part, and the scores of histories of any length."""

import torch
from torch import Tensor

from matinee.contracts import Ranker

NUM_USERS, NUM_ITEMS = 12, 15  # items 14 and 15 are not in train, and user 12 is not


def scores_of(network: Ranker, histories: list[list[int]]) -> Tensor:
    """Score histories in one padded batch, (n, num_items + 1)."""
    lengths = torch.tensor([1 + len(history) for history in histories])
    batch = torch.zeros(len(histories), int(lengths.max()), dtype=torch.int64)
    for row, history in zip(batch, histories, strict=True):
        row[1 : 1 + len(history)] = torch.tensor(history, dtype=torch.int64)
    return network.score_next(batch, lengths, torch.zeros(len(histories), dtype=torch.int64))
