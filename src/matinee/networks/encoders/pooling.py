"""Pooling: a history is the mean or the sum of its items, whatever their order."""

from typing import Literal

import torch
from torch import Tensor, nn

MODES = ("mean", "sum")


class Pooling(nn.Module):
    r"""Causal cumulative mean or sum, :math:`h_t = \frac1{t + 1} \sum_{k \le t} x_k` for the mean.

    The start of a history counts as an item, so the empty history is represented by its own row,
    and a short one is drawn towards it.

    Args:
        embedding_dim: Width of the inputs and of the outputs; there is nothing to size by it.
        mode: "mean" or "sum".

    Raises:
        ValueError: If ``mode`` is neither.
    """

    def __init__(self, embedding_dim: int, mode: Literal["mean", "sum"] = "mean") -> None:
        super().__init__()
        if mode not in MODES:
            raise ValueError(f"model.encoder.mode is {mode!r}; choose one of {', '.join(MODES)}.")
        self.mode = mode

    def forward(self, inputs: Tensor) -> Tensor:
        """Encode (batch, length, dim) as (batch, length, dim), causally."""
        sums = inputs.cumsum(1)
        if self.mode == "sum":
            return sums
        counts = torch.arange(1, inputs.shape[1] + 1, device=inputs.device)
        return sums / counts.unsqueeze(-1)
