"""Session neighbours: recommend what users with similar histories met."""

import numpy as np
import scipy.sparse
import torch
from torch import Tensor, nn

from matinee.networks.options import check_sizes
from matinee.networks.rankers.histories import ages, last_occurrences, user_item_matrix
from matinee.networks.rankers.popularity import PopularityFallback
from matinee.networks.rankers.sparse_rows import SparseRows

ROUNDING = 1e-5  # sums in another order must not part users who are equally near


class SessionKNN(nn.Module):
    r"""Score an item by the similarity of the nearest users of train who met it.

    .. math:: s_j = \sum_{u \in N_k(h),\, j \in I_u} \mathrm{sim}(h, u), \qquad
              \mathrm{sim}(h, u) = \frac{1}{\sqrt{|I_u|}} \sum_{i \in h \cap I_u} w_i

    where :math:`I_u` are the items of user :math:`u` in train, :math:`N_k(h)` the :math:`k` users who
    are nearest to the history, and :math:`w_i = p_i / |h|` falls linearly from the last position
    :math:`p_i = |h|` of a history to its first (V-SkNN in Ludewig & Jannach, Evaluation of
    Session-based Recommendation Algorithms, UMUAI 28, 2018). We take the whole history of a user as one
    session, and divide by its length, as their SkNN does, because such sessions differ in length;
    and we compare with all sessions where they draw some recent ones. Users who are as near as the k-th are
    neighbours too. Items that no neighbour met follow by popularity.

    The histories are kept twice, 16 bytes for each row of train whatever the number of items; to rank
    takes 4 bytes for each user and each history of a batch.

    Args:
        num_items: Number of items, at least 1; ids are 1..num_items, 0 is the padding.
        num_users: Number of users; ids are 1..num_users.
        num_neighbors: Number of neighbours :math:`k`, at least 1.

    Raises:
        ValueError: If a number is out of range.
    """

    ignores_history = False

    def __init__(self, num_items: int, num_users: int, num_neighbors: int = 100) -> None:
        super().__init__()
        check_sizes(num_items=num_items, num_neighbors=num_neighbors)
        self.num_items = num_items
        self.num_users = num_users
        self.num_neighbors = num_neighbors
        self.fallback = PopularityFallback(num_items)
        self.sessions = SparseRows(num_users + 1, num_items + 1)  # 1 where the user met the item
        self.met_by = SparseRows(num_items + 1, num_users + 1)  # 1 / sqrt(length) where so

    def fit(self, user_ids: Tensor, item_ids: Tensor) -> None:
        """Store the sessions: users and items of train, integers (rows,) each."""
        self.fallback.fit(item_ids)
        met = user_item_matrix(user_ids, item_ids, self.num_users, self.num_items)
        self.sessions.store(met)
        scale = 1 / np.sqrt(np.diff(met.indptr).clip(min=1)).astype(np.float32)
        self.met_by.store((scipy.sparse.diags_array(scale) @ met).T.tocsr())

    def tables(self) -> dict[str, Tensor]:
        """Return no embeddings."""
        return {}

    def score_next(self, histories: Tensor, lengths: Tensor, user_ids: Tensor) -> Tensor:
        """Score all items after some histories, see :meth:`matinee.contracts.Ranker.score_next`."""
        known = (lengths - 1).clamp(min=1).unsqueeze(1)
        weights = (1 - (ages(histories, lengths) - 1) / known) * last_occurrences(histories)
        similarities = self.met_by.add_up(histories, weights)
        count = min(self.num_neighbors, self.num_users + 1)
        furthest = similarities.topk(count).values[:, -1:]
        similarities.masked_fill_(similarities < furthest * (1 - ROUNDING), 0)
        if torch.compiler.is_exporting():  # the shapes of a program do not depend on values
            users = torch.arange(self.num_users + 1, device=histories.device)
            scores = self.sessions.add_up(users.expand_as(similarities), similarities)
            return self.fallback.place(scores, scores > 0)
        most = int((similarities > 0).sum(1).max()) if len(histories) else 0
        similarities, neighbors = similarities.topk(most)
        scores = self.sessions.add_up(neighbors, similarities)
        return self.fallback.place(scores, scores > 0)
