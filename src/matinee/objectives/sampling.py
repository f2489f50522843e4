"""Sampling: negative items for the losses that compare a target with a few others.

Draws come from torch's global generator on the device of the targets. Item 0 is never drawn.
"""

import math
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

_TOTAL = 2**40  # of the integer weights below: fine steps, yet far below the 2**63 of a raw draw


class NegativeSampler(Protocol):
    """What a next-item task asks of its sampler."""

    num_negatives: int

    def fit(self, item_counts: npt.NDArray[np.integer]) -> None:
        """Learn the catalogue.

        Args:
            item_counts: Number of interactions of each item in train, (num_items + 1,); entry 0 is
                ignored.
        """

    def sample(self, target_ids: Tensor) -> Tensor:
        """Draw negatives for each target: (n,) to int64 (n, num_negatives) in 1..num_items."""

    def log_probability(self, item_ids: Tensor) -> Tensor:
        """Log of the chance of items in one draw that may hit the target, float32, same shape.

        Where the target is excluded, the chance of any other item is larger by the factor
        1 / (1 - chance of the target).
        """


class UniformSampler(nn.Module):
    """Every item is equally likely.

    Args:
        num_negatives: Negatives of each target, at least 1.
        exclude_target: Whether the target itself is never drawn.

    Raises:
        ValueError: If ``num_negatives`` is not positive.
    """

    def __init__(self, num_negatives: int = 1, exclude_target: bool = True) -> None:
        super().__init__()
        _check_num_negatives(num_negatives)
        self.num_negatives = num_negatives
        self.exclude_target = exclude_target
        self.num_items = 0

    def fit(self, item_counts: npt.NDArray[np.integer]) -> None:
        """Take the size of the catalogue from counts of shape (num_items + 1,).

        Raises:
            ValueError: If no item is left to draw.
        """
        _check_choice(len(item_counts) - 1, self.exclude_target)
        self.num_items = len(item_counts) - 1

    def sample(self, target_ids: Tensor) -> Tensor:
        """Draw negatives, int64, (n, num_negatives), for targets in 1..num_items, shape (n,)."""
        _check_fitted(self.num_items)
        shape = (len(target_ids), self.num_negatives)
        if not self.exclude_target:
            return torch.randint(1, self.num_items + 1, shape, device=target_ids.device)
        # one item fewer to choose from; those from the target on move up by one to close the gap
        draws = torch.randint(1, self.num_items, shape, device=target_ids.device)
        return draws + (draws >= target_ids.unsqueeze(1))

    def log_probability(self, item_ids: Tensor) -> Tensor:
        """Return -log(num_items) for every item, float32, and -inf for 0."""
        _check_fitted(self.num_items)
        log_q = torch.full(item_ids.shape, -math.log(self.num_items), device=item_ids.device)
        return log_q.masked_fill_(item_ids == 0, -math.inf)


class PopularitySampler(nn.Module):
    r"""Items are as likely as they are popular in train: :math:`q(i) \propto c_i^\alpha`.

    Mikolov et al. (NeurIPS 2013) draw words with :math:`\alpha = 0.75`. An item that train never
    holds is never drawn. Probabilities are rounded to multiples of 2^-40, and `log_probability`
    reports the rounded ones, so the correction of a loss is exact on any device.

    Args:
        alpha: 0 makes all items of train equally likely, 1 draws them as often as they occur.
        num_negatives: Negatives of each target, at least 1.
        exclude_target: Whether the target itself is never drawn.

    Raises:
        ValueError: If ``num_negatives`` is not positive or ``alpha`` is negative.
    """

    cumulative: Tensor
    log_q: Tensor

    def __init__(
        self, alpha: float = 0.75, num_negatives: int = 1, exclude_target: bool = True
    ) -> None:
        super().__init__()
        _check_num_negatives(num_negatives)
        if not 0 <= alpha < math.inf:
            raise ValueError(f"sampler.alpha is {alpha}; give a number of at least 0.")
        self.alpha = alpha
        self.num_negatives = num_negatives
        self.exclude_target = exclude_target
        # made from the data whenever a run is built, hence not in its checkpoints
        self.register_buffer("cumulative", torch.zeros(1, dtype=torch.int64), persistent=False)
        self.register_buffer("log_q", torch.full((1,), -math.inf), persistent=False)

    def fit(self, item_counts: npt.NDArray[np.integer]) -> None:
        """Take the popularity of the items from counts in train, shape (num_items + 1,).

        Raises:
            ValueError: If a count is negative or no item is left to draw.
        """
        counts = np.asarray(item_counts, dtype=np.float64).copy()
        counts[0] = 0
        if (counts < 0).any():
            raise ValueError("sampler: item counts must not be negative.")
        drawn = counts > 0
        _check_choice(int(np.count_nonzero(drawn)), self.exclude_target)
        shares = np.where(drawn, (counts / counts.max()) ** self.alpha, 0)
        weights = np.rint(shares / shares.sum() * _TOTAL).astype(np.int64)
        weights[drawn] = np.maximum(weights[drawn], 1)
        cumulative = np.cumsum(weights)
        with np.errstate(divide="ignore"):
            log_q = np.log(weights / cumulative[-1]).astype(np.float32)
        device = self.cumulative.device
        self.cumulative = torch.from_numpy(cumulative).to(device)
        self.log_q = torch.from_numpy(log_q).to(device)

    def sample(self, target_ids: Tensor) -> Tensor:
        """Draw negatives, int64, (n, num_negatives), for targets in 1..num_items, shape (n,)."""
        _check_fitted(len(self.cumulative) - 1)
        # The remainder of a raw draw is uniform but for 2**40 / 2**63 of its chance.
        shape = (len(target_ids), self.num_negatives)
        draws = torch.randint(0, 2**63 - 1, shape, device=target_ids.device)
        if self.exclude_target:
            # the target's stretch of the line is taken out: draws behind its start skip over it
            start = self.cumulative[target_ids.long() - 1].unsqueeze(1)
            weight = self.cumulative[target_ids.long()].unsqueeze(1) - start
            draws %= self.cumulative[-1] - weight
            draws += weight * (draws >= start)
        else:
            draws %= self.cumulative[-1]
        return torch.searchsorted(self.cumulative, draws, right=True)

    def log_probability(self, item_ids: Tensor) -> Tensor:
        """Return log q of each item, float32; -inf for 0 and for items that train never held."""
        _check_fitted(len(self.cumulative) - 1)
        return self.log_q[item_ids]


def _check_num_negatives(num_negatives: int) -> None:
    if num_negatives < 1:
        raise ValueError(
            f"sampler.num_negatives is {num_negatives}; give a whole number of at least 1."
        )


def _check_choice(num_drawn: int, exclude_target: bool) -> None:
    if num_drawn < 1 + exclude_target:
        raise ValueError(
            f"the sampler has {num_drawn} items to draw from and needs {1 + exclude_target} where "
            f"exclude_target={exclude_target}; bring more data or choose loss=softmax."
        )


def _check_fitted(num_items: int) -> None:
    if num_items < 1:
        raise RuntimeError("fit the sampler to the item counts of train before it is used")
