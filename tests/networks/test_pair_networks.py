"""Every shipped pair network passes the test kit; each one's formula in NumPy."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from matinee.networks.pairs import bayesian
from matinee.networks.pairs.averages import DampedBias
from matinee.networks.pairs.bayesian import (
    BayesianMatrixFactorization,
    draw_normal,
    draw_prior,
    draw_wishart,
    low_rank,
)
from matinee.networks.pairs.factorization import BiasedMatrixFactorization, MatrixFactorization
from matinee.networks.pairs.ncf import NeuMF
from matinee.testing import check_pair_network


@pytest.mark.parametrize(
    "network",
    [
        MatrixFactorization,
        BiasedMatrixFactorization,
        NeuMF,
        DampedBias,
        partial(BayesianMatrixFactorization, burn_in=5, draws=10),
    ],
)
def test_network_passes_the_kit(network: Callable[..., Any]) -> None:
    check_pair_network(network)


def numpy_tables(network: Any, user: int, item: int) -> tuple[np.ndarray, np.ndarray]:
    users, items = (
        module.weight.detach().double().numpy() for module in list(network.children())[:2]
    )
    return users[user], items[item]


def test_matrix_factorization_formula() -> None:
    network = MatrixFactorization(4, 5, initial_score=-2.0, embedding_dim=8, init_std=1.0)
    p, q = numpy_tables(network, 3, 2)
    expected = (p + np.sqrt(2 / 8)) @ (q - np.sqrt(2 / 8))
    assert network(torch.tensor([3]), torch.tensor([2])).item() == pytest.approx(expected, rel=1e-5)


def test_biased_matrix_factorization_formula() -> None:
    network = BiasedMatrixFactorization(4, 5, initial_score=3.0, embedding_dim=8, init_std=1.0)
    with torch.no_grad():
        network.user_factors.weight[3, -1], network.item_factors.weight[2, -1] = 0.5, -0.2
    p, q = numpy_tables(network, 3, 2)
    expected = 3 + 0.5 - 0.2 + p[:-1] @ q[:-1]
    assert network(torch.tensor([3]), torch.tensor([2])).item() == pytest.approx(expected, rel=1e-5)


def test_biases_start_at_zero() -> None:
    network = BiasedMatrixFactorization(4, 5, initial_score=3.0)
    for table in (network.user_factors.weight, network.item_factors.weight):
        assert table[:, :-1].all() and not table[:, -1].any()


def test_neumf_formula() -> None:
    network = NeuMF(
        4, 5, initial_score=3.0, embedding_dim=6, hidden_dims=[7, 3], init_std=1.0
    ).eval()
    p, q = numpy_tables(network, 3, 2)
    deep = np.concatenate([p[6:], q[6:]])
    for layer in network.perceptron:
        if isinstance(layer, nn.Linear):
            deep = (
                layer.weight.detach().double().numpy() @ deep + layer.bias.detach().double().numpy()
            )
            deep = np.maximum(deep, 0)
    fused = np.concatenate([p[:6] * q[:6], deep])
    weights, bias = network.output.weight.detach().double().numpy()[0], network.output.bias.item()
    expected = weights @ fused + bias
    assert network(torch.tensor([3]), torch.tensor([2])).item() == pytest.approx(expected, rel=1e-5)


def test_neumf_drops_hidden_units() -> None:
    torch.manual_seed(0)
    network = NeuMF(4, 5, 3.0, embedding_dim=6, init_std=1.0, dropout=1 - 1e-9).train()
    p, q = numpy_tables(network, 3, 2)
    weights, bias = network.output.weight.detach().double().numpy()[0], network.output.bias.item()
    product = weights[:6] @ (p[:6] * q[:6]) + bias
    assert network(torch.tensor([3]), torch.tensor([2])).item() == pytest.approx(product, rel=1e-5)


def test_damped_bias_against_loops() -> None:
    rng = np.random.default_rng(0)
    users, items = rng.integers(1, 6, 40), rng.integers(1, 8, 40)
    ratings = rng.integers(1, 6, 40).astype(np.float32)
    network = DampedBias(6, 9, initial_score=0.0, item_damping=3.0, user_damping=7.0)
    network.fit(torch.from_numpy(users), torch.from_numpy(items), torch.from_numpy(ratings))
    mean = ratings.mean(dtype=np.float64)
    item_bias, user_bias = dict.fromkeys(range(10), 0.0), dict.fromkeys(range(7), 0.0)
    for item in set(items):
        rated = ratings[items == item] - mean
        item_bias[item] = rated.sum() / (len(rated) + 3.0)
    for user in set(users):
        left = [
            r - mean - item_bias[i]
            for u, i, r in zip(users, items, ratings, strict=True)
            if u == user
        ]
        user_bias[user] = sum(left) / (len(left) + 7.0)
    for user in range(7):
        for item in range(10):
            score = network(torch.tensor([user]), torch.tensor([item])).item()
            assert score == pytest.approx(mean + user_bias[user] + item_bias[item], rel=1e-5)


def test_infinite_damping_is_the_global_mean_and_none_the_plain_mean() -> None:
    columns = torch.tensor([1, 1, 2]), torch.tensor([1, 2, 2]), torch.tensor([1.0, 2.0, 5.0])
    flat = DampedBias(2, 3, 0.0, item_damping=float("inf"), user_damping=float("inf"))
    flat.fit(*columns)
    assert flat(torch.tensor([1, 2]), torch.tensor([3, 1])).tolist() == pytest.approx(
        [8 / 3, 8 / 3]
    )
    plain = DampedBias(2, 3, 0.0, item_damping=0.0, user_damping=float("inf"))
    plain.fit(*columns)
    assert plain(torch.tensor([0, 0, 0]), torch.tensor([1, 2, 3])).tolist() == pytest.approx(
        [1, 3.5, 8 / 3]
    )


def test_bayesian_draws_have_the_moments_of_their_distributions() -> None:
    torch.manual_seed(0)
    precision = torch.tensor([[2.0, 0.6], [0.6, 1.0]], dtype=torch.float64)
    means = torch.tensor([1.0, -3.0], dtype=torch.float64)
    draws = draw_normal(precision.expand(40_000, 2, 2), (precision @ means).expand(40_000, 2))
    assert torch.allclose(draws.mean(0), means, atol=0.03)
    assert torch.allclose(draws.T.cov(), precision.inverse(), atol=0.03)
    wisharts = torch.stack([draw_wishart(precision, 5) for _ in range(4000)])
    assert torch.allclose(wisharts.mean(0), 5 * precision.inverse(), atol=0.15)
    # the variance of a diagonal entry of a Wishart matrix is 2 df V_ii^2
    spread = wisharts.var(0).diagonal()
    assert torch.allclose(spread, 2 * 5 * precision.inverse().diagonal() ** 2, rtol=0.1)


def test_bayesian_prior_follows_the_rows() -> None:
    torch.manual_seed(0)
    rows = torch.tensor([0.5, -2.0]) + torch.tensor([0.3, 1.5]) * torch.randn(4000, 2)
    center, precision = draw_prior(rows.double())
    assert torch.allclose(center, rows.double().mean(0), atol=0.1)
    assert torch.allclose(precision.inverse().diagonal().sqrt(), rows.std(0).double(), rtol=0.1)


def test_low_rank_is_exact_where_the_rank_suffices() -> None:
    torch.manual_seed(0)
    left, right = torch.randn(7, 3), torch.randn(5, 3)
    for dim in (3, 9):
        users, items = low_rank(left, right, dim)
        assert users.shape == (7, dim) and items.shape == (5, dim)
        assert torch.allclose(users @ items.T, left @ right.T, atol=1e-5)
    rest = np.linalg.svd((left @ right.T).numpy(), compute_uv=False)[2:]
    users, items = low_rank(left, right, 2)
    error = (users @ items.T - left @ right.T).square().sum().item()
    assert error == pytest.approx((rest**2).sum(), rel=1e-3)


def test_bayesian_rows_given_the_other_side_against_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    users, items, ratings = rng.integers(1, 6, 40), rng.integers(1, 8, 40), rng.normal(size=40)
    center, precision, noise = rng.normal(size=3), np.diag([1.0, 2.0, 3.0]), 1.7
    others = rng.normal(size=(8, 3))  # two factors and the bias
    columns = [torch.from_numpy(column) for column in (users, items)]
    shape = (7, 8)  # users 0 and 6 have no rating
    side = bayesian._Side(
        bayesian.pair_matrix(*columns, torch.ones(40), shape),
        bayesian.pair_matrix(*columns, torch.from_numpy(ratings), shape),
        width=3,
    )
    prior = torch.from_numpy(center), torch.from_numpy(precision)
    monkeypatch.setattr(bayesian, "draw_prior", lambda rows: prior)
    monkeypatch.setattr(bayesian, "draw_normal", torch.linalg.solve)  # the mean instead of a draw
    side.draw(torch.from_numpy(others), torch.tensor(noise))
    for user in range(7):
        left, right = precision.copy(), precision @ center
        for u, i, rating in zip(users, items, ratings, strict=True):
            if u == user:
                design = np.append(others[i, :2], 1)
                left += noise * np.outer(design, design)
                right += noise * design * (rating - others[i, 2])
        assert side.rows[user].numpy() == pytest.approx(np.linalg.solve(left, right), rel=1e-6)


def test_bayesian_factorization_predicts_what_has_rank_one() -> None:
    torch.manual_seed(0)
    pairs = torch.cartesian_prod(torch.arange(1, 41), torch.arange(1, 31)).T
    ratings = 3 + (torch.randn(41)[pairs[0]] * torch.randn(31)[pairs[1]])
    new = torch.rand(len(ratings)) < 0.3
    network = BayesianMatrixFactorization(40, 30, 0.0, sampled_dim=2, draws=30)
    network.fit(pairs[0][~new], pairs[1][~new], ratings[~new])
    errors = network(*pairs[:, new]) - ratings[new]
    assert errors.square().mean().sqrt() < 0.3 * ratings.std()


def test_bayesian_scores_do_not_depend_on_the_scale_and_the_unknown_has_the_mean_of_its_side() -> (
    None
):
    rng = np.random.default_rng(0)
    users = torch.tensor(rng.integers(1, 13, 90))
    items = torch.tensor(rng.integers(1, 11, 90))
    ratings = torch.tensor(rng.normal(size=90), dtype=torch.float32)
    networks = []
    for scaled in (ratings, 20 * ratings + 50, torch.full_like(ratings, 4.0)):
        torch.manual_seed(0)
        network = BayesianMatrixFactorization(14, 12, 0.0, sampled_dim=2, draws=20)
        network.fit(users, items, scaled)
        networks.append(network)
    pairs = torch.cartesian_prod(torch.arange(13), torch.arange(11)).T
    plain, wide, flat = (network(*pairs) for network in networks)
    assert torch.allclose(20 * plain + 50, wide, atol=0.01)
    assert (flat - 4).abs().max() < 1  # all equal: no division by a deviation of 0
    assert torch.equal(
        networks[0](torch.tensor([0]), torch.tensor([3])),
        networks[0](torch.tensor([14]), torch.tensor([3])),
    )


def test_bad_options_are_refused() -> None:
    with pytest.raises(ValueError, match="embedding_dim is 0"):
        MatrixFactorization(2, 2, 0.0, embedding_dim=0)
    with pytest.raises(ValueError, match="burn_in is -1; give a whole number of at least 0"):
        BayesianMatrixFactorization(2, 2, 0.0, burn_in=-1)
    with pytest.raises(ValueError, match="item_damping"):
        DampedBias(2, 2, 0.0, item_damping=-1)
    with pytest.raises(ValueError, match="hidden_dims is 0; give a whole number of at least 1"):
        NeuMF(2, 2, 0.0, hidden_dims=[4, 0])
    with pytest.raises(ValueError, match=r"dropout is 2; give a share in \[0, 1\)"):
        NeuMF(2, 2, 0.0, dropout=2)
