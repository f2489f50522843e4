"""Markov chain: recommend what followed the last items of the history."""

import numpy as np
import scipy.sparse
import torch
from torch import Tensor, nn

from matinee.networks.options import check_sizes
from matinee.networks.rankers.histories import ages
from matinee.networks.rankers.popularity import PopularityFallback
from matinee.networks.rankers.sparse_rows import SparseRows


class MarkovChain(nn.Module):
    r"""Score an item by how often it followed the last items, near ones counting more.

    .. math::
        T_{ij} = \sum_{d=1}^{D} \gamma^{d-1} c_d(i, j), \qquad
        P(j \mid i) = \frac{T_{ij} + \mu p_j}{\sum_k T_{ik} + \mu}, \qquad
        s_j = \frac{\sum_{d=1}^{D} \gamma^{d-1} P(j \mid h_{-d})}{\sum_{d=1}^{D} \gamma^{d-1}}

    where :math:`c_d(i, j)` counts the users' rows of train in which :math:`j` comes :math:`d` places
    after :math:`i`, :math:`p_j` is the share of :math:`j` among the rows of train, and :math:`h_{-d}` is
    the item :math:`d` places before the target. With a distance of 1 it is a first-order Markov chain
    that backs off to popularity with Dirichlet smoothing (Zhai & Lafferty, ACM TOIS 22(2), 2004).
    Counting distant pairs with less weight follows the sequential rules of Ludewig & Jannach
    (Evaluation of Session-based Recommendation Algorithms, UMUAI 28, 2018), who divide by the distance
    where we take powers of :math:`\gamma`. Unknown items are skipped; if all of the last ones are
    unknown, popularity decides.

    The transitions take 8 bytes for each pair that occurs, at most :math:`8 D` bytes for each row of
    train whatever the number of items: 800 MB for 10 million rows and a distance of 10.
    For 100,000 items and a million rows they took 53 MB, and 0.3 GB while counting.

    Args:
        num_items: Number of items, at least 1; ids are 1..num_items, 0 is the padding.
        num_users: Not used.
        max_distance: Largest distance :math:`D` of two items, at least 1.
        decay: Factor :math:`\gamma` by which the weight falls with each step, in (0, 1].
        backoff: :math:`\mu`, the number of pairs that popularity counts for, above 0.

    Raises:
        ValueError: If a number is out of range.
    """

    ignores_history = False
    shares: Tensor
    backoffs: Tensor

    def __init__(
        self,
        num_items: int,
        num_users: int = 0,
        max_distance: int = 10,
        decay: float = 0.8,
        backoff: float = 50.0,
    ) -> None:
        super().__init__()
        check_sizes(num_items=num_items, max_distance=max_distance)
        if not 0 < decay <= 1:
            raise ValueError(f"decay is {decay}; give a number above 0 and at most 1.")
        if not backoff > 0:
            raise ValueError(f"backoff is {backoff}; give a number above 0.")
        self.num_items = num_items
        self.max_distance = max_distance
        self.decay = decay
        self.backoff = backoff
        self.fallback = PopularityFallback(num_items)
        self.transitions = SparseRows(num_items + 1, num_items + 1)
        self.register_buffer("shares", torch.zeros(num_items + 1))  # p
        self.register_buffer("backoffs", torch.zeros(num_items + 1))  # weight of p after each item

    def fit(self, user_ids: Tensor, item_ids: Tensor) -> None:
        """Count the transitions: users and items of train, integers (rows,), a user's in time order."""
        self.fallback.fit(item_ids)
        counts = torch.bincount(item_ids, minlength=self.num_items + 1)
        self.shares.copy_(counts / len(item_ids))
        order = np.argsort(user_ids.numpy(), kind="stable")
        users, items = user_ids.numpy()[order], item_ids.numpy()[order]
        shape = (self.num_items + 1, self.num_items + 1)
        pairs = scipy.sparse.csr_array(shape, dtype=np.float64)
        for distance in range(1, min(self.max_distance + 1, len(items))):
            same = users[:-distance] == users[distance:]
            before, after = items[:-distance][same], items[distance:][same]
            weights = np.full(len(before), self.decay ** (distance - 1))
            pairs = pairs + scipy.sparse.coo_array((weights, (before, after)), shape).tocsr()
        totals = pairs.sum(axis=1) + self.backoff
        self.transitions.store(scipy.sparse.diags_array(1 / totals) @ pairs)
        self.backoffs.copy_(torch.from_numpy(self.backoff / totals))

    def tables(self) -> dict[str, Tensor]:
        """Return no embeddings."""
        return {}

    def score_next(self, histories: Tensor, lengths: Tensor, user_ids: Tensor) -> Tensor:
        """Score all items after some histories, see :meth:`matinee.contracts.Ranker.score_next`."""
        scores, reached = self._follow(histories, lengths)
        return self.fallback.place(scores, reached & self.fallback.in_train)

    def probabilities(self, histories: Tensor, lengths: Tensor) -> Tensor:
        """Return the distribution of the next item; that of train where no last item is known.

        Args:
            histories: Item ids, (batch, length); unknown items are 0 as well.
            lengths: Number of positions that are not padding, at least 1, (batch,).

        Returns:
            Probabilities, (batch, num_items + 1); that of column 0 and of items not in train is 0.
        """
        scores, reached = self._follow(histories, lengths)
        return torch.where(reached, scores, self.shares)

    def _follow(self, histories: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Average the transitions from the last items, and tell which rows have any, (batch, 1)."""
        distances = ages(histories, lengths)
        counted = (distances >= 1) & (distances <= self.max_distance) & (histories > 0)
        weights = torch.where(counted, self.decay ** (distances.clamp(min=1) - 1), 0.0)
        weights = weights.to(self.shares.dtype)
        weights = weights / weights.sum(1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
        scores = self.transitions.add_up(histories, weights)
        scores += (weights * self.backoffs[histories.long()]).sum(1, keepdim=True) * self.shares
        return scores, counted.any(1, keepdim=True)
