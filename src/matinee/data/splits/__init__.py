"""Splits: pure functions from interactions to the rows of train, validation and test.

Every function returns a `Split`, which only holds row positions; no data are copied. What the
protocol of a split promises (no row of train later than validation, say) is asserted before it is
returned.
"""

from matinee.data.splits.everything import everything
from matinee.data.splits.given import given
from matinee.data.splits.rows import chronological, random
from matinee.data.splits.split import Rows, Split, warm_ids
from matinee.data.splits.timeline import global_timeline
from matinee.data.splits.users import leave_last_out, user_based, user_tail

__all__ = [
    "Rows",
    "Split",
    "chronological",
    "everything",
    "given",
    "global_timeline",
    "leave_last_out",
    "random",
    "user_based",
    "user_tail",
    "warm_ids",
]
