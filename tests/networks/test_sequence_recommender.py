"""What holds for every sequence recommender, whatever its encoder, and that each one learns."""

import inspect
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from hydra.utils import get_class, instantiate
from torch import Tensor, nn
from torch.nn import functional as F

from matinee.config.checking import check_config
from matinee.networks.encoders.attention import Attention
from matinee.networks.encoders.convolution import CNN
from matinee.networks.encoders.dnc import DNC
from matinee.networks.encoders.pooling import Pooling
from matinee.networks.encoders.recurrent import GRU, LSTM
from matinee.networks.encoders.user_conditioned import UserConditioned
from matinee.networks.encoders.user_gru import UserGRU
from matinee.networks.popularity import Popularity
from matinee.networks.sequence_recommender import SequenceRecommender

NUM_ITEMS, DIM = 12, 8
ENCODERS: dict[str, Callable[..., nn.Module]] = {
    "mean": Pooling,
    "sum": partial(Pooling, mode="sum"),
    "lstm": LSTM,
    "gru": partial(GRU, hidden_dim=5, num_layers=2),
    "cnn": partial(CNN, kernel_width=[3, 2], num_layers=2, dilation=[1, 4]),
    "cnn-relu": partial(CNN, num_layers=3, dilation_multiplier=2, nonlinearity="relu"),
    "attention": partial(Attention, num_heads=2, max_length=16),
    "attention-short": partial(Attention, num_layers=1, max_length=3),
    "dnc": partial(DNC, hidden_dim=9, num_cells=4, cell_dim=3),
    "user_gru": partial(UserGRU, hidden_dim=5),
    "user_lstm": partial(UserConditioned, encoder=LSTM),
}


def recommender(encoder: Callable[..., nn.Module], **options) -> SequenceRecommender:
    """Wide embeddings, so that every item matters."""
    torch.manual_seed(0)
    sizes = {"num_items": NUM_ITEMS, "num_users": 4, "embedding_dim": DIM, "init_std": 1.0}
    return SequenceRecommender(encoder=encoder, **{**sizes, **options}).eval()


@pytest.fixture(params=ENCODERS)
def network(request: pytest.FixtureRequest) -> SequenceRecommender:
    return recommender(ENCODERS[request.param])


def random_histories(batch: int, length: int, num_items: int = NUM_ITEMS) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, num_items + 1, (batch, length), generator=generator)
    ids[:, 0] = 0
    return ids


def close(actual: Tensor, expected: Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("position", [0, 1, 4, 7])
def test_the_future_changes_nothing(network: SequenceRecommender, position: int) -> None:
    histories = random_histories(3, 9)
    changed = histories.clone()
    changed[:, position + 1 :] = changed[:, position + 1 :] % NUM_ITEMS + 1
    before = network.represent(histories)[:, : position + 1]
    close(network.represent(changed)[:, : position + 1], before, atol=1e-6)


def test_gradients_come_from_the_past_only(network: SequenceRecommender) -> None:
    inputs = torch.randn(2, 6, DIM, requires_grad=True)
    users = (torch.tensor([0, 4]),) if network.needs_users else ()
    outputs = network.encoder(inputs, *users)
    for position in range(6):
        probe = outputs[:, position] @ torch.arange(1.0, DIM + 1)
        (gradient,) = torch.autograd.grad(probe.sum(), inputs, retain_graph=True)
        assert not gradient[:, position + 1 :].any()
        assert gradient[:, position].any(-1).all()


def test_padding_changes_nothing(network: SequenceRecommender) -> None:
    histories = random_histories(3, 5)
    padded = network.represent(F.pad(histories, (0, 6)))
    close(padded[:, :5], network.represent(histories))


def test_batch_companions_change_nothing(network: SequenceRecommender) -> None:
    histories = random_histories(5, 7)
    histories[1, 3:] = histories[2, 1:] = 0  # of several lengths
    together = network.represent(histories)
    for row, length in enumerate([7, 3, 1, 7, 7]):
        alone = network.represent(histories[row : row + 1, :length])
        close(together[row : row + 1, :length], alone)


def test_empty_history_is_a_history(network: SequenceRecommender) -> None:
    empty = network.represent(torch.zeros(1, 1, dtype=torch.long))
    assert empty.shape == (1, 1, DIM)
    assert empty.any()
    close(network.represent(random_histories(4, 3))[:, :1], empty.expand(4, 1, DIM))
    network.score_all(empty)[..., 1:].exp().sum().backward()
    assert network.item_embeddings.weight.grad is not None
    assert network.item_embeddings.weight.grad[0].any(), "row 0 is trained"


def test_unknown_item_within_a_history_is_allowed(network: SequenceRecommender) -> None:
    assert network.represent(torch.tensor([[0, 3, 0, 5]])).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_scores_agree(network: SequenceRecommender, dtype: torch.dtype) -> None:
    histories = random_histories(3, 6).to(dtype)
    representations = network.represent(histories)[:, -1]
    every = network.score_all(representations)
    assert every.shape == (3, NUM_ITEMS + 1)
    assert (every[:, 0] == -torch.inf).all()
    assert every[:, 1:].isfinite().all()
    several = torch.tensor([[4, 1], [12, 12], [3, 0]], dtype=dtype)
    close(network.score(representations, several), every.gather(1, several.long()))
    one = several[:, 0]
    close(network.score(representations, one), every[torch.arange(3), one.long()])
    weights, biases = network.item_table()
    close((representations @ weights.T + biases)[:, 1:], every[:, 1:])


def test_scores_agree_at_every_position(network: SequenceRecommender) -> None:
    representations = network.represent(random_histories(3, 6))
    every = network.score_all(representations)
    targets = (random_histories(3, 6) + 1).clamp(max=NUM_ITEMS).unsqueeze(-1)
    expected = every.gather(2, targets)
    close(network.score(representations, targets), expected)
    close(network.score(representations, targets.squeeze(-1)), expected.squeeze(-1))


def test_bias_is_added_to_its_item() -> None:
    network = recommender(Pooling)
    representations = torch.zeros(1, DIM)
    with torch.no_grad():
        network.item_biases.weight[5] = 2.5
    expected = torch.zeros(NUM_ITEMS + 1)
    expected[0], expected[5] = -torch.inf, 2.5
    assert torch.equal(network.score_all(representations)[0], expected)
    assert network.score(representations, torch.tensor([5])).item() == 2.5


def test_catalogue_of_one_item(network: SequenceRecommender) -> None:
    single = recommender(lambda _: network.encoder, num_items=1)
    single.needs_users = network.needs_users
    scores = single.score_all(single.represent(torch.tensor([[0, 1, 1]])))
    assert scores.shape == (1, 3, 2)
    assert torch.equal(scores.softmax(-1)[..., 1], torch.ones(1, 3))


def test_long_histories_have_an_answer(network: SequenceRecommender) -> None:
    histories = random_histories(2, 120)
    representations = network.represent(histories)
    assert representations.shape == (2, 120, DIM)
    assert representations.isfinite().all()
    close(representations[:, :50], network.represent(histories[:, :50]))


def test_gradients_reach_every_parameter(network: SequenceRecommender) -> None:
    histories = random_histories(8, min(12, getattr(network.encoder, "max_length", 12)))
    network.train()
    scores = network.score_all(network.represent(histories))[..., 1:]
    targets = torch.randint(0, NUM_ITEMS, (histories.numel(),))
    F.cross_entropy(scores.flatten(0, 1), targets).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_float64(network: SequenceRecommender) -> None:
    histories = random_histories(3, 6)
    single = network.score_all(network.represent(histories))
    double = network.double().score_all(network.represent(histories))
    assert double.dtype == torch.float64
    close(single.double(), double, atol=1e-4)


def test_dropout_is_for_training_only() -> None:
    network = recommender(LSTM, dropout=0.5)
    histories = random_histories(3, 6)
    assert torch.equal(network.represent(histories), network.represent(histories))
    network.train()
    assert not torch.equal(network.represent(histories), network.represent(histories))


@pytest.mark.parametrize("bad_id", [NUM_ITEMS + 1, -1])
def test_ids_out_of_range_are_named(bad_id: int) -> None:
    network = recommender(Pooling)
    sentence = (
        rf"item ids range from {min(bad_id, 0)} to {max(bad_id, 2)}; give ids in 0\.\.{NUM_ITEMS}"
    )
    with pytest.raises(IndexError, match=sentence):
        network.represent(torch.tensor([[0, bad_id, 2]]))
    with pytest.raises(IndexError, match="item ids range from"):
        network.score(torch.zeros(1, DIM), torch.tensor([bad_id]))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"num_items": 0}, "num_items is 0; give a whole number of at least 1"),
        ({"embedding_dim": 0}, "embedding_dim is 0; give a whole number of at least 1"),
        ({"dropout": 1.0}, r"dropout is 1\.0; give a share in \[0, 1\)"),
        ({"dropout": -0.1}, r"dropout is -0\.1"),
    ],
)
def test_options_out_of_range_are_named(options: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        recommender(Pooling, **options)


def test_sparse_gradients_are_those_of_the_dense_tables() -> None:
    histories, targets = random_histories(3, 6), torch.full((3, 6, 2), 4)
    gradients = []
    for sparse in (False, True):
        network = recommender(GRU, sparse=sparse)
        network.score(network.represent(histories), targets).sum().backward()
        tables = [network.item_embeddings.weight.grad, network.item_biases.weight.grad]
        assert all(table is not None and table.is_sparse == sparse for table in tables)
        gradients.append([table.to_dense() for table in tables if table is not None])
        torch.optim.SGD(network.parameters(), lr=0.1).step()
    for dense, sparse_gradient in zip(*gradients, strict=True):
        close(sparse_gradient, dense)


# Learning. Rows 1, 2, ..., 20 are all alike, so one of them is the whole data set.

COUNTING = torch.arange(1, 21).unsqueeze(0)
LEARNERS: dict[str, tuple[Callable[..., nn.Module], int]] = {  # and Adam steps
    "lstm": (LSTM, 300),
    "gru": (GRU, 300),
    "cnn": (partial(CNN, num_layers=2), 300),
    "attention": (Attention, 300),
    "dnc": (partial(DNC, hidden_dim=32, num_cells=8, cell_dim=8), 150),
    "user_gru": (UserGRU, 200),
}


def histories_of(targets: Tensor) -> Tensor:
    return F.pad(targets[:, :-1], (1, 0))


def train(network: SequenceRecommender, targets: Tensor, steps: int) -> SequenceRecommender:
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    network.train()
    for _ in range(steps):
        scores = network.score_all(network.represent(histories_of(targets)))
        loss = F.cross_entropy(scores.flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


@torch.no_grad()
def mean_reciprocal_rank(network: nn.Module, targets: Tensor) -> float:
    """Over all positions, a tie counting half a rank."""
    scores = network.score_all(network.represent(histories_of(targets)))
    target_scores = scores.gather(-1, targets.unsqueeze(-1))
    above = (scores > target_scores).sum(-1)
    ties = (scores == target_scores).sum(-1) - 1
    return float((1 / (1 + above + ties / 2)).mean())


@pytest.mark.parametrize("name", LEARNERS)
def test_learns_to_count(name: str) -> None:
    encoder, steps = LEARNERS[name]
    torch.manual_seed(0)
    network = SequenceRecommender(20, encoder, embedding_dim=32)
    assert mean_reciprocal_rank(network.eval(), COUNTING) < 0.5
    assert mean_reciprocal_rank(train(network, COUNTING, steps), COUNTING) >= 0.99


@pytest.mark.parametrize("name", LEARNERS)
def test_learns_the_order_of_items(name: str) -> None:
    """1, 2 is followed by 3, and 2, 1 by 4: the order alone tells which."""
    encoder, _ = LEARNERS[name]
    targets = torch.tensor([[1, 2, 3], [2, 1, 4]])
    torch.manual_seed(0)
    network = train(SequenceRecommender(4, encoder, embedding_dim=16), targets, 100)
    last = network.score_all(network.represent(histories_of(targets))[:, -1])
    assert last.argmax(-1).tolist() == [3, 4]


@pytest.mark.parametrize("name", ["gru", "attention"])
def test_random_items_stay_at_chance(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    seen, fresh = torch.randint(1, 21, (2, 100, 10), generator=generator)
    torch.manual_seed(0)
    network = train(SequenceRecommender(20, LEARNERS[name][0], embedding_dim=16), seen, 100)
    chance = np.mean(1 / np.arange(1, 21))  # 0.18, the mean of 1 / rank over uniform ranks
    assert mean_reciprocal_rank(network, fresh) == pytest.approx(chance, abs=0.03)


def test_popularity_cannot_count() -> None:
    network = Popularity(20)
    network.fit(torch.ones(20, dtype=torch.long), COUNTING[0])
    assert mean_reciprocal_rank(network, COUNTING) == pytest.approx(1 / 10.5)


# The shipped configs.

MODELS = [
    "popularity", "pooling", "lstm", "gru", "cnn", "attention", "dnc",
    "user_gru", "user_lstm", "user_dnc", "user_attention",
]  # fmt: skip


@pytest.mark.parametrize("model", MODELS)
def test_shipped_config_makes_a_recommender(compose_train, model: str) -> None:
    config = compose_train(f"model={model}")
    check_config(config, "train")
    network = instantiate(config.model)(num_items=NUM_ITEMS).eval()
    scores = network.score_all(network.represent(random_histories(2, 5)))
    assert scores.shape == (2, 5, NUM_ITEMS + 1)
    assert (scores[..., 0] == -torch.inf).all()


@pytest.mark.parametrize("model", MODELS)
def test_shipped_config_shows_every_option(compose_train, model: str) -> None:
    config = compose_train(f"model={model}").model
    node, from_data = config, {"num_items", "num_users"}
    while node is not None:  # the recommender, its encoder, the encoder within that
        parameters = set(inspect.signature(get_class(node._target_)).parameters)
        assert set(node) - {"_target_", "_partial_"} == parameters - from_data
        node, from_data = node.get("encoder"), {"embedding_dim", "num_users"}


def test_lists_may_stand_in_a_config(compose_train) -> None:
    config = compose_train(
        "model=cnn",
        "model.encoder.num_layers=4",
        "model.encoder.kernel_width=[3,3,5,2]",
        "model.encoder.dilation=[1,2,4,8]",
    )
    encoder = instantiate(config.model)(num_items=NUM_ITEMS).encoder
    assert [layer.kernel_size for layer in encoder.layers] == [(3,), (3,), (5,), (2,)]
    assert [layer.dilation for layer in encoder.layers] == [(1,), (2,), (4,), (8,)]
