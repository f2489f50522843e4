"""Recurrent encoders against a loop over torch's single cells."""

import pytest
import torch
from torch import Tensor, nn

from matinee.networks.encoders.recurrent import GRU, LSTM


def copied_cell(layers: nn.Module, layer: int) -> nn.Module:
    cells = {nn.LSTM: nn.LSTMCell, nn.GRU: nn.GRUCell}
    weights = {
        name: getattr(layers, f"{name}_l{layer}")
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    }
    width, inputs = weights["weight_hh"].shape[1], weights["weight_ih"].shape[1]
    cell = cells[type(layers)](inputs, width).double()
    cell.load_state_dict(weights)
    return cell


def loop(encoder: LSTM | GRU, inputs: Tensor) -> Tensor:
    for layer in range(encoder.layers.num_layers):
        cell = copied_cell(encoder.layers, layer)
        hidden = carry = torch.zeros(len(inputs), cell.hidden_size, dtype=torch.float64)
        outputs = []
        for step in inputs.unbind(1):
            if isinstance(cell, nn.LSTMCell):
                hidden, carry = cell(step, (hidden, carry))
            else:
                hidden = cell(step, hidden)
            outputs.append(hidden)
        inputs = torch.stack(outputs, 1)
    if isinstance(encoder.output, nn.Linear):
        inputs = inputs @ encoder.output.weight.T + encoder.output.bias
    return inputs


@pytest.mark.parametrize("encoder_class", [LSTM, GRU])
@pytest.mark.parametrize("hidden_dim", [None, 4, 7])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_agrees_with_a_loop_over_cells(
    encoder_class: type[LSTM | GRU], hidden_dim: int | None, num_layers: int
) -> None:
    torch.manual_seed(0)
    encoder = encoder_class(4, hidden_dim, num_layers, dropout=0.5).double().eval()
    inputs = torch.randn(3, 9, 4, dtype=torch.float64)
    torch.testing.assert_close(encoder(inputs), loop(encoder, inputs))


@pytest.mark.parametrize("encoder_class", [LSTM, GRU])
def test_projects_only_where_widths_differ(encoder_class: type[LSTM | GRU]) -> None:
    assert isinstance(encoder_class(4).output, nn.Identity)
    assert isinstance(encoder_class(4, 4).output, nn.Identity)
    assert isinstance(encoder_class(4, 3).output, nn.Linear)


@pytest.mark.parametrize("num_layers", [1, 2])
def test_dropout_reaches_the_last_layer(num_layers: int) -> None:
    encoder = LSTM(4, num_layers=num_layers, dropout=0.5).train()  # one layer: torch would warn
    inputs = torch.randn(50, 5, 4)
    zeros = (encoder(inputs) == 0).float().mean().item()
    assert zeros == pytest.approx(0.5, abs=0.1)
    again = [encoder.layers(inputs)[0] for _ in range(2)]
    assert torch.equal(*again) is (num_layers == 1), "dropped between layers, too"


@pytest.mark.parametrize("encoder_class", [LSTM, GRU])
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"hidden_dim": 0}, r"hidden_dim is 0; give a whole number of at least 1"),
        ({"num_layers": 0}, r"num_layers is 0; give"),
        ({"dropout": 1.0}, r"dropout is 1\.0; give a share in \[0, 1\)"),
    ],
)
def test_options_out_of_range_are_named(
    encoder_class: type[LSTM | GRU], options: dict, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        encoder_class(4, **options)
