"""Folding in: estimate newcomers' rows from a few ratings, without changing anything else."""

import itertools
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from matinee.batches.queries import Queries
from matinee.contracts import Rows

if TYPE_CHECKING:
    from matinee.batches import RatingDataModule
    from matinee.training.tasks.rating import RatingTask


class Prior(NamedTuple):
    """What is known of newcomers before they rate anything.

    Attributes:
        noise: The mean squared error on train.
        start: The row of the unknown user in every user table, (1, dim) each.
        variances: The mean square of the trained users' rows around it, (dim,) each.
    """

    noise: float
    start: Rows
    variances: Rows


def fold_in(task: "RatingTask", datamodule: "RatingDataModule", queries: Queries) -> Rows:
    r"""Estimate the rows of newcomers from ratings.

    The estimate of each maximizes the posterior under Gaussian noise and a Gaussian prior around the
    unknown user,

    .. math:: \min_p \sum_i \frac{(\hat r_i(p) - r_i)^2}{2\sigma^2}
              + \sum_k \frac{(p_k - p_{0k})^2}{2 \tau_k^2}

    where :math:`\sigma^2` is the mean squared error on train and :math:`\tau_k^2` the mean square of
    the trained users' rows around the unknown row. This is empirical Bayes, so nothing has to be tuned.

    Args:
        task: A trained task.
        datamodule: The data that it was trained on.
        queries: n newcomers with the items that each rated, and the ratings in rating units.

    Returns:
        The newcomers' rows of every user table, each of shape (n, dim).
    """
    assert queries.ratings is not None
    prior = _prior(task, datamodule)
    offsets = queries.offsets.tolist()
    rows = [
        _most_likely(task, prior, queries.item_ids[start:stop].long(), queries.ratings[start:stop])
        for start, stop in itertools.pairwise(offsets)
    ]
    return tuple(torch.cat(table) for table in zip(*rows, strict=True))


@torch.no_grad()
def _prior(task: "RatingTask", datamodule: "RatingDataModule") -> Prior:
    columns = datamodule.columns("train")
    noise = float((task(columns.user_ids, columns.item_ids) - columns.ratings).square().mean())
    trained = task.warm_users.nonzero().squeeze(-1)
    zeros = torch.zeros_like(trained)
    start, _ = task.network.lookup(zeros[:1], zeros[:1])
    table, _ = task.network.lookup(trained, zeros)
    variances = tuple(
        (rows - unknown).square().mean(0).clamp_min(1e-8)
        for rows, unknown in zip(table, start, strict=True)
    )
    return Prior(max(noise, 1e-8), start, variances)


@torch.enable_grad()
def _most_likely(task: "RatingTask", prior: Prior, item_ids: Tensor, ratings: Tensor) -> Rows:
    """Estimate the rows of one newcomer, (1, dim) each, from ratings, (items,)."""
    if len(item_ids) == 0:
        return prior.start
    rows = [unknown.clone().requires_grad_() for unknown in prior.start]
    optimizer = torch.optim.LBFGS(rows, max_iter=200, line_search_fn="strong_wolfe")

    def negative_log_posterior() -> Tensor:
        optimizer.zero_grad()
        predictions = task.loss.rating(score_with_rows(task, tuple(rows), item_ids))
        loss = (predictions - ratings).square().sum() / (2 * prior.noise)
        for row, unknown, variance in zip(rows, prior.start, prior.variances, strict=True):
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
