"""Popularity: every history is answered with the same list, the most frequent items first."""

import torch
from torch import Tensor, nn

from matinee.networks.sequence_recommender import NEVER


class Popularity(nn.Module):
    r"""Score an item by how often train holds it, :math:`s_i = \log(1 + n_i)`.

    A softmax of these scores is the items' distribution with add-one smoothing; the one added also
    keeps items that train never held finite, and above the padding. The interface is that of
    :class:`matinee.networks.sequence_recommender.SequenceRecommender`, with representations of width 1,
    all 0.

    Args:
        num_items: Number of items; ids are 1..num_items, 0 is the padding.
        num_users: Number of users; they do not matter.
    """

    item_scores: Tensor

    def __init__(self, num_items: int, num_users: int = 0) -> None:
        super().__init__()
        if num_items < 1:
            raise ValueError(f"a recommender of {num_items} items has nothing to rank.")
        item_scores = torch.zeros(num_items + 1)
        item_scores[0] = NEVER
        self.register_buffer("item_scores", item_scores)

    def fit(self, user_ids: Tensor, item_ids: Tensor, ratings: Tensor | None = None) -> None:
        """Count the items.

        Args:
            user_ids: Users of train, shape (rows,); they do not matter.
            item_ids: Items of train, shape (rows,).
            ratings: Their ratings, if there are any; they do not matter.
        """
        counts = torch.bincount(item_ids, minlength=len(self.item_scores))
        self.item_scores[1:] = counts[1:].double().log1p()

    def represent(self, histories: Tensor, user_ids: Tensor | None = None) -> Tensor:
        """Forget histories, ids (batch, length) to zeros (batch, length, 1)."""
        return self.item_scores.new_zeros(*histories.shape, 1)

    def item_table(self) -> tuple[Tensor, Tensor]:
        """Return weights (num_items + 1, 1), all 0, and the scores (num_items + 1,) as biases."""
        return torch.zeros_like(self.item_scores).unsqueeze(-1), self.item_scores

    def score(self, representations: Tensor, item_ids: Tensor) -> Tensor:
        """Score items, ids (...) or (..., k) to scores of that shape."""
        return self.item_scores[item_ids]

    def score_all(self, representations: Tensor) -> Tensor:
        """Score every item, (..., 1) to (..., num_items + 1); column 0 is minus infinity."""
        return self.item_scores.repeat(*representations.shape[:-1], 1)
