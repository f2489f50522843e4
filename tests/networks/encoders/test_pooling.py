"""Pooling against a loop, and that it forgets the order."""

import numpy as np
import pytest
import torch

from matinee.networks.encoders.pooling import Pooling


@pytest.mark.parametrize("mode", ["mean", "sum"])
def test_agrees_with_a_loop(mode: str) -> None:
    inputs = np.random.default_rng(0).normal(size=(3, 7, 4))
    expected = np.empty_like(inputs)
    for row in range(3):
        for position in range(7):
            so_far = inputs[row, : position + 1]
            expected[row, position] = so_far.sum(0) / (len(so_far) if mode == "mean" else 1)
    outputs = Pooling(4, mode)(torch.from_numpy(inputs))
    np.testing.assert_allclose(outputs.numpy(), expected, atol=1e-14)


def test_by_hand() -> None:
    inputs = torch.tensor([[[2.0], [4.0], [9.0]]])
    assert Pooling(1)(inputs).flatten().tolist() == [2.0, 3.0, 5.0]
    assert Pooling(1, "sum")(inputs).flatten().tolist() == [2.0, 6.0, 15.0]


def test_order_does_not_matter() -> None:
    inputs = torch.randn(2, 6, 4, dtype=torch.float64)
    for mode in ("mean", "sum"):
        encoder = Pooling(4, mode)
        torch.testing.assert_close(encoder(inputs.flip(1))[:, -1], encoder(inputs)[:, -1])


def test_unknown_mode_is_named() -> None:
    with pytest.raises(ValueError, match=r"mode is 'max'; choose one of mean, sum"):
        Pooling(4, "max")
