"""Fallback: order the items that a history does not reach by their popularity."""

import torch
from torch import Tensor, nn

from matinee.networks.sequence_recommender import NEVER


class PopularityFallback(nn.Module):
    """Place the items that a ranker cannot score below all others, the most popular first.

    After an empty history nothing is reached, so the order is that of popularity. Items that are not
    in train come last, with equal scores.

    Args:
        num_items: Number of items; ids are 1..num_items.
    """

    popularity: Tensor
    in_train: Tensor  # bool, (num_items + 1,)

    def __init__(self, num_items: int) -> None:
        super().__init__()
        self.register_buffer("popularity", torch.zeros(num_items + 1))
        self.register_buffer("in_train", torch.zeros(num_items + 1, dtype=torch.bool))

    def fit(self, item_ids: Tensor) -> None:
        """Rank the items of train, integers (rows,), by their number of rows; to values in [0, 1)."""
        counts = torch.bincount(item_ids, minlength=len(self.popularity))
        distinct, places = counts[1:].unique(return_inverse=True)
        self.popularity[1:].copy_(places / len(distinct))
        self.in_train.copy_(counts > 0)

    def place(self, scores: Tensor, reached: Tensor) -> Tensor:
        """Replace scores of items that are not reached, (batch, num_items + 1) each, to the same shape.

        Column 0 of the result is minus infinity.
        """
        lowest = scores.amin(1, keepdim=True)
        scores = torch.where(reached, scores, lowest - 1 + self.popularity)
        scores[:, 0] = NEVER
        return scores
