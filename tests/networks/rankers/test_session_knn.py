"""Session neighbours against loops over users."""

import math

import pytest
from small_train import NUM_ITEMS, NUM_USERS, scores_of

from matinee.networks.rankers import sparse_rows
from matinee.networks.rankers.session_knn import SessionKNN


@pytest.mark.parametrize("num_neighbors", [1, 3, 1000])
def test_scores_are_sums_over_the_nearest_users(
    monkeypatch, train, sessions, histories, num_neighbors: int
) -> None:
    monkeypatch.setattr(sparse_rows, "ADDED_AT_ONCE", 10)  # several blocks of histories
    network = SessionKNN(NUM_ITEMS, NUM_USERS, num_neighbors)
    network.fit(*train)
    for history, scores in zip(histories, scores_of(network, histories), strict=True):
        weights = {item: (1 + place) / len(history) for place, item in enumerate(history) if item}
        similar = {
            user: sum(weights.get(item, 0) for item in set(items)) / math.sqrt(len(set(items)))
            for user, items in sessions.items()
        }
        kept = sorted(similar.values(), reverse=True)[:num_neighbors]
        near = {u: s for u, s in similar.items() if s > 0 and s >= kept[-1] * (1 - 1e-6)}
        for item in range(1, NUM_ITEMS + 1):
            expected = sum(s for user, s in near.items() if item in sessions[user])
            if expected:
                assert scores[item].item() == pytest.approx(expected, rel=1e-5)
            else:
                assert scores[item].item() < 0, "ordered by popularity"
