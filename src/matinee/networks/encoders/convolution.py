"""Causal dilated convolutions over a history.

After van den Oord et al., WaveNet, 2016 (section 2.1) and Bai, Kolter & Koltun, An Empirical
Evaluation of Generic Convolutional and Recurrent Networks for Sequence Modeling, 2018; without
their gates, normalisation and skip connections.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NONLINEARITIES = {"tanh": torch.tanh, "relu": torch.relu}
LONGEST_REACH = 2**16  # positions that are padded for a layer
DILATION_PERIOD = 8  # layers, then the dilation starts from 1 again, as WaveNet repeats blocks


class CNN(nn.Module):
    r"""A stack of causal convolutions.

    .. math:: x^{l+1}_t = f\Big(b^l + \sum_{k=0}^{k_l - 1} W^l_k x^l_{t - k d_l}\Big) \,[+\, x^l_t]

    What lies before the start of a history is 0. An output sees :math:`1 + \sum_l (k_l - 1) d_l`
    positions: the newest ones.

    Args:
        embedding_dim: Width of the inputs, of every layer and of the outputs.
        kernel_width: Positions :math:`k_l` that a layer reads, at least 1; one for all layers, or a
            list with one for each.
        num_layers: Number of layers.
        dilation: Distance :math:`d_l` between the positions that a layer reads, a list with one for
            each layer; None computes it from ``dilation_multiplier``.
        dilation_multiplier: Makes the dilation of layer :math:`l = 0, 1, \dots` its power
            :math:`l \bmod 8`; unused where ``dilation`` is given.
        nonlinearity: :math:`f`, "tanh" or "relu".
        residual: Whether a layer adds its inputs to its outputs.

    Raises:
        ValueError: If a size is below 1, a list has not one entry for each layer, or the
            nonlinearity is unknown.
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
                f"model.encoder.nonlinearity is {nonlinearity!r}; choose one of "
                f"{', '.join(NONLINEARITIES)}."
            )
        if dilation is None:
            dilation = [dilation_multiplier ** (i % DILATION_PERIOD) for i in range(num_layers)]
        if isinstance(kernel_width, int):
            kernel_width = [kernel_width] * num_layers
        for option, values in (
            ("num_layers", [num_layers]),
            ("dilation_multiplier", [dilation_multiplier]),
            ("kernel_width", kernel_width),
            ("dilation", dilation),
        ):
            if any(value < 1 for value in values):
                raise ValueError(
                    f"model.encoder.{option} is {min(values)}; give whole numbers of at least 1."
                )
            if option in ("kernel_width", "dilation") and len(values) != num_layers:
                raise ValueError(
                    f"model.encoder.{option} has {len(values)} entries for {num_layers} layers "
                    "(model.encoder.num_layers); give one for each."
                )
        self.reaches = [  # how many positions a layer looks back
            (width - 1) * distance for width, distance in zip(kernel_width, dilation, strict=True)
        ]
        if max(self.reaches) > LONGEST_REACH:
            raise ValueError(
                f"a layer would look back {max(self.reaches)} positions, more than {LONGEST_REACH}; "
                "lower model.encoder.kernel_width or its dilation."
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
        hidden = inputs.mT  # (batch, dim, length), as convolutions want it
        for layer, reach in zip(self.layers, self.reaches, strict=True):
            outputs = activate(layer(F.pad(hidden, (reach, 0))))
            hidden = outputs + hidden if self.residual else outputs
        return hidden.mT
