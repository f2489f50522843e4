"""Attention against NumPy, one query at a time, and histories beyond its positions."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from matinee.networks.encoders.attention import Attention, AttentionBlock


def normalise(x: np.ndarray, norm: nn.LayerNorm) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return scaled * norm.weight.detach().numpy() + norm.bias.detach().numpy()


def linear(x: np.ndarray, layer: nn.Linear) -> np.ndarray:
    return x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()


def gelu(x: np.ndarray) -> np.ndarray:
    return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2


def loop(encoder: Attention, x: np.ndarray, num_heads: int) -> np.ndarray:
    """Encode one row, (length, dim)."""
    length, dim = x.shape
    biases = np.zeros((num_heads, length))  # by head and distance
    if encoder.relative_positions:
        biases = encoder.distance_biases.detach().numpy()
    else:
        x = x + encoder.positions.detach().numpy()[:length]
    for block in encoder.blocks:
        projected = linear(normalise(x, block.attention_norm), block.queries_keys_values)
        queries, keys, values = np.split(projected, 3, axis=-1)
        mixed = np.zeros_like(x)
        for number, head in enumerate(np.split(np.arange(dim), num_heads)):
            for t in range(length):
                logits = keys[: t + 1, head] @ queries[t, head] / math.sqrt(len(head))
                logits += biases[number, t - np.arange(t + 1)]
                shares = np.exp(logits - logits.max())
                mixed[t, head] = shares @ values[: t + 1, head] / shares.sum()
        x = x + linear(mixed, block.attention_output)
        norm, widen, _, narrow, _ = block.feedforward
        x = x + linear(gelu(linear(normalise(x, norm), widen)), narrow)
    return normalise(x, encoder.norm)


def sharp_encoder(**options) -> Attention:
    """Weights and positions far from where they start, so that a wrong formula shows."""
    torch.manual_seed(0)
    encoder = Attention(8, **options).double().eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.5)
    return encoder


@pytest.mark.parametrize("num_heads", [1, 2, 8])
@pytest.mark.parametrize(
    "options",
    [{}, {"num_layers": 1, "feedforward_dim": 5, "dropout": 0.5}, {"relative_positions": True}],
)
def test_agrees_with_numpy(num_heads: int, options: dict) -> None:
    encoder = sharp_encoder(num_heads=num_heads, max_length=9, **options)
    inputs = torch.randn(3, 9, 8, dtype=torch.float64)
    expected = [loop(encoder, row.numpy(), num_heads) for row in inputs]
    np.testing.assert_allclose(encoder(inputs).detach().numpy(), expected, atol=1e-10)


def test_positions_tell_equal_items_apart() -> None:
    encoder = sharp_encoder()
    outputs = encoder(torch.ones(1, 5, 8, dtype=torch.float64))[0]
    assert (outputs[1:] - outputs[:-1]).abs().amax(-1).min() > 0.01
    with torch.no_grad():
        encoder.positions.zero_()
    outputs = encoder(torch.ones(1, 5, 8, dtype=torch.float64))[0]
    torch.testing.assert_close(outputs[1:], outputs[:-1])


def test_biases_by_distance_start_with_the_slopes_of_alibi() -> None:
    """Press et al. give the slopes 1/2, 1/4, ..., 1/256 for eight heads."""
    biases = Attention(8, num_heads=8, max_length=4, relative_positions=True).distance_biases
    expected = [[-(2.0**-head) * distance for distance in range(4)] for head in range(1, 9)]
    torch.testing.assert_close(biases.detach(), torch.tensor(expected))


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("limit", [2, 4, 5])
def test_a_long_history_is_its_start_and_its_newest_items(limit: int, relative: bool) -> None:
    encoder = sharp_encoder(max_length=limit, relative_positions=relative)
    inputs = torch.randn(2, 9, 8, dtype=torch.float64)
    outputs = encoder(inputs)
    torch.testing.assert_close(outputs[:, :limit], encoder(inputs[:, :limit]))
    for end in range(limit + 1, 10):
        cut = torch.cat((inputs[:, :1], inputs[:, end - (limit - 1) : end]), dim=1)
        torch.testing.assert_close(outputs[:, end - 1], encoder(cut)[:, -1])
        torch.testing.assert_close(outputs[:, end - 1], encoder(inputs[:, :end])[:, -1])


def test_dropout_reaches_both_sub_layers() -> None:
    """With everything dropped, only the stream is left."""
    torch.manual_seed(0)
    block = AttentionBlock(8, num_heads=2, feedforward_dim=16, dropout=1 - 1e-9)
    stream = torch.randn(2, 5, 8)
    assert torch.equal(block.train()(stream), stream)
    assert not torch.allclose(block.eval()(stream), stream)


def test_training_rows_must_fit() -> None:
    encoder = Attention(8, max_length=4).train()
    encoder(torch.randn(2, 4, 8))
    sentence = r"training rows have 5 positions and max_length is 4; set max_length to at l"
    with pytest.raises(ValueError, match=sentence):
        encoder(torch.randn(2, 5, 8))


def test_positions_that_training_never_reached_add_nothing() -> None:
    encoder = Attention(8, max_length=10)
    encoder(torch.randn(2, 4, 8)).square().sum().backward()
    assert encoder.positions.grad is not None
    assert not encoder.positions.grad[4:].any()
    assert not encoder.positions.any()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"num_heads": 3}, r"num_heads is 3; give a divisor of embedding_dim, 8"),
        ({"num_heads": 0}, r"num_heads is 0; give a whole number of at least 1"),
        ({"num_layers": 0}, r"num_layers is 0"),
        ({"feedforward_dim": 0}, r"feedforward_dim is 0"),
        ({"max_length": 1}, r"max_length is 1; give a whole number of at least 2"),
        ({"dropout": 1.0}, r"dropout is 1\.0"),
    ],
)
def test_options_out_of_range_are_named(options: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Attention(8, **options)
