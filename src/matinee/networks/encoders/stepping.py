"""Steps of a recurrent encoder as one operation of an exported program, for any length."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan
from torch.utils._pytree import tree_map

State = TypeVar("State")


def scan_steps(
    step: Callable[[State, Tensor], tuple[State, Tensor]], state: State, inputs: Tensor
) -> Tensor:
    """Apply a step to each position, as a loop in Python would.

    Args:
        step: Maps a state and an input (batch, dim) to the next state and an output (batch, width).
        state: The first state, tensors or tuples of them.
        inputs: The inputs, (batch, length, dim).

    Returns:
        The outputs, (batch, length, width).
    """

    def apart(carry: State, entry: Tensor) -> tuple[State, Tensor]:
        carry, output = step(carry, entry)
        return carry, output.clone()  # a scan accepts no output that is a part of its state

    state = tree_map(torch.clone, state)  # a tensor that is given twice would be taken for one
    _, outputs = scan(apart, state, inputs.transpose(0, 1).contiguous())
    return outputs.transpose(0, 1)  # type: ignore[no-any-return]


def scan_layers(layers: nn.GRU | nn.LSTM, inputs: Tensor) -> Tensor:
    """Compute what ``layers(inputs)`` returns first, with batches first and without dropout.

    Args:
        layers: Layers of one direction with biases.
        inputs: (batch, length, width).

    Returns:
        The hidden states of the last layer, (batch, length, hidden_size).
    """
    long = isinstance(layers, nn.LSTM)
    zeros = inputs.new_zeros(inputs.shape[0], layers.hidden_size)
    for layer in range(layers.num_layers):
        of_inputs, of_state, input_bias, state_bias = (
            getattr(layers, f"{name}_l{layer}")
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )

        def long_step(
            state: tuple[Tensor, Tensor],
            gates: Tensor,
            weight: Tensor = of_state,
            bias: Tensor = state_bias,
        ) -> tuple[tuple[Tensor, Tensor], Tensor]:
            enter, forget, candidate, leave = (gates + state[0] @ weight.T + bias).chunk(4, -1)
            carry = forget.sigmoid() * state[1] + enter.sigmoid() * candidate.tanh()
            hidden = leave.sigmoid() * carry.tanh()
            return (hidden, carry), hidden

        def gated_step(
            hidden: Tensor, gates: Tensor, weight: Tensor = of_state, bias: Tensor = state_bias
        ) -> tuple[Tensor, Tensor]:
            reset, keep, candidate = gates.chunk(3, -1)
            own_reset, own_keep, own_candidate = (hidden @ weight.T + bias).chunk(3, -1)
            candidate = (candidate + (reset + own_reset).sigmoid() * own_candidate).tanh()
            keep = (keep + own_keep).sigmoid()
            hidden = candidate + keep * (hidden - candidate)
            return hidden, hidden

        gates = inputs @ of_inputs.T + input_bias
        if long:
            inputs = scan_steps(long_step, (zeros, zeros), gates)
        else:
            inputs = scan_steps(gated_step, zeros, gates)
    return inputs
