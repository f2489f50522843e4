"""User-conditioned encoders: any encoder of histories, told whose history it reads."""

from collections.abc import Callable

from torch import Tensor, nn

from matinee.networks.pairs.factorization import embedding_table


class UserConditioned(nn.Module):
    r"""Add the user's row to every input of an encoder, :math:`h = f(x_1 + u, x_2 + u, \dots)`.

    That is concatenation followed by a linear map, :math:`W_x x_t + W_u u`, with the map of the
    items left to the encoder, whose first layer has one, and the map of the users absorbed in
    their rows, which are free. A row stands beside the items as a vector of positions does.

    Args:
        embedding_dim: Width of the inputs, of the users' rows and of the outputs, at least 1.
        num_users: Number of users; ids are 1..num_users, 0 is unknown.
        encoder: Makes the encoder from the width of its inputs and outputs.
        user_dropout: Share of the entries of a user's row dropped while training, by one mask for
            the whole history, in [0, 1).
        init_std: Standard deviation of the initial rows of the users.

    Raises:
        ValueError: If ``user_dropout`` or ``embedding_dim`` is out of range, if the encoder would
            have users of its own, or as the encoder does.
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
        made = getattr(encoder, "func", encoder)  # what a partial will call
        if getattr(made, "needs_users", False):
            raise ValueError(
                f"model.encoder.encoder is {made.__name__}, which knows users already; "
                "use it as model.encoder."
            )
        if not 0 <= user_dropout < 1:
            raise ValueError(
                f"model.encoder.user_dropout is {user_dropout}; give a share in [0, 1)."
            )
        self.users = embedding_table(num_users, embedding_dim, init_std)
        self.user_dropout = nn.Dropout(user_dropout)
        try:
            self.encoder = encoder(embedding_dim)
        except ValueError as error:  # it names its options as if it stood where this one stands
            named = str(error).replace("model.encoder.", "model.encoder.encoder.")
            raise ValueError(named) from error

    def forward(self, inputs: Tensor, user_ids: Tensor) -> Tensor:
        """Encode (batch, length, dim) of users (batch,) as (batch, length, dim), causally."""
        users = self.user_dropout(self.users(user_ids))  # (batch, dim)
        return self.encoder(inputs + users.unsqueeze(1))  # type: ignore[no-any-return]
