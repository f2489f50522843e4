"""A part of another data set: one of several stretches of its time, and its frequent items."""

from __future__ import annotations

import numpy as np

from matinee.data.interactions import Interactions
from matinee.errors import MatineeError


def load(
    source: Interactions, fold: int = 0, folds: int = 1, min_item_count: int = 1
) -> Interactions:
    """Cut a table into consecutive parts by time, take one of them and leave out its rare items.

    The parts are equal to within one row, so rows of one second may stand in two of them; without
    timestamps the order of the rows is taken for time. Users and items that have no row left are
    unknown to the result, whose ids therefore differ from those of the source.

    Args:
        source: The whole table.
        fold: Which part, from 0, the oldest, to ``folds - 1``.
        folds: Number of parts, at least 1.
        min_item_count: Rows of items that are rarer in the part are left out, counted once; at
            least 1, which keeps everything.

    Raises:
        MatineeError: If an option is out of range or no row is left.
    """
    if not 0 <= fold < folds:
        raise MatineeError(
            f"dataset.fold is {fold} and dataset.folds is {folds}; give a fold from 0 to folds - 1."
        )
    if min_item_count < 1:
        raise MatineeError(f"dataset.min_item_count is {min_item_count}; give at least 1.")
    rows = np.arange(len(source) * fold // folds, len(source) * (fold + 1) // folds)
    counts = np.bincount(source.item_ids[rows], minlength=source.num_items + 1)
    rows = rows[counts[source.item_ids[rows]] >= min_item_count]
    if len(rows) == 0:
        raise MatineeError(
            f"dataset.fold={fold} of {folds} has no item with {min_item_count} rows; lower "
            "dataset.min_item_count or dataset.folds."
        )
    return source.select(rows)
