"""Recommendation: a trained run answers for one user, by the scores that evaluation uses."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from matinee.errors import MatineeError
from matinee.experiment import Experiment, load_run


def recommend_ratings(config: Any) -> pd.DataFrame:
    """Answer a composed ``recommend`` config.

    Returns:
        The table of :func:`recommend`.

    Raises:
        MatineeError: If the user or an item is not in the data, both a user and ratings are given,
            or ``top_k`` is not positive.
    """
    if config.user is not None and config.ratings is not None:
        raise MatineeError("user= and ratings= exclude each other; give one of them.")
    if not isinstance(config.top_k, int) or config.top_k < 1:
        raise MatineeError(f"top_k is {config.top_k}; give a whole number of at least 1.")
    experiment = load_run(Path(config.run), config.checkpoint)
    if config.ratings is not None:
        return recommend_newcomer(experiment, dict(config.ratings), config.top_k)
    return recommend(experiment, config.user, config.top_k)


@torch.no_grad()
def recommend(experiment: Experiment, user: Any = None, top_k: int = 10) -> pd.DataFrame:
    """Recommend the items with the highest predicted rating that a user has not rated.

    Args:
        experiment: A loaded run.
        user: Raw id of a user of the data; None for a newcomer of whom nothing is known.
        top_k: Number of items, at least 1.

    Returns:
        One row an item, best first: ``rank``, ``item`` (raw id), ``title``, ``predicted_rating``.

    Raises:
        MatineeError: If the user is not in the data, or has rated every item.
    """
    interactions = experiment.datamodule.interactions
    user_id = 0
    if user is not None:
        user_id = int(interactions.encode_users([user])[0])
        if user_id == 0:
            raise MatineeError(
                f"user {user!r} is not in the data; give a raw id of the data, or ratings={{item: rating}}."
            )
    item_ids = torch.arange(1, interactions.num_items + 1, dtype=torch.int32)
    predictions = experiment.task(torch.full_like(item_ids, user_id), item_ids)
    seen = interactions.item_ids[interactions.user_ids == user_id]
    return _best(experiment, predictions, seen, top_k)


def recommend_newcomer(
    experiment: Experiment, ratings: Mapping[Any, float], top_k: int = 10
) -> pd.DataFrame:
    """Recommend to a user whom train never held, from a few ratings.

    Args:
        experiment: A loaded run.
        ratings: Ratings by raw item id, on the scale of the data.
        top_k: Number of items, at least 1.

    Returns:
        The table of :func:`recommend`; rated items are left out.

    Raises:
        MatineeError: If an item is not in the data or a rating is off the scale.
    """
    interactions = experiment.datamodule.interactions
    low, high = experiment.task.rating_scale
    item_ids = interactions.encode_items(list(ratings))
    for raw_id, item_id, rating in zip(ratings, item_ids, ratings.values(), strict=True):
        if item_id == 0:
            raise MatineeError(
                f"item {raw_id!r} is not in the data; give raw item ids of the data."
            )
        if not isinstance(rating, int | float) or not low <= rating <= high:
            raise MatineeError(
                f"the rating {rating!r} of item {raw_id!r} is not on the scale {low:g}..{high:g}."
            )
    user_rows = fold_in(
        experiment, torch.from_numpy(item_ids), torch.tensor([float(r) for r in ratings.values()])
    )
    every_item = torch.arange(1, interactions.num_items + 1, dtype=torch.int32)
    with torch.no_grad():
        predictions = _predict_with_rows(experiment.task, user_rows, every_item)
    return _best(experiment, predictions, item_ids, top_k)


def fold_in(experiment: Experiment, item_ids: Tensor, ratings: Tensor) -> tuple[Tensor, ...]:
    r"""Estimate a newcomer's rows from ratings, everything else fixed.

    The maximum of the posterior under Gaussian noise and a Gaussian prior around the unknown user,

    .. math:: \min_p \sum_i \frac{(\hat r_i(p) - r_i)^2}{2\sigma^2}
              + \sum_k \frac{(p_k - p_{0k})^2}{2 \tau_k^2}

    where :math:`\sigma^2` is the mean squared error on train and :math:`\tau_k^2` the mean square of
    the trained users' rows about the unknown row: empirical Bayes, with nothing to tune.

    Args:
        experiment: A loaded run.
        item_ids: The rated items, shape (ratings,).
        ratings: Their ratings, shape (ratings,), in rating units.

    Returns:
        The newcomer's row of every user table, each of shape (1, dim).
    """
    task = experiment.task
    columns = experiment.datamodule.columns("train")
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
        predictions = _predict_with_rows(task, tuple(rows), item_ids, clamp=False)
        loss = (predictions - ratings).square().sum() / (2 * max(noise, 1e-8))
        for row, unknown, variance in zip(rows, start, variances, strict=True):
            loss = loss + ((row - unknown).square() / (2 * variance)).sum()
        loss.backward()
        return loss

    optimizer.step(negative_log_posterior)
    return tuple(row.detach() for row in rows)


def _predict_with_rows(
    task: Any, user_rows: tuple[Tensor, ...], item_ids: Tensor, clamp: bool = True
) -> Tensor:
    items = item_ids * task.warm_items[item_ids]
    _, item_rows = task.network.lookup(torch.zeros_like(items), items)
    expanded = tuple(row.expand(len(items), -1) for row in user_rows)
    scores = task.network.score(expanded, item_rows)
    rating: Tensor = task.rating(scores) if clamp else task.loss.rating(scores)
    return rating


def _best(experiment: Experiment, predictions: Tensor, seen: Any, top_k: int) -> pd.DataFrame:
    items = experiment.datamodule.interactions.items
    predicted = predictions.numpy().astype(np.float64)
    candidates = np.setdiff1d(np.arange(1, len(items) + 1), seen)
    if len(candidates) == 0:
        raise MatineeError(
            "this user has rated every item of the data; there is nothing to recommend."
        )
    order = np.argsort(-predicted[candidates - 1], kind="stable")[:top_k]  # ties: lower id first
    best = candidates[order]
    return pd.DataFrame(
        {
            "rank": np.arange(1, len(best) + 1),
            "item": items["raw_id"].loc[best].to_numpy(),
            "title": items["title"].loc[best].to_numpy(),
            "predicted_rating": [f"{value:.3f}" for value in predicted[best - 1]],
        }
    )
