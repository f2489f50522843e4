"""What users add to a sequence model: their rows, their own answers, and an answer to a stranger."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from matinee.networks.encoders.attention import Attention
from matinee.networks.encoders.dnc import DNC
from matinee.networks.encoders.recurrent import GRU, LSTM
from matinee.networks.encoders.user_conditioned import UserConditioned
from matinee.networks.encoders.user_gru import UserGRU
from matinee.networks.sequence_recommender import SequenceRecommender

ENCODERS: dict[str, Callable[..., nn.Module]] = {
    "user_gru": UserGRU,
    "lstm": partial(UserConditioned, encoder=LSTM),
    "dnc": partial(UserConditioned, encoder=partial(DNC, hidden_dim=8, num_cells=4, cell_dim=3)),
    "attention": partial(UserConditioned, encoder=partial(Attention, num_layers=1)),
}
HISTORIES = torch.tensor([[0, 1, 2], [0, 1, 2]])


@pytest.fixture(params=ENCODERS)
def network(request: pytest.FixtureRequest) -> SequenceRecommender:
    torch.manual_seed(0)
    sizes = {"num_items": 6, "num_users": 3, "embedding_dim": 16, "init_std": 0.5}
    return SequenceRecommender(encoder=ENCODERS[request.param], **sizes)


def test_the_encoder_reads_items_plus_user() -> None:
    torch.manual_seed(0)
    encoder = UserConditioned(4, 3, GRU).eval()
    inputs, user_ids = torch.randn(3, 5, 4), torch.tensor([2, 0, 3])
    for row, user_id in enumerate(user_ids.tolist()):
        summed = torch.stack([items + encoder.users.weight[user_id] for items in inputs[row]])
        expected = encoder.encoder(summed.unsqueeze(0))
        torch.testing.assert_close(encoder(inputs, user_ids)[row : row + 1], expected)


def test_dropout_is_the_users_only() -> None:
    inputs = torch.randn(50, 5, 40)
    encoder = UserConditioned(40, 1, lambda _: nn.Identity(), user_dropout=0.25).train()
    added = encoder(inputs, torch.ones(50, dtype=torch.int32)) - inputs
    torch.testing.assert_close(added, added[:, :1].expand_as(added))
    kept = encoder.users.weight[1] / 0.75
    dropped = (added[:, 0] - kept).abs() > 1e-5
    assert dropped.float().mean().item() == pytest.approx(0.25, abs=0.05)
    torch.testing.assert_close(
        added[:, 0][dropped], torch.zeros(int(dropped.sum())), atol=1e-5, rtol=0
    )
    assert torch.equal(
        encoder.eval()(inputs, torch.ones(50, dtype=torch.int32))[0, 0],
        inputs[0, 0] + encoder.users.weight[1],
    )


def test_users_change_what_is_represented(network: SequenceRecommender) -> None:
    represented = network.eval().represent(HISTORIES, torch.tensor([1, 2], dtype=torch.int32))
    assert ((represented[0] - represented[1]).abs().amax(-1) > 1e-4).all(), (
        "from the first position"
    )


def test_a_user_never_named_is_user_0(network: SequenceRecommender) -> None:
    network.eval()
    zeros = torch.zeros(2, dtype=torch.int32)
    unnamed = network.represent(HISTORIES)
    assert torch.equal(unnamed, network.represent(HISTORIES, zeros))
    assert not torch.allclose(unnamed, network.represent(HISTORIES, zeros + 1))
    unnamed.sum().backward()
    gradient = network.encoder.users.weight.grad
    assert gradient is not None
    assert gradient[0].any() and not gradient[1:].any()


@pytest.mark.parametrize("name", ENCODERS)
def test_learns_who_goes_on_how(name: str) -> None:
    """After one history user 1 takes 3, user 2 takes 4; of whom nothing is known takes 5."""
    histories, user_ids = torch.tensor([[0, 1, 2]]).expand(3, -1), torch.tensor([1, 2, 0])
    targets = torch.tensor([3, 4, 5])
    torch.manual_seed(0)
    network = SequenceRecommender(6, ENCODERS[name], embedding_dim=16, num_users=3)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(100):
        loss = F.cross_entropy(
            network.score_all(network.represent(histories, user_ids)[:, -1]), targets
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()
    scores = network.score_all(network.represent(histories, user_ids)[:, -1])
    assert scores.argmax(-1).tolist() == [3, 4, 5]
    assert network.score_all(network.represent(histories)[:, -1]).argmax(-1).tolist() == [5, 5, 5]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"user_dropout": -0.5},
            r"user_dropout is -0\.5; give a share in \[0, 1\)",
        ),
        ({"embedding_dim": 0}, "embedding_dim is 0"),
        ({"encoder": UserGRU}, r"encoder is UserGRU, which uses user ids already"),
        (
            {"encoder": partial(UserConditioned, encoder=GRU)},
            "UserConditioned, which uses user ids",
        ),
        (
            {"encoder": partial(GRU, num_layers=0)},
            r"^num_layers is 0; give",
        ),
    ],
)
def test_options_that_make_no_sense_are_named(options: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        UserConditioned(**{"embedding_dim": 4, "num_users": 3, "encoder": GRU, **options})
