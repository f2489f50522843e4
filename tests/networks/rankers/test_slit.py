import numpy as np
import pytest
import torch

from matinee.networks.rankers.slit import SLIT

HISTORIES = {1: [1, 2, 3, 2], 2: [4], 3: [3, 1, 4], 5: [2, 3]}  # user 4 has none


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
