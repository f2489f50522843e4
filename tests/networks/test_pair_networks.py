"""Every shipped pair network passes the test kit; each one's formula in NumPy."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from matinee.networks.pairs.averages import DampedBias
from matinee.networks.pairs.factorization import BiasedMatrixFactorization, MatrixFactorization
from matinee.networks.pairs.ncf import NeuMF
from matinee.testing import check_pair_network


@pytest.mark.parametrize(
    "network", [MatrixFactorization, BiasedMatrixFactorization, NeuMF, DampedBias]
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


def test_bad_options_are_refused() -> None:
    with pytest.raises(ValueError, match="embedding_dim is 0"):
        MatrixFactorization(2, 2, 0.0, embedding_dim=0)
    with pytest.raises(ValueError, match="item_damping"):
        DampedBias(2, 2, 0.0, item_damping=-1)
    with pytest.raises(ValueError, match="hidden_dims is 0; give a whole number of at least 1"):
        NeuMF(2, 2, 0.0, hidden_dims=[4, 0])
    with pytest.raises(ValueError, match=r"dropout is 2; give a share in \[0, 1\)"):
        NeuMF(2, 2, 0.0, dropout=2)
