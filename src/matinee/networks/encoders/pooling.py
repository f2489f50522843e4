"""Pooling: represent a history by the mean or the sum of its items."""

from typing import Literal

import torch
from torch import Tensor, nn

MODES = ("mean", "sum")


class Pooling(nn.Module):
    r"""Average or sum the inputs so far; the mean is :math:`h_t = \frac1{t + 1} \sum_{k \le t} x_k`.

    The order of the items does not matter. Position 0, the empty history, counts as an input, so it
    has a representation of its own and pulls those of short histories towards it.

    Args:
        embedding_dim: Width of the inputs and outputs. Not used, because there are no weights.
        mode: "mean" or "sum".

    Raises:
        ValueError: If ``mode`` is unknown.
    """

    def __init__(self, embedding_dim: int, mode: Literal["mean", "sum"] = "mean") -> None:
        super().__init__()
        if mode not in MODES:
            raise ValueError(f"mode is {mode!r}; choose one of {', '.join(MODES)}.")
        self.mode = mode

    def forward(self, inputs: Tensor) -> Tensor:
        """Encode (batch, length, dim) as (batch, length, dim), causally."""
        sums = inputs.cumsum(1)
        if self.mode == "sum":
            return sums
        counts = torch.arange(1, inputs.shape[1] + 1, device=inputs.device)
        return sums / counts.unsqueeze(-1)
