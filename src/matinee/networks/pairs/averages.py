"""Averages: the baselines in closed form, and honest bars for every trained model."""

import math
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from matinee.networks.pairs.factorization import Rows


@runtime_checkable
class ClosedForm(Protocol):
    """A network that is solved, not trained: the task calls ``fit`` once with all of train."""

    def fit(self, user_ids: Tensor, item_ids: Tensor, ratings: Tensor) -> None:
        """Solve for the network's buffers, from columns of shape (rows,)."""


class DampedBias(nn.Module):
    r"""Global mean plus damped item and user means.

    .. math::
        b_i = \frac{\sum_{u \in R_i} (r_{ui} - \mu)}{|R_i| + \lambda_I}, \qquad
        b_u = \frac{\sum_{i \in R_u} (r_{ui} - \mu - b_i)}{|R_u| + \lambda_U}

    (Koren, Factor in the Neighbors, ACM TKDD 4(1), 2010, section 2.1). An infinite damping turns a
    term off: ``inf`` for both is the global mean. Unknown ids have bias 0.

    Args:
        num_users: Number of users; ids are 1..num_users, 0 is unknown.
        num_items: Number of items; ids are 1..num_items, 0 is unknown.
        initial_score: Score of every pair before :meth:`fit`.
        item_damping: :math:`\lambda_I`, in ratings, at least 0.
        user_damping: :math:`\lambda_U`, in ratings, at least 0.
    """

    global_mean: Tensor
    user_bias: Tensor
    item_bias: Tensor

    def __init__(
        self,
        num_users: int,
        num_items: int,
        initial_score: float,
        item_damping: float = 10.0,
        user_damping: float = 10.0,
    ) -> None:
        super().__init__()
        for option, damping in (("item_damping", item_damping), ("user_damping", user_damping)):
            if math.isnan(damping) or damping < 0:
                raise ValueError(
                    f"model.{option} is {damping}; give a number of at least 0, or .inf."
                )
        self.item_damping = item_damping
        self.user_damping = user_damping
        self.register_buffer("global_mean", torch.tensor(float(initial_score)))
        self.register_buffer("user_bias", torch.zeros(num_users + 1))
        self.register_buffer("item_bias", torch.zeros(num_items + 1))

    def fit(self, user_ids: Tensor, item_ids: Tensor, ratings: Tensor) -> None:
        """Solve for the biases.

        Args:
            user_ids: Users of train, shape (rows,).
            item_ids: Items of train, shape (rows,).
            ratings: Their ratings, shape (rows,).
        """
        ratings = ratings.double()
        mean = ratings.mean()
        item_bias = _damped_mean(item_ids, ratings - mean, len(self.item_bias), self.item_damping)
        residuals = ratings - mean - item_bias[item_ids]
        user_bias = _damped_mean(user_ids, residuals, len(self.user_bias), self.user_damping)
        self.global_mean.copy_(mean)
        self.item_bias.copy_(item_bias)
        self.user_bias.copy_(user_bias)

    def lookup(self, user_ids: Tensor, item_ids: Tensor) -> tuple[Rows, Rows]:
        """Take the biases of users and of items, ids (batch,) to rows (batch, 1)."""
        return (self.user_bias[user_ids].unsqueeze(-1),), (self.item_bias[item_ids].unsqueeze(-1),)

    def score(self, user_rows: Rows, item_rows: Rows) -> Tensor:
        """Score looked-up biases, (batch, 1) each, to (batch,)."""
        return self.global_mean + user_rows[0].squeeze(-1) + item_rows[0].squeeze(-1)

    def forward(self, user_ids: Tensor, item_ids: Tensor) -> Tensor:
        """Score pairs of ids, (batch,) each, to (batch,)."""
        return self.score(*self.lookup(user_ids, item_ids))


def _damped_mean(ids: Tensor, values: Tensor, num_rows: int, damping: float) -> Tensor:
    sums = values.new_zeros(num_rows).index_add_(0, ids, values)
    counts = torch.bincount(ids, minlength=num_rows)
    means = sums / (counts + damping)
    return torch.where(counts > 0, means, 0.0)  # 0 / 0 where there is no damping and no rating
