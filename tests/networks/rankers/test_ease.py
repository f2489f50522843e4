"""EASE against the problem that it solves, in float64."""

import numpy as np
import pytest
import torch
from small_train import NUM_ITEMS, NUM_USERS, scores_of

from matinee.networks.rankers.ease import EASE


def matrix(sessions: dict[int, list[int]]) -> np.ndarray:
    met = np.zeros((NUM_USERS + 1, NUM_ITEMS + 1))
    for user, items in sessions.items():
        met[user, items] = 1
    return met[:, 1:]


@pytest.mark.parametrize("l2", [0.5, 20.0])
def test_each_item_is_regressed_on_all_others(train, sessions, l2: float) -> None:
    """Without the item itself, a column of the weights is a ridge regression."""
    network = EASE(NUM_ITEMS, NUM_USERS, l2)
    network.fit(*train)
    met = matrix(sessions)
    for item in range(NUM_ITEMS):
        others = np.delete(met, item, axis=1)
        ridge = np.linalg.solve(
            others.T @ others + l2 * np.eye(NUM_ITEMS - 1), others.T @ met[:, item]
        )
        expected = np.insert(ridge, item, 0)
        np.testing.assert_allclose(network.weights[1:, 1 + item], expected, atol=1e-5)


def test_scores_are_sums_of_weights(train, histories) -> None:
    network = EASE(NUM_ITEMS, NUM_USERS, 2.0)
    network.fit(*train)
    warm = sorted(set(train[1].tolist()))
    for history, scores in zip(histories, scores_of(network, histories), strict=True):
        expected = network.weights[sorted(set(history) - {0})].sum(0)
        torch.testing.assert_close(scores[warm], expected[warm])


def test_memory_is_stated_before_it_is_taken() -> None:
    with pytest.raises(ValueError, match=r"100000 items, whose weights need 120 GB of memory"):
        EASE(100_000)
