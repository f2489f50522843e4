"""Popularity: recommend the most frequent items to everyone, or where a ranker knows nothing better."""

import torch
from torch import Tensor, nn

from matinee.networks.options import check_sizes
from matinee.networks.sequence_recommender import NEVER


class Popularity(nn.Module):
    r"""Score each item by its number of interactions in train, :math:`s_i = \log(1 + n_i)`.

    The softmax of these scores is the distribution of the items with add-one smoothing. Adding one
    also keeps the score of an item that is not in train finite.

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

    def fit(self, user_ids: Tensor, item_ids: Tensor) -> None:
        """Count the interactions of each item.

        Args:
            user_ids: Not used.
            item_ids: Items of train, integers in 1..num_items, shape (rows,).
        """
        counts = torch.bincount(item_ids, minlength=len(self.item_scores))
        self.item_scores[1:] = counts[1:].double().log1p()

    def tables(self) -> dict[str, Tensor]:
        """Return no embeddings."""
        return {}

    def score_next(self, histories: Tensor, lengths: Tensor, user_ids: Tensor) -> Tensor:
        """Score all items alike after every history: ids (batch, length) to (batch, num_items + 1)."""
        return self.item_scores.repeat(histories.shape[0], 1)


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
