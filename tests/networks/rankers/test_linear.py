"""The linear rankers EASE and SLIT against the problems that they solve, in float64."""

import numpy as np
import pytest
import torch
from small_train import NUM_ITEMS, NUM_USERS, scores_of

from matinee.networks.rankers.ease import EASE
from matinee.networks.rankers.slit import SLIT

HISTORIES = {1: [1, 2, 3, 2], 2: [4], 3: [3, 1, 4], 5: [2, 3]}  # user 4 has none


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


def fitted() -> SLIT:
    network = SLIT(5, 5, max_distance=2, decay=0.5, l2=0.3)
    # rows in time order mix the users
    rows = [(place, user, item) for user in HISTORIES for place, item in enumerate(HISTORIES[user])]
    _, users, items = zip(*sorted(rows), strict=True)
    network.fit(torch.tensor(users), torch.tensor(items))
    return network


def expected_weights() -> np.ndarray:
    """Sum the normal equations place by place."""
    gram, moments = 0.3 * np.eye(6), np.zeros((6, 6))
    for items in HISTORIES.values():
        for place in range(1, len(items)):
            past, following = np.zeros(6), np.eye(6)[items[place]]
            for step, item in enumerate(reversed(items[max(0, place - 2) : place])):
                past[item] += 0.5**step
            gram += np.outer(past, past)
            moments += np.outer(past, following)
    return np.linalg.solve(gram, moments)


def test_weights_solve_the_normal_equations() -> None:
    np.testing.assert_allclose(fitted().weights, expected_weights(), atol=1e-5)


def test_near_items_of_a_history_count_more_and_distant_ones_not_at_all() -> None:
    network = fitted()
    histories = torch.tensor([[0, 4, 1, 3], [0, 1, 3, 0]])
    scores = network.score_next(histories, torch.tensor([4, 3]), torch.tensor([0, 0]))
    by_hand = network.weights[3] + 0.5 * network.weights[1]
    torch.testing.assert_close(scores[0, 1:5], by_hand[1:5])
    torch.testing.assert_close(scores[1, 1:5], by_hand[1:5])
    assert (scores[:, 5] < scores[:, 1:5].amin(1)).all()  # item 5 is not in train


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"decay": 0.0}, "decay is 0.0"),
        ({"decay": 1.5}, "decay is 1.5"),
        ({"l2": 0.0}, "l2 is 0.0"),
        ({"max_distance": 0}, "max_distance is 0"),
        ({"max_items": 4}, "max_items is 4"),
    ],
)
def test_numbers_out_of_range_are_refused(options: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        SLIT(5, **options)
