"""Causal self-attention over a history (Kang & McAuley, SASRec, ICDM 2018).

Blocks are pre-norm, as in GPT-2 (Radford et al. 2019): each sub-layer reads a normalised copy of the
stream and adds its output to the stream itself. Other deviations from SASRec: GELU instead of ReLU,
a wider feed-forward layer, and dropout of the outputs of each sub-layer instead of the attention
weights, which would rule out the fused kernel (3 to 6 times slower on a CPU).
"""

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from matinee.networks.options import check_shares, check_sizes


def causal_attention(projected: Tensor, num_heads: int, biases: Tensor | None = None) -> Tensor:
    """Let each position read itself and earlier ones.

    Args:
        projected: Queries, keys and values side by side, (batch, length, 3 * dim).
        num_heads: Number of heads, a divisor of ``dim``.
        biases: What to add to the logits of queries and keys, (num_heads, length, length), minus
            infinity for later keys; None adds nothing.

    Returns:
        The mixed values, (batch, length, dim).
    """
    heads = projected.unflatten(-1, (3, num_heads, -1))  # (batch, length, 3, heads, dim)
    queries, keys, values = heads.permute(2, 0, 3, 1, 4)  # (batch, heads, length, dim) each
    mixed = F.scaled_dot_product_attention(queries, keys, values, biases, is_causal=biases is None)
    return mixed.transpose(1, 2).flatten(2)


class AttentionBlock(nn.Module):
    """Apply self-attention and a feed-forward layer, each pre-norm and residual.

    Args:
        dim: Width of the stream.
        num_heads: Number of attention heads, a divisor of ``dim``.
        feedforward_dim: Width of the feed-forward layer.
        dropout: Share of the outputs of each of the two sub-layers dropped while training.
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

    def forward(self, stream: Tensor, biases: Tensor | None = None) -> Tensor:
        """Map the stream, (batch, length, dim), to the same shape, see :func:`causal_attention`."""
        projected = self.queries_keys_values(self.attention_norm(stream))
        mixed = self.attention_output(causal_attention(projected, self.num_heads, biases))
        stream = stream + self.dropout(mixed)
        return stream + self.feedforward(stream)  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Encode a history with causal self-attention blocks.

    The order enters by position embeddings, which are added to the inputs, or by biases of the
    attention logits, one for each distance between two positions and each head, shared by all blocks
    (Raffel et al., Exploring the Limits of Transfer Learning, JMLR 21, 2020, section 2.1). The biases
    start with the slopes of ALiBi (Press et al., Train Short, Test Long, ICLR 2022): for head ``h`` of
    ``H``, the distance times ``-2 ** (-8 * h / H)``.

    Position embeddings start at 0, so a position that training never reached adds nothing. For a
    history of more than ``max_length`` positions, the representation of a position is computed from
    the first position (the empty history) and the ``max_length - 1`` most recent ones, as if the
    history had been cut beforehand. Each position beyond ``max_length`` costs one extra pass, so
    such rows are rejected while training.

    Args:
        embedding_dim: Width of the inputs and outputs, a multiple of ``num_heads``.
        num_heads: Number of attention heads, at least 1.
        num_layers: Number of blocks, at least 1.
        feedforward_dim: Width of the feed-forward layer of a block, at least 1; None means
            4 ``embedding_dim``.
        max_length: Number of positions including that of the empty history, at least 2.
        dropout: Share of the outputs of each sub-layer dropped while training, in [0, 1).
        relative_positions: Whether the order enters by biases instead of position embeddings.

    Raises:
        ValueError: If a size or ``dropout`` is out of range, or if ``num_heads`` does not divide
            ``embedding_dim``.
    """

    block: ClassVar[Callable[..., nn.Module]] = AttentionBlock

    def __init__(
        self,
        embedding_dim: int,
        num_heads: int = 1,
        num_layers: int = 2,
        feedforward_dim: int | None = None,
        max_length: int = 200,
        dropout: float = 0.0,
        relative_positions: bool = False,
    ) -> None:
        super().__init__()
        feedforward_dim = 4 * embedding_dim if feedforward_dim is None else feedforward_dim
        check_sizes(num_heads=num_heads, num_layers=num_layers, feedforward_dim=feedforward_dim)
        check_sizes(2, max_length=max_length)
        check_shares(dropout=dropout)
        if embedding_dim % num_heads:
            raise ValueError(
                f"num_heads is {num_heads}; give a divisor of embedding_dim, {embedding_dim}."
            )
        self.max_length = max_length
        self.relative_positions = relative_positions
        if relative_positions:
            slopes = -(2.0 ** (-8 * torch.arange(1, num_heads + 1) / num_heads))
            self.distance_biases = nn.Parameter(slopes.unsqueeze(1) * torch.arange(max_length))
        else:
            self.positions = nn.Parameter(torch.zeros(max_length, embedding_dim))
        self.blocks = nn.ModuleList(
            self.block(embedding_dim, num_heads, feedforward_dim, dropout)
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(embedding_dim)

    def forward(self, inputs: Tensor) -> Tensor:
        """Encode (batch, length, dim) as (batch, length, dim), causally.

        Raises:
            ValueError: If rows are longer than ``max_length`` while training.
        """
        length, limit = inputs.shape[1], self.max_length
        if length <= limit:
            return self._encode(inputs)
        if self.training:
            raise ValueError(
                f"training rows have {length} positions and max_length is {limit}; "
                f"set max_length to at least {length}."
            )
        outputs = [self._encode(inputs[:, :limit])]
        for end in range(limit + 1, length + 1):
            newest = torch.cat((inputs[:, :1], inputs[:, end - limit + 1 : end]), dim=1)
            outputs.append(self._encode(newest)[:, -1:])
        return torch.cat(outputs, dim=1)

    def _encode(self, inputs: Tensor) -> Tensor:
        length, stream, biases = inputs.shape[1], inputs, None
        if self.relative_positions:
            places = torch.arange(length, device=inputs.device)
            distances = places.unsqueeze(1) - places
            biases = self.distance_biases[:, distances.clamp(min=0)]
            biases = biases.masked_fill(distances < 0, -math.inf)
        else:
            stream = stream + self.positions[:length]
        for block in self.blocks:
            stream = block(stream, biases)
        return self.norm(stream)  # type: ignore[no-any-return]
