"""Matrix factorization, with and without biases (Koren, Bell & Volinsky, IEEE Computer 42(8), 2009).

A pair network is two steps: ``lookup`` takes the rows of the embedding tables that a batch touches,
``score`` turns them into one score a pair. Rows are deviations from what is expected of an unknown
id, so shrinking them towards zero (the task's ``l2``) is shrinking towards the unknown. Row 0 of
every table is the unknown user or item.
"""

import math

import torch
from torch import Tensor, nn

Rows = tuple[Tensor, ...]


class MatrixFactorization(nn.Module):
    r"""Dot product of two factors, :math:`s_{ui} = (c + p_u)^\top (c + q_i)`.

    The constant :math:`c` makes the untrained product equal the initial score :math:`m`
    (:math:`c = \sqrt{|m| / d}` in every dimension, with the sign of :math:`m` on one side).

    Args:
        num_users: Number of users; ids are 1..num_users, 0 is unknown.
        num_items: Number of items; ids are 1..num_items, 0 is unknown.
        initial_score: Score of every pair before training.
        embedding_dim: Number of factors :math:`d`, at least 1.
        init_std: Standard deviation of the initial rows.
        sparse: Whether the tables give sparse gradients.
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
        self.user_factors = embedding_table(num_users, embedding_dim, init_std, sparse)
        self.item_factors = embedding_table(num_items, embedding_dim, init_std, sparse)
        self.user_center = math.sqrt(abs(initial_score) / embedding_dim)
        self.item_center = math.copysign(self.user_center, initial_score)

    def lookup(self, user_ids: Tensor, item_ids: Tensor) -> tuple[Rows, Rows]:
        """Take the rows of users and of items, ids (batch,) to rows (batch, dim)."""
        return (self.user_factors(user_ids),), (self.item_factors(item_ids),)

    def score(self, user_rows: Rows, item_rows: Rows) -> Tensor:
        """Score looked-up rows, (batch, dim) each, to (batch,)."""
        (users,), (items,) = user_rows, item_rows
        return ((users + self.user_center) * (items + self.item_center)).sum(-1)

    def forward(self, user_ids: Tensor, item_ids: Tensor) -> Tensor:
        """Score pairs of ids, (batch,) each, to (batch,)."""
        return self.score(*self.lookup(user_ids, item_ids))


class BiasedMatrixFactorization(nn.Module):
    r"""Dot product plus biases, :math:`s_{ui} = \mu + b_u + b_i + p_u^\top q_i` (equation 4 there).

    A bias is stored as the last column of its table: one look-up serves both.

    Args:
        num_users: Number of users; ids are 1..num_users, 0 is unknown.
        num_items: Number of items; ids are 1..num_items, 0 is unknown.
        initial_score: Score of every pair before training, the start of :math:`\mu`.
        embedding_dim: Number of factors :math:`d`, at least 1.
        init_std: Standard deviation of the initial factors; biases start at 0.
        sparse: Whether the tables give sparse gradients.
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
        if embedding_dim < 1:
            raise ValueError(
                f"an embedding of dimension {embedding_dim} holds nothing; give at least 1."
            )
        self.user_factors = embedding_table(num_users, embedding_dim + 1, init_std, sparse)
        self.item_factors = embedding_table(num_items, embedding_dim + 1, init_std, sparse)
        with torch.no_grad():
            self.user_factors.weight[:, -1] = 0
            self.item_factors.weight[:, -1] = 0
        self.global_bias = nn.Parameter(torch.tensor(float(initial_score)))

    def lookup(self, user_ids: Tensor, item_ids: Tensor) -> tuple[Rows, Rows]:
        """Take the rows of users and of items, ids (batch,) to rows (batch, dim + 1)."""
        return (self.user_factors(user_ids),), (self.item_factors(item_ids),)

    def score(self, user_rows: Rows, item_rows: Rows) -> Tensor:
        """Score looked-up rows, (batch, dim + 1) each, to (batch,)."""
        (users,), (items,) = user_rows, item_rows
        product = (users[..., :-1] * items[..., :-1]).sum(-1)
        return self.global_bias + users[..., -1] + items[..., -1] + product

    def forward(self, user_ids: Tensor, item_ids: Tensor) -> Tensor:
        """Score pairs of ids, (batch,) each, to (batch,)."""
        return self.score(*self.lookup(user_ids, item_ids))


def embedding_table(num_ids: int, dim: int, init_std: float, sparse: bool = False) -> nn.Embedding:
    """Make a table for ids 0..num_ids whose rows start as independent normal draws.

    Args:
        num_ids: Largest id; row 0 is the unknown id's.
        dim: Length of a row, at least 1.
        init_std: Standard deviation of the draws.
        sparse: Whether its gradients are sparse tensors.

    Raises:
        ValueError: If ``dim`` is less than 1.
    """
    if dim < 1:
        raise ValueError(f"an embedding of dimension {dim} holds nothing; give at least 1.")
    table = nn.Embedding(num_ids + 1, dim, sparse=sparse)
    nn.init.normal_(table.weight, std=init_std)
    return table
