"""States that are carried from question to question: equal to whole passes, never of another history."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from matinee.contracts import RatedHistories, ScoreScale
from matinee.networks.carried_states import CarriedStates
from matinee.networks.encoders.dnc import DNC
from matinee.networks.encoders.recurrent import GRU, LSTM
from matinee.networks.encoders.user_gru import UserGRU
from matinee.networks.listening import ListeningNetwork
from matinee.networks.sequence_recommender import SequenceRecommender

ITEMS, USERS = 30, 4
ENCODERS = {
    "gru": GRU,
    "deep lstm": partial(LSTM, hidden_dim=7, num_layers=2),
    "dnc": partial(DNC, hidden_dim=9, num_cells=5, cell_dim=4, num_reads=2),
    "user_gru": UserGRU,
}


@pytest.fixture(params=ENCODERS)
def encoder(request: pytest.FixtureRequest) -> Callable[..., nn.Module]:
    torch.manual_seed(0)
    return ENCODERS[request.param]


@torch.no_grad()
def test_growing_histories_of_next_items(encoder: Callable[..., nn.Module]) -> None:
    """Twelve histories of many lengths are asked for in batches, and grow by an item at a time."""
    network = SequenceRecommender(ITEMS, encoder, 6, init_std=0.5, num_users=USERS).eval()
    carried = CarriedStates(network.encoder)
    rng = np.random.default_rng(0)
    grown = [rng.integers(0, ITEMS + 1, rng.integers(0, 9)).tolist() for _ in range(12)]
    for round_ in range(4):
        lengths = torch.tensor([1 + len(items) for items in grown])
        histories = torch.zeros(12, int(lengths.max()), dtype=torch.int64)
        for row, items in enumerate(grown):
            histories[row, 1 : 1 + len(items)] = torch.tensor(items, dtype=torch.int64)
        user_ids = torch.arange(12) % (USERS + 1)
        network.carried = None
        expected = network.score_next(histories, lengths, user_ids)
        network.carried, before = carried, carried.steps
        torch.testing.assert_close(network.score_next(histories, lengths, user_ids), expected)
        taken = carried.steps - before
        assert taken == 12 if round_ else 12 < taken <= int(lengths.sum())
        network.score_next(histories, lengths, user_ids)
        assert carried.steps - before == taken  # the same question costs nothing
        for items in grown:
            items.append(int(rng.integers(1, ITEMS + 1)))


def rated(item_ids: list[int], ratings: list[float], user_id: int) -> RatedHistories:
    length, targets = len(item_ids), torch.arange(ITEMS + 1)
    generator = torch.Generator().manual_seed(0)
    return RatedHistories(
        user_ids=torch.tensor([user_id]),
        item_ids=torch.tensor([item_ids], dtype=torch.int64),
        ratings=torch.tensor([ratings], dtype=torch.float32),
        offsets=torch.randn(1, 50, 2, generator=generator)[:, :length],
        times=torch.zeros(1, length, dtype=torch.int64),
        rows=torch.zeros_like(targets),
        known=torch.full_like(targets, length),
        target_ids=targets,
        target_states=torch.rand(len(targets), 4, generator=generator),
        target_ratings=torch.zeros(len(targets)),
    )


@torch.no_grad()
def test_growing_histories_of_ratings(encoder: Callable[..., nn.Module]) -> None:
    """Two users rate; one changes an old rating, which no earlier state knows."""
    scale = ScoreScale(3.5, 1.1, 0.0, 1.0)
    network = ListeningNetwork(USERS, ITEMS, scale, encoder, 6, init_std=0.5).eval()
    for weight in network.parameters():
        weight.add_(0.3 * torch.randn_like(weight))
    carried = CarriedStates(network.encoder)
    items, ratings = [3, 9, 27, 4, 11, 30], [5.0, 1.0, 4.0, 2.0, 5.0, 3.0]
    for user_id in (0, 2):
        for length in range(7):
            batch = rated(items[:length], ratings[:length], user_id)
            network.carried = None
            expected = network.read(batch)
            network.carried, before = carried, carried.steps
            torch.testing.assert_close(network.read(batch), expected)
            if user_id == 0 or network.needs_users:
                assert carried.steps == before + 1
    changed = rated(items, [4.0, *ratings[1:]], 0)
    found, before = network.read(changed), carried.steps
    network.carried = None
    torch.testing.assert_close(found, network.read(changed))
    assert not torch.allclose(found, network.read(rated(items, ratings, 0)))


def test_memory_is_bounded_and_the_least_used_are_dropped() -> None:
    torch.manual_seed(0)
    encoder = GRU(4).eval()
    carried = CarriedStates(encoder, most_bytes=1000)
    with torch.no_grad():
        for number in range(100):
            for history in (np.array([0, 1]), np.array([0, 5, number])):
                carried.last([history], lambda _, first, h=history: torch.ones(len(h) - first, 4))
            assert carried.bytes <= 1000 and carried.kept
    assert len(carried.kept) < 20
    assert any(key.endswith(np.array([0, 1]).tobytes()) for key in carried.kept)
