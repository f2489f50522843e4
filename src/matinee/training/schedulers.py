"""Learning-rate schedulers that PyTorch does not have."""

import math

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


class WarmUp(LRScheduler):
    r"""Raise the learning rate linearly for some epochs, then keep it or anneal it to 0.

    In epoch e, counted from 0, the rate of the optimizer is multiplied by

    .. math:: \frac{e + 1}{w + 1} \quad (e < w), \qquad
        \tfrac12 \Big(1 + \cos \frac{\pi (e - w)}{T - w}\Big) \quad (e \ge w)

    with w warm-up epochs (Goyal et al., Accurate, Large Minibatch SGD, 2017, section 2.2) and the
    cosine of Loshchilov & Hutter (SGDR, ICLR 2017) without restarts. Without T the factor is 1 from
    epoch w on.

    Args:
        optimizer: The optimizer.
        warmup_epochs: Number of epochs w, at least 0.
        T_max: Number of epochs T of the run, above ``warmup_epochs``; None keeps the rate.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(self, optimizer: Optimizer, warmup_epochs: int, T_max: int | None = None) -> None:  # noqa: N803 - the name in torch
        if warmup_epochs < 0:
            raise ValueError(
                f"warmup_epochs is {warmup_epochs}; give a whole number of at least 0."
            )
        if T_max is not None and T_max <= warmup_epochs:
            raise ValueError(
                f"T_max is {T_max} and warmup_epochs is {warmup_epochs}; lower warmup_epochs or train longer."
            )
        self.warmup_epochs = warmup_epochs
        self.T_max = T_max
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """Return the rate of each parameter group in this epoch."""
        epoch, warm = self.last_epoch, self.warmup_epochs
        if epoch < warm:
            factor = (epoch + 1) / (warm + 1)
        elif self.T_max is None:
            factor = 1.0
        else:
            share = min((epoch - warm) / (self.T_max - warm), 1.0)
            factor = (1 + math.cos(math.pi * share)) / 2
        return [rate * factor for rate in self.base_lrs]
