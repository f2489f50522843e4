"""Causal self-attention with gated residuals and SwiGLU: LiGR layers.

Borisyuk et al., From Features to Transformers: Redefining Ranking for Scalable Impact, 2025, gate what
a sub-layer adds to the stream. Tikhonovich et al., eSASRec: Enhancing Transformer-based Recommendations
in a Modular Fashion, RecSys 2025, use such layers with a SwiGLU feed-forward layer (Shazeer, GLU
Variants Improve Transformer, 2020) in place of those of SASRec.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from matinee.networks.encoders.attention import Attention, causal_attention


class LigrBlock(nn.Module):
    r"""Apply self-attention and a feed-forward layer, each pre-norm, residual and gated.

    .. math::
        x &\leftarrow x + \sigma(W_a x + b_a) \odot \operatorname{attention}(\operatorname{norm}(x)) \\
        x &\leftarrow x + \sigma(W_f x + b_f) \odot
            W_3 (\operatorname{SiLU}(W_1 y) \odot W_2 y), \qquad y = \operatorname{norm}(x)

    Args:
        dim: Width of the stream.
        num_heads: Number of attention heads, a divisor of ``dim``.
        feedforward_dim: Width of the feed-forward layer.
        dropout: Share of what each of the two sub-layers adds that is dropped while training.
    """

    def __init__(self, dim: int, num_heads: int, feedforward_dim: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm = nn.LayerNorm(dim)
        self.queries_keys_values = nn.Linear(dim, 3 * dim)
        self.attention_output = nn.Linear(dim, dim)
        self.attention_gate = nn.Linear(dim, dim)
        self.feedforward_norm = nn.LayerNorm(dim)
        self.feedforward_input = nn.Linear(dim, 2 * feedforward_dim)  # W_1 and W_2
        self.feedforward_output = nn.Linear(feedforward_dim, dim)
        self.feedforward_gate = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, stream: Tensor, biases: Tensor | None = None) -> Tensor:
        """Map the stream, (batch, length, dim), to the same shape, see :func:`causal_attention`."""
        projected = self.queries_keys_values(self.attention_norm(stream))
        mixed = self.attention_output(causal_attention(projected, self.num_heads, biases))
        stream = stream + self.dropout(self.attention_gate(stream).sigmoid() * mixed)
        gate, value = self.feedforward_input(self.feedforward_norm(stream)).chunk(2, -1)
        update = self.feedforward_output(F.silu(gate) * value)
        added = self.dropout(self.feedforward_gate(stream).sigmoid() * update)
        return stream + added  # type: ignore[no-any-return]


class Ligr(Attention):
    """Encode a history with gated causal self-attention blocks.

    All but the blocks, see :class:`LigrBlock`, is as in
    :class:`matinee.networks.encoders.attention.Attention`, with the same arguments.
    """

    block = LigrBlock
