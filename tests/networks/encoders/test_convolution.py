"""Convolutions against a loop over positions, and what they can see."""

import numpy as np
import pytest
import torch

from matinee.networks.encoders.convolution import CNN


def loop(encoder: CNN, x: np.ndarray, dilation: list[int], function, residual: bool) -> np.ndarray:
    """Encode one row, (length, dim)."""
    for layer, distance in zip(encoder.layers, dilation, strict=True):
        kernel = layer.weight.detach().numpy()  # (out, in, width), the newest position last
        outputs = np.empty_like(x)
        for position in range(len(x)):
            total = layer.bias.detach().numpy().copy()
            for k in range(kernel.shape[2]):
                if position - k * distance >= 0:
                    total += kernel[:, :, -1 - k] @ x[position - k * distance]
            outputs[position] = function(total)
        x = outputs + x if residual else outputs
    return x


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
@pytest.mark.parametrize(
    ("options", "dilation"),
    [
        ({}, [1]),
        ({"kernel_width": 1}, [1]),
        ({"kernel_width": [2, 5], "num_layers": 2, "dilation": [3, 1]}, [3, 1]),
        ({"num_layers": 3, "dilation_multiplier": 2}, [1, 2, 4]),
        ({"num_layers": 3, "dilation": [1, 1, 2], "dilation_multiplier": 2}, [1, 1, 2]),
    ],
)
def test_agrees_with_a_loop(options, dilation, nonlinearity: str, residual: bool) -> None:
    torch.manual_seed(0)
    encoder = CNN(4, nonlinearity=nonlinearity, residual=residual, **options).double()
    inputs = torch.randn(2, 9, 4, dtype=torch.float64)
    function = {"tanh": np.tanh, "relu": lambda x: np.maximum(x, 0)}[nonlinearity]
    expected = [loop(encoder, row.numpy(), dilation, function, residual) for row in inputs]
    np.testing.assert_allclose(encoder(inputs).detach().numpy(), expected, atol=1e-12)


def test_dilation_starts_again_after_eight_layers() -> None:
    encoder = CNN(2, num_layers=10, dilation_multiplier=2)
    assert [layer.dilation[0] for layer in encoder.layers] == [1, 2, 4, 8, 16, 32, 64, 128, 1, 2]


def test_sees_as_far_as_it_says() -> None:
    encoder = CNN(2, kernel_width=3, num_layers=3, dilation_multiplier=2).double()
    inputs = torch.randn(1, 20, 2, dtype=torch.float64, requires_grad=True)
    encoder(inputs)[:, -1].sum().backward()
    assert inputs.grad is not None
    seen = inputs.grad[0].any(-1)
    assert seen.tolist() == [False] * 5 + [True] * 15  # 1 + 2 * (1 + 2 + 4)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"kernel_width": 0}, r"kernel_width is 0; give a whole number of at"),
        ({"num_layers": 0}, r"num_layers is 0"),
        ({"dilation": [0]}, r"dilation is 0"),
        ({"dilation_multiplier": 0}, r"dilation_multiplier is 0"),
        ({"dilation": [1, 2]}, r"dilation has 2 entries and num_layers is 1"),
        ({"kernel_width": [3], "num_layers": 2}, r"kernel_width has 1 entries and num_layers is 2"),
        ({"kernel_width": 2**16 + 2}, "would look back 65537 positions, more than 65536"),
        ({"nonlinearity": "gelu"}, r"nonlinearity is 'gelu'; choose one of tanh, relu"),
    ],
)
def test_options_out_of_range_are_named(options: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        CNN(4, **options)
