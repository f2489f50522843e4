"""One loss of each kind."""

import math

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn
from torch.nn import functional as F

from matinee.contracts import RankingScores


class SquaredHinge(nn.Module):
    r"""Compare a target with negatives: :math:`\frac1k \sum_j \max(0, m - s^+ + s^-_j)^2`.

    Args:
        margin: Margin :math:`m`, greater than 0.
    """

    compares = "negatives"
    needs_excluded_target = True  # reject samplers that may draw the target
    needs_uniform_negatives = False  # accept any distribution

    def __init__(self, margin: float = 1.0) -> None:
        super().__init__()
        if not margin > 0:
            raise ValueError(f"margin is {margin}; give a number greater than 0.")
        self.margin = margin

    def fit(self, num_items: int) -> None:
        """Do nothing: the loss does not depend on the number of items."""

    def forward(self, scores: RankingScores) -> Tensor:
        """Average the loss over n targets."""
        margins = scores.positive.unsqueeze(-1) - scores.negative  # (n, k)
        losses = scores.mean(F.relu(self.margin - margins).square())  # (n,)
        return losses.sum() / max(len(losses), 1)


class SmoothedSoftmax(nn.Module):
    """Compare a target with the whole catalogue: cross-entropy with label smoothing.

    Args:
        smoothing: Probability that is spread over all items, in [0, 1).
    """

    compares = "catalogue"

    def __init__(self, smoothing: float = 0.1) -> None:
        super().__init__()
        self.smoothing = smoothing

    def fit(self, num_items: int) -> None:
        """Do nothing: the item table gives the number of items."""

    def forward(
        self, representations: Tensor, item_weights: Tensor, item_biases: Tensor, target_ids: Tensor
    ) -> Tensor:
        """Average the loss over n targets."""
        scores = F.linear(representations, item_weights[1:], item_biases[1:])  # without padding
        losses = F.cross_entropy(
            scores, target_ids.long() - 1, reduction="none", label_smoothing=self.smoothing
        )
        return losses.sum() / max(len(losses), 1)


class LogCosh(nn.Module):
    r"""Compare a score with a rating: :math:`\log \cosh(s - r)`, smooth and robust to outliers."""

    initial_score = 0.0

    def fit(self, ratings: npt.NDArray[np.float32]) -> None:
        """Set the initial score to the mean rating of train."""
        self.initial_score = float(np.mean(ratings, dtype=np.float64))

    def rating(self, scores: Tensor) -> Tensor:
        """Return the scores unchanged: they are ratings."""
        return scores

    def forward(self, scores: Tensor, ratings: Tensor) -> Tensor:
        """Average the loss over a batch."""
        errors = (scores - ratings).abs()
        return (errors + F.softplus(-2 * errors) - math.log(2)).mean()
