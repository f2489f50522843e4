import numpy as np
import pytest
import torch

from matinee.networks.rankers.slit import SLIT

HISTORIES = {1: [1, 2, 3, 2], 2: [4], 3: [3, 1, 4], 5: [2, 3]}  # user 4 has none


def fitted(**options: float) -> SLIT:
    network = SLIT(5, 5, max_distance=2, decay=0.5, l2=0.3, **options)
    pairs = [(user, item) for user, items in HISTORIES.items() for item in items]
    pairs = pairs[::2] + pairs[1::2]  # users are mixed, as rows in time order mix them
    pairs.sort(key=lambda pair: pair[0] % 2)
    ordered = {user: iter(items) for user, items in HISTORIES.items()}
    users = [user for user, _ in pairs]
    network.fit(torch.tensor(users), torch.tensor([next(ordered[user]) for user in users]))
    return network


def expected_weights(future_decay: float) -> np.ndarray:
    """Sum the normal equations place by place."""
    gram, moments = 0.3 * np.eye(6), np.zeros((6, 6))
    for items in HISTORIES.values():
        for place in range(1, len(items)):
            past, future = np.zeros(6), np.zeros(6)
            for step, item in enumerate(reversed(items[max(0, place - 2) : place])):
                past[item] += 0.5**step
            for step, item in enumerate(items[place : place + 2]):
                future[item] += future_decay**step
            share = 1 / np.sqrt(len(items) - 1)
            gram += share * np.outer(past, past)
            moments += share * np.outer(past, future)
    return np.linalg.solve(gram, moments)


@pytest.mark.parametrize("future_decay", [0.0, 0.25])
def test_weights_solve_the_normal_equations(future_decay: float) -> None:
    weights = fitted(future_decay=future_decay).weights
    np.testing.assert_allclose(weights, expected_weights(future_decay), atol=1e-5)


def test_near_items_of_a_history_count_more_and_distant_ones_not_at_all() -> None:
    network = fitted(future_decay=0.25)
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
        ({"future_decay": -0.1}, "future_decay is -0.1"),
        ({"l2": 0.0}, "l2 is 0.0"),
        ({"max_distance": 0}, "max_distance is 0"),
        ({"max_items": 4}, "max_items is 4"),
    ],
)
def test_numbers_out_of_range_are_refused(options: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        SLIT(5, **options)
