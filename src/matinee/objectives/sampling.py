"""Negative sampling: draw items for losses that compare a target with a few other items.

Draws use torch's global generator on the device of the targets. Item 0 is never drawn. A draw that all
targets of a batch share is scored by one product of matrices, several times faster than a draw for
each target; :func:`matinee.objectives.comparing.compare` then excludes a target from its own negatives.
"""

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

_TOTAL = 2**40  # sum of the integer weights: fine steps, yet far below the 2**63 of a raw draw


class UniformSampler(nn.Module):
    """Draw negatives uniformly: every item is equally likely.

    Args:
        num_negatives: Number of negatives per target, at least 1.
        exclude_target: Whether a target is never its own negative.
        shared: Whether the targets of a batch share one draw.

    Raises:
        ValueError: If ``num_negatives`` is below 1.
    """

    is_uniform = True

    def __init__(
        self, num_negatives: int = 1, exclude_target: bool = True, shared: bool = False
    ) -> None:
        super().__init__()
        _check_num_negatives(num_negatives)
        self.num_negatives = num_negatives
        self.exclude_target = exclude_target
        self.shared = shared
        self.num_items = 0

    def fit(self, item_counts: npt.NDArray[np.integer]) -> None:
        """Set the size of the catalogue from counts of shape (num_items + 1,).

        Raises:
            ValueError: If there are too few items to draw from.
        """
        _check_choice(len(item_counts) - 1, self.exclude_target)
        self.num_items = len(item_counts) - 1

    def sample(self, target_ids: Tensor) -> Tensor:
        """Draw negatives for targets in 1..num_items: (n,) to int64 (n or 1, num_negatives)."""
        _check_fitted(self.num_items)
        shape = (1 if self.shared else len(target_ids), self.num_negatives)
        if self.shared or not self.exclude_target:
            return torch.randint(1, self.num_items + 1, shape, device=target_ids.device)
        # draw from one item fewer, then shift the draws from the target on by one
        draws = torch.randint(1, self.num_items, shape, device=target_ids.device)
        return draws + (draws >= target_ids.unsqueeze(1))

    def log_probability(self, item_ids: Tensor) -> Tensor:
        """Return -log(num_items) for each item, float32, and -inf for item 0."""
        _check_fitted(self.num_items)
        log_q = torch.full(item_ids.shape, -math.log(self.num_items), device=item_ids.device)
        return log_q.masked_fill_(item_ids == 0, -math.inf)


class PopularitySampler(nn.Module):
    r"""Draw negatives by popularity: :math:`q(i) \propto c_i^\alpha` for an item with count :math:`c_i`.

    Mikolov et al. (NeurIPS 2013) draw words with :math:`\alpha = 0.75`. Items that do not occur in
    train are never drawn. Probabilities are rounded to multiples of 2^-40; :meth:`log_probability`
    returns the rounded ones, so corrections by the loss are exact on any device.

    Args:
        alpha: Exponent, at least 0. With 0 all items of train are equally likely; with 1 they are
            drawn as often as they occur.
        num_negatives: Number of negatives per target, at least 1.
        exclude_target: Whether a target is never its own negative.
        shared: Whether the targets of a batch share one draw.

    Raises:
        ValueError: If ``num_negatives`` is below 1, or ``alpha`` is negative or not finite.
    """

    is_uniform = False
    cumulative: Tensor
    log_q: Tensor

    def __init__(
        self,
        alpha: float = 0.75,
        num_negatives: int = 1,
        exclude_target: bool = True,
        shared: bool = False,
    ) -> None:
        super().__init__()
        _check_num_negatives(num_negatives)
        if not 0 <= alpha < math.inf:
            raise ValueError(f"alpha is {alpha}; give a finite number of at least 0.")
        self.alpha = alpha
        self.num_negatives = num_negatives
        self.exclude_target = exclude_target
        self.shared = shared
        # not stored in checkpoints, because they are rebuilt from the data
        self.register_buffer("cumulative", torch.zeros(1, dtype=torch.int64), persistent=False)
        self.register_buffer("log_q", torch.full((1,), -math.inf), persistent=False)

    def fit(self, item_counts: npt.NDArray[np.integer]) -> None:
        """Set the probabilities from the counts of the items in train, shape (num_items + 1,).

        Raises:
            ValueError: If a count is negative or there are too few items to draw from.
        """
        counts = np.asarray(item_counts, dtype=np.float64).copy()
        counts[0] = 0
        if (counts < 0).any():
            raise ValueError(f"item_counts has {counts.min():g}; give counts of at least 0.")
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
        """Draw negatives for targets in 1..num_items: (n,) to int64 (n or 1, num_negatives)."""
        _check_fitted(len(self.cumulative) - 1)
        # The remainder of a raw draw is uniform up to a relative error of 2**40 / 2**63.
        shape = (1 if self.shared else len(target_ids), self.num_negatives)
        draws = torch.randint(0, 2**63 - 1, shape, device=target_ids.device)
        if self.exclude_target and not self.shared:
            # the interval of the target is removed: draws from its start on skip over it
            start = self.cumulative[target_ids.long() - 1].unsqueeze(1)
            weight = self.cumulative[target_ids.long()].unsqueeze(1) - start
            draws %= self.cumulative[-1] - weight
            draws += weight * (draws >= start)
        else:
            draws %= self.cumulative[-1]
        return torch.searchsorted(self.cumulative, draws, right=True)

    def log_probability(self, item_ids: Tensor) -> Tensor:
        """Return log q of each item, float32; -inf for 0 and for items that are not in train."""
        _check_fitted(len(self.cumulative) - 1)
        return self.log_q[item_ids]


class InBatchSampler(nn.Module):
    r"""Take the other targets of a batch as negatives, and mix in some uniform ones.

    With u the uniform share, a negative is item i with the probability

    .. math:: q(i) = (1 - u) \frac{c_i}{\sum_j c_j} + \frac{u}{\text{num\_items}}

    because the targets of training are its items, with counts :math:`c_i`. All targets of a batch share
    the draw. Popular items are drawn far more often than others, so use a loss that corrects for q, as
    :class:`matinee.objectives.ranking_losses.SampledSoftmax` does (Yi et al., Sampling-Bias-Corrected
    Neural Modeling for Large Corpus Item Recommendations, RecSys 2019). Targets alone never show an item
    that train lacks, and rarely a rare one; uniform ones do (Yang et al., Mixed Negative Sampling for
    Learning Two-tower Neural Networks in Recommendations, WWW 2020).

    A target is never its own negative. This makes the share of the other targets smaller than 1 - u by
    the factor (n - 1) / n in a batch of n targets; q neglects it.

    Args:
        num_negatives: Number of negatives, at least 1. Those from the batch are different positions of it;
            in a batch with fewer targets, all positions are taken about equally often.
        uniform_share: Share :math:`u` of the negatives drawn uniformly from all items, in [0, 1), rounded
            to a whole number of negatives.

    Raises:
        ValueError: If an option is out of range.
    """

    is_uniform = False
    exclude_target = True
    log_q: Tensor

    def __init__(self, num_negatives: int = 512, uniform_share: float = 0.0) -> None:
        super().__init__()
        _check_num_negatives(num_negatives)
        if not 0 <= uniform_share < 1:
            raise ValueError(f"uniform_share is {uniform_share}; give a share in [0, 1).")
        self.num_negatives = num_negatives
        self.uniform_share = uniform_share
        self.num_uniform = round(num_negatives * uniform_share)
        # not stored in checkpoints, because it is rebuilt from the data
        self.register_buffer("log_q", torch.full((1,), -math.inf), persistent=False)

    def fit(self, item_counts: npt.NDArray[np.integer]) -> None:
        """Set the probabilities from the counts of the items in train, shape (num_items + 1,).

        Raises:
            ValueError: If there are too few items to draw from.
        """
        counts = np.asarray(item_counts, dtype=np.float64).copy()
        counts[0] = 0
        _check_choice(int(np.count_nonzero(counts)), self.exclude_target)
        share = self.num_uniform / self.num_negatives
        probabilities = (1 - share) * counts / counts.sum() + share / (len(counts) - 1)
        probabilities[0] = 0
        with np.errstate(divide="ignore"):
            log_q = np.log(probabilities).astype(np.float32)
        self.log_q = torch.from_numpy(log_q).to(self.log_q.device)

    def sample(self, target_ids: Tensor) -> Tensor:
        """Draw negatives for one or more targets in 1..num_items: (n,) to int64 (1, num_negatives)."""
        _check_fitted(len(self.log_q) - 1)
        device = target_ids.device
        places = torch.arange(self.num_negatives - self.num_uniform, device=device)
        order = torch.randperm(len(target_ids), device=device)
        others = target_ids[order[places % len(target_ids)]].long()
        uniform = torch.randint(1, len(self.log_q), (self.num_uniform,), device=device)
        return torch.cat((others, uniform)).unsqueeze(0)

    def log_probability(self, item_ids: Tensor) -> Tensor:
        """Return log q of each item, float32; -inf for 0 and for items that are never drawn."""
        _check_fitted(len(self.log_q) - 1)
        return self.log_q[item_ids]


def _check_num_negatives(num_negatives: int) -> None:
    if num_negatives < 1:
        raise ValueError(f"num_negatives is {num_negatives}; give a whole number of at least 1.")


def _check_choice(num_drawn: int, exclude_target: bool) -> None:
    if num_drawn < 1 + exclude_target:
        raise ValueError(
            f"there are {num_drawn} items to draw from and exclude_target={exclude_target} needs at "
            f"least {1 + exclude_target}; use more data or a loss without a sampler."
        )


def _check_fitted(num_items: int) -> None:
    if num_items < 1:
        raise RuntimeError("the sampler is not fitted; call fit(item_counts) first.")
