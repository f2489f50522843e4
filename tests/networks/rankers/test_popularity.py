"""Popularity by hand, and by the test kit."""

import math

import pytest
import torch

from matinee.contracts import ClosedForm
from matinee.networks.rankers.popularity import Popularity
from matinee.testing import check_sequence_network


def test_network_passes_the_kit() -> None:
    check_sequence_network(Popularity)


def fitted() -> Popularity:
    network = Popularity(4)
    users, items = torch.tensor([1, 1, 2, 3], dtype=torch.int32), torch.tensor([3, 1, 3, 3])
    network.fit(users, items)
    return network


def scored(network: Popularity, rows: int) -> torch.Tensor:
    ids = torch.zeros(rows, dtype=torch.int64)
    return network.score_next(ids.unsqueeze(1), ids + 1, ids)


def test_scores_are_log_counts() -> None:
    expected = [-math.inf, math.log(2), 0.0, math.log(4), 0.0]
    scores = scored(fitted(), 1)
    assert scores.tolist()[0] == pytest.approx(expected)


def test_is_solved_not_trained() -> None:
    assert isinstance(Popularity(3), ClosedForm)
    assert not list(Popularity(3).parameters())
    assert scored(Popularity(3), 2).tolist() == [[-math.inf, 0, 0, 0]] * 2


def test_narrow_ids_count_alike() -> None:
    network = Popularity(4)
    items = torch.tensor([3, 1, 3, 3], dtype=torch.int32)
    network.fit(items, items)
    assert torch.equal(network.item_scores, fitted().item_scores)


def test_scores_may_be_overwritten_by_the_caller() -> None:
    network = fitted()
    scored(network, 2)[0, 3] = -1
    assert network.item_scores[3] == pytest.approx(math.log(4))


def test_needs_an_item() -> None:
    with pytest.raises(ValueError, match="num_items is 0; give"):
        Popularity(0)
