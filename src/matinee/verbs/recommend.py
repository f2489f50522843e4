"""``matinee recommend``: recommend items to one user with the scores that evaluation uses."""

import sys
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from matinee.data.catalogues import with_year
from matinee.data.interactions import Interactions
from matinee.errors import MatineeError
from matinee.experiment.building import Experiment, load_run
from matinee.experiment.run_folder import RESULT, asked_folder
from matinee.verbs.item_names import ItemNames


def answer(config: Any) -> pd.DataFrame:
    """Return the recommendations for a composed ``recommend`` config."""
    folder = asked_folder(config.run)
    experiment = load_run(folder, config.checkpoint, dataset=config.dataset)
    if not (folder / RESULT).exists():
        print(f"{folder} has not finished; using its best epoch so far.", file=sys.stderr)
    return recommend(
        experiment, config.user, config.ratings, config.history, config.top_k, config.repeat
    )


@torch.no_grad()
def recommend(
    experiment: Experiment,
    user: Any = None,
    ratings: Mapping[Any, float] | None = None,
    history: Sequence[Any] | None = None,
    top_k: int = 10,
    repeat: bool = False,
) -> pd.DataFrame:
    """Recommend the best items to a user of the data or to a new user.

    Args:
        experiment: A loaded run.
        user: Raw id of a user of the data; None for a new user.
        ratings: Ratings of a new user by raw item id or title, see
            :class:`matinee.verbs.item_names.ItemNames`; for rating models.
        history: Items of a new user, oldest first, as raw ids or titles; for sequence models.
        top_k: Number of items, at least 1; fewer are returned if the catalogue is smaller.
        repeat: Whether to include items that the user has already met.

    Returns:
        One row per item, best first, ties by lower id: ``rank``, ``item`` (raw id),
        ``title``, and ``predicted_rating`` or ``score``.

    Raises:
        MatineeError: If the user or an item is not in the data, a rating is outside the scale, ``top_k``
            is not positive, the model cannot use the input, or no item is left.
    """
    if isinstance(top_k, bool) or not isinstance(top_k, int | np.integer) or top_k < 1:
        raise MatineeError(f"top_k is {top_k}; give a whole number of at least 1.")
    given = [
        name
        for name, value in (("user", user), ("ratings", ratings), ("history", history))
        if value is not None
    ]
    if len(given) > 1:
        raise MatineeError(f"{' and '.join(given)} cannot be combined; give one of them.")
    interactions, task = experiment.datamodule.interactions, experiment.task
    for name in given:
        if name not in ("user", *task.newcomer_inputs):
            usable = " or ".join(f"{usable}=..." for usable in task.newcomer_inputs)
            raise MatineeError(f"this run's model cannot use {name}=...; give {usable}")
    user_id = _user_id(interactions, user)
    met = interactions.item_ids[interactions.user_ids == user_id]  # in time order
    values = None
    if history is not None:
        met = ItemNames(interactions).find(list(history))
    if ratings is not None:
        met, values = _rated(interactions, ratings)
    scores = task.score_items(experiment.datamodule, user_id, met, values)
    return _best(interactions, scores, [] if repeat else met, top_k, task.score_name)


@torch.no_grad()
def predict_ratings(
    experiment: Experiment, users: Sequence[Any], items: Sequence[Any]
) -> npt.NDArray[np.float32]:
    """Predict ratings of (user, item) pairs by raw ids; ids that train does not contain are unknown.

    Args:
        experiment: A loaded run of a rating model.
        users: Raw user ids, (n,).
        items: Raw item ids, (n,).

    Returns:
        Predicted ratings on the scale of the data, float32, (n,).

    Raises:
        MatineeError: If the run's model does not predict ratings, or there are not as many users as items.
    """
    users, items = list(users), list(items)
    if len(users) != len(items):
        raise MatineeError(
            f"there are {len(users)} users and {len(items)} items; give one user and one item for each pair."
        )
    interactions = experiment.datamodule.interactions
    user_ids = torch.from_numpy(interactions.encode_users(users))
    item_ids = torch.from_numpy(interactions.encode_items(items))
    ratings: npt.NDArray[np.float32] = experiment.task.rate(user_ids, item_ids).numpy()
    return ratings


def _user_id(interactions: Interactions, user: Any) -> int:
    if user is None:
        return 0
    user_id = int(interactions.encode_users([user])[0])
    if user_id == 0:
        raise MatineeError(
            f"user {user!r} is not in the data; give a raw id of the data, or "
            "history=[...] or ratings={...} of a new user."
        )
    return user_id


def _rated(interactions: Interactions, ratings: Mapping[Any, float]) -> tuple[Any, Tensor]:
    """Return the items that a new user rated, and the ratings, (n,) each."""
    assert interactions.rating_scale is not None  # only tasks of rated data take ratings
    low, high = interactions.rating_scale
    for name, rating in ratings.items():
        if (
            isinstance(rating, bool | np.bool_)
            or not isinstance(rating, Real)
            or not low <= rating <= high
        ):
            raise MatineeError(
                f"the rating {rating!r} of item {name!r} is outside the scale {low:g} to {high:g}."
            )
    item_ids = ItemNames(interactions).find(list(ratings))
    if len(np.unique(item_ids)) < len(item_ids):
        raise MatineeError("an item is rated twice; give one rating per item.")
    return item_ids, torch.tensor([float(rating) for rating in ratings.values()])


def _best(
    interactions: Interactions, scores: Tensor, met: Any, top_k: int, score_name: str
) -> pd.DataFrame:
    items = interactions.items
    values = scores.numpy().astype(np.float64)
    candidates = np.setdiff1d(np.arange(1, len(items) + 1), met)
    if len(candidates) == 0:
        raise MatineeError(
            "this user has met every item of the data; add repeat=true to rank them all."
        )
    best = candidates[np.argsort(-values[candidates - 1], kind="stable")[:top_k]]
    return pd.DataFrame(
        {
            "rank": np.arange(1, len(best) + 1),
            "item": items["raw_id"].loc[best].to_numpy(),
            "title": [with_year(items.loc[item]) for item in best],
            score_name: values[best - 1],
        }
    )
