"""User factors: represent a user by an embedding, without reading the history."""

from torch import Tensor, nn

from matinee.networks.embedding import EmbeddingTable


class UserFactors(nn.Module):
    r"""Represent each user by an embedding; the history is ignored.

    As the encoder of a :class:`matinee.networks.sequence_recommender.SequenceRecommender` this is
    matrix factorization of implicit feedback with item biases, :math:`s_{ui} = b_i + p_u^\top q_i`
    (Rendle et al., BPR, UAI 2009). Any ranking loss can train it. There is no user bias because it
    would not change any ranking.

    Args:
        embedding_dim: Width of a user embedding, at least 1.
        num_users: Number of users; ids are 1..num_users, 0 is unknown.
        init_std: Standard deviation of the initial user embeddings.

    Raises:
        ValueError: If ``embedding_dim`` is below 1.
    """

    needs_users = True
    ignores_history = True

    def __init__(self, embedding_dim: int, num_users: int, init_std: float = 0.05) -> None:
        super().__init__()
        self.user_factors = EmbeddingTable(num_users, embedding_dim, init_std)

    def tables(self) -> dict[str, Tensor]:
        """Return the embeddings of the users."""
        return {"users": self.user_factors.weight}

    def forward(self, inputs: Tensor, user_ids: Tensor) -> Tensor:
        """Return the embedding of users (batch,) at every position, (batch, length, dim)."""
        rows: Tensor = self.user_factors(user_ids)
        return rows.unsqueeze(1).expand_as(inputs)
