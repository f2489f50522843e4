"""User-conditioned encoders: add user information to any encoder of histories."""

from collections.abc import Callable

from torch import Tensor, nn

from matinee.networks.embedding import EmbeddingTable
from matinee.networks.options import check_shares


class UserConditioned(nn.Module):
    r"""Add a user embedding to every input of an encoder, :math:`h = f(x_1 + u, x_2 + u, \dots)`.

    This is as expressive as concatenating item and user and applying a linear map,
    :math:`W_x x_t + W_u u`: the first layer of the encoder contains :math:`W_x`, and the free user
    embeddings absorb :math:`W_u`.

    Args:
        embedding_dim: Width of the inputs, of the user embeddings and of the outputs, at least 1.
        num_users: Number of users; ids are 1..num_users, 0 is unknown.
        encoder: Makes the inner encoder from ``embedding_dim``; it must not need users or times itself.
        user_dropout: Share of the entries of a user embedding dropped while training, in [0, 1).
            One mask is used for the whole history.
        init_std: Standard deviation of the initial user embeddings.

    Raises:
        ValueError: If ``user_dropout`` or ``embedding_dim`` is out of range, or if the inner encoder
            needs users or times, or rejects a value.
    """

    needs_users = True

    def __init__(
        self,
        embedding_dim: int,
        num_users: int,
        encoder: Callable[[int], nn.Module],
        user_dropout: float = 0.5,
        init_std: float = 0.1,
    ) -> None:
        super().__init__()
        made = getattr(encoder, "func", encoder)  # the class behind a partial
        if getattr(made, "needs_users", False):
            raise ValueError(
                f"encoder is {made.__name__}, which uses user ids already; use it without UserConditioned."
            )
        if getattr(made, "needs_times", False):
            raise ValueError(
                f"encoder is {made.__name__}, which needs times; use it without UserConditioned."
            )
        check_shares(user_dropout=user_dropout)
        self.users = EmbeddingTable(num_users, embedding_dim, init_std)
        self.user_dropout = nn.Dropout(user_dropout)
        self.encoder = encoder(embedding_dim)

    def tables(self) -> dict[str, Tensor]:
        """Return the embeddings of the users."""
        return {"users": self.users.weight}

    def forward(self, inputs: Tensor, user_ids: Tensor) -> Tensor:
        """Encode inputs (batch, length, dim) of users (batch,) as (batch, length, dim), causally."""
        users = self.user_dropout(self.users(user_ids))  # (batch, dim)
        return self.encoder(inputs + users.unsqueeze(1))  # type: ignore[no-any-return]
