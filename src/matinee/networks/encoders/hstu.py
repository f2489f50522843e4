r"""Hierarchical sequential transduction units (Zhai et al., Actions Speak Louder than Words, ICML 2024).

Attention without a softmax, gated, with biases by distance and by time. With :math:`x` the normalised
stream, :math:`\phi` the SiLU and :math:`p`, :math:`b` trained tables, equations 1 to 3 are

.. math::
    u, v, q, k &= \phi(W_1 x + c_1) \\
    a_t &= \tfrac{1}{t + 1} \sum_{s \le t}
        \phi(q_t^\top k_s + p_{t - s} + b_{\beta(\tau_t - \tau_s)})\, v_s \\
    y_t &= W_2 (\operatorname{norm}(a_t) \odot u_t) + c_2

and :math:`y` is added to the stream. The bucket of a gap of :math:`\Delta` seconds is
:math:`\beta(\Delta) = \lfloor \ln \max(\Delta, 1) / 0.301 \rfloor`, as in the authors' code, where
:math:`\tau_t` is the time of the next item; here it is that of the newest item, because the time of a
target is not known when it is predicted. Their sum is divided by a constant instead of the number of
positions, which the norm makes equivalent but for its epsilon.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from matinee.networks.options import check_shares, check_sizes

BUCKET_WIDTH = 0.301  # in the logarithm of the seconds


class HSTU(nn.Module):
    """Encode a history with hierarchical sequential transduction units.

    There are no position embeddings, so histories of any length are read. Biases start at 0.

    Args:
        embedding_dim: Width of the inputs and outputs, a multiple of ``num_heads``.
        num_heads: Number of attention heads, at least 1.
        num_layers: Number of layers, at least 1.
        max_distance: Number of distances between two positions that have a bias of their own, at least
            1; larger ones share the last.
        num_buckets: Number of buckets of the time between two items, at least 1; 64 reach to 7 years.
        dropout: Share of the outputs of each layer dropped while training, in [0, 1).

    Raises:
        ValueError: If an option is out of range, or ``num_heads`` does not divide ``embedding_dim``.
    """

    needs_times = True

    def __init__(
        self,
        embedding_dim: int,
        num_heads: int = 1,
        num_layers: int = 2,
        max_distance: int = 200,
        num_buckets: int = 64,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_sizes(num_heads=num_heads, num_layers=num_layers)
        check_sizes(max_distance=max_distance, num_buckets=num_buckets)
        check_shares(dropout=dropout)
        if embedding_dim % num_heads:
            raise ValueError(
                f"num_heads is {num_heads}; give a divisor of embedding_dim, {embedding_dim}."
            )
        self.max_distance = max_distance
        self.num_buckets = num_buckets
        self.layers = nn.ModuleList(
            HSTULayer(embedding_dim, num_heads, max_distance, num_buckets, dropout)
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(embedding_dim)

    def forward(self, inputs: Tensor, times: Tensor) -> Tensor:
        """Encode (batch, length, dim) as (batch, length, dim), causally; times (batch, length), seconds."""
        places = torch.arange(inputs.shape[1], device=inputs.device)
        distances = (places.unsqueeze(1) - places).clamp(0, self.max_distance - 1)
        gaps = (times.unsqueeze(2) - times.unsqueeze(1)).clamp_min(1)  # (batch, length, length)
        buckets = (gaps.float().log() / BUCKET_WIDTH).long().clamp_max_(self.num_buckets - 1)
        stream = inputs
        for layer in self.layers:
            stream = layer(stream, distances, buckets)
        return self.norm(stream)  # type: ignore[no-any-return]


class HSTULayer(nn.Module):
    """Apply one layer, pre-norm and residual.

    Args:
        dim: Width of the stream.
        num_heads: Number of heads, a divisor of ``dim``.
        max_distance: Number of biases by distance.
        num_buckets: Number of biases by time.
        dropout: Share of the output dropped while training.
    """

    def __init__(
        self, dim: int, num_heads: int, max_distance: int, num_buckets: int, dropout: float
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(dim)
        self.projection = nn.Linear(dim, 4 * dim)  # u, v, q, k
        self.distance_biases = nn.Parameter(torch.zeros(max_distance, 1))
        self.time_biases = nn.Parameter(torch.zeros(num_buckets, 1))
        self.mixed_norm = nn.LayerNorm(dim)
        self.output = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, stream: Tensor, distances: Tensor, buckets: Tensor) -> Tensor:
        """Map the stream, (batch, length, dim), to the same shape, causally.

        Args:
            stream: The inputs.
            distances: Row of the bias by distance for each query and key, (length, length).
            buckets: Row of the bias by time, (batch, length, length).
        """
        gates, *heads = F.silu(self.projection(self.norm(stream))).chunk(4, -1)
        values, queries, keys = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in heads
        )  # (batch, heads, length, dim)
        biases = F.embedding(distances, self.distance_biases).squeeze(-1)  # (length, length)
        biases = biases + F.embedding(buckets, self.time_biases).squeeze(-1)
        weights = F.silu(queries @ keys.mT + biases.unsqueeze(1)).tril()
        visible = torch.arange(1, stream.shape[1] + 1, device=stream.device)
        mixed = (weights @ values) / visible.unsqueeze(1)
        mixed = self.mixed_norm(mixed.transpose(1, 2).flatten(2))
        return stream + self.dropout(self.output(mixed * gates))  # type: ignore[no-any-return]
