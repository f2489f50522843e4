"""Recurrent encoders: LSTM (Hochreiter & Schmidhuber 1997) and GRU (Cho et al. 2014).

For next-item recommendation: Hidasi et al., Session-based Recommendations with Recurrent Neural
Networks, ICLR 2016. Rows are not packed: padding on the right cannot reach a real position, and on
a CPU packing costs more than the padded steps it saves.
"""

from torch import Tensor, nn


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
        for option, size in (("hidden_dim", hidden_dim), ("num_layers", num_layers)):
            if size < 1:
                raise ValueError(
                    f"model.encoder.{option} is {size}; give a whole number of at least 1."
                )
        if not 0 <= dropout < 1:
            raise ValueError(f"model.encoder.dropout is {dropout}; give a share in [0, 1).")
        self.layers = self.layers_class(
            embedding_dim,
            hidden_dim,
            num_layers,
            batch_first=True,
            dropout=dropout if num_layers > 1 else 0.0,  # torch drops between layers only
        )
        self.dropout = nn.Dropout(dropout)
        self.output: nn.Module = nn.Identity()
        if hidden_dim != embedding_dim:
            self.output = nn.Linear(hidden_dim, embedding_dim)

    def forward(self, inputs: Tensor) -> Tensor:
        """Encode (batch, length, dim) as (batch, length, dim), causally."""
        hidden, _ = self.layers(inputs)  # (batch, length, hidden_dim)
        return self.output(self.dropout(hidden))  # type: ignore[no-any-return]


class LSTM(_Recurrent):
    """A long short-term memory over the history, from an all-zero state.

    Args:
        embedding_dim: Width of the inputs and of the outputs.
        hidden_dim: Width of the state; None is ``embedding_dim``, another width is projected back.
        num_layers: Number of layers, each reading the one below.
        dropout: Share of each layer's outputs dropped while training, in [0, 1).

    Raises:
        ValueError: If a size is below 1 or ``dropout`` is out of range.
    """

    layers_class = nn.LSTM


class GRU(_Recurrent):
    """A gated recurrent unit over the history, from an all-zero state.

    Args:
        embedding_dim: Width of the inputs and of the outputs.
        hidden_dim: Width of the state; None is ``embedding_dim``, another width is projected back.
        num_layers: Number of layers, each reading the one below.
        dropout: Share of each layer's outputs dropped while training, in [0, 1).

    Raises:
        ValueError: If a size is below 1 or ``dropout`` is out of range.
    """

    layers_class = nn.GRU
