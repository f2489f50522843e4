"""Item neighbours: recommend items that are met by the same users as those of the history."""

import numpy as np
import scipy.sparse
from torch import Tensor, nn

from matinee.networks.options import check_sizes
from matinee.networks.rankers.histories import last_occurrences, user_item_matrix
from matinee.networks.rankers.popularity import PopularityFallback
from matinee.networks.rankers.sparse_rows import SparseRows

COMPARED_AT_ONCE = 2**24  # similarities held at a time, while the nearest ones are chosen


class ItemKNN(nn.Module):
    r"""Score an item by its similarity to the items of the history.

    .. math:: s_j = \sum_{i \in H \cap N_k(j)} w_{ij}, \qquad
              w_{ij} = \frac{|U_i \cap U_j|}{\sqrt{|U_i| |U_j|} + \lambda}

    where :math:`U_i` are the users of item :math:`i` in train and :math:`N_k(j)` the :math:`k` items
    that are most similar to :math:`j` (Sarwar et al., Item-Based Collaborative Filtering
    Recommendation Algorithms, WWW 2001; Deshpande & Karypis, Item-Based Top-N Recommendation
    Algorithms, ACM TOIS 22(1), 2004). Shrinkage :math:`\lambda` distrusts rare items (Ferrari Dacrema,
    Cremonesi & Jannach, Are We Really Making Much Progress?, RecSys 2019). Repeated items count once.
    Items without a neighbour in the history follow by popularity.

    The similarities take 8 bytes each: at most 160 MB for 100,000 items with 200 neighbours. With
    a million rows of train, solving for them took another 0.4 GB. Time grows with the sum of the
    squared lengths of the histories of train.

    Args:
        num_items: Number of items, at least 1; ids are 1..num_items, 0 is the padding.
        num_users: Number of users; ids are 1..num_users.
        num_neighbors: Number of neighbours :math:`k` of each item, at least 1.
        shrinkage: :math:`\lambda`, in users, at least 0.

    Raises:
        ValueError: If a number is out of range.
    """

    ignores_history = False

    def __init__(
        self, num_items: int, num_users: int = 0, num_neighbors: int = 200, shrinkage: float = 10.0
    ) -> None:
        super().__init__()
        check_sizes(num_items=num_items, num_neighbors=num_neighbors)
        if not shrinkage >= 0:
            raise ValueError(f"shrinkage is {shrinkage}; give a number of at least 0.")
        self.num_items = num_items
        self.num_users = num_users
        self.num_neighbors = num_neighbors
        self.shrinkage = shrinkage
        self.fallback = PopularityFallback(num_items)
        self.similarities = SparseRows(num_items + 1, num_items + 1)  # row i, column j

    def fit(self, user_ids: Tensor, item_ids: Tensor) -> None:
        """Find the neighbours of each item: users and items of train, integers (rows,) each."""
        self.fallback.fit(item_ids)
        met = user_item_matrix(user_ids, item_ids, self.num_users, self.num_items)
        by_item = met.T.tocsr()
        roots = np.sqrt(np.diff(by_item.indptr).astype(np.float32))
        step = max(1, COMPARED_AT_ONCE // (self.num_items + 1))
        nearest = []
        for start in range(0, self.num_items + 1, step):
            shared = (by_item[start : start + step] @ met).tocoo()
            rows = shared.row + start
            others = rows != shared.col
            rows, columns, counts = rows[others], shared.col[others], shared.data[others]
            weights = counts / (roots[rows] * roots[columns] + self.shrinkage)
            nearest.append(_largest(rows, columns, weights, self.num_neighbors))
        rows, columns, weights = (np.concatenate(part) for part in zip(*nearest, strict=True))
        shape = (self.num_items + 1, self.num_items + 1)
        self.similarities.store(scipy.sparse.coo_array((weights, (columns, rows)), shape).tocsr())

    def tables(self) -> dict[str, Tensor]:
        """Return no embeddings."""
        return {}

    def score_next(self, histories: Tensor, lengths: Tensor, user_ids: Tensor) -> Tensor:
        """Score all items after some histories, see :meth:`matinee.contracts.Ranker.score_next`."""
        scores = self.similarities.add_up(histories, last_occurrences(histories).float())
        return self.fallback.place(scores, scores > 0)


def _largest(
    rows: np.ndarray, columns: np.ndarray, values: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keep the largest values of each row; of equal ones those of the smallest columns."""
    order = np.lexsort((columns, -values, rows))
    rows, columns, values = rows[order], columns[order], values[order]
    starts = np.flatnonzero(np.diff(rows, prepend=-1))
    places = np.arange(len(rows)) - np.repeat(starts, np.diff(starts, append=len(rows)))
    kept = places < count
    return rows[kept], columns[kept], values[kept]
