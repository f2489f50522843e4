"""The split that a data set comes with."""

from __future__ import annotations

import sys
from typing import Any, Literal, get_args

import numpy as np

from matinee.data.interactions import Interactions
from matinee.data.splits.split import Split, check_parts, check_share, warm_ids
from matinee.data.splits.users import is_last_of_two
from matinee.errors import MatineeError

CutValidation = Literal["random", "last"]


def given(
    interactions: Interactions,
    seed: int = 0,
    validation: CutValidation = "random",
    validation_share: float = 0.1,
) -> Split:
    """Take the parts that the data set assigns to its rows.

    If it has no validation rows, some rows of train become validation. Nothing is dropped: what validation
    and test hold of users and items that train does not know, how many of their rows repeat a pair of train,
    and how many rows of train are later than the first one of validation or test, is printed on standard
    error.

    Args:
        interactions: The table to split; it needs `parts`, which a reader takes of a column (``part``) or of
            separate files (``test_path``).
        seed: Seed of the draw, if rows of train become validation.
        validation: Which rows of train those are: a share of them drawn at ``random``, or the ``last`` row of
            every user who has two.
        validation_share: Share of the drawn ones, in (0, 1).

    Returns:
        The split.

    Raises:
        MatineeError: If no parts are given, an option is none of those above, or a part is empty.
    """
    if interactions.parts is None:
        raise MatineeError(
            "split=given needs the part of each row; set part to the column that names it, or "
            "test_path to the file of the test rows, or choose another split."
        )
    if validation not in get_args(CutValidation):
        raise MatineeError(
            f"validation is {validation!r}; choose {' or '.join(get_args(CutValidation))}."
        )
    check_share(validation_share, "validation_share")
    train, validated, test = (np.flatnonzero(interactions.parts == part) for part in range(3))
    options: dict[str, Any] = {"validation": "given"}
    if len(validated) == 0:
        options["validation"] = validation
        if validation == "random":
            options["validation_share"] = validation_share
            order = np.random.default_rng(seed).permutation(len(train))
            is_held_out = np.zeros(len(train), np.bool_)
            is_held_out[order[: round(len(train) * validation_share)]] = True
        else:
            is_held_out = is_last_of_two(interactions.user_ids[train])
        train, validated = train[~is_held_out], train[is_held_out]
    split = Split("given", options, train, validated, test)
    check_parts(split)
    _report(interactions, split)
    return split


def _report(interactions: Interactions, split: Split) -> None:
    warm_users, warm_items = warm_ids(interactions, split.train)
    times = interactions.timestamps
    pairs = interactions.user_ids.astype(np.int64) * len(warm_items) + interactions.item_ids
    for part, rows in (("validation", split.validation), ("test", split.test)):
        cold_users = np.count_nonzero(~warm_users[interactions.user_ids[rows]])
        cold_items = np.count_nonzero(~warm_items[interactions.item_ids[rows]])
        known = np.count_nonzero(np.isin(pairs[rows], pairs[split.train]))
        text = f"split=given: of {len(rows):,} rows of {part}, {cold_users:,} are of users and "
        text += f"{cold_items:,} of items that train does not know"
        if known:
            text += f"; {known:,} rows repeat a pair of user and item of train"
        if times is not None:
            later = np.count_nonzero(times[split.train] > times[rows].min())
            text += f"; {later:,} rows of train are later than the first of them"
        print(f"{text}.", file=sys.stderr)
