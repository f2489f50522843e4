"""Recurrent encoders: LSTM (Hochreiter & Schmidhuber 1997) and GRU (Cho et al. 2014).

Hidasi et al., Session-based Recommendations with Recurrent Neural Networks, ICLR 2016, introduced
them for next-item recommendation. Rows are not packed: padding on the right cannot reach an earlier
position, and on a CPU packing costs more time than the padded steps it saves.
"""

import torch
from torch import Tensor, nn

from matinee.contracts import State
from matinee.networks.encoders.stepping import scan_layers
from matinee.networks.options import check_shares, check_sizes


class _Recurrent(nn.Module):
    layers_class: type[nn.LSTM] | type[nn.GRU]

    def __init__(
        self,
        embedding_dim: int,
        hidden_dim: int | None = None,
        num_layers: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        hidden_dim = embedding_dim if hidden_dim is None else hidden_dim
        check_sizes(hidden_dim=hidden_dim, num_layers=num_layers)
        check_shares(dropout=dropout)
        self.layers = self.layers_class(
            embedding_dim,
            hidden_dim,
            num_layers,
            batch_first=True,
            dropout=dropout if num_layers > 1 else 0.0,  # torch applies it between layers only
        )
        self.dropout = nn.Dropout(dropout)
        self.output: nn.Module = nn.Identity()
        if hidden_dim != embedding_dim:
            self.output = nn.Linear(hidden_dim, embedding_dim)

    def forward(self, inputs: Tensor) -> Tensor:
        """Encode (batch, length, dim) as (batch, length, dim), causally."""
        if torch.compiler.is_exporting():
            hidden = scan_layers(self.layers, inputs)
        else:
            hidden, _ = self.layers(inputs)  # (batch, length, hidden_dim)
        return self.output(self.dropout(hidden))  # type: ignore[no-any-return]

    def initial_state(self, batch_size: int) -> State:
        """Return zeros: h of a GRU, h and c of an LSTM, (batch, num_layers, hidden_dim) each."""
        sizes = (batch_size, self.layers.num_layers, self.layers.hidden_size)
        zeros = next(self.layers.parameters()).new_zeros(sizes)
        return (zeros,) * (2 if isinstance(self.layers, nn.LSTM) else 1)

    def unroll(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        """Encode part of a sequence, starting from ``state``; also return the state after it."""
        before = tuple(part.transpose(0, 1).contiguous() for part in state)  # layers first
        lstm = isinstance(self.layers, nn.LSTM)
        hidden, after = self.layers(inputs, before if lstm else before[0])
        states: State = after if lstm else (after,)
        return self.output(self.dropout(hidden)), tuple(part.transpose(0, 1) for part in states)


class LSTM(_Recurrent):
    """Encode a history with a long short-term memory (LSTM) that starts from a zero state.

    Args:
        embedding_dim: Width of the inputs and outputs.
        hidden_dim: Width of the state, at least 1; None means ``embedding_dim``. Any other width is
            projected back to ``embedding_dim``.
        num_layers: Number of stacked layers, at least 1.
        dropout: Share of the outputs of each layer dropped while training, in [0, 1).

    Raises:
        ValueError: If a size is below 1 or ``dropout`` is out of range.
    """

    layers_class = nn.LSTM


class GRU(_Recurrent):
    """Encode a history with a gated recurrent unit (GRU) that starts from a zero state.

    Args:
        embedding_dim: Width of the inputs and outputs.
        hidden_dim: Width of the state, at least 1; None means ``embedding_dim``. Any other width is
            projected back to ``embedding_dim``.
        num_layers: Number of stacked layers, at least 1.
        dropout: Share of the outputs of each layer dropped while training, in [0, 1).

    Raises:
        ValueError: If a size is below 1 or ``dropout`` is out of range.
    """

    layers_class = nn.GRU
