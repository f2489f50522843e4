"""Popularity: recommend the most frequent items to everyone."""

import torch
from torch import Tensor, nn

from matinee.networks.options import check_sizes
from matinee.networks.sequence_recommender import NEVER


class Popularity(nn.Module):
    r"""Score each item by its number of interactions in train, :math:`s_i = \log(1 + n_i)`.

    The softmax of these scores is the distribution of the items with add-one smoothing. Adding one
    also keeps the score of an item that is not in train finite. The interface is that of
    :class:`matinee.networks.sequence_recommender.SequenceRecommender`; representations have width 1
    and are all 0.

    Args:
        num_items: Number of items, at least 1; ids are 1..num_items, 0 is the padding.
        num_users: Not used.

    Raises:
        ValueError: If ``num_items`` is below 1.
    """

    ignores_history = False  # a newcomer's history still tells which items are new
    item_scores: Tensor

    def __init__(self, num_items: int, num_users: int = 0) -> None:
        super().__init__()
        check_sizes(num_items=num_items)
        item_scores = torch.zeros(num_items + 1)
        item_scores[0] = NEVER
        self.register_buffer("item_scores", item_scores)

    def fit(self, user_ids: Tensor, item_ids: Tensor, ratings: Tensor | None = None) -> None:
        """Count the interactions of each item.

        Args:
            user_ids: Not used.
            item_ids: Items of train, integers in 1..num_items, shape (rows,).
            ratings: Not used.
        """
        counts = torch.bincount(item_ids, minlength=len(self.item_scores))
        self.item_scores[1:] = counts[1:].double().log1p()

    def tables(self) -> dict[str, Tensor]:
        """Return no embeddings."""
        return {}

    def represent(self, histories: Tensor, user_ids: Tensor | None = None) -> Tensor:
        """Represent every history by 0: ids (batch, length) to zeros (batch, length, 1)."""
        return self.item_scores.new_zeros(*histories.shape, 1)

    def item_table(self) -> tuple[Tensor, Tensor]:
        """Return the item weights, zeros (num_items + 1, 1), and the scores (num_items + 1,) as biases."""
        return torch.zeros_like(self.item_scores).unsqueeze(-1), self.item_scores

    def score(self, representations: Tensor, item_ids: Tensor) -> Tensor:
        """Score chosen items: ids (...) or (..., k) to the same shape, ids (1, k) to (n, k)."""
        scores = self.item_scores[item_ids]
        single = scores.dim() < representations.dim()
        return scores if single else scores.expand(*representations.shape[:-1], -1)

    def score_all(self, representations: Tensor) -> Tensor:
        """Score all items: (..., 1) to (..., num_items + 1); column 0 is minus infinity."""
        return self.item_scores.repeat(*representations.shape[:-1], 1)
