r"""User-based gated recurrent unit with attention between the user and the item.

Donkers, Loepp & Ziegler, Sequential User-based Recurrent Neural Network Recommendations, RecSys
2017. With item :math:`x_t`, user :math:`u` and state :math:`h_{t-1}`, where products of two vectors
are element-wise:

.. math::
    a_t &= \sigma(W_a [h_{t-1}, x_t, u] + b_a) \\
    r_t, z_t &= \sigma(W_{r,z} (1 - a_t) x_t + U_{r,z} h_{t-1} + b_{r,z}) \\
    n_t &= \tanh(W_n (1 - a_t) x_t + b_n + r_t (U_n h_{t-1} + c_n) + V_n (a_t u)) \\
    h_t &= (1 - z_t) n_t + z_t h_{t-1}

For each dimension of the input, :math:`a_t` is the share of the user and :math:`1 - a_t` the share
of the item. With :math:`a_t = 0` this is :class:`torch.nn.GRU`, including its biases and its meaning
of :math:`z_t` (the share of the state that is kept).
"""

import torch
from torch import Tensor, nn

from matinee.contracts import State
from matinee.networks.embedding import EmbeddingTable
from matinee.networks.encoders.stepping import scan_steps
from matinee.networks.options import check_shares, check_sizes


class UserGRU(nn.Module):
    """Encode a history with a GRU that weighs the user against the item at every step.

    Args:
        embedding_dim: Width of the inputs, of the user embeddings and of the outputs, at least 1.
        num_users: Number of users; ids are 1..num_users, 0 is unknown.
        hidden_dim: Width of the state, at least 1; None means ``embedding_dim``. Any other width is
            projected back to ``embedding_dim``.
        user_dropout: Share of the entries of a user embedding dropped while training, in [0, 1).
            One mask is used for the whole history. For dropout of the items, see
            :class:`matinee.networks.sequence_recommender.SequenceRecommender`.
        init_std: Standard deviation of the initial user embeddings.

    Raises:
        ValueError: If a size is below 1 or ``user_dropout`` is out of range.
    """

    needs_users = True

    def __init__(
        self,
        embedding_dim: int,
        num_users: int,
        hidden_dim: int | None = None,
        user_dropout: float = 0.5,
        init_std: float = 0.1,
    ) -> None:
        super().__init__()
        hidden_dim = embedding_dim if hidden_dim is None else hidden_dim
        check_sizes(hidden_dim=hidden_dim)
        check_shares(user_dropout=user_dropout)
        self.hidden_dim = hidden_dim
        self.users = EmbeddingTable(num_users, embedding_dim, init_std)
        self.user_dropout = nn.Dropout(user_dropout)
        self.item_attention = nn.Linear(embedding_dim, embedding_dim)  # W_a on x, b_a
        self.user_attention = nn.Linear(embedding_dim, embedding_dim, bias=False)  # W_a on u
        self.state_parts = nn.Linear(hidden_dim, embedding_dim + 3 * hidden_dim)  # W_a on h, U, c
        self.item_parts = nn.Linear(embedding_dim, 3 * hidden_dim)  # W, b: r, z and n
        self.user_part = nn.Linear(embedding_dim, hidden_dim, bias=False)  # V_n
        self.output: nn.Module = nn.Identity()
        if hidden_dim != embedding_dim:
            self.output = nn.Linear(hidden_dim, embedding_dim)

    def tables(self) -> dict[str, Tensor]:
        """Return the embeddings of the users."""
        return {"users": self.users.weight}

    def forward(self, inputs: Tensor, user_ids: Tensor) -> Tensor:
        """Encode inputs (batch, length, dim) of users (batch,) as (batch, length, dim), causally."""
        if not torch.compiler.is_exporting():
            return self.unroll(inputs, self.initial_state(inputs.shape[0]), user_ids)[0]
        users, attention = self._attend(inputs, user_ids)

        def step(hidden: Tensor, entry: Tensor) -> tuple[Tensor, Tensor]:
            items, logits = entry.chunk(2, -1)
            hidden = self._step(items, users, logits, hidden)
            return hidden, hidden

        (hidden,) = self.initial_state(inputs.shape[0])
        return self.output(scan_steps(step, hidden, torch.cat((inputs, attention), -1)))  # type: ignore[no-any-return]

    def initial_state(self, batch_size: int) -> State:
        """Return zeros, (batch, hidden_dim)."""
        return (self.state_parts.weight.new_zeros(batch_size, self.hidden_dim),)

    def unroll(self, inputs: Tensor, state: State, user_ids: Tensor) -> tuple[Tensor, State]:
        """Encode part of a sequence, starting from ``state``; also return the state after it."""
        users, attention = self._attend(inputs, user_ids)
        (hidden,), states = state, []
        for items, logits in zip(inputs.unbind(1), attention.unbind(1), strict=True):
            hidden = self._step(items, users, logits, hidden)
            states.append(hidden)
        return self.output(torch.stack(states, 1)), (hidden,)

    def _attend(self, inputs: Tensor, user_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return the users, (batch, dim), and the terms of a_t from items and users, (batch, length, dim)."""
        users = self.user_dropout(self.users(user_ids))
        return users, self.item_attention(inputs) + self.user_attention(users).unsqueeze(1)

    def _step(self, items: Tensor, users: Tensor, logits: Tensor, hidden: Tensor) -> Tensor:
        """Compute h_t; ``logits`` (batch, dim) are the terms of a_t from the items and the users."""
        size = self.hidden_dim
        state_logits, state_gates, state_candidate = self.state_parts(hidden).split_with_sizes(
            [items.shape[1], 2 * size, size], -1
        )
        share = (logits + state_logits).sigmoid()  # a_t
        gates, candidate = self.item_parts(
            torch.addcmul(items, share, items, value=-1)
        ).split_with_sizes([2 * size, size], -1)
        reset, keep = (gates + state_gates).sigmoid().chunk(2, -1)
        candidate = torch.addcmul(candidate, reset, state_candidate)
        candidate = torch.addmm(candidate, share * users, self.user_part.weight.t()).tanh()
        return torch.addcmul(
            candidate, keep, hidden - candidate
        )  # unlike lerp, this accepts mixed dtypes
