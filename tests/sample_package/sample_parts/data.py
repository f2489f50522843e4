"""A dataset and a split."""

import numpy as np

from matinee.data.interactions import Interactions
from matinee.data.splits import Split


def ring(num_users: int = 60, num_items: int = 20, length: int = 15, seed: int = 0) -> Interactions:
    """Make users who walk around a ring of items, one or two steps at a time, and rate what they meet.

    Args:
        num_users: Number of users, at least 1.
        num_items: Number of items on the ring, at least 1.
        length: Number of items of each user, at least 1.
        seed: Seed of the starts, the steps and the ratings.
    """
    generator = np.random.default_rng(seed)
    steps = generator.integers(1, 3, (length, num_users))
    steps[0] = generator.integers(num_items, size=num_users)
    table = {
        "user": np.tile(np.arange(num_users), length),
        "item": (steps.cumsum(0) % num_items).ravel(),
        "rating": generator.integers(1, 6, num_users * length),
        "timestamp": np.repeat(np.arange(length), num_users),
    }
    return Interactions.from_table(table, duplicates="keep")


def in_time(
    interactions: Interactions, validation_share: float = 0.2, test_share: float = 0.2
) -> Split:
    """Cut the rows, which are in time order, into train, validation and test.

    Args:
        interactions: The table to split.
        validation_share: Share of the rows before the newest ones, in (0, 1).
        test_share: Share of the newest rows, in (0, 1).
    """
    count = len(interactions)
    validation, test = (
        round(count * (1 - share)) for share in (validation_share + test_share, test_share)
    )
    rows = np.arange(count)
    options = {"validation_share": validation_share, "test_share": test_share}
    return Split("in_time", options, rows[:validation], rows[validation:test], rows[test:])
