"""The DNC against a NumPy version, its papers' invariants, its gradients, and a copy task."""

import itertools

import numpy as np
import numpy_dnc
import pytest
import torch
from torch import nn
from torch.func import functional_call

from matinee.networks.encoders.dnc import (
    DNC,
    DNCState,
    allocation_weights,
    content_weights,
    sharpen,
    update_links,
)

SIZES = {"hidden_dim": 7, "num_cells": 6, "cell_dim": 5, "num_reads": 2}
PLAIN = {"masking": False, "deallocation": False, "link_sharpening": False}
DIM = 4


def network(
    seed: int = 0, scale: float = 2.0, dtype: torch.dtype = torch.float64, **options
) -> DNC:
    """A DNC whose gates are far from 1/2, so that a wrong formula shows."""
    torch.manual_seed(seed)
    dnc = DNC(DIM, **{**SIZES, **options}).to(dtype)
    with torch.no_grad():
        for parameter in dnc.parameters():
            parameter.mul_(scale)
    return dnc.eval()


def random_inputs(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def states_of(dnc: DNC, inputs: torch.Tensor) -> list[DNCState]:
    """The states after each step."""
    state, states = dnc.cell.initial_state(inputs.shape[0]), []
    for step in inputs.unbind(1):
        _, state = dnc.cell(step, state)
        states.append(state)
    return states


def tensors_of(state: DNCState) -> list[torch.Tensor]:
    return [*state[:-1], *state.controller]


refinements = [
    dict(zip(PLAIN, flags, strict=True)) for flags in itertools.product([False, True], repeat=3)
]


def str_flags(flags: dict[str, bool]) -> str:
    return "+".join(name for name, on in flags.items() if on) or "plain"


@pytest.mark.parametrize("controller", ["lstm", "gru"])
@pytest.mark.parametrize("options", refinements, ids=str_flags)
def test_agrees_with_numpy_step_by_step(options, controller):
    dnc = network(controller=controller, **options)
    inputs = random_inputs(3, 12, DIM)
    weights = {name: value.numpy() for name, value in dnc.cell.state_dict().items()}
    every_option = {**SIZES, **options, "controller": controller}
    states = states_of(dnc, inputs)
    outputs = dnc(inputs)
    for row in range(len(inputs)):
        features, expected_states = numpy_dnc.run(weights, every_option, inputs[row].numpy())
        for state, expected in zip(states, expected_states, strict=True):
            for name, value in expected.items():
                values = value if name == "controller" else (value,)
                actuals = getattr(state, name) if name == "controller" else (getattr(state, name),)
                for actual, wanted in zip(actuals, values, strict=True):
                    np.testing.assert_allclose(
                        actual[row].detach().numpy(), wanted, rtol=0, atol=1e-11, err_msg=name
                    )
        expected_outputs = features @ dnc.output.weight.detach().numpy().T
        expected_outputs += dnc.output.bias.detach().numpy()
        np.testing.assert_allclose(outputs[row].detach().numpy(), expected_outputs, atol=1e-10)


@pytest.mark.parametrize("sizes", [{"num_cells": 1}, {"num_reads": 1}, {"cell_dim": 1}])
def test_agrees_with_numpy_at_the_smallest_sizes(sizes):
    dnc = network(**sizes)
    inputs = random_inputs(1, 6, DIM)
    weights = {name: value.numpy() for name, value in dnc.cell.state_dict().items()}
    options = {**SIZES, **sizes, "controller": "lstm", **dict.fromkeys(PLAIN, True)}
    features, _ = numpy_dnc.run(weights, options, inputs[0].numpy())
    expected = features @ dnc.output.weight.detach().numpy().T + dnc.output.bias.detach().numpy()
    np.testing.assert_allclose(dnc(inputs)[0].detach().numpy(), expected, atol=1e-11)


@pytest.mark.parametrize("controller", ["lstm", "gru"])
def test_controller_is_that_of_torch(controller):
    cell = network(controller=controller).cell
    reference = {"lstm": nn.LSTMCell, "gru": nn.GRUCell}[controller](DIM, SIZES["hidden_dim"])
    reference = reference.double()
    order = [0, 1, 3, 2] if controller == "lstm" else [0, 1, 2]  # torch: in, forget, candidate, out

    def reordered(tensor):
        chunks = tensor.chunk(len(order))
        return torch.cat([chunks[position] for position in order])

    with torch.no_grad():
        reference.weight_ih.copy_(reordered(cell.input_gates.weight))
        reference.bias_ih.copy_(reordered(cell.input_gates.bias))
        reference.weight_hh.copy_(reordered(cell.hidden_gates.weight))
        reference.bias_hh.copy_(reordered(cell.hidden_gates.bias))
    inputs, hidden, carry = random_inputs(3, 3, 7).unbind(0)
    inputs = inputs[:, :DIM]
    state = cell.initial_state(3)
    previous = (hidden, carry) if controller == "lstm" else (hidden,)
    _, state = cell(inputs, state._replace(controller=previous))
    expected = reference(inputs, (hidden, carry) if controller == "lstm" else hidden)
    torch.testing.assert_close(
        state.controller, tuple(expected) if controller == "lstm" else (expected,)
    )


def test_allocation_by_hand():
    # Free list: cell 1 (0.1), cell 2 (0.2), cell 0 (0.5).
    usage = torch.tensor([[0.5, 0.1, 0.2]], dtype=torch.float64)
    expected = torch.tensor([[0.5 * 0.1 * 0.2, 0.9, 0.8 * 0.1]], dtype=torch.float64)
    torch.testing.assert_close(allocation_weights(usage), expected, rtol=0, atol=5e-6)
    assert allocation_weights(torch.ones(1, 4)).abs().max() < 1e-5  # a full memory has no place
    empty = allocation_weights(torch.zeros(1, 3))  # ties go to the first cell
    torch.testing.assert_close(empty, torch.tensor([[1.0, 0.0, 0.0]]), rtol=0, atol=5e-6)


def test_links_follow_a_chain_of_sharp_writes():
    links, precedence = torch.zeros(1, 4, 4), torch.zeros(1, 4)
    order = [2, 0, 3]
    for cell in order:
        write = torch.nn.functional.one_hot(torch.tensor([cell]), 4).float()
        links = update_links(links, precedence, write)
        precedence = (1 - write.sum(-1, keepdim=True)) * precedence + write
    expected = torch.zeros(1, 4, 4)
    expected[0, 0, 2] = expected[0, 3, 0] = 1
    torch.testing.assert_close(links, expected)


def test_content_look_up_ignores_what_is_masked():
    memory = torch.tensor([[[1.0, 0.0, 9.0], [0.0, 1.0, -9.0], [0.0, 0.0, 0.0]]])
    key = torch.tensor([[[1.0, 0.0, -9.0]]])
    strength = torch.full((1, 1), 50.0)
    mask = torch.tensor([[[1.0, 1.0, 0.0]]])
    assert content_weights(memory, key, strength, mask)[0, 0].argmax() == 0
    assert content_weights(memory, key, strength)[0, 0].argmax() == 1
    torch.testing.assert_close(
        content_weights(memory, key, strength, torch.ones_like(mask)),
        content_weights(memory, key, strength),
    )


def test_sharpening_by_hand():
    weights = torch.tensor([0.1, 0.3, 0.0], dtype=torch.float64)
    exponents = torch.tensor(2.0, dtype=torch.float64)
    expected = torch.tensor([0.1, 0.9, 0.0], dtype=torch.float64)
    torch.testing.assert_close(sharpen(weights, exponents), expected, rtol=0, atol=1e-5)
    uniform = sharpen(torch.zeros(4), torch.tensor(3.0))
    torch.testing.assert_close(uniform, torch.full((4,), 0.25))


def test_deallocation_empties_what_was_read_and_freed():
    memory_after = {}
    for deallocation in (False, True):
        cell = network(deallocation=deallocation).cell
        with torch.no_grad():
            cell.interface.weight.zero_()
            gates = sum(cell._kinds[:2])
            cell.interface.bias[gates : gates + 2] = 40.0  # free gates open
            cell.interface.bias[gates + 3] = -40.0  # write gate shut
        state = cell.initial_state(1)
        read = torch.zeros_like(state.read_weights)
        read[:, :, 2] = 1.0
        full = torch.ones_like(state.memory)
        _, state = cell(random_inputs(1, DIM), state._replace(memory=full, read_weights=read))
        memory_after[deallocation] = state.memory[0, :, 0].detach()
    torch.testing.assert_close(memory_after[False], torch.ones(6, dtype=torch.float64))
    expected = torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(memory_after[True], expected)


def gradients_are_right(controller, options, sizes, with_parameters, fast_mode):
    """Gradcheck one step in its input, its state and, if asked for, the parameters.

    All but the previous write weights, which usage detaches. The state is that of a running
    computer, so its usage has no ties and the sort is smooth.
    """
    dnc = network(controller=controller, **sizes, **options)
    cell, inputs = dnc.cell, random_inputs(1, 5, DIM)
    state = states_of(dnc, inputs)[3]
    assert state.usage.sort(dim=-1).values.diff(dim=-1).min() > 1e-4
    fields = [value.detach().clone().requires_grad_() for value in tensors_of(state)]
    fields[DNCState._fields.index("write_weights")].requires_grad_(False)
    names = [name for name, _ in cell.named_parameters()]
    values = [value.detach().clone() for value in cell.parameters()]
    for value in values:
        value.requires_grad_(with_parameters)

    def step(step_inputs, *tensors):
        state = DNCState(*tensors[:7], controller=tensors[7 : len(fields)])
        parameters = dict(zip(names, tensors[len(fields) :], strict=True))
        output, state = functional_call(cell, parameters, (step_inputs, state))
        return output, *tensors_of(state)

    last = inputs[:, 4].clone().requires_grad_()
    return torch.autograd.gradcheck(step, (last, *fields, *values), fast_mode=fast_mode)


@pytest.mark.parametrize("controller", ["lstm", "gru"])
@pytest.mark.parametrize("options", refinements, ids=str_flags)
def test_gradients_are_right(options, controller):
    assert gradients_are_right(controller, options, SIZES, with_parameters=True, fast_mode=True)


@pytest.mark.parametrize("options", [PLAIN, {}], ids=["plain", "refined"])
def test_gradients_are_right_entry_by_entry(options):
    tiny = {"hidden_dim": 2, "num_cells": 3, "cell_dim": 2, "num_reads": 2}
    assert gradients_are_right("lstm", options, tiny, with_parameters=False, fast_mode=False)


def test_usage_sends_no_gradient_into_the_previous_write_weights():
    dnc = network()
    inputs = random_inputs(1, 3, DIM)
    state = states_of(dnc, inputs)[1]
    weights = state.write_weights.detach().clone().requires_grad_()
    output, _ = dnc.cell(inputs[:, 2], state._replace(write_weights=weights))
    (gradient,) = torch.autograd.grad(output.sum(), weights, allow_unused=True)
    assert gradient is None


@pytest.mark.parametrize("options", [PLAIN, {}], ids=["plain", "refined"])
def test_weights_stay_in_their_ranges(options):
    dnc = network(scale=4.0, **options)
    off = 1e-9
    for state in states_of(dnc, random_inputs(8, 60, DIM)):
        assert state.usage.min() >= -off
        assert state.usage.max() <= 1 + off
        for distribution in (state.write_weights, state.precedence, state.read_weights):
            assert distribution.min() >= -off
            assert distribution.sum(-1).max() <= 1 + off
        assert state.links.min() >= -off
        assert state.links.sum(1).max() <= 1 + off
        assert state.links.sum(2).max() <= 1 + off
        assert state.links.diagonal(dim1=1, dim2=2).abs().max() == 0


@pytest.mark.parametrize("scale", [0.0, 1.0])  # at 0 nothing is ever written: v = 0
@pytest.mark.parametrize("options", [PLAIN, {}], ids=["plain", "refined"])
def test_gradients_of_an_empty_memory_are_finite(options, scale):
    dnc = network(dtype=torch.float32, scale=scale, **options)
    inputs = torch.zeros(2, 50, DIM, requires_grad=True)
    dnc(inputs).sum().backward()
    assert inputs.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in dnc.parameters())


@pytest.mark.parametrize("controller", ["lstm", "gru"])
def test_state_carries_a_sequence_on(controller):
    dnc = network(controller=controller)
    inputs = random_inputs(3, 10, DIM)
    whole, whole_state = dnc.unroll(inputs, dnc.cell.initial_state(3))
    first, state = dnc.unroll(inputs[:, :4], dnc.cell.initial_state(3))
    second, state = dnc.unroll(inputs[:, 4:], state)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole)
    torch.testing.assert_close(tensors_of(state), tensors_of(whole_state))


@pytest.mark.parametrize("controller", ["lstm", "gru"])
def test_mixed_precision_leaves_the_memory_alone(controller):
    dnc = network(dtype=torch.float32, controller=controller)
    inputs = random_inputs(2, 5, DIM, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = dnc(inputs)
    torch.testing.assert_close(mixed, dnc(inputs))


def test_runs_on_a_device_without_mixed_precision():
    dnc = network().to("meta")
    assert dnc(torch.zeros(2, 3, DIM, dtype=torch.float64, device="meta")).shape == (2, 3, DIM)


def test_dropout_acts_in_training():
    dnc = network(dropout=1 - 1e-9)
    inputs = random_inputs(2, 5, DIM)
    torch.testing.assert_close(dnc.train()(inputs), dnc.output.bias.expand(2, 5, DIM))
    assert not torch.allclose(dnc.eval()(inputs), dnc.output.bias.expand(2, 5, DIM))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"hidden_dim": 0}, "hidden_dim is 0; give a whole number of at least 1"),
        ({"num_cells": 0}, "num_cells is 0"),
        ({"cell_dim": -3}, "cell_dim is -3"),
        ({"num_reads": 0}, "num_reads is 0"),
        ({"controller": "rnn"}, "controller is 'rnn'; choose one of lstm, gru"),
        ({"dropout": 1.0}, r"dropout is 1\.0; give a share in \[0, 1\)"),
    ],
)
def test_refuses_options_that_make_no_sense(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        DNC(8, **options)


class LSTM(nn.Module):
    """What the DNC has to beat: the same contract, with the state vector as its only memory."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(dim, hidden_dim, batch_first=True)
        self.output = nn.Linear(hidden_dim, dim)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.output(self.lstm(inputs)[0])


BITS = 8


def copy_batch(batch: int, length: int, generator: torch.Generator):
    """Random bits to remember, then blanks to recite them at: inputs and the bits, 0 or 1."""
    bits = torch.randint(0, 2, (batch, length, BITS), generator=generator).float()
    inputs = torch.zeros(batch, 2 * length, BITS + 1)
    inputs[:, :length, :BITS] = 2 * bits - 1
    inputs[:, length:, BITS] = 1.0  # "recite"
    return inputs, bits


def recite(encoder: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    return encoder(inputs)[:, inputs.shape[1] // 2 :, :BITS]


def learn_to_copy(encoder: nn.Module, updates: int, seed: int, longest: int = 8) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 5e-3, total_steps=updates, pct_start=0.1
    )
    for _ in range(updates):
        length = int(torch.randint(1, longest + 1, (), generator=generator))
        inputs, bits = copy_batch(16, length, generator)
        loss = nn.functional.binary_cross_entropy_with_logits(recite(encoder, inputs), bits)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return encoder.eval()


def bit_errors(encoder: nn.Module, length: int = 8) -> tuple[float, float]:
    """The share of wrong bits, and the share against the bits of another sequence (chance: 1/2)."""
    inputs, bits = copy_batch(256, length, torch.Generator().manual_seed(1_000))
    with torch.no_grad():
        recited = recite(encoder, inputs) > 0
    wrong = (recited != bits.bool()).float().mean().item()
    return wrong, (recited != bits.roll(1, dims=0).bool()).float().mean().item()


@pytest.mark.slow
def test_learns_to_copy_what_an_lstm_of_its_size_forgets():
    """64 bits to repeat: the LSTM has as many parameters, and three times as many updates."""
    torch.manual_seed(0)
    dnc = DNC(BITS + 1, hidden_dim=32, num_cells=12, cell_dim=10, controller="gru")
    lstm = LSTM(BITS + 1, hidden_dim=38)
    sizes = [sum(parameter.numel() for parameter in model.parameters()) for model in (dnc, lstm)]
    assert 0.98 < sizes[0] / sizes[1] < 1.02
    wrong, unrelated = bit_errors(learn_to_copy(dnc, updates=600, seed=0))
    assert wrong < 0.05
    assert unrelated == pytest.approx(0.5, abs=0.02)
    assert bit_errors(learn_to_copy(lstm, updates=1_800, seed=0))[0] > 0.2
