"""Average ratings: closed-form baselines that every trained model should beat."""

import math

import torch
from torch import Tensor, nn

from matinee.contracts import Rows


class DampedBias(nn.Module):
    r"""Predict the global mean plus damped means of the item and of the user.

    .. math::
        b_i = \frac{\sum_{u \in R_i} (r_{ui} - \mu)}{|R_i| + \lambda_I}, \qquad
        b_u = \frac{\sum_{i \in R_u} (r_{ui} - \mu - b_i)}{|R_u| + \lambda_U}

    (Koren, Factor in the Neighbors, ACM TKDD 4(1), 2010, section 2.1). An infinite damping switches
    a term off; with ``inf`` for both, the prediction is the global mean. Ids that are not in train
    have bias 0.

    Args:
        num_users: Number of users; ids are 1..num_users, 0 is unknown.
        num_items: Number of items; ids are 1..num_items, 0 is unknown.
        initial_score: Score of every pair before :meth:`fit`.
        item_damping: :math:`\lambda_I`, in ratings, at least 0.
        user_damping: :math:`\lambda_U`, in ratings, at least 0.

    Raises:
        ValueError: If a damping is negative or NaN.
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
                    f"{option} is {damping}; give a number of at least 0; .inf switches the term off."
                )
        self.item_damping = item_damping
        self.user_damping = user_damping
        self.register_buffer("global_mean", torch.tensor(float(initial_score)))
        self.register_buffer("user_bias", torch.zeros(num_users + 1))
        self.register_buffer("item_bias", torch.zeros(num_items + 1))

    def fit(self, user_ids: Tensor, item_ids: Tensor, ratings: Tensor) -> None:
        """Compute the global mean and the biases from train.

        Args:
            user_ids: User of each rating, shape (rows,).
            item_ids: Item of each rating, shape (rows,).
            ratings: The ratings, shape (rows,).
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
        """Look up the biases of users and items: ids (batch,) to rows (batch, 1)."""
        return (self.user_bias[user_ids].unsqueeze(-1),), (self.item_bias[item_ids].unsqueeze(-1),)

    def score(self, user_rows: Rows, item_rows: Rows) -> Tensor:
        """Score looked-up rows: (batch, 1) each to (batch,)."""
        return self.global_mean + user_rows[0].squeeze(-1) + item_rows[0].squeeze(-1)

    def score_all(self, user_rows: Rows, item_rows: Rows) -> Tensor:
        """Score all pairs of rows: (n, 1) and (m, 1) to (n, m)."""
        return self.global_mean + user_rows[0] + item_rows[0].T

    def tables(self) -> dict[str, Tensor]:
        """Return no embeddings: a bias has no direction."""
        return {}

    def forward(self, user_ids: Tensor, item_ids: Tensor) -> Tensor:
        """Score pairs of ids: (batch,) each to (batch,)."""
        return self.score(*self.lookup(user_ids, item_ids))


def _damped_mean(ids: Tensor, values: Tensor, num_rows: int, damping: float) -> Tensor:
    sums = values.new_zeros(num_rows).index_add_(0, ids, values)
    counts = torch.bincount(ids, minlength=num_rows)
    means = sums / (counts + damping)
    return torch.where(counts > 0, means, 0.0)  # without damping, an id without ratings is 0 / 0
