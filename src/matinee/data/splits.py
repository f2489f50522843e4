"""Splits: pure functions from interactions to the rows of train, validation and test.

Every function returns a :class:`Split`, which only holds row positions; no data are copied. The
protocol that a split promises (no row of train later than validation, say) is asserted before it
is returned.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from matinee.data.interactions import Interactions
from matinee.errors import MatineeError

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Split:
    """Row positions of the three parts, each ascending, together every row at most once.

    Attributes:
        name: The protocol's name, with its options in ``options``.
        options: Plain values; together with the name they describe the protocol but not the draw.
        train: Positions into the interactions that models may learn from.
        validation: Positions used to choose hyperparameters, epochs and models.
        test: Positions touched once, by the chosen model.
    """

    name: str
    options: Mapping[str, Any]
    train: Rows
    validation: Rows
    test: Rows

    @property
    def sizes(self) -> dict[str, int]:
        """Number of rows of each part."""
        return {
            "train": len(self.train),
            "validation": len(self.validation),
            "test": len(self.test),
        }

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over the row positions: two equal fingerprints mean the very same split."""
        digest = hashlib.sha256()
        for rows in (self.train, self.validation, self.test):
            digest.update(len(rows).to_bytes(8, "little"))
            digest.update(np.ascontiguousarray(rows, dtype="<i8").data)
        return digest.hexdigest()

    def cold(self, interactions: Interactions) -> dict[str, dict[str, int]]:
        """Count what validation and test hold that train has never seen.

        Args:
            interactions: The table that was split.

        Returns:
            For ``"validation"`` and ``"test"``: the numbers of cold ``users`` and ``items`` and of
            the ``rows`` that touch at least one of them.
        """
        warm_users, warm_items = warm_ids(interactions, self.train)
        counts = {}
        for part, rows in (("validation", self.validation), ("test", self.test)):
            user_ids, item_ids = interactions.user_ids[rows], interactions.item_ids[rows]
            cold_user, cold_item = ~warm_users[user_ids], ~warm_items[item_ids]
            counts[part] = {
                "users": len(np.unique(user_ids[cold_user])),
                "items": len(np.unique(item_ids[cold_item])),
                "rows": int(np.count_nonzero(cold_user | cold_item)),
            }
        return counts


def warm_ids(
    interactions: Interactions, rows: Rows
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Mark the ids that some rows hold, users (num_users + 1,) and items (num_items + 1,)."""
    users = np.zeros(interactions.num_users + 1, dtype=np.bool_)
    items = np.zeros(interactions.num_items + 1, dtype=np.bool_)
    users[interactions.user_ids[rows]] = True
    items[interactions.item_ids[rows]] = True
    return users, items


def chronological(interactions: Interactions, quantile: float = 0.8) -> Split:
    """Cut all interactions at one moment, then cut the earlier part once more the same way.

    The moment is the ``quantile`` of the timestamps (linear interpolation); rows at or before it go
    left. Rows of equal time therefore never stand on both sides.

    Args:
        interactions: The table to split; it needs timestamps.
        quantile: Share of rows left of a cut, in (0, 1).

    Returns:
        The split; no row of train is later than any of validation, nor those than any of test.

    Raises:
        MatineeError: If there are no timestamps, the quantile is out of range, or a part is empty.
    """
    if interactions.timestamps is None:
        raise MatineeError(
            "split=chronological needs timestamps and the dataset has none; "
            "name the column with dataset.timestamp=... or choose split=random."
        )
    _check_share(quantile, "split.quantile")
    timestamps = interactions.timestamps

    def rows_until_quantile(count: int) -> int:
        cut = np.quantile(timestamps[:count], quantile)
        return int(np.searchsorted(timestamps[:count], cut, side="right"))

    test_start = rows_until_quantile(len(interactions))
    validation_start = rows_until_quantile(test_start)
    split = Split(
        name="chronological",
        options={"quantile": quantile},
        train=np.arange(validation_start),
        validation=np.arange(validation_start, test_start),
        test=np.arange(test_start, len(interactions)),
    )
    _check_parts(split)
    times = [timestamps[rows] for rows in (split.train, split.validation, split.test)]
    if any(part.max() >= later.min() for part, later in pairwise(times)):
        raise AssertionError("a chronological part reaches past its successor")
    return split


def random(
    interactions: Interactions,
    seed: int,
    test_share: float = 0.2,
    validation_share: float = 0.1,
) -> Split:
    """Draw test rows uniformly from all rows, then validation rows from what is left.

    Args:
        interactions: The table to split.
        seed: Seed of the draw.
        test_share: Share of all rows that goes to test, in (0, 1).
        validation_share: Share of the remaining rows that goes to validation, in (0, 1).

    Returns:
        The split; parts are drawn without regard to users, items or time.

    Raises:
        MatineeError: If a share is out of range or a part is empty.
    """
    _check_share(test_share, "split.test_share")
    _check_share(validation_share, "split.validation_share")
    order = np.random.default_rng(seed).permutation(len(interactions))
    num_test = round(len(order) * test_share)
    num_validation = round((len(order) - num_test) * validation_share)
    split = Split(
        name="random",
        options={"test_share": test_share, "validation_share": validation_share},
        train=np.sort(order[num_test + num_validation :]),
        validation=np.sort(order[num_test : num_test + num_validation]),
        test=np.sort(order[:num_test]),
    )
    _check_parts(split)
    return split


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
    _check_shares(validation_share, test_share)
    draws = np.array([0.0, *(_hashed(raw, seed) for raw in interactions.users["raw_id"])])
    draws = draws[interactions.user_ids]
    held_out = test_share + validation_share
    split = Split(
        name="user_based",
        options={"validation_share": validation_share, "test_share": test_share},
        train=np.flatnonzero(draws >= held_out),
        validation=np.flatnonzero((draws >= test_share) & (draws < held_out)),
        test=np.flatnonzero(draws < test_share),
    )
    _check_parts(split)
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
    _check_parts(split)
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
    _check_shares(validation_share, test_share)
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
    _check_parts(split)
    _assert_order_within_users(interactions, split)
    return split


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


def _check_shares(validation_share: float, test_share: float) -> None:
    _check_share(validation_share, "split.validation_share")
    _check_share(test_share, "split.test_share")
    if validation_share + test_share >= 1:
        raise MatineeError(
            f"split.validation_share={validation_share} and split.test_share={test_share} leave "
            "nothing for train; lower one of them."
        )


def _check_share(share: float, option: str) -> None:
    if not 0 < share < 1:
        raise MatineeError(f"{option} is {share}; give a share between 0 and 1, both excluded.")


def _check_parts(split: Split) -> None:
    empty = [part for part, size in split.sizes.items() if size == 0]
    if empty:
        raise MatineeError(
            f"split={split.name} leaves no rows for {' and '.join(empty)} (sizes {split.sizes}); "
            "change its options or bring more data."
        )
