"""Causal self-attention over a history (Kang & McAuley, SASRec, ICDM 2018).

Blocks are pre-norm, as in GPT-2 (Radford et al. 2019): the inputs of a sub-layer are normalised,
its outputs are added to a stream that is not. Further from SASRec: GELU instead of ReLU, a wider
feed-forward layer, and no dropout of attention weights, which would forbid the fused kernel (3 to 6
times slower on a CPU); the outputs of each sub-layer are dropped instead.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """A stack of causal self-attention blocks with learned positions.

    The vectors of positions start at 0, so one that training never reached adds nothing. Beyond
    ``max_length`` positions, the newest count: a history is encoded as its first position (the empty
    history, with which every row starts) and its newest ``max_length - 1``, exactly as if it had
    been cut before. Each position beyond costs a pass of its own, so training refuses such rows.

    Args:
        embedding_dim: Width of the inputs and of the outputs, a multiple of ``num_heads``.
        num_heads: Number of attention heads.
        num_layers: Number of blocks.
        feedforward_dim: Width of a block's feed-forward layer; None is 4 ``embedding_dim``.
        max_length: Number of positions, the empty history's included, at least 2.
        dropout: Share of the outputs of each sub-layer dropped while training, in [0, 1).

    Raises:
        ValueError: If a size is too small, the heads do not divide the width, or ``dropout`` is out
            of range.
    """

    def __init__(
        self,
        embedding_dim: int,
        num_heads: int = 1,
        num_layers: int = 2,
        feedforward_dim: int | None = None,
        max_length: int = 200,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        feedforward_dim = 4 * embedding_dim if feedforward_dim is None else feedforward_dim
        for option, size, least in (
            ("num_heads", num_heads, 1),
            ("num_layers", num_layers, 1),
            ("feedforward_dim", feedforward_dim, 1),
            ("max_length", max_length, 2),
        ):
            if size < least:
                raise ValueError(
                    f"model.encoder.{option} is {size}; give a whole number of at least {least}."
                )
        if embedding_dim % num_heads:
            raise ValueError(
                f"model.encoder.num_heads is {num_heads}; give a divisor of model.embedding_dim, "
                f"{embedding_dim}."
            )
        if not 0 <= dropout < 1:
            raise ValueError(f"model.encoder.dropout is {dropout}; give a share in [0, 1).")
        self.max_length = max_length
        self.positions = nn.Parameter(torch.zeros(max_length, embedding_dim))
        self.blocks = nn.Sequential(
            *(
                AttentionBlock(embedding_dim, num_heads, feedforward_dim, dropout)
                for _ in range(num_layers)
            )
        )
        self.norm = nn.LayerNorm(embedding_dim)

    def forward(self, inputs: Tensor) -> Tensor:
        """Encode (batch, length, dim) as (batch, length, dim), causally.

        Raises:
            ValueError: If the rows are longer than ``max_length`` while training.
        """
        length, limit = inputs.shape[1], self.max_length
        if length <= limit:
            return self._encode(inputs)
        if self.training:
            raise ValueError(
                f"training rows have {length} positions and model.encoder.max_length is {limit}; "
                f"set it to at least {length}."
            )
        outputs = [self._encode(inputs[:, :limit])]
        for end in range(limit + 1, length + 1):
            newest = torch.cat((inputs[:, :1], inputs[:, end - limit + 1 : end]), dim=1)
            outputs.append(self._encode(newest)[:, -1:])
        return torch.cat(outputs, dim=1)

    def _encode(self, inputs: Tensor) -> Tensor:
        stream = inputs + self.positions[: inputs.shape[1]]
        return self.norm(self.blocks(stream))  # type: ignore[no-any-return]


class AttentionBlock(nn.Module):
    """One block: attention, then a feed-forward layer, each on normalised inputs and added to them.

    Args:
        dim: Width of the stream.
        num_heads: Number of attention heads, a divisor of ``dim``.
        feedforward_dim: Width of the feed-forward layer.
        dropout: Share of the outputs of both sub-layers dropped while training.
    """

    def __init__(self, dim: int, num_heads: int, feedforward_dim: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm = nn.LayerNorm(dim)
        self.queries_keys_values = nn.Linear(dim, 3 * dim)
        self.attention_output = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)
        self.feedforward = nn.Sequential(
            nn.LayerNorm(dim),
            nn.Linear(dim, feedforward_dim),
            nn.GELU(),
            nn.Linear(feedforward_dim, dim),
            nn.Dropout(dropout),
        )

    def forward(self, stream: Tensor) -> Tensor:
        """Pass the stream on, (batch, length, dim) to (batch, length, dim), causally."""
        projected = self.queries_keys_values(self.attention_norm(stream))
        heads = projected.unflatten(-1, (3, self.num_heads, -1))  # (batch, length, 3, heads, dim)
        queries, keys, values = heads.permute(2, 0, 3, 1, 4)  # (batch, heads, length, dim) each
        mixed = F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        mixed = self.attention_output(mixed.transpose(1, 2).flatten(2))
        stream = stream + self.dropout(mixed)
        return stream + self.feedforward(stream)  # type: ignore[no-any-return]
