"""Causal dilated convolutions over a history.

Based on van den Oord et al., WaveNet, 2016 (section 2.1) and Bai, Kolter & Koltun, An Empirical
Evaluation of Generic Convolutional and Recurrent Networks for Sequence Modeling, 2018, without
their gates, normalisation and skip connections.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from matinee.networks.options import check_sizes

NONLINEARITIES = {"tanh": torch.tanh, "relu": torch.relu}
LONGEST_REACH = 2**16  # most positions that a layer may look back; they are padded with zeros
DILATION_PERIOD = 8  # after so many layers the dilation restarts at 1, as in WaveNet's blocks


class CNN(nn.Module):
    r"""Encode a history with a stack of causal dilated convolutions.

    .. math:: x^{l+1}_t = f\Big(b^l + \sum_{k=0}^{k_l - 1} W^l_k x^l_{t - k d_l}\Big) \,[+\, x^l_t]

    Inputs before the start of a history are 0. An output depends on the
    :math:`1 + \sum_l (k_l - 1) d_l` most recent positions.

    Args:
        embedding_dim: Width of the inputs, of every layer and of the outputs.
        kernel_width: Number :math:`k_l` of positions that a layer reads, at least 1: one number for
            all layers, or a list with one number per layer.
        num_layers: Number of layers, at least 1.
        dilation: Distance :math:`d_l` between the positions that a layer reads, at least 1: a list
            with one number per layer. None computes it from ``dilation_multiplier``.
        dilation_multiplier: Base of the dilation, at least 1: layer :math:`l = 0, 1, \dots` gets
            this number to the power :math:`l \bmod 8`. Not used if ``dilation`` is given.
        nonlinearity: Function :math:`f`, "tanh" or "relu".
        residual: Whether a layer adds its inputs to its outputs.

    Raises:
        ValueError: If a number is out of range, a list does not have one entry per layer, or
            ``nonlinearity`` is unknown.
    """

    def __init__(
        self,
        embedding_dim: int,
        kernel_width: int | Sequence[int] = 3,
        num_layers: int = 1,
        dilation: Sequence[int] | None = None,
        dilation_multiplier: int = 1,
        nonlinearity: Literal["tanh", "relu"] = "tanh",
        residual: bool = True,
    ) -> None:
        super().__init__()
        if nonlinearity not in NONLINEARITIES:
            raise ValueError(
                f"nonlinearity is {nonlinearity!r}; choose one of {', '.join(NONLINEARITIES)}."
            )
        if dilation is None:
            dilation = [dilation_multiplier ** (i % DILATION_PERIOD) for i in range(num_layers)]
        if isinstance(kernel_width, int):
            kernel_width = [kernel_width] * num_layers
        check_sizes(num_layers=num_layers, dilation_multiplier=dilation_multiplier)
        for option, values in (("kernel_width", kernel_width), ("dilation", dilation)):
            if len(values) != num_layers:
                raise ValueError(
                    f"{option} has {len(values)} entries and num_layers is {num_layers}; "
                    "give one entry per layer."
                )
            check_sizes(**{option: min(values)})
        self.reaches = [  # how many positions each layer looks back
            (width - 1) * distance for width, distance in zip(kernel_width, dilation, strict=True)
        ]
        if max(self.reaches) > LONGEST_REACH:
            raise ValueError(
                f"a layer would look back {max(self.reaches)} positions, more than {LONGEST_REACH}; "
                "lower kernel_width or the dilation."
            )
        self.layers = nn.ModuleList(
            nn.Conv1d(embedding_dim, embedding_dim, width, dilation=distance)
            for width, distance in zip(kernel_width, dilation, strict=True)
        )
        self.nonlinearity = nonlinearity
        self.residual = residual

    def forward(self, inputs: Tensor) -> Tensor:
        """Encode (batch, length, dim) as (batch, length, dim), causally."""
        activate = NONLINEARITIES[self.nonlinearity]
        hidden = inputs.mT  # (batch, dim, length), the layout of convolutions
        for layer, reach in zip(self.layers, self.reaches, strict=True):
            outputs = activate(layer(F.pad(hidden, (reach, 0))))
            hidden = outputs + hidden if self.residual else outputs
        return hidden.mT
