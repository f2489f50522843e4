"""SLIT: a linear model from the last items of a history to the next one, solved in closed form."""

import numpy as np
import scipy.sparse
import torch
from torch import Tensor, nn

from matinee.networks.options import check_sizes
from matinee.networks.rankers.histories import ages, sum_of_rows
from matinee.networks.rankers.popularity import PopularityFallback


class SLIT(nn.Module):
    r"""Score items by a linear model that predicts the next item from the last ones.

    .. math:: s = x B, \qquad
              \min_B \sum_t \lVert y_t - x_t B \rVert^2
              + \lambda \lVert B \rVert_F^2

    Every item but the first of a training history is a target :math:`t`: :math:`y_t` is 1 at the item
    and 0 elsewhere, and :math:`x_t` holds :math:`\gamma^{d-1}` at the item :math:`d` places before it, for
    up to :math:`D` items. With :math:`X` and :math:`Y` for all targets, the solution is
    :math:`B = (X^\top X + \lambda I)^{-1} X^\top Y`. It is the model of transitions of Choi et al.,
    Session-aware Linear Item-Item Models for Session-based Recommendation, WWW 2021, who also predict
    the items after the next one. Items that are not in train follow last; after an empty history,
    popularity decides.

    The weights take :math:`4 n^2` bytes for :math:`n` items, also in each checkpoint, and to solve for
    them takes three times that and :math:`2.3 n^3` operations: 4.8 GB for 20,000 items.

    Args:
        num_items: Number of items, at least 1; ids are 1..num_items, 0 is the padding.
        num_users: Not used.
        max_distance: Largest distance :math:`D` of an item to the target, at least 1.
        decay: Factor :math:`\gamma` by which the weight falls with each step, in (0, 1].
        l2: Penalty :math:`\lambda`, above 0.
        max_items: Largest number of items for which weights are made.

    Raises:
        ValueError: If a number is out of range, or there are too many items.
    """

    ignores_history = False
    weights: Tensor

    def __init__(
        self,
        num_items: int,
        num_users: int = 0,
        max_distance: int = 50,
        decay: float = 0.7,
        l2: float = 100.0,
        max_items: int = 30_000,
    ) -> None:
        super().__init__()
        check_sizes(num_items=num_items, max_distance=max_distance)
        if not 0 < decay <= 1:
            raise ValueError(f"decay is {decay}; give a number above 0 and at most 1.")
        if not l2 > 0:
            raise ValueError(f"l2 is {l2}; give a number above 0.")
        if num_items > max_items:
            raise ValueError(
                f"max_items is {max_items} and there are {num_items} items, whose weights need "
                f"{12e-9 * num_items**2:.0f} GB of memory; raise it, or choose model=markov."
            )
        self.max_distance = max_distance
        self.decay = decay
        self.l2 = l2
        self.fallback = PopularityFallback(num_items)
        self.register_buffer("weights", torch.zeros(num_items + 1, num_items + 1))

    def fit(self, user_ids: Tensor, item_ids: Tensor) -> None:
        """Solve for the weights: users and items of train, integers (rows,), a user's in time order."""
        self.fallback.fit(item_ids)
        order = np.argsort(user_ids.numpy(), kind="stable")
        users, items = user_ids.numpy()[order], item_ids.numpy()[order]
        row_ids = np.arange(len(items))
        shape = (len(items), len(self.weights))
        past = scipy.sparse.csr_array(shape, dtype=np.float32)
        for distance in range(1, min(self.max_distance + 1, len(items))):
            targets = row_ids[distance:][users[distance:] == users[:-distance]]
            weights = np.full(len(targets), self.decay ** (distance - 1), dtype=np.float32)
            before = items[targets - distance]
            past = past + scipy.sparse.coo_array((weights, (targets, before)), shape).tocsr()
        ones = np.ones(len(items), dtype=np.float32)
        following = scipy.sparse.coo_array((ones, (row_ids, items)), shape).tocsr()
        gram = torch.from_numpy((past.T @ past).toarray())
        gram.diagonal().add_(self.l2)
        torch.linalg.cholesky(gram, out=gram)
        torch.cholesky_solve(
            torch.from_numpy((past.T @ following).toarray()), gram, out=self.weights
        )

    def tables(self) -> dict[str, Tensor]:
        """Return no embeddings."""
        return {}

    def score_next(self, histories: Tensor, lengths: Tensor, user_ids: Tensor) -> Tensor:
        """Score all items after some histories, see :meth:`matinee.contracts.Ranker.score_next`."""
        distances = ages(histories, lengths)
        counted = (distances >= 1) & (distances <= self.max_distance) & (histories > 0)
        past = torch.where(counted, self.decay ** (distances.clamp(min=1) - 1), 0.0)
        scores = sum_of_rows(self.weights, histories, past)
        return self.fallback.place(scores, counted.any(1, keepdim=True) & self.fallback.in_train)
