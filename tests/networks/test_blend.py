"""A network and a Markov chain together, against the two apart."""

from functools import partial
from pathlib import Path

import pytest
import torch

import matinee
from matinee.experiment.building import load_run
from matinee.networks.blend import Blend
from matinee.networks.encoders.recurrent import GRU
from matinee.networks.rankers.markov import MarkovChain
from matinee.networks.sequence_recommender import SequenceRecommender
from matinee.testing import check_sequence_network

GRU16 = partial(SequenceRecommender, encoder=GRU, embedding_dim=16)


@pytest.fixture
def blend() -> Blend:
    """Of 6 items, item 6 not in train."""
    torch.manual_seed(0)
    network = Blend(6, GRU16, MarkovChain, weight=1.5)
    network.prior.fit(torch.tensor([1, 1, 1, 2, 2, 2]), torch.tensor([1, 2, 3, 2, 5, 4]))
    return network.eval()


def test_passes_the_kit() -> None:
    check_sequence_network(partial(Blend, network=GRU16, prior=MarkovChain))


@torch.no_grad()
def test_scores_are_sums_of_log_probabilities(blend: Blend) -> None:
    histories, lengths = torch.tensor([[0, 1, 2], [0, 5, 0], [0, 0, 0]]), torch.tensor([3, 2, 1])
    users = torch.zeros(3, dtype=torch.int64)
    scores = blend.score_next(histories, lengths, users)
    learned = blend.network.score_next(histories, lengths, users)[:, 1:].double().softmax(1)
    counted = blend.prior.score_next(histories, lengths, users)[:, 1:].double()
    counted[:, 5] = 0  # not in train
    counted[2] = torch.tensor([1, 2, 1, 1, 1, 0]) / 6  # nothing is known: the shares of train
    expected = learned.log() + 1.5 * (counted + 0.01 / 6).log()
    torch.testing.assert_close(scores[:, 1:].double(), expected, rtol=1e-5, atol=1e-5)
    assert (scores[:, 0] == -torch.inf).all()


def test_without_weight_the_network_decides_and_it_is_trained_alone(blend: Blend) -> None:
    blend.weight = 0.0
    histories, lengths = torch.tensor([[0, 1, 2]]), torch.tensor([3])
    users = torch.zeros(1, dtype=torch.int64)
    learned = blend.network.score_next(histories, lengths, users)[0, 1:]
    scores = blend.score_next(histories, lengths, users)[0, 1:]
    torch.testing.assert_close(scores, learned.log_softmax(0))
    assert [name for name, _ in blend.named_parameters()] == [
        f"network.{name}" for name, _ in blend.network.named_parameters()
    ]


def test_a_negative_weight_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"weight is -1.0; give"):
        Blend(6, GRU16, MarkovChain, weight=-1.0)


def test_a_run_keeps_its_chain(tmp_path: Path) -> None:
    """The chain is solved at the start of the fit, kept in the checkpoint and used to answer."""
    options = [
        "dataset=counting",
        "split=user_based",
        "data=sequence",
        "task=next_item",
        "loss=softmax",
    ]
    options += ["model=blend", "trainer.max_epochs=1", "trainer=cpu"]
    run = matinee.train(*options, f"run_folder={tmp_path / 'run'}")
    network = load_run(run).task.network
    assert network.prior.transitions.values.numel() > 0
    assert run.metrics().loc["test", "mrr"] > 0.9
