"""Every shipped encoder passes the test kit; what a recommender adds to its encoder."""

import inspect
from collections.abc import Callable
from functools import partial

import pytest
import torch
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn

from matinee.config.checking import check_config
from matinee.config.folders import config_dir
from matinee.networks.encoders.attention import Attention
from matinee.networks.encoders.convolution import CNN
from matinee.networks.encoders.dnc import DNC
from matinee.networks.encoders.hstu import HSTU
from matinee.networks.encoders.ligr import Ligr
from matinee.networks.encoders.pooling import Pooling
from matinee.networks.encoders.recurrent import GRU, LSTM
from matinee.networks.encoders.user_conditioned import UserConditioned
from matinee.networks.encoders.user_gru import UserGRU
from matinee.networks.encoders.users import UserFactors
from matinee.networks.sequence_recommender import SequenceRecommender
from matinee.testing import check_encoder, check_sequence_network

NUM_ITEMS, DIM = 12, 8
DNC_SIZES = {"hidden_dim": 9, "num_cells": 4, "cell_dim": 3}
ENCODERS: dict[str, Callable[..., nn.Module]] = {
    "mean": Pooling,
    "sum": partial(Pooling, mode="sum"),
    "lstm": LSTM,
    "gru": partial(GRU, hidden_dim=5, num_layers=2, dropout=0.1),
    "cnn": partial(CNN, kernel_width=[3, 2], num_layers=2, dilation=[1, 4]),
    "cnn-relu": partial(CNN, num_layers=3, dilation_multiplier=2, nonlinearity="relu"),
    "attention": partial(Attention, num_heads=2, max_length=16, dropout=0.1),
    "attention-short": partial(Attention, num_layers=1, max_length=3),
    "ligr": Ligr,
    "hstu": partial(HSTU, num_heads=2, max_distance=4, dropout=0.1),
    "dnc": partial(DNC, **DNC_SIZES),
    "dnc-plain": partial(
        DNC, **DNC_SIZES, controller="gru", masking=False, deallocation=False, link_sharpening=False
    ),
    "user_gru": partial(UserGRU, hidden_dim=5),
    "user_lstm": partial(UserConditioned, encoder=LSTM),
    "user_attention": partial(UserConditioned, encoder=partial(Attention, num_layers=1)),
    "users": UserFactors,
}


@pytest.mark.parametrize("name", ENCODERS)
def test_encoder_passes_the_kit(name: str) -> None:
    check_encoder(ENCODERS[name], knows_order=name not in ("mean", "sum"))


def test_every_shipped_encoder_is_checked() -> None:
    checked = {getattr(encoder, "func", encoder).__name__ for encoder in ENCODERS.values()}
    files = list((config_dir() / "encoder").glob("*.yaml"))
    assert files
    for file in files:
        assert OmegaConf.load(file)._target_.rsplit(".", 1)[1] in checked, file


@pytest.mark.parametrize("name", ENCODERS)
def test_the_future_and_other_rows_change_no_bit(name: str) -> None:
    network = recommender(ENCODERS[name])
    histories, user_ids = random_histories(3, 9), torch.tensor([1, 0, 4])
    before = network.represent(histories, user_ids)
    changed = histories % NUM_ITEMS + 1
    changed[0, :5] = histories[0, :5]
    after = network.represent(changed, torch.tensor([1, 2, 3]))
    assert torch.equal(after[0, :5], before[0, :5])


def recommender(encoder: Callable[..., nn.Module], **options) -> SequenceRecommender:
    """Make a network whose embeddings are wide, so that every item matters."""
    torch.manual_seed(0)
    sizes = {"num_items": NUM_ITEMS, "num_users": 4, "embedding_dim": DIM, "init_std": 1.0}
    return SequenceRecommender(encoder=encoder, **{**sizes, **options}).eval()


def random_histories(batch: int, length: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, NUM_ITEMS + 1, (batch, length), generator=generator)
    ids[:, 0] = 0
    return ids


def test_bias_is_added_to_its_item() -> None:
    network = recommender(Pooling)
    representations = torch.zeros(1, DIM)
    with torch.no_grad():
        network.item_biases.weight[5] = 2.5
    expected = torch.zeros(NUM_ITEMS + 1)
    expected[0], expected[5] = -torch.inf, 2.5
    assert torch.equal(network.score_all(representations)[0], expected)
    assert network.score(representations, torch.tensor([5])).item() == 2.5


def test_without_user_ids_users_are_unknown() -> None:
    network = recommender(UserFactors)
    histories = random_histories(2, 3)
    unknown = network.represent(histories, torch.zeros(2, dtype=torch.int64))
    assert torch.equal(network.represent(histories), unknown)


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


def test_an_untied_recommender_scores_by_a_second_table() -> None:
    check_sequence_network(partial(SequenceRecommender, encoder=GRU, embedding_dim=16, tied=False))
    network = recommender(GRU, tied=False)
    represented = network.represent(random_histories(3, 6))
    scores = network.score_all(represented)
    with torch.no_grad():
        network.item_embeddings.weight.add_(1)
    assert torch.equal(network.score_all(represented), scores)
    assert not torch.equal(network.represent(random_histories(3, 6)), represented)
    assert recommender(GRU).state_dict().keys() < network.state_dict().keys()
    with pytest.raises(ValueError, match="tied is False and UserFactors reads no items"):
        recommender(UserFactors, tied=False)


@pytest.mark.parametrize("shared", [False, True])
def test_sparse_gradients_are_those_of_the_dense_tables(shared: bool) -> None:
    histories, targets = random_histories(3, 6), torch.full((1, 2) if shared else (18, 2), 4)
    gradients = []
    for sparse in (False, True):
        network = recommender(GRU, sparse=sparse)
        network.score(network.represent(histories).flatten(0, 1), targets).sum().backward()
        tables = [network.item_embeddings.weight.grad, network.item_biases.weight.grad]
        assert all(table is not None and table.is_sparse == sparse for table in tables)
        gradients.append([table.to_dense() for table in tables if table is not None])
        torch.optim.SGD(network.parameters(), lr=0.1).step()
    for dense, sparse_gradient in zip(*gradients, strict=True):
        torch.testing.assert_close(sparse_gradient, dense)


# The shipped configs.

MODELS = [
    "popularity", "pooling", "lstm", "gru", "cnn", "attention", "ligr", "hstu", "dnc",
    "user_gru", "user_lstm", "user_dnc", "user_attention", "implicit_mf",
    "item_knn", "ease", "ials", "markov", "session_knn", "slit",
]  # fmt: skip


@pytest.mark.parametrize("model", MODELS)
def test_shipped_config_makes_a_recommender(compose_train, model: str) -> None:
    config = compose_train(f"model={model}")
    check_config(config, "train")
    network = instantiate(config.model)(num_items=NUM_ITEMS, num_users=0).eval()
    histories, user_ids = random_histories(2, 5), torch.zeros(2, dtype=torch.int64)
    scores = network.score_next(histories, torch.tensor([5, 3]), user_ids)
    assert scores.shape == (2, NUM_ITEMS + 1)
    assert (scores[:, 0] == -torch.inf).all()


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
