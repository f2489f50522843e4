"""A small train part and histories, for loops that compute scores one by one."""

import numpy as np
import pytest
import torch
from small_train import NUM_ITEMS, NUM_USERS
from torch import Tensor


@pytest.fixture
def train() -> tuple[Tensor, Tensor]:
    """Users and items of 80 rows in the order of their times, users mixed; some rows repeat."""
    rng = np.random.default_rng(0)
    users, items = rng.integers(1, NUM_USERS, 80), rng.zipf(1.4, 80) % (NUM_ITEMS - 2) + 1
    return torch.from_numpy(users).int(), torch.from_numpy(items).int()


@pytest.fixture
def histories() -> list[list[int]]:
    """Items of some histories, oldest first: with repeats, with items that are not in train."""
    return [[3, 1, 2], [5, 5, 4, 5, 1, 2, 7, 9], [1], [0, 2, 0], [14, 6], [8, 10, 8, 3, 0]]


@pytest.fixture
def sessions(train: tuple[Tensor, Tensor]) -> dict[int, list[int]]:
    """The items of each user of train, oldest first."""
    users, items = (column.tolist() for column in train)
    return {
        user: [item for mine, item in zip(users, items, strict=True) if mine == user]
        for user in sorted(set(users))
    }
