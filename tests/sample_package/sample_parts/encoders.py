"""An encoder of histories."""

import torch
from torch import Tensor, nn


class MovingAverage(nn.Module):
    r"""Average the inputs with weights that decay into the past.

    .. math:: h_t = a \odot h_{t-1} + (1 - a) \odot x_t, \qquad h_{-1} = 0

    Args:
        embedding_dim: Width of the inputs and outputs.
        decay: Initial value of the entries of :math:`a`, which is trained, in (0, 1).
    """

    def __init__(self, embedding_dim: int, decay: float = 0.5) -> None:
        super().__init__()
        if not 0 < decay < 1:
            raise ValueError(f"decay is {decay}; give a number between 0 and 1.")
        self.logits = nn.Parameter(torch.full((embedding_dim,), decay).logit())
        self.output = nn.Linear(embedding_dim, embedding_dim)

    def forward(self, inputs: Tensor) -> Tensor:
        """Encode (batch, length, dim) as (batch, length, dim), causally."""
        decay = self.logits.sigmoid()
        average, averages = torch.zeros_like(inputs[:, 0]), []
        for items in inputs.unbind(1):
            average = decay * average + (1 - decay) * items  # (batch, dim)
            averages.append(average)
        return self.output(torch.stack(averages, 1))
