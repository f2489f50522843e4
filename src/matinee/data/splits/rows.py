"""Splits that look at rows alone: at one moment, or drawn."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from matinee.data.interactions import Interactions
from matinee.data.splits.split import Split, check_parts, check_share
from matinee.errors import MatineeError


def chronological(interactions: Interactions, quantile: float = 0.8) -> Split:
    """Cut all interactions at one moment, then cut the earlier part once more the same way.

    The moment is the ``quantile`` of the timestamps, interpolated between two neighbours; rows at or before
    it go left. Rows of equal time therefore never stand on both sides. Times are compared as exactly as the
    source has them.

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
            "name their column (timestamp=...) or choose split=random."
        )
    check_share(quantile, "quantile")
    timestamps = interactions.timestamps
    test_start = rows_until_quantile(timestamps, quantile)
    validation_start = rows_until_quantile(timestamps[:test_start], quantile)
    split = Split(
        name="chronological",
        options={"quantile": quantile},
        train=np.arange(validation_start),
        validation=np.arange(validation_start, test_start),
        test=np.arange(test_start, len(interactions)),
    )
    check_parts(split)
    times = [timestamps[rows] for rows in (split.train, split.validation, split.test)]
    if any(part.max() >= later.min() for part, later in pairwise(times)):
        raise AssertionError("a chronological part reaches past its successor")
    return split


def rows_until_quantile(timestamps: NDArray[np.int64], quantile: float) -> int:
    """Count the rows at or before a quantile of ascending times, interpolated between two neighbours."""
    # The interpolated moment is at or after this row and before the next later one.
    row = int(Fraction(str(quantile)) * (len(timestamps) - 1))
    return int(np.searchsorted(timestamps, timestamps[row], side="right"))


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
    check_share(test_share, "test_share")
    check_share(validation_share, "validation_share")
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
    check_parts(split)
    return split
