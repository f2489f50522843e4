"""Item and session neighbours against loops over sets and users."""

import math

import pytest
import torch
from small_train import NUM_ITEMS, NUM_USERS, scores_of

from matinee.networks.rankers import item_knn, sparse_rows
from matinee.networks.rankers.item_knn import ItemKNN
from matinee.networks.rankers.session_knn import SessionKNN


@pytest.mark.parametrize(("num_neighbors", "shrinkage"), [(100, 0.0), (3, 2.0), (1, 10.0)])
def test_scores_are_sums_of_similarities(
    monkeypatch, train, sessions, histories, num_neighbors: int, shrinkage: float
) -> None:
    monkeypatch.setattr(item_knn, "COMPARED_AT_ONCE", 4 * (NUM_ITEMS + 1))  # several blocks
    network = ItemKNN(NUM_ITEMS, NUM_USERS, num_neighbors, shrinkage)
    network.fit(*train)
    met_by = [{u for u, mine in sessions.items() if item in mine} for item in range(NUM_ITEMS + 1)]

    def similarity(i: int, j: int) -> float:
        shared = len(met_by[i] & met_by[j])
        root = math.sqrt(len(met_by[i]) * len(met_by[j]))
        return shared / (root + shrinkage) if i != j and shared else 0.0

    def nearest(j: int) -> list[int]:
        return sorted(range(1, NUM_ITEMS + 1), key=lambda i: (-similarity(i, j), i))[:num_neighbors]

    for history, scores in zip(histories, scores_of(network, histories), strict=True):
        for item in range(1, NUM_ITEMS + 1):
            expected = sum(similarity(i, item) for i in set(history) & set(nearest(item)))
            if expected:
                assert scores[item].item() == pytest.approx(expected)
            else:
                assert scores[item].item() < 0, "ordered by popularity"


def test_popularity_orders_what_no_neighbor_reaches() -> None:
    network = ItemKNN(5, 4)
    network.fit(torch.tensor([1, 1, 2, 3, 3, 4]), torch.tensor([1, 2, 3, 3, 4, 3]))
    assert scores_of(network, [[1]])[0, 1:].argsort(descending=True).tolist()[:3] == [1, 2, 0]


def test_users_who_differ_by_rounding_are_equally_near(monkeypatch) -> None:
    """The weights of two shared items add up to 8/7 for each user, but not in float32."""
    sessions = [(1, 7, 8), (2, 6, 9), (3, 5, 10)]
    network = SessionKNN(10, len(sessions), num_neighbors=1)
    user_ids = torch.arange(1, len(sessions) + 1).repeat_interleave(3)
    network.fit(user_ids, torch.tensor(sessions).flatten())
    add_up, similarities = network.met_by.add_up, []

    def spied(*given: torch.Tensor) -> torch.Tensor:
        similarities.append(add_up(*given))
        return similarities[0].clone()

    monkeypatch.setattr(network.met_by, "add_up", spied)
    scores = scores_of(network, [list(range(1, 8))])[0, 8:]
    assert len(similarities[0][0, 1:].unique()) > 1
    assert scores.tolist() == pytest.approx([8 / 7 / math.sqrt(3)] * len(sessions))


@pytest.mark.parametrize("num_neighbors", [1, 3, 1000])
def test_session_scores_are_sums_over_the_nearest_users(
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
