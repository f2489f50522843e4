"""The user-based GRU against its equations, one row, one step and one unit at a time."""

import math

import pytest
import torch
from torch import Tensor, nn

from matinee.networks.encoders.user_gru import UserGRU


def make(dim: int = 3, hidden_dim: int | None = None, num_users: int = 5, **options) -> UserGRU:
    torch.manual_seed(0)
    options = {"init_std": 1.0, **options}
    return UserGRU(dim, num_users, hidden_dim, **options).double().eval()


def sigmoid(number: float) -> float:
    return 1 / (1 + math.exp(-number))


def product(matrix: list[list[float]], vector: list[float]) -> list[float]:
    return [sum(w * v for w, v in zip(row, vector, strict=True)) for row in matrix]


def slow(encoder: UserGRU, inputs: Tensor, user_ids: Tensor) -> Tensor:
    """Encode by the equations of the paper, in Python's numbers."""
    dim, size = inputs.shape[2], encoder.hidden_dim
    named = {name: weights.tolist() for name, weights in encoder.named_parameters()}
    state, state_bias = named["state_parts.weight"], named["state_parts.bias"]
    item, item_bias = named["item_parts.weight"], named["item_parts.bias"]
    rows = []
    for items, user_id in zip(inputs.tolist(), user_ids.tolist(), strict=True):
        u, h, steps = named["users.weight"][user_id], [0.0] * size, []
        for x in items:
            w_a = [
                state[i] + named["item_attention.weight"][i] + named["user_attention.weight"][i]
                for i in range(dim)
            ]  # one matrix on [h, x, u]
            a = [
                sigmoid(total + named["item_attention.bias"][i] + state_bias[i])
                for i, total in enumerate(product(w_a, [*h, *x, *u]))
            ]
            item_input = [(1 - a[i]) * x[i] for i in range(dim)]
            user_input = [a[i] * u[i] for i in range(dim)]
            from_item = [t + b for t, b in zip(product(item, item_input), item_bias, strict=True)]
            from_state = [
                t + b for t, b in zip(product(state[dim:], h), state_bias[dim:], strict=True)
            ]
            from_user = product(named["user_part.weight"], user_input)
            new = []
            for k in range(size):
                r = sigmoid(from_item[k] + from_state[k])
                z = sigmoid(from_item[size + k] + from_state[size + k])
                candidate = math.tanh(
                    from_item[2 * size + k] + r * from_state[2 * size + k] + from_user[k]
                )
                new.append((1 - z) * candidate + z * h[k])
            h = new
            steps.append(h)
        rows.append(steps)
    hidden = torch.tensor(rows, dtype=torch.float64)
    if isinstance(encoder.output, nn.Linear):
        hidden = hidden @ encoder.output.weight.T + encoder.output.bias
    return hidden


@pytest.mark.parametrize("hidden_dim", [None, 2, 5])
@pytest.mark.parametrize(("batch", "length"), [(3, 7), (1, 1)])
def test_agrees_with_its_equations(hidden_dim: int | None, batch: int, length: int) -> None:
    encoder = make(3, hidden_dim)
    inputs = torch.randn(batch, length, 3, dtype=torch.float64)
    user_ids = torch.tensor([2, 0, 5])[:batch]
    expected = slow(encoder, inputs, user_ids)
    torch.testing.assert_close(encoder(inputs, user_ids), expected, rtol=1e-12, atol=1e-12)


def test_gradients() -> None:
    encoder = make(3, hidden_dim=2)
    inputs = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    names, parameters = zip(*encoder.named_parameters(), strict=True)

    def encode(inputs: Tensor, *values: Tensor) -> Tensor:
        given = dict(zip(names, values, strict=True))
        return torch.func.functional_call(encoder, given, (inputs, torch.tensor([1, 4])))

    assert torch.autograd.gradcheck(encode, (inputs, *parameters))


def test_is_the_plain_gru_where_nothing_is_the_users() -> None:
    encoder = make(4)
    plain = nn.GRU(4, 4, batch_first=True).double()
    with torch.no_grad():
        encoder.item_attention.bias.fill_(-1e3)  # a = 0
        plain.weight_ih_l0.copy_(encoder.item_parts.weight)
        plain.bias_ih_l0.copy_(encoder.item_parts.bias)
        plain.weight_hh_l0.copy_(encoder.state_parts.weight[4:])
        plain.bias_hh_l0.copy_(encoder.state_parts.bias[4:])
    inputs = torch.randn(3, 9, 4, dtype=torch.float64)
    torch.testing.assert_close(encoder(inputs, torch.tensor([1, 2, 3])), plain(inputs)[0])


def test_hears_only_the_user_where_everything_is_the_users() -> None:
    encoder = make(4)
    with torch.no_grad():
        encoder.item_attention.bias.fill_(1e3)  # a = 1
    inputs = torch.randn(2, 9, 4, dtype=torch.float64)
    same, other = encoder(inputs, torch.tensor([3, 3])), encoder(inputs, torch.tensor([3, 4]))
    torch.testing.assert_close(same[0], same[1])
    assert not torch.allclose(other[0], other[1])


def test_a_users_row_is_dropped_once_for_the_whole_history() -> None:
    encoder = make(64, user_dropout=0.5).train()
    with torch.no_grad():
        encoder.item_attention.bias.fill_(1e3)  # a = 1: the input is the user alone
        encoder.state_parts.weight.zero_()  # no memory: a step differs by its dropout alone
        encoder.state_parts.bias[64:].zero_()
    outputs = encoder(torch.randn(2, 5, 64, dtype=torch.float64), torch.tensor([1, 1]))
    keep = encoder.item_parts.bias[64:128].sigmoid()
    candidates = (outputs[:, 1:] - keep * outputs[:, :-1]) / (1 - keep)
    torch.testing.assert_close(candidates, candidates[:, :1].expand_as(candidates))
    assert not torch.allclose(candidates[0], candidates[1]), "each row has a mask of its own"


def test_mixed_precision_keeps_a_state_of_single_precision() -> None:
    encoder = make(8).float()
    inputs, user_ids = torch.randn(3, 9, 8), torch.tensor([1, 2, 0])
    with torch.autocast("cpu", torch.bfloat16):
        mixed = encoder(inputs, user_ids)
    assert mixed.dtype == torch.float32
    mixed.sum().backward()
    torch.testing.assert_close(mixed, encoder(inputs, user_ids), atol=0.03, rtol=0)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"hidden_dim": 0}, r"hidden_dim is 0; give a whole number of at least 1"),
        ({"user_dropout": 1.0}, r"user_dropout is 1\.0; give a share in \[0, 1\)"),
        ({"dim": 0, "hidden_dim": 2}, "embedding_dim is 0"),
    ],
)
def test_options_out_of_range_are_named(options: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make(**options)
