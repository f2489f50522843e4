"""iALS against the loss that it minimizes, in float64."""

import pytest
import torch
from small_train import NUM_ITEMS, NUM_USERS, scores_of
from torch import Tensor

from matinee.networks.rankers import ials
from matinee.networks.rankers.ials import ImplicitALS

OPTIONS = {"embedding_dim": 4, "unobserved_weight": 0.3, "l2": 0.02, "frequency_power": 0.8}


def loss(users: Tensor, items: Tensor, met: Tensor) -> Tensor:
    """The formula of the docstring, for the rows of train."""
    scores = users @ items.T
    weight, l2, power = (OPTIONS[key] for key in ("unobserved_weight", "l2", "frequency_power"))
    of_user = (met.sum(1) + weight * met.shape[1]) ** power
    of_item = (met.sum(0) + weight * met.shape[0]) ** power
    penalty = of_user @ users.square().sum(1) + of_item @ items.square().sum(1)
    return ((1 - scores) ** 2 * met).sum() + weight * scores.square().sum() + l2 * penalty


@pytest.fixture
def met(sessions) -> Tensor:
    """Which user met which item, without users and items that train lacks."""
    warm = sorted({item for items in sessions.values() for item in items})
    matrix = torch.zeros(len(sessions), len(warm), dtype=torch.float64)
    for row, items in zip(matrix, sessions.values(), strict=True):
        row[[warm.index(item) for item in items]] = 1
    return matrix


def fitted(train, **options) -> ImplicitALS:
    torch.manual_seed(0)
    network = ImplicitALS(NUM_ITEMS, NUM_USERS, **OPTIONS, **options)
    network.fit(*train)
    return network


def folded_in(network: ImplicitALS, sessions: dict[int, list[int]]) -> tuple[Tensor, Tensor]:
    """Solve the scores of all sessions for the vectors of their users."""
    warm = sorted({item for items in sessions.values() for item in items})
    items = network.item_factors[warm].double()
    scores = scores_of(network, list(sessions.values()))[:, warm].double()
    return torch.linalg.lstsq(items, scores.T).solution.T, items


def test_converges_to_a_stationary_point(monkeypatch, train, sessions, met) -> None:
    monkeypatch.setattr(ials, "GATHERED_AT_ONCE", 150)  # several blocks of rows
    users, items = folded_in(fitted(train, sweeps=400), sessions)
    users, items = users.requires_grad_(), items.requires_grad_()
    gradients = torch.autograd.grad(loss(users, items, met), (users, items))
    scale = loss(users, items, met).item()
    assert users.abs().max() > 0.1, "not the point 0"
    assert all(gradient.abs().max() < 1e-4 * scale for gradient in gradients)


def test_a_history_is_folded_in_by_least_squares(train, sessions, met) -> None:
    """After any number of sweeps the vector of a user minimizes the loss for the given items."""
    users, items = folded_in(fitted(train, sweeps=1), sessions)
    users.requires_grad_()
    (gradient,) = torch.autograd.grad(loss(users, items, met), users)
    assert gradient.abs().max() < 1e-4


def test_sweeps_lower_the_loss(train, sessions, met) -> None:
    losses = []
    for sweeps in (1, 2, 4, 8):
        users, items = folded_in(fitted(train, sweeps=sweeps), sessions)
        losses.append(loss(users, items, met).item())
    assert losses == sorted(losses, reverse=True) and losses[0] > losses[-1]
