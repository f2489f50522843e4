"""Matrix factorization, with and without biases (Koren, Bell & Volinsky, IEEE Computer 42(8), 2009).

A pair network works in two steps: ``lookup`` reads the rows of the embedding tables for a batch of
ids, and ``score`` turns these rows into one score per pair. Row 0 of each table is the unknown user
or item. A row is a deviation from the unknown id, so a penalty that shrinks rows towards zero (the
task's ``l2``) shrinks them towards the unknown.
"""

import math

import torch
from torch import Tensor, nn

from matinee.contracts import Rows
from matinee.networks.embedding import EmbeddingTable
from matinee.networks.options import check_sizes


class MatrixFactorization(nn.Module):
    r"""Score a pair by the dot product of its factors, :math:`s_{ui} = (c + p_u)^\top (c + q_i)`.

    The constant :math:`c = \sqrt{|m| / d}` makes the score of zero rows equal to the initial score
    :math:`m`; if :math:`m` is negative, :math:`c` is negative on the item's side.

    Args:
        num_users: Number of users; ids are 1..num_users, 0 is unknown.
        num_items: Number of items; ids are 1..num_items, 0 is unknown.
        initial_score: Score :math:`m` that every pair starts near.
        embedding_dim: Number of factors :math:`d`, at least 1.
        init_std: Standard deviation of the initial rows.
        sparse: Whether the tables have sparse gradients.

    Raises:
        ValueError: If ``embedding_dim`` is below 1.
    """

    def __init__(
        self,
        num_users: int,
        num_items: int,
        initial_score: float,
        embedding_dim: int = 64,
        init_std: float = 0.05,
        sparse: bool = False,
    ) -> None:
        super().__init__()
        self.user_factors = EmbeddingTable(num_users, embedding_dim, init_std, sparse)
        self.item_factors = EmbeddingTable(num_items, embedding_dim, init_std, sparse)
        self.user_center = math.sqrt(abs(initial_score) / embedding_dim)
        self.item_center = math.copysign(self.user_center, initial_score)

    def lookup(self, user_ids: Tensor, item_ids: Tensor) -> tuple[Rows, Rows]:
        """Look up the rows of users and items: ids (batch,) to rows (batch, dim)."""
        return (self.user_factors(user_ids),), (self.item_factors(item_ids),)

    def score(self, user_rows: Rows, item_rows: Rows) -> Tensor:
        """Score looked-up rows: (batch, dim) each to (batch,)."""
        (users,), (items,) = user_rows, item_rows
        return ((users + self.user_center) * (items + self.item_center)).sum(-1)

    def score_all(self, user_rows: Rows, item_rows: Rows) -> Tensor:
        """Score all pairs of rows: (n, dim) and (m, dim) to (n, m)."""
        (users,), (items,) = user_rows, item_rows
        return (users + self.user_center) @ (items + self.item_center).T

    def tables(self) -> dict[str, Tensor]:
        """Return the factors of users and items."""
        return {"users": self.user_factors.weight, "items": self.item_factors.weight}

    def forward(self, user_ids: Tensor, item_ids: Tensor) -> Tensor:
        """Score pairs of ids: (batch,) each to (batch,)."""
        return self.score(*self.lookup(user_ids, item_ids))


class BiasedMatrixFactorization(nn.Module):
    r"""Score a pair by biases plus a dot product, :math:`s_{ui} = \mu + b_u + b_i + p_u^\top q_i`.

    This is equation 4 of Koren, Bell & Volinsky (2009). Each bias is the last column of its table,
    so one lookup returns the factors and the bias.

    Args:
        num_users: Number of users; ids are 1..num_users, 0 is unknown.
        num_items: Number of items; ids are 1..num_items, 0 is unknown.
        initial_score: Initial value of :math:`\mu`, the score that every pair starts near.
        embedding_dim: Number of factors :math:`d`, at least 1.
        init_std: Standard deviation of the initial factors; biases start at 0.
        sparse: Whether the tables have sparse gradients.

    Raises:
        ValueError: If ``embedding_dim`` is below 1.
    """

    def __init__(
        self,
        num_users: int,
        num_items: int,
        initial_score: float,
        embedding_dim: int = 64,
        init_std: float = 0.05,
        sparse: bool = False,
    ) -> None:
        super().__init__()
        check_sizes(embedding_dim=embedding_dim)
        self.user_factors = EmbeddingTable(num_users, embedding_dim + 1, init_std, sparse)
        self.item_factors = EmbeddingTable(num_items, embedding_dim + 1, init_std, sparse)
        with torch.no_grad():
            self.user_factors.weight[:, -1] = 0
            self.item_factors.weight[:, -1] = 0
        self.global_bias = nn.Parameter(torch.tensor(float(initial_score)))

    def lookup(self, user_ids: Tensor, item_ids: Tensor) -> tuple[Rows, Rows]:
        """Look up the rows of users and items: ids (batch,) to rows (batch, dim + 1)."""
        return (self.user_factors(user_ids),), (self.item_factors(item_ids),)

    def score(self, user_rows: Rows, item_rows: Rows) -> Tensor:
        """Score looked-up rows: (batch, dim + 1) each to (batch,)."""
        (users,), (items,) = user_rows, item_rows
        dim = users.shape[-1] - 1
        user_factors, user_biases = users.split((dim, 1), -1)
        item_factors, item_biases = items.split((dim, 1), -1)
        biases = self.global_bias + user_biases.squeeze(-1) + item_biases.squeeze(-1)
        scores: Tensor = biases + (user_factors * item_factors).sum(-1)
        return scores

    def score_all(self, user_rows: Rows, item_rows: Rows) -> Tensor:
        """Score all pairs of rows: (n, dim + 1) and (m, dim + 1) to (n, m)."""
        (users,), (items,) = user_rows, item_rows
        biases = torch.stack((self.global_bias + users[:, -1], torch.ones_like(users[:, -1])), 1)
        left = torch.cat((users[:, :-1], biases), 1)
        right = torch.cat((items[:, :-1], torch.ones_like(items[:, -1:]), items[:, -1:]), 1)
        return left @ right.T  # the biases are two more columns of one product

    def tables(self) -> dict[str, Tensor]:
        """Return the factors of users and items; the last column is the bias."""
        return {"users": self.user_factors.weight, "items": self.item_factors.weight}

    def forward(self, user_ids: Tensor, item_ids: Tensor) -> Tensor:
        """Score pairs of ids: (batch,) each to (batch,)."""
        return self.score(*self.lookup(user_ids, item_ids))
