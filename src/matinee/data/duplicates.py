"""Repeated (user, item) pairs: found, refused or resolved."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from matinee.errors import MatineeError

DuplicatePolicy = Literal["error", "first", "last", "mean", "keep"]


def check_policy(policy: str) -> None:
    """Check the name of a policy.

    Raises:
        MatineeError: If there is none of that name.
    """
    if policy not in get_args(DuplicatePolicy):
        options = ", ".join(get_args(DuplicatePolicy))
        raise MatineeError(f"duplicates={policy!r} is unknown; choose one of {options}.")


def repeats(
    user_ids: NDArray[np.int32], item_ids: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Group rows by their pair of a user and an item.

    Args:
        user_ids: Shape (rows,).
        item_ids: Shape (rows,).

    Returns:
        The rows grouped by pair, in order within a pair, and where each group starts; None if no pair is
        repeated.
    """
    pairs = user_ids.astype(np.int64) * (int(item_ids.max()) + 1) + item_ids
    ordered = np.sort(pairs)  # far cheaper than argsort, and mostly all that is needed
    if not (ordered[1:] == ordered[:-1]).any():
        return None
    del ordered
    rows = np.argsort(pairs, kind="stable")
    pairs = pairs[rows]
    return rows, np.flatnonzero(np.r_[True, pairs[1:] != pairs[:-1]])


def first_repeat(
    user_ids: NDArray[np.int32], item_ids: NDArray[np.int32]
) -> tuple[int, int] | None:
    """Return the first row whose pair occurred before, and the row of its first occurrence."""
    if (found := repeats(user_ids, item_ids)) is None:
        return None
    rows, starts = found
    is_repeat = np.ones(len(user_ids), np.bool_)
    is_repeat[rows[starts]] = False
    row = int(is_repeat.argmax())
    same = (user_ids == user_ids[row]) & (item_ids == item_ids[row])
    return row, int(same.argmax())


def resolved(
    user_ids: NDArray[np.int32],
    item_ids: NDArray[np.int32],
    ratings: NDArray[np.float32] | None,
    policy: Literal["first", "last", "mean"],
) -> tuple[NDArray[np.int64], NDArray[np.float32] | None] | None:
    """Choose one row of each repeated pair.

    Args:
        user_ids: In time order, shape (rows,).
        item_ids: Shape (rows,).
        ratings: Shape (rows,), or None.
        policy: Whether the first or the last row of a pair stays; ``mean`` keeps the last one and gives
            it the mean of the pair's ratings.

    Returns:
        The rows that stay, ascending, and all ratings; None if no pair is repeated.
    """
    if (found := repeats(user_ids, item_ids)) is None:
        return None
    rows, starts = found
    ends = np.r_[starts[1:], len(rows)]
    kept = rows[starts] if policy == "first" else rows[ends - 1]
    if policy == "mean" and ratings is not None:
        sums = np.add.reduceat(ratings[rows].astype(np.float64), starts)
        ratings = ratings.copy()
        ratings[kept] = sums / (ends - starts)
    return np.sort(kept), ratings


def overlapping_parts(
    user_ids: NDArray[np.int32],
    item_ids: NDArray[np.int32],
    parts: NDArray[np.int8],
    timestamps: NDArray[np.int64] | None = None,
) -> tuple[int, int] | None:
    """Find a pair that stands in two parts.

    Args:
        user_ids: Shape (rows,).
        item_ids: Shape (rows,).
        parts: The part of each row, shape (rows,).
        timestamps: If given, only rows of one time are the same; shape (rows,).

    Returns:
        Two such rows, ascending; None if there are none.
    """
    if (found := repeats(user_ids, item_ids)) is None:
        return None
    rows, starts = found
    groups = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(rows)]))
    if timestamps is not None:
        order = np.lexsort((timestamps[rows], groups))
        rows, groups = rows[order], groups[order]
    same = (groups[1:] == groups[:-1]) & (parts[rows[1:]] != parts[rows[:-1]])
    if timestamps is not None:
        same &= timestamps[rows[1:]] == timestamps[rows[:-1]]
    if not same.any():
        return None
    place = int(same.argmax())
    first, second = sorted((int(rows[place]), int(rows[place + 1])))
    return first, second
