"""A split at one point in time for all users, without a leak from the future."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from matinee.data.interactions import Interactions
from matinee.data.splits.rows import rows_until_quantile
from matinee.data.splits.split import Rows, Split, check_parts, check_share
from matinee.data.splits.users import draws_of_users, is_last_of_two
from matinee.errors import MatineeError

Validation = Literal["time", "users", "last"]
_MICROSECOND = timedelta(microseconds=1)
_PER_DAY = {"s": 86_400, "ms": 86_400 * 10**3, "us": 86_400 * 10**6, "ns": 86_400 * 10**9}


def global_timeline(
    interactions: Interactions,
    seed: int = 0,
    quantile: float = 0.9,
    date: str | None = None,
    gap_days: float = 0.0,
    validation: Validation = "time",
    validation_share: float = 0.1,
    folds: int = 1,
    fold: int = 1,
) -> Split:
    """Cut all interactions at one moment: models learn from what came before, test is what came after.

    With leave-one-out, models learn from rows that are later than the test rows of other users. Here no row
    of train or validation is later than any row of test (Gusak et al., Time to Split: Exploring Data
    Splitting Strategies for Offline Evaluation of Sequential Recommenders, RecSys 2025). Which of a user's
    rows after the cut are targets is an option of the data module (``data.targets``).

    Rows of equal time never stand on both sides of a cut. Times are compared as exactly as the source has
    them.

    Args:
        interactions: The table to split; it needs timestamps.
        seed: Seed of the draw of validation users.
        quantile: Share of rows before the cut, in (0, 1); rows at or before the quantile of the timestamps go
            left. Ignored if ``date`` is given.
        date: The first moment of test as an ISO 8601 date or time, in UTC unless it has an offset.
        gap_days: Days before the cut whose rows belong to no part, at least 0: the delay until a model
            trained on the data goes live.
        validation: Which of the rows before the cut are validation. ``time``: the latest ones, so that
            validation resembles test. ``users``: all rows of some users. ``last``: the last row of every user
            who has two; train then holds rows that are later than validation rows of other users.
        validation_share: Share of the rows before the cut (``time``) or of the users (``users``), in (0, 1).
        folds: Number of rolling folds, at least 1. The rows after the cut are divided at moments into so many
            parts of nearly equal size; each fold tests on one part and learns from everything before it.
        fold: Which of the folds, from 1 to ``folds``.

    Returns:
        The split; with more than one fold, the rows after the fold's test part belong to no part.

    Raises:
        MatineeError: If there are no timestamps, an option is out of range or a part is empty.
    """
    times = interactions.timestamps
    if times is None:
        raise MatineeError(
            "split=global_timeline needs timestamps and the dataset has none; "
            "name their column (timestamp=...) or choose split=random."
        )
    _check(quantile, gap_days, validation, validation_share, folds, fold)
    per_day = _PER_DAY[interactions.time_unit]
    first = (
        rows_until_quantile(times, quantile)
        if date is None
        else int(np.searchsorted(times, _moment(date, per_day)))
    )
    ends = [first + round((len(times) - first) * done / folds) for done in range(folds + 1)]
    ends = [_start_of_moment(times, end) for end in ends]
    start, end = ends[fold - 1], ends[fold]
    known = start
    if gap_days > 0 and start < len(times):
        known = int(np.searchsorted(times, times[start] - round(gap_days * per_day)))
    learned, validated = _validation(interactions, known, validation, validation_share, seed)
    options: dict[str, Any] = {"date": date} if date is not None else {"quantile": quantile}
    options |= {"validation": validation}
    options |= {"validation_share": validation_share} if validation != "last" else {}
    options |= {"gap_days": gap_days} if gap_days else {}
    options |= {"folds": folds, "fold": fold} if folds > 1 else {}
    split = Split("global_timeline", options, learned, validated, np.arange(start, end))
    check_parts(split)
    _assert_no_leak(times, split)
    return split


def _validation(
    interactions: Interactions, known: int, validation: Validation, share: float, seed: int
) -> tuple[Rows, Rows]:
    """Divide the first rows into those of train and of validation."""
    times, user_ids = interactions.timestamps, interactions.user_ids[:known]
    assert times is not None
    rows = np.arange(known)
    if known == 0:
        return rows, rows
    if validation == "time":
        is_held_out = rows >= rows_until_quantile(times[:known], 1 - share)
    elif validation == "users":
        is_held_out = (draws_of_users(interactions, seed) < share)[user_ids]
    else:
        is_held_out = is_last_of_two(user_ids)
    return rows[~is_held_out], rows[is_held_out]


def _start_of_moment(times: NDArray[np.int64], row: int) -> int:
    """Return the first row of the same time; the number of rows if there is no such row."""
    return int(np.searchsorted(times, times[row])) if row < len(times) else row


def _moment(date: str, per_day: int) -> int:
    try:
        moment = datetime.fromisoformat(date)
    except (TypeError, ValueError):
        raise MatineeError(
            f"date is {date!r}; give an ISO 8601 date or time such as '1998-03-01' or "
            "'1998-03-01T12:00:00'."
        ) from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    microseconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // _MICROSECOND
    return -(-microseconds * per_day // (86_400 * 10**6))  # the first moment at or after the date


def _check(
    quantile: float,
    gap_days: float,
    validation: str,
    validation_share: float,
    folds: int,
    fold: int,
) -> None:
    check_share(quantile, "quantile")
    check_share(validation_share, "validation_share")
    if not 0 <= gap_days < float("inf"):
        raise MatineeError(f"gap_days is {gap_days}; give a number of days of at least 0.")
    if validation not in get_args(Validation):
        raise MatineeError(
            f"validation is {validation!r}; choose one of {', '.join(get_args(Validation))}."
        )
    if folds < 1:
        raise MatineeError(f"folds is {folds}; give a whole number of at least 1.")
    if not 1 <= fold <= folds:
        raise MatineeError(f"fold is {fold}; give a whole number from 1 to folds={folds}.")


def _assert_no_leak(times: NDArray[np.int64], split: Split) -> None:
    """Check what the split promises, whatever the order of the rows."""
    train, validation, test = (times[rows] for rows in (split.train, split.validation, split.test))
    if max(train.max(), validation.max()) >= test.min():
        raise AssertionError("a row that is learned from is not earlier than test")
    if split.options["validation"] == "time" and train.max() >= validation.min():
        raise AssertionError("a row of train is not earlier than validation")
