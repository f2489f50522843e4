"""EASE: a linear autoencoder over all items, solved in closed form."""

import torch
from torch import Tensor, nn

from matinee.networks.options import check_sizes
from matinee.networks.rankers.histories import last_occurrences, sum_of_rows, user_item_matrix
from matinee.networks.rankers.popularity import PopularityFallback


class EASE(nn.Module):
    r"""Score items by a linear model that reconstructs each user's items from the others.

    .. math:: s = x B, \qquad
              \min_B \lVert X - X B \rVert_F^2 + \lambda \lVert B \rVert_F^2
              \;\text{ with }\; B_{jj} = 0

    where :math:`X` marks which user met which item in train and :math:`x` the items of the history. With
    :math:`P = (X^\top X + \lambda I)^{-1}`, the solution is :math:`B_{ij} = -P_{ij} / P_{jj}` (Steck,
    Embarrassingly Shallow Autoencoders for Sparse Data, WWW 2019, equation 8). Repeated items count
    once. Items that are not in train follow last; after an empty history, popularity decides.

    The weights take :math:`4 n^2` bytes for :math:`n` items, also in each checkpoint, and to solve for
    them takes three times that and :math:`n^3` operations: 4.8 GB for 20,000 items, 120 GB for 100,000.

    Args:
        num_items: Number of items, at least 1; ids are 1..num_items, 0 is the padding.
        num_users: Number of users; ids are 1..num_users.
        l2: Penalty :math:`\lambda`, above 0.
        max_items: Largest number of items for which weights are made.

    Raises:
        ValueError: If ``l2`` is out of range, or there are too many items.
    """

    ignores_history = False
    weights: Tensor

    def __init__(
        self, num_items: int, num_users: int = 0, l2: float = 200.0, max_items: int = 30_000
    ) -> None:
        super().__init__()
        check_sizes(num_items=num_items)
        if not l2 > 0:
            raise ValueError(f"l2 is {l2}; give a number above 0.")
        if num_items > max_items:
            raise ValueError(
                f"max_items is {max_items} and there are {num_items} items, whose weights need "
                f"{12e-9 * num_items**2:.0f} GB of memory; raise it, or choose model=item_knn."
            )
        self.num_users = num_users
        self.l2 = l2
        self.fallback = PopularityFallback(num_items)
        self.register_buffer("weights", torch.zeros(num_items + 1, num_items + 1))

    def fit(self, user_ids: Tensor, item_ids: Tensor) -> None:
        """Solve for the weights: users and items of train, integers (rows,) each."""
        self.fallback.fit(item_ids)
        met = user_item_matrix(user_ids, item_ids, self.num_users, len(self.weights) - 1)
        inverse = torch.from_numpy((met.T @ met).toarray())
        inverse.diagonal().add_(self.l2)
        torch.linalg.cholesky(inverse, out=inverse)
        torch.cholesky_inverse(inverse, out=inverse)
        inverse /= -inverse.diagonal().clone()  # column by column
        inverse.diagonal().zero_()
        self.weights.copy_(inverse)

    def tables(self) -> dict[str, Tensor]:
        """Return no embeddings."""
        return {}

    def score_next(self, histories: Tensor, lengths: Tensor, user_ids: Tensor) -> Tensor:
        """Score all items after some histories, see :meth:`matinee.contracts.Ranker.score_next`."""
        counted = last_occurrences(histories)
        scores = sum_of_rows(self.weights, histories, counted)
        return self.fallback.place(scores, counted.any(1, keepdim=True) & self.fallback.in_train)
