"""Losses: what a network's scores are trained on.

A rating loss is a module with three duties, so that a network needs to know none of them: how wrong
the scores are, which rating a score stands for, and which score an untrained network should start at.
"""

import math
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class RatingLoss(Protocol):
    """What a rating task asks of its loss."""

    def fit(self, ratings: npt.NDArray[np.float32]) -> None:
        """Learn what the loss needs from the training ratings, before the network is built.

        Args:
            ratings: All ratings of train, shape (rows,).
        """

    @property
    def initial_score(self) -> float:
        """The score that an untrained network should give to every pair."""

    def rating(self, scores: Tensor) -> Tensor:
        """The rating that each score stands for, same shape, on the scale of the data."""

    def __call__(self, scores: Tensor, ratings: Tensor) -> Tensor:
        """The mean loss over a batch: scores and ratings of shape (batch,) to a scalar."""


class _DirectRating(nn.Module):
    """A score is the rating itself; the start is the mean rating of train."""

    def __init__(self) -> None:
        super().__init__()
        self.initial_score = 0.0

    def fit(self, ratings: npt.NDArray[np.float32]) -> None:
        """Take the mean rating as the initial score."""
        self.initial_score = float(np.mean(ratings, dtype=np.float64))

    def rating(self, scores: Tensor) -> Tensor:
        """Return the scores as they are."""
        return scores


class MSE(_DirectRating):
    r"""Mean squared error, :math:`\frac1n \sum (s - r)^2`: the loss that RMSE asks for."""

    def forward(self, scores: Tensor, ratings: Tensor) -> Tensor:
        """Scores and ratings, both (batch,), to a scalar."""
        return F.mse_loss(scores, ratings)


class MAE(_DirectRating):
    r"""Mean absolute error, :math:`\frac1n \sum |s - r|`: its optimum is the median."""

    def forward(self, scores: Tensor, ratings: Tensor) -> Tensor:
        """Scores and ratings, both (batch,), to a scalar."""
        return F.l1_loss(scores, ratings)


class Huber(_DirectRating):
    """Squared error within ``delta`` of the rating, linear beyond it (Huber, 1964).

    Args:
        delta: Where the loss turns linear, in rating units, greater than 0.
    """

    def __init__(self, delta: float = 1.0) -> None:
        super().__init__()
        if not delta > 0:
            raise ValueError(f"loss.delta is {delta}; give a number greater than 0.")
        self.delta = delta

    def forward(self, scores: Tensor, ratings: Tensor) -> Tensor:
        """Scores and ratings, both (batch,), to a scalar."""
        return F.huber_loss(scores, ratings, delta=self.delta)


class StarClassification(nn.Module):
    r"""Cross-entropy over the rating levels; the prediction is the expected rating.

    The score :math:`s` of a pair tilts the base rates of the levels :math:`v_k` (adjacent-category
    logits, Agresti, Categorical Data Analysis, 8.3.4; the levels serve as the category scores):

    .. math:: P(k \mid s) = \operatorname{softmax}_k (v_k s + b_k)

    With :math:`s = 0` and :math:`b_k` at the logarithm of the level's frequency, the start predicts
    the mean rating. The :math:`b_k` are trained with the network. Levels are centred and scaled to
    unit variance, so that a score means the same on a scale of 5 stars and on one of 100 points.
    """

    levels: Tensor
    tilt: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.initial_score = 0.0
        self.register_buffer("levels", torch.zeros(0))
        self.register_buffer("tilt", torch.zeros(0))
        self.level_bias = nn.Parameter(torch.zeros(0))

    def fit(self, ratings: npt.NDArray[np.float32]) -> None:
        """Take the levels and their frequencies from the training ratings.

        Raises:
            ValueError: If there is one level only, or more than 100 (a scale without levels).
        """
        levels, counts = np.unique(ratings, return_counts=True)
        if not 2 <= len(levels) <= 100:
            raise ValueError(
                f"loss=star_classification needs 2 to 100 rating levels and the training ratings have "
                f"{len(levels)}; choose loss=mse."
            )
        shares = counts / counts.sum()
        mean = float(levels @ shares)
        deviation = math.sqrt(float((levels - mean) ** 2 @ shares))
        self.levels = torch.as_tensor(levels)
        self.tilt = (self.levels - mean) / deviation
        self.level_bias = nn.Parameter(torch.as_tensor(np.log(shares), dtype=torch.float32))

    def rating(self, scores: Tensor) -> Tensor:
        """Return the expected rating of each score."""
        return self._logits(scores).softmax(-1) @ self.levels

    def forward(self, scores: Tensor, ratings: Tensor) -> Tensor:
        """Scores and ratings that :meth:`fit` has met, both (batch,), to a scalar in nats."""
        classes = torch.searchsorted(self.levels, ratings)
        return F.cross_entropy(self._logits(scores), classes)

    def _logits(self, scores: Tensor) -> Tensor:
        return scores.unsqueeze(-1) * self.tilt + self.level_bias  # (batch, levels)
