"""SLIT: a linear model from the last items of a history to the next ones, solved in closed form."""

import numpy as np
import scipy.sparse
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from matinee.networks.options import check_sizes
from matinee.networks.rankers.fallback import PopularityFallback
from matinee.networks.rankers.histories import ages


class SLIT(nn.Module):
    r"""Score items by a linear model that predicts the next items from the last ones.

    .. math:: s = x B, \qquad
              \min_B \sum_{u, t} \frac{1}{\sqrt{n_u}} \lVert y_{u,t} - x_{u,t} B \rVert^2
              + \lambda \lVert B \rVert_F^2

    (Choi et al., Session-aware Linear Item-Item Models for Session-based Recommendation, WWW 2021, the
    model of transitions, equations 9 to 12). Every place :math:`t` of a training history divides it: the
    past :math:`x` holds :math:`\gamma^{d-1}` at the item :math:`d` places before it, and the future
    :math:`y` holds :math:`\delta^{d-1}` at the item :math:`d` places from it, up to :math:`D` items each.
    With :math:`X` and :math:`Y` for all places, the solution is
    :math:`B = (X^\top X + \lambda I)^{-1} X^\top Y`. The factor :math:`1/\sqrt{n_u}`, where a history has
    :math:`n_u` places, is ours: a long history counts more than a short one, but not in proportion.
    Items that are not in train follow last; after an empty history, popularity decides.

    The weights take :math:`4 n^2` bytes for :math:`n` items, also in each checkpoint, and to solve for
    them takes three times that and :math:`2.3 n^3` operations: 4.8 GB for 20,000 items.

    Args:
        num_items: Number of items, at least 1; ids are 1..num_items, 0 is the padding.
        num_users: Not used.
        max_distance: Largest number :math:`D` of items of a past and of a future, at least 1.
        decay: Factor :math:`\gamma` of the past, in (0, 1].
        future_decay: Factor :math:`\delta` of the future, in [0, 1]; with 0 it is the next item alone.
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
        decay: float = 0.8,
        future_decay: float = 0.4,
        l2: float = 10.0,
        max_items: int = 30_000,
    ) -> None:
        super().__init__()
        check_sizes(num_items=num_items, max_distance=max_distance)
        if not 0 < decay <= 1:
            raise ValueError(f"decay is {decay}; give a number above 0 and at most 1.")
        if not 0 <= future_decay <= 1:
            raise ValueError(f"future_decay is {future_decay}; give a number from 0 to 1.")
        if not l2 > 0:
            raise ValueError(f"l2 is {l2}; give a number above 0.")
        if num_items > max_items:
            raise ValueError(
                f"max_items is {max_items} and there are {num_items} items, whose weights need "
                f"{12e-9 * num_items**2:.0f} GB of memory; raise it, or choose model=markov."
            )
        self.max_distance = max_distance
        self.decay = decay
        self.future_decay = future_decay
        self.l2 = l2
        self.fallback = PopularityFallback(num_items)
        self.register_buffer("weights", torch.zeros(num_items + 1, num_items + 1))

    def fit(self, user_ids: Tensor, item_ids: Tensor) -> None:
        """Solve for the weights: users and items of train, integers (rows,), a user's in time order."""
        self.fallback.fit(item_ids)
        order = np.argsort(user_ids.numpy(), kind="stable")
        users, items = user_ids.numpy()[order], item_ids.numpy()[order]
        shape = (len(items), len(self.weights))
        steps = range(min(self.max_distance, len(items)))
        past = _divided(users, items, [(-1 - step, self.decay**step) for step in steps], shape)
        future = _divided(users, items, [(step, self.future_decay**step) for step in steps], shape)
        gram = torch.from_numpy((past.T @ past).toarray())
        gram.diagonal().add_(self.l2)
        torch.linalg.cholesky(gram, out=gram)
        torch.cholesky_solve(torch.from_numpy((past.T @ future).toarray()), gram, out=self.weights)

    def tables(self) -> dict[str, Tensor]:
        """Return no embeddings."""
        return {}

    def score_next(self, histories: Tensor, lengths: Tensor, user_ids: Tensor) -> Tensor:
        """Score all items after some histories, see :meth:`matinee.contracts.Ranker.score_next`."""
        distances = ages(histories, lengths)
        counted = (distances >= 1) & (distances <= self.max_distance) & (histories > 0)
        past = torch.where(counted, self.decay ** (distances.clamp(min=1) - 1), 0.0)
        scores = F.embedding_bag(
            histories.long(),
            self.weights,
            mode="sum",
            per_sample_weights=past.to(self.weights.dtype),
        )
        return self.fallback.place(scores, counted.any(1, keepdim=True) & self.fallback.in_train)


def _divided(
    users: np.ndarray, items: np.ndarray, weights: list[tuple[int, float]], shape: tuple[int, int]
) -> scipy.sparse.csr_array:
    """Weigh the items around each row, for each user in time order.

    Args:
        users: Users, ascending, (rows,).
        items: Their items in time order, (rows,).
        weights: Weight of the item so many rows after each row; negative numbers are before it.
        shape: Rows and items.

    Returns:
        Weights over the fourth root of the number of rows of the user that have a past, float32, ``shape``.
    """
    scale = (np.bincount(users)[users] - 1).clip(min=1) ** -0.25
    row_ids = np.arange(len(items))
    entries: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for offset, weight in weights:
        if weight > 0:
            inside = row_ids[max(0, -offset) : len(items) - max(0, offset)]
            inside = inside[users[inside] == users[inside + offset]]
            entries.append((scale[inside] * weight, inside, items[inside + offset]))
    values, rows, columns = (np.concatenate(part) for part in zip(*entries, strict=True))
    return scipy.sparse.coo_array((values.astype(np.float32), (rows, columns)), shape).tocsr()
