"""Users instead of histories: the bilinear factorization of implicit feedback."""

from torch import Tensor, nn

from matinee.networks.pairs.factorization import embedding_table


class UserFactors(nn.Module):
    r"""Represent a user by a row of one's own, whatever the history holds.

    As the encoder of a :class:`matinee.networks.sequence_recommender.SequenceRecommender` it makes the
    bilinear factorization with item biases, :math:`s_{ui} = b_i + p_u^\top q_i` (Rendle et al., BPR,
    UAI 2009), which every ranking loss can train. A bias of the user would change no ranking.

    Args:
        embedding_dim: Length of a row, at least 1.
        num_users: Number of users; ids are 1..num_users, 0 is unknown.
        init_std: Standard deviation of the initial rows.
    """

    needs_users = True
    ignores_history = True

    def __init__(self, embedding_dim: int, num_users: int, init_std: float = 0.05) -> None:
        super().__init__()
        self.user_factors = embedding_table(num_users, embedding_dim, init_std)

    def forward(self, inputs: Tensor, user_ids: Tensor) -> Tensor:
        """Inputs (batch, length, dim) and users (batch,) to (batch, length, dim)."""
        rows: Tensor = self.user_factors(user_ids)
        return rows.unsqueeze(1).expand_as(inputs)
