"""Splits by user: whole users held out, or the end of each history."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matinee.data.interactions import Interactions
from matinee.data.splits.split import Rows, Split, check_parts, check_shares


def user_based(
    interactions: Interactions,
    seed: int,
    validation_share: float = 0.1,
    test_share: float = 0.2,
) -> Split:
    """Hold out whole users: all of a user's rows stand in one part.

    A user's part is a hash of the raw user id and the seed, so it depends on nothing else: not on
    the user's rows, not on who else there is. A raw id counts as its text, be it 42 or "42".

    Args:
        interactions: The table to split.
        seed: Seed of the draw.
        validation_share: Expected share of all users that goes to validation, in (0, 1).
        test_share: Expected share of all users that goes to test, in (0, 1).

    Returns:
        The split; every user of validation and test is cold. Time is not looked at.

    Raises:
        MatineeError: If a share is out of range, train is left no share, or a part has nobody.
    """
    check_shares(validation_share, test_share)
    draws = draws_of_users(interactions, seed)[interactions.user_ids]
    held_out = test_share + validation_share
    split = Split(
        name="user_based",
        options={"validation_share": validation_share, "test_share": test_share},
        train=np.flatnonzero(draws >= held_out),
        validation=np.flatnonzero((draws >= test_share) & (draws < held_out)),
        test=np.flatnonzero(draws < test_share),
    )
    check_parts(split)
    return split


def leave_last_out(interactions: Interactions) -> Split:
    """Hold out every user's last row for test and the last but one for validation.

    Rows of equal time count in the source's order; without timestamps that order is taken for time.
    A user with fewer than 3 rows stays in train whole. The usual protocol of sequential
    recommendation; other users' later rows do stand in train.

    Args:
        interactions: The table to split.

    Returns:
        The split; no row of a user's train is later than the user's validation row, nor that than
        the test row.

    Raises:
        MatineeError: If no user has 3 rows.
    """
    counts, from_end = _places_from_end(interactions)
    long_enough = counts >= 3
    split = Split(
        name="leave_last_out",
        options={},
        train=np.flatnonzero(~long_enough | (from_end > 1)),
        validation=np.flatnonzero(long_enough & (from_end == 1)),
        test=np.flatnonzero(long_enough & (from_end == 0)),
    )
    check_parts(split)
    _assert_order_within_users(interactions, split)
    return split


def user_tail(
    interactions: Interactions, validation_share: float = 0.05, test_share: float = 0.05
) -> Split:
    """Hold out the tail of every user's rows: first train, then validation, then test.

    Of a user's n rows the last ``n * test_share`` go to test and the ``n * validation_share``
    before them to validation, both rounded down; so a user with few rows may stay in train whole.
    Rows of equal time count in the source's order; without timestamps that order is taken for time.

    Args:
        interactions: The table to split.
        validation_share: Share of each user's rows that goes to validation, in (0, 1).
        test_share: Share of each user's rows that goes to test, in (0, 1).

    Returns:
        The split; no row of a user's train is later than any of the user's validation, nor those
        than any of the user's test.

    Raises:
        MatineeError: If a share is out of range, train is left no share, or a part is empty.
    """
    check_shares(validation_share, test_share)
    counts, from_end = _places_from_end(interactions)
    # the small term keeps 100 rows at a share of 0.29 from 28.999...
    num_test = np.floor(counts * test_share + 1e-9)
    num_validation = np.floor(counts * validation_share + 1e-9)
    is_test = from_end < num_test
    is_validation = ~is_test & (from_end < num_test + num_validation)
    split = Split(
        name="user_tail",
        options={"validation_share": validation_share, "test_share": test_share},
        train=np.flatnonzero(~is_test & ~is_validation),
        validation=np.flatnonzero(is_validation),
        test=np.flatnonzero(is_test),
    )
    check_parts(split)
    _assert_order_within_users(interactions, split)
    return split


def draws_of_users(interactions: Interactions, seed: int) -> NDArray[np.float64]:
    """Draw a number in [0, 1) for each user from its raw id and the seed alone, (num_users + 1,)."""
    return np.array([0.0, *(_hashed(raw, seed) for raw in interactions.users["raw_id"])])


def is_last_of_two(user_ids: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Mark the last row of every user who has at least two, given the users of rows in time order."""
    last = np.zeros(int(user_ids.max(initial=0)) + 1, np.int64)
    last[user_ids] = np.arange(len(user_ids))
    counts = np.bincount(user_ids, minlength=len(last))
    is_last = np.zeros(len(user_ids), np.bool_)
    is_last[last[counts > 1]] = True
    return is_last


def _hashed(raw_id: Any, seed: int) -> float:
    """Map a raw id and a seed to a number in [0, 1) that looks uniform and never changes."""
    digest = hashlib.sha256(f"{seed}:{raw_id}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def _places_from_end(interactions: Interactions) -> tuple[Rows, Rows]:
    """Return for each row how many rows its user has, and how many of them come later."""
    counts = np.bincount(interactions.user_ids)
    ends = np.cumsum(counts)
    order = np.argsort(interactions.user_ids, kind="stable")
    from_end = np.empty(len(order), dtype=np.int64)
    from_end[order] = ends[interactions.user_ids[order]] - 1 - np.arange(len(order))
    return counts[interactions.user_ids], from_end


def _assert_order_within_users(interactions: Interactions, split: Split) -> None:
    times = interactions.timestamps
    if times is None:
        times = np.arange(len(interactions))
    latest = np.full(interactions.num_users + 1, np.iinfo(np.int64).min)
    for rows in (split.train, split.validation, split.test):
        user_ids = interactions.user_ids[rows]
        if (times[rows] < latest[user_ids]).any():
            raise AssertionError("a part holds a row that is earlier than its predecessor's")
        np.maximum.at(latest, user_ids, times[rows])
