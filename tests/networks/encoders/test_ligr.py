"""Gated blocks against NumPy, one query at a time."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from matinee.networks.encoders.ligr import Ligr, LigrBlock


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def linear(x: np.ndarray, layer: nn.Linear) -> np.ndarray:
    return x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()


def normalise(x: np.ndarray, norm: nn.LayerNorm) -> np.ndarray:
    scaled = (x - x.mean()) / math.sqrt(x.var() + 1e-5)
    return scaled * norm.weight.detach().numpy() + norm.bias.detach().numpy()


def loop(encoder: Ligr, inputs: np.ndarray, num_heads: int) -> list[np.ndarray]:
    """Encode one row, (length, dim), position by position."""
    stream = list(inputs + encoder.positions.detach().numpy()[: len(inputs)])
    for block in encoder.blocks:
        projected = [
            linear(normalise(x, block.attention_norm), block.queries_keys_values) for x in stream
        ]
        queries, keys, values = zip(*(np.split(x, 3) for x in projected), strict=True)
        out = []
        for t, x in enumerate(stream):
            mixed = np.zeros_like(x)
            for head in np.split(np.arange(len(x)), num_heads):
                logits = [
                    queries[t][head] @ keys[s][head] / math.sqrt(len(head)) for s in range(t + 1)
                ]
                weights = np.exp(logits) / np.exp(logits).sum()
                mixed[head] = sum(weights[s] * values[s][head] for s in range(t + 1))
            x = x + sigmoid(linear(x, block.attention_gate)) * linear(mixed, block.attention_output)
            gate, value = np.split(
                linear(normalise(x, block.feedforward_norm), block.feedforward_input), 2
            )
            update = linear(gate * sigmoid(gate) * value, block.feedforward_output)
            out.append(x + sigmoid(linear(x, block.feedforward_gate)) * update)
        stream = out
    return [normalise(x, encoder.norm) for x in stream]


@pytest.mark.parametrize("num_heads", [1, 2])
@pytest.mark.parametrize("options", [{}, {"num_layers": 1, "feedforward_dim": 5, "dropout": 0.5}])
def test_agrees_with_numpy(num_heads: int, options: dict) -> None:
    torch.manual_seed(0)
    encoder = Ligr(8, num_heads=num_heads, max_length=9, **options).double().eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    inputs = torch.randn(2, 7, 8, dtype=torch.float64)
    expected = [loop(encoder, row.numpy(), num_heads) for row in inputs]
    np.testing.assert_allclose(encoder(inputs).detach().numpy(), expected, atol=1e-10)


def test_closed_gates_leave_the_stream() -> None:
    torch.manual_seed(0)
    block = LigrBlock(8, num_heads=2, feedforward_dim=16, dropout=0.0)
    stream = torch.randn(2, 5, 8)
    with torch.no_grad():
        for gate in (block.attention_gate, block.feedforward_gate):
            gate.weight.zero_()
            gate.bias.fill_(-1e4)
    assert torch.equal(block(stream), stream)


def test_dropout_reaches_both_sub_layers() -> None:
    torch.manual_seed(0)
    block = LigrBlock(8, num_heads=2, feedforward_dim=16, dropout=1 - 1e-9)
    stream = torch.randn(2, 5, 8)
    assert torch.equal(block.train()(stream), stream)
    assert not torch.allclose(block.eval()(stream), stream)
