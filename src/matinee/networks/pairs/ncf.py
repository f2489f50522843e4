"""Neural collaborative filtering (He et al., Neural Collaborative Filtering, WWW 2017)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from matinee.networks.pairs.factorization import Rows, embedding_table


class NeuMF(nn.Module):
    r"""Fusion of a generalised matrix factorization and a multilayer perceptron (equation 12 there).

    .. math:: s_{ui} = m + h^\top [\, p_u^G \odot q_i^G ;\; \mathrm{MLP}([p_u^M ; q_i^M]) \,]

    Both towers have tables of their own, stored side by side: one look-up serves both. The paper's
    sigmoid is left out, since the score is a rating or a logit, and the start :math:`m` is added.

    Args:
        num_users: Number of users; ids are 1..num_users, 0 is unknown.
        num_items: Number of items; ids are 1..num_items, 0 is unknown.
        initial_score: Score of every pair before training, the start of :math:`m`.
        embedding_dim: Length of a row in each of the two towers, at least 1.
        hidden_dims: Widths of the perceptron's layers, each followed by ReLU and dropout.
        dropout: Share of hidden units dropped while training, in [0, 1).
        init_std: Standard deviation of the initial rows.
        sparse: Whether the tables give sparse gradients.
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
        self.user_rows = embedding_table(num_users, 2 * embedding_dim, init_std, sparse)
        self.item_rows = embedding_table(num_items, 2 * embedding_dim, init_std, sparse)
        layers: list[nn.Module] = []
        width = 2 * embedding_dim
        for hidden_dim in hidden_dims:
            layers += [nn.Linear(width, hidden_dim), nn.ReLU(), nn.Dropout(dropout)]
            width = hidden_dim
        self.perceptron = nn.Sequential(*layers)
        self.output = nn.Linear(embedding_dim + width, 1)
        nn.init.constant_(self.output.bias, initial_score)

    def lookup(self, user_ids: Tensor, item_ids: Tensor) -> tuple[Rows, Rows]:
        """Take the rows of users and of items, ids (batch,) to rows (batch, 2 dim)."""
        return (self.user_rows(user_ids),), (self.item_rows(item_ids),)

    def score(self, user_rows: Rows, item_rows: Rows) -> Tensor:
        """Score looked-up rows, (batch, 2 dim) each, to (batch,)."""
        users_product, users_deep = user_rows[0].tensor_split(2, -1)
        items_product, items_deep = item_rows[0].tensor_split(2, -1)
        deep = self.perceptron(torch.cat((users_deep, items_deep), -1))
        fused = torch.cat((users_product * items_product, deep), -1)
        return self.output(fused).squeeze(-1)  # type: ignore[no-any-return]

    def forward(self, user_ids: Tensor, item_ids: Tensor) -> Tensor:
        """Score pairs of ids, (batch,) each, to (batch,)."""
        return self.score(*self.lookup(user_ids, item_ids))
