"""A network that scores pairs."""

import torch
from torch import Tensor, nn

from matinee.contracts import Rows


class Distance(nn.Module):
    r"""Score a pair by the distance of its embeddings, :math:`s = m - |p_u - q_i|^2`.

    Args:
        num_users: Number of users; ids are 1..num_users, 0 is unknown.
        num_items: Number of items; ids are 1..num_items, 0 is unknown.
        initial_score: Initial value of :math:`m`, which is trained.
        embedding_dim: Width of an embedding, at least 1.
    """

    def __init__(
        self, num_users: int, num_items: int, initial_score: float, embedding_dim: int = 32
    ) -> None:
        super().__init__()
        self.users = nn.Embedding(num_users + 1, embedding_dim)  # row 0 is the unknown user
        self.items = nn.Embedding(num_items + 1, embedding_dim)
        for table in (self.users, self.items):
            nn.init.normal_(table.weight, std=0.03)
        self.offset = nn.Parameter(torch.tensor(initial_score))

    def lookup(self, user_ids: Tensor, item_ids: Tensor) -> tuple[Rows, Rows]:
        """Look up the rows of users and items: ids (batch,) to rows (batch, dim)."""
        return (self.users(user_ids),), (self.items(item_ids),)

    def score(self, user_rows: Rows, item_rows: Rows) -> Tensor:
        """Score looked-up rows: (batch, dim) each to (batch,)."""
        return self.offset - (user_rows[0] - item_rows[0]).square().sum(-1)

    def forward(self, user_ids: Tensor, item_ids: Tensor) -> Tensor:
        """Score pairs of ids: (batch,) each to (batch,)."""
        return self.score(*self.lookup(user_ids, item_ids))

    def tables(self) -> dict[str, Tensor]:
        """Return the embeddings of users and items."""
        return {"users": self.users.weight, "items": self.items.weight}
