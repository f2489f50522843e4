"""What a user-conditioned encoder reads, what it drops, and which options it rejects."""

from functools import partial

import pytest
import torch
from torch import nn

from matinee.networks.encoders.recurrent import GRU
from matinee.networks.encoders.user_conditioned import UserConditioned
from matinee.networks.encoders.user_gru import UserGRU


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
