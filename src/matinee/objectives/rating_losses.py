"""Rating losses: compare scores with ratings, and convert scores to ratings.

A rating loss has three tasks: it measures the error of scores, converts a score to a rating, and
chooses the score that an untrained network starts with. A network therefore only outputs scores and
works with every rating loss.
"""

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class _DirectRating(nn.Module):
    """A loss for scores that are ratings; untrained networks start with the mean rating of train."""

    def __init__(self) -> None:
        super().__init__()
        self.initial_score = 0.0

    def fit(self, ratings: npt.NDArray[np.float32]) -> None:
        """Set the initial score to the mean of the ratings, shape (rows,)."""
        self.initial_score = float(np.mean(ratings, dtype=np.float64))

    def rating(self, scores: Tensor) -> Tensor:
        """Return the scores unchanged: they are ratings."""
        return scores


class MSE(_DirectRating):
    r"""Mean squared error, :math:`\frac1n \sum (s - r)^2`; minimising it minimises RMSE."""

    def forward(self, scores: Tensor, ratings: Tensor) -> Tensor:
        """Map scores and ratings, both (batch,), to the mean loss, a scalar."""
        return F.mse_loss(scores, ratings)


class MAE(_DirectRating):
    r"""Mean absolute error, :math:`\frac1n \sum |s - r|`; the best constant score is the median."""

    def forward(self, scores: Tensor, ratings: Tensor) -> Tensor:
        """Map scores and ratings, both (batch,), to the mean loss, a scalar."""
        return F.l1_loss(scores, ratings)


class Huber(_DirectRating):
    r"""Huber loss: squared for small errors, linear for large ones (Huber, 1964).

    .. math:: \frac1n \sum
        \begin{cases} \tfrac12 (s - r)^2 & |s - r| \le \delta \\
        \delta (|s - r| - \tfrac12 \delta) & \text{otherwise} \end{cases}

    Args:
        delta: Error :math:`\delta` beyond which the loss is linear, in rating units, greater than 0.

    Raises:
        ValueError: If ``delta`` is not greater than 0.
    """

    def __init__(self, delta: float = 1.0) -> None:
        super().__init__()
        if not delta > 0:
            raise ValueError(f"delta is {delta}; give a number greater than 0.")
        self.delta = delta

    def forward(self, scores: Tensor, ratings: Tensor) -> Tensor:
        """Map scores and ratings, both (batch,), to the mean loss, a scalar."""
        return F.huber_loss(scores, ratings, delta=self.delta)


class StarClassification(nn.Module):
    r"""Cross-entropy over the rating levels; the predicted rating is the expectation over the levels.

    The score :math:`s` of a pair shifts probability between the levels :math:`v_k`
    (adjacent-category logits, Agresti, Categorical Data Analysis, 8.3.4, with the levels as category
    scores):

    .. math:: P(k \mid s) = \operatorname{softmax}_k (v_k s + b_k)

    The :math:`b_k` start at the logarithm of the frequency of the level in train and are trained with
    the network. With :math:`s = 0` the initial prediction is the mean rating. The levels are centred
    and scaled to unit variance, so a score has the same effect on a scale of 5 stars and on a scale
    of 100 points.
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
        """Read the levels and their frequencies from the ratings of train, shape (rows,).

        Raises:
            ValueError: If there are fewer than 2 or more than 100 levels.
        """
        levels, counts = np.unique(ratings, return_counts=True)
        if not 2 <= len(levels) <= 100:
            raise ValueError(
                f"the ratings of train have {len(levels)} levels and StarClassification takes 2 to 100; "
                "use MSE."
            )
        shares = counts / counts.sum()
        mean = float(levels @ shares)
        deviation = math.sqrt(float((levels - mean) ** 2 @ shares))
        self.levels = torch.as_tensor(levels)
        self.tilt = (self.levels - mean) / deviation
        self.level_bias = nn.Parameter(torch.as_tensor(np.log(shares), dtype=torch.float32))

    def rating(self, scores: Tensor) -> Tensor:
        """Convert each score to the expected rating, same shape."""
        return self._logits(scores).softmax(-1) @ self.levels

    def forward(self, scores: Tensor, ratings: Tensor) -> Tensor:
        """Map scores and ratings, both (batch,), to the mean loss in nats; all levels are known to `fit`."""
        classes = torch.searchsorted(self.levels, ratings)
        return F.cross_entropy(self._logits(scores), classes)

    def _logits(self, scores: Tensor) -> Tensor:
        return scores.unsqueeze(-1) * self.tilt + self.level_bias  # (batch, levels)
