"""Shards: the share of the work that one of several machines does."""

import re

from matinee.errors import MatineeError


def share_of(total: int, shard: str | None) -> range:
    """Return which of ``total`` rows a shard answers.

    Args:
        total: Number of rows.
        shard: ``i/n``, the i-th of n shares, from 1, whose sizes differ by at most one; None is all.

    Raises:
        MatineeError: If there is no such shard, or it is empty.

    >>> [share_of(10, f"{number}/3") for number in (1, 2, 3)]
    [range(0, 3), range(3, 6), range(6, 10)]
    """
    if shard is None:
        return range(total)
    match = re.fullmatch(r"([1-9][0-9]{0,8})/([1-9][0-9]{0,8})", shard)
    number, count = (int(match[1]), int(match[2])) if match else (1, 0)
    if number > count:
        raise MatineeError(f"shard is {shard!r}; write i/n, such as shard=1/4 to shard=4/4.")
    rows = range(total * (number - 1) // count, total * number // count)
    if not rows:
        raise MatineeError(f"shard={shard} is empty, because there are {total:,} rows; use fewer.")
    return rows
