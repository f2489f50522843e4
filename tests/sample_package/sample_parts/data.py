"""A dataset and a split."""

import numpy as np

from matinee.data.interactions import Interactions
from matinee.data.splits import Split


def ring(num_users: int = 60, num_items: int = 20, length: int = 15, seed: int = 0) -> Interactions:
    """Make users who walk around a ring of items, one or two steps at a time.

    Args:
        num_users: Number of users, at least 1.
        num_items: Number of items on the ring, at least 1.
        length: Number of items of each user, at least 1.
        seed: Seed of all draws.
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
    """Split the rows in time order: train, then validation, then test.

    Args:
        interactions: Table to split; its rows are in time order.
        validation_share: Share of the rows in validation, in (0, 1).
        test_share: Share of the rows in test, in (0, 1).
    """
    count = len(interactions)
    start = round(count * (1 - validation_share - test_share))
    end = round(count * (1 - test_share))
    rows = np.arange(count)
    options = {"validation_share": validation_share, "test_share": test_share}
    return Split("in_time", options, rows[:start], rows[start:end], rows[end:])
