"""The Markov chain against loops over pairs."""

from collections import Counter

import pytest
import torch
from small_train import NUM_ITEMS, NUM_USERS, scores_of

from matinee.networks.rankers.markov import MarkovChain


@pytest.mark.parametrize(("max_distance", "decay", "backoff"), [(1, 1.0, 0.5), (4, 0.6, 3.0)])
def test_scores_are_averages_of_transitions(
    train, sessions, histories, max_distance: int, decay: float, backoff: float
) -> None:
    network = MarkovChain(NUM_ITEMS, NUM_USERS, max_distance, decay, backoff)
    network.fit(*train)
    pairs: Counter[tuple[int, int]] = Counter()
    for items in sessions.values():
        for place, before in enumerate(items):
            for distance, after in enumerate(items[place + 1 : place + 1 + max_distance]):
                pairs[before, after] += decay**distance
    totals = [sum(pairs[i, j] for j in range(NUM_ITEMS + 1)) for i in range(NUM_ITEMS + 1)]
    counts = Counter(train[1].tolist())

    def probability(item: int, before: int) -> float:
        share = counts[item] / counts.total()
        return (pairs[before, item] + backoff * share) / (totals[before] + backoff)

    for history, scores in zip(histories, scores_of(network, histories), strict=True):
        last = [(k, item) for k, item in enumerate(history[: -max_distance - 1 : -1]) if item]
        if not last:
            continue
        whole = sum(decay**k for k, _ in last)
        for item in counts:
            expected = sum(decay**k * probability(item, before) for k, before in last) / whole
            assert scores[item].item() == pytest.approx(expected, rel=1e-5)


def test_scores_of_one_item_are_a_distribution(train) -> None:
    network = MarkovChain(NUM_ITEMS, NUM_USERS, max_distance=2)
    network.fit(*train)
    warm = sorted(set(train[1].tolist()))
    torch.testing.assert_close(scores_of(network, [[3], [1, 2]])[:, warm].sum(1), torch.ones(2))


def test_users_are_not_joined() -> None:
    network = MarkovChain(3, 2, max_distance=5)
    network.fit(torch.tensor([1, 2, 1, 2]), torch.tensor([1, 3, 2, 3]))
    assert network.transitions.columns.tolist() == [2, 3]
