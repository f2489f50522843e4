"""Metrics of lists: against values computed by hand and plain loops."""

import math
from itertools import combinations

import numpy as np
import pytest

from matinee.metrics.beyond_accuracy import (
    diversity,
    gini,
    miscalibration,
    novelty,
    popularity,
    serendipity,
)

COUNTS = np.array([99, 8, 4, 4, 0])  # of items 1 to 4; entry 0 is padding


def test_novelty_and_popularity_by_hand() -> None:
    lists = np.array([[1, 2], [4, 0], [0, 0]])
    assert novelty(lists, COUNTS)[:2].tolist() == [1.5, 4.0]  # 1 and 2 bits; 4 bits, counted once
    assert popularity(lists, COUNTS)[:2].tolist() == [6.0, 0.0]
    assert np.isnan(novelty(lists, COUNTS)[2])
    assert np.isnan(popularity(lists, COUNTS)[2])


def test_diversity_against_a_loop_over_pairs() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(21, 5))
    vectors[3] = 0  # similar to nothing
    lists = np.array([rng.permutation(np.arange(1, 21))[:6] for _ in range(30)])
    lists[0, 2:] = 0
    lists[1, 1:] = 0
    for items, found in zip(lists, diversity(lists, vectors), strict=True):
        pairs = []
        for i, j in combinations(items[items > 0], 2):
            norms = np.linalg.norm(vectors[i]) * np.linalg.norm(vectors[j])
            pairs.append(1 - (vectors[i] @ vectors[j] / norms if norms else 0.0))
        assert found == pytest.approx(np.mean(pairs)) if pairs else math.isnan(found)


def test_serendipity_is_a_hit_that_popularity_misses() -> None:
    lists = np.array([[3, 4], [1, 2], [3, 4], [4, 0]])
    # the two most popular are 1 and, of 2 and 3 with equal counts, 2
    assert serendipity(lists, np.array([3, 1, 2, 4]), COUNTS).tolist() == [1, 0, 0, 1]


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        ([[1, 2], [3, 4]], 0.0),
        ([[1], [1]], 0.75),
        ([[1, 2], [1, 0]], 7 / 12),  # frequencies 0 0 1 2: (-1 * 0 + 1 * 1 + 3 * 2) / (4 * 3)
    ],
)
def test_gini_by_hand(lists: list[list[int]], expected: float) -> None:
    assert gini(np.array(lists), 4) == pytest.approx(expected)


def test_gini_is_the_mean_difference() -> None:
    lists = np.random.default_rng(1).integers(1, 12, size=(40, 3))
    counts = np.bincount(lists.ravel(), minlength=16)[1:]
    differences = np.abs(counts[:, None] - counts).mean()
    assert gini(lists, 15) == pytest.approx(differences / (2 * counts.mean()))
    assert math.isnan(gini(np.zeros((2, 3), dtype=int), 15))


def test_miscalibration_by_hand() -> None:
    labels = np.array([[0, 0], [1, 0], [0, 1], [0.5, 0.5], [0, 0]])
    lists = np.array([[1, 2], [1, 1], [3, 0], [4, 0], [1, 2]])
    profiles = np.array([[3.0, 3.0], [1.0, 3.0], [2.0, 2.0], [1.0, 1.0], [0.0, 0.0]])
    found = miscalibration(lists, profiles, labels)
    q1, q2 = 0.99 + 0.01 * 0.25, 0.01 * 0.75
    by_hand = 0.25 * math.log2(0.25 / q1) + 0.75 * math.log2(0.75 / q2)
    assert found[[0, 2]] == pytest.approx(0)
    assert found[1] == pytest.approx(by_hand)
    assert np.isnan(found[[3, 4]]).all()  # no label in the list, none in the history
