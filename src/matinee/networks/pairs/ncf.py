"""Neural collaborative filtering (He et al., Neural Collaborative Filtering, WWW 2017)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from matinee.contracts import Rows
from matinee.networks.embedding import EmbeddingTable
from matinee.networks.options import check_shares, check_sizes


class NeuMF(nn.Module):
    r"""Combine a matrix factorization and a multilayer perceptron (NeuMF, equation 12 of the paper).

    .. math:: s_{ui} = m + h^\top [\, p_u^G \odot q_i^G ;\; \mathrm{MLP}([p_u^M ; q_i^M]) \,]

    Each of the two towers has its own embeddings. They are stored side by side in one table, so one
    lookup returns both. Two deviations from the paper: there is no sigmoid, because the score is a
    rating or a logit, and there is a constant :math:`m`.

    Args:
        num_users: Number of users; ids are 1..num_users, 0 is unknown.
        num_items: Number of items; ids are 1..num_items, 0 is unknown.
        initial_score: Initial value of :math:`m`, the score that every pair starts near.
        embedding_dim: Width of an embedding in each of the two towers, at least 1.
        hidden_dims: Widths of the layers of the perceptron, at least 1 each; ReLU and dropout follow
            each layer.
        dropout: Share of hidden units dropped while training, in [0, 1).
        init_std: Standard deviation of the initial embeddings.
        sparse: Whether the tables have sparse gradients.

    Raises:
        ValueError: If a size or ``dropout`` is out of range.
    """

    def __init__(
        self,
        num_users: int,
        num_items: int,
        initial_score: float,
        embedding_dim: int = 32,
        hidden_dims: Sequence[int] = (64, 32),
        dropout: float = 0.2,
        init_std: float = 0.05,
        sparse: bool = False,
    ) -> None:
        super().__init__()
        check_sizes(embedding_dim=embedding_dim, hidden_dims=min(hidden_dims, default=1))
        check_shares(dropout=dropout)
        self.user_rows = EmbeddingTable(num_users, 2 * embedding_dim, init_std, sparse)
        self.item_rows = EmbeddingTable(num_items, 2 * embedding_dim, init_std, sparse)
        layers: list[nn.Module] = []
        width = 2 * embedding_dim
        for hidden_dim in hidden_dims:
            layers += [nn.Linear(width, hidden_dim), nn.ReLU(), nn.Dropout(dropout)]
            width = hidden_dim
        self.perceptron = nn.Sequential(*layers)
        self.output = nn.Linear(embedding_dim + width, 1)
        nn.init.constant_(self.output.bias, initial_score)

    def lookup(self, user_ids: Tensor, item_ids: Tensor) -> tuple[Rows, Rows]:
        """Look up the rows of users and items: ids (batch,) to rows (batch, 2 dim)."""
        return (self.user_rows(user_ids),), (self.item_rows(item_ids),)

    def score(self, user_rows: Rows, item_rows: Rows) -> Tensor:
        """Score looked-up rows: (batch, 2 dim) each to (batch,)."""
        users_product, users_deep = user_rows[0].tensor_split(2, -1)
        items_product, items_deep = item_rows[0].tensor_split(2, -1)
        deep = self.perceptron(torch.cat((users_deep, items_deep), -1))
        fused = torch.cat((users_product * items_product, deep), -1)
        return self.output(fused).squeeze(-1)  # type: ignore[no-any-return]

    def tables(self) -> dict[str, Tensor]:
        """Return the rows of users and items, the factors of the product before those of the perceptron."""
        return {"users": self.user_rows.weight, "items": self.item_rows.weight}

    def forward(self, user_ids: Tensor, item_ids: Tensor) -> Tensor:
        """Score pairs of ids: (batch,) each to (batch,)."""
        return self.score(*self.lookup(user_ids, item_ids))
