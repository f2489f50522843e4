"""Folding in: estimate a newcomer's rows from a few ratings, without changing anything else."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from matinee.contracts import Rows

if TYPE_CHECKING:
    from matinee.batches import RatingDataModule
    from matinee.training.tasks.rating import RatingTask


@torch.enable_grad()
def fold_in(
    task: "RatingTask", datamodule: "RatingDataModule", item_ids: Tensor, ratings: Tensor
) -> Rows:
    r"""Estimate a newcomer's rows from ratings.

    The estimate maximizes the posterior under Gaussian noise and a Gaussian prior around the unknown
    user,

    .. math:: \min_p \sum_i \frac{(\hat r_i(p) - r_i)^2}{2\sigma^2}
              + \sum_k \frac{(p_k - p_{0k})^2}{2 \tau_k^2}

    where :math:`\sigma^2` is the mean squared error on train and :math:`\tau_k^2` the mean square of
    the trained users' rows around the unknown row. This is empirical Bayes, so nothing has to be tuned.

    Args:
        task: A trained task.
        datamodule: The data that it was trained on.
        item_ids: The rated items, shape (ratings,).
        ratings: Their ratings, shape (ratings,), in rating units.

    Returns:
        The newcomer's row of every user table, each of shape (1, dim).
    """
    columns = datamodule.columns("train")
    with torch.no_grad():
        noise = float((task(columns.user_ids, columns.item_ids) - columns.ratings).square().mean())
        trained = task.warm_users.nonzero().squeeze(-1)
        zeros = torch.zeros_like(trained)
        start, _ = task.network.lookup(zeros[:1], zeros[:1])
        table, _ = task.network.lookup(trained, zeros)
        variances = [
            (rows - unknown).square().mean(0).clamp_min(1e-8)
            for rows, unknown in zip(table, start, strict=True)
        ]
    rows = [unknown.clone().requires_grad_() for unknown in start]
    optimizer = torch.optim.LBFGS(rows, max_iter=200, line_search_fn="strong_wolfe")

    def negative_log_posterior() -> Tensor:
        optimizer.zero_grad()
        predictions = task.loss.rating(score_with_rows(task, tuple(rows), item_ids))
        loss = (predictions - ratings).square().sum() / (2 * max(noise, 1e-8))
        for row, unknown, variance in zip(rows, start, variances, strict=True):
            loss = loss + ((row - unknown).square() / (2 * variance)).sum()
        loss.backward()
        return loss

    optimizer.step(negative_log_posterior)
    return tuple(row.detach() for row in rows)


def score_with_rows(task: "RatingTask", user_rows: Rows, item_ids: Tensor) -> Tensor:
    """Score items for one user with the given rows, ids (n,) to (n,)."""
    items = item_ids * task.warm_items[item_ids]
    _, item_rows = task.network.lookup(torch.zeros_like(items), items)
    expanded = tuple(row.expand(len(items), -1) for row in user_rows)
    return task.network.score(expanded, item_rows)
