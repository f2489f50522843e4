"""A working model overfits one batch; a broken one fails the check."""

import math
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from command_line import failed, matinee
from matinee.batches import RankingBatch, RatingBatch
from matinee.config.composing import compose
from matinee.errors import MatineeError
from matinee.experiment.building import build
from matinee.networks.encoders.recurrent import GRU
from matinee.networks.pairs.factorization import BiasedMatrixFactorization
from matinee.verbs.overfit import LAST, OneBatch, overfit

CHAIN = ("dataset=markov", "dataset.num_users=60", "dataset.num_interactions=1200")


@pytest.fixture
def composed(table_overrides: list[str]):
    """Compose an overfit config, on the small table or a Markov chain."""

    def compose_overfit(*overrides: str) -> DictConfig:
        data = [] if CHAIN[0] in overrides else table_overrides
        return compose(*data, "name=test", *overrides, verb="overfit")

    return compose_overfit


@pytest.mark.parametrize("model", ["mf", "mf_bias", "ncf"])
def test_rating_models_learn_a_batch(composed, model: str) -> None:
    result = overfit(composed(f"model={model}"))
    assert result.passed, result.faults
    assert result.losses[0] > 10 * result.threshold
    assert result.final == pytest.approx(sum(result.losses[-LAST:]) / LAST)
    assert result.threshold == pytest.approx((4 / 40) ** 2)  # stars from 1 to 5
    # validation is the same batch, so it is as right, up to the moves of ten steps
    assert result.metrics["val/rmse"] <= math.sqrt(result.threshold) + 0.02


def test_a_batch_of_equal_ratings_is_memorized(composed, tmp_path: Path) -> None:
    equal = tmp_path / "equal.csv"
    rows = [f"{user},{item},3,{user * 10 + item}\n" for user in range(8) for item in range(6)]
    equal.write_text("".join(["user,item,rating,timestamp\n", *rows]))
    columns = [f"dataset.{name}={name}" for name in ("user", "item", "rating", "timestamp")]
    result = overfit(composed(f"dataset.path={equal}", *columns, "dataset.title=null"))
    assert result.final <= result.threshold > 0
    assert result.passed, result.faults


@pytest.mark.parametrize("loss", ["mae", "huber", "star_classification"])
def test_every_rating_loss_learns_the_ratings(composed, loss: str) -> None:
    assert overfit(composed(f"loss={loss}")).passed


def test_regularization_is_switched_off(composed) -> None:
    config = composed("model=ncf", "optimizer=adamw", "task.l2=100", "model.dropout=0.9")
    assert overfit(config).passed
    assert (config.task.l2, config.model.dropout, config.optimizer.weight_decay) == (0, 0, 0)
    assert config.task.unknown_users == config.task.unknown_items == 0


@pytest.mark.parametrize("model", ["user_gru", "user_lstm", "user_dnc", "user_attention"])
def test_dropout_of_users_is_switched_off(composed, model: str) -> None:
    config = composed(
        "experiment=user_based/gru", f"model={model}", *CHAIN, "examples=8", "steps=2"
    )
    assert config.model.encoder.user_dropout > 0
    overfit(config)
    assert config.model.encoder.user_dropout == config.model.dropout == 0


@pytest.mark.parametrize("model", ["pooling", "gru", "lstm", "cnn", "attention", "dnc"])
def test_sequence_models_learn_a_batch(composed, model: str) -> None:
    result = overfit(composed(f"experiment=user_based/{model}", *CHAIN, "examples=8"))
    assert result.passed, result.faults
    assert result.metrics["val/mrr"] == 1


def test_a_model_of_users_learns_a_batch(composed) -> None:
    overrides = ("experiment=user_based/gru", "model=implicit_mf", *CHAIN, "examples=8")
    assert overfit(composed(*overrides, "optimizer.lr=0.03")).passed


def test_a_sampled_loss_must_rank_its_targets_first_too(composed) -> None:
    bpr = ("experiment=user_based/gru", *CHAIN, "examples=8", "loss=bpr", "sampler=uniform")
    short = overfit(composed(*bpr, "steps=12", "optimizer.lr=0.02"))
    assert short.faults
    assert overfit(composed(*bpr, "sampler.num_negatives=20")).passed


def test_the_batch_serves_training_and_validation_and_stays_the_same(composed) -> None:
    datamodule = build(composed()).datamodule
    batch = datamodule.memorizable_batch(32)
    assert isinstance(batch, RatingBatch)
    pairs = set(zip(batch.user_ids.tolist(), batch.item_ids.tolist(), strict=True))
    assert len(pairs) == 32
    assert len(set(batch.user_ids.tolist())) < 16 > len(set(batch.item_ids.tolist())), "dense"
    train = datamodule.columns("train")
    rows = set(zip(*(column.tolist() for column in train), strict=True))
    assert all(row in rows for row in zip(*(column.tolist() for column in batch), strict=True))
    one = OneBatch(batch, steps=3)
    assert [step is batch for step in one.train_dataloader()] == [True] * 3
    assert [step is batch for step in one.val_dataloader()] == [True]
    again = build(composed("seed=7")).datamodule.memorizable_batch(32)
    assert all(a.equal(b) for a, b in zip(batch, again, strict=True))


def test_histories_of_the_batch_differ_as_sets_and_by_user(composed) -> None:
    config = composed("experiment=user_based/gru", *CHAIN)
    batch = build(config).datamodule.memorizable_batch(16)
    assert isinstance(batch, RankingBatch)
    met = {
        frozenset(row[:n].tolist()) for row, n in zip(batch.histories, batch.lengths, strict=True)
    }
    assert len(met) == len(set(batch.user_ids.tolist())) == len(batch.lengths) == 16
    assert ((batch.target_ids != 0).sum(1) == 1).all()
    last = batch.target_ids[torch.arange(16), batch.lengths.long() - 1]
    assert (last > 0).all()


def test_an_encoder_that_no_gradient_reaches_fails(
    composed, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = GRU.forward
    monkeypatch.setattr(GRU, "forward", lambda self, inputs: forward(self, inputs).detach())
    result = overfit(composed("experiment=user_based/gru", *CHAIN, "examples=8", "steps=60"))
    assert not result.passed
    assert "encoder.layers.bias_hh_l0 did not change" in " ".join(result.faults)


def test_factors_that_no_gradient_reaches_fail(composed, monkeypatch: pytest.MonkeyPatch) -> None:
    score = BiasedMatrixFactorization.score

    def without_factors(self, users, items):
        cut = [torch.cat((row[:, :-1].detach() * 0, row[:, -1:]), 1) for row in (*users, *items)]
        return score(self, (cut[0],), (cut[1],))

    monkeypatch.setattr(BiasedMatrixFactorization, "score", without_factors)
    result = overfit(composed("steps=200"))
    assert result.faults == ["error above the threshold"], "biases alone do not explain the corner"


def test_scores_without_gradient_get_one_sentence(
    composed, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = BiasedMatrixFactorization.score
    monkeypatch.setattr(
        BiasedMatrixFactorization, "score", lambda *arguments: score(*arguments).detach()
    )
    with pytest.raises(MatineeError, match="no gradient reaches a weight of BiasedMatrix"):
        overfit(composed())


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("model=bias", "solved in closed form"),
        ("examples=0", "examples is 0"),
        ("steps=many", "steps is 'many'"),
    ],
)
def test_mistakes_get_one_sentence(composed, override: str, sentence: str) -> None:
    with pytest.raises(MatineeError, match=sentence):
        overfit(composed(override))


def test_the_verb_tabulates_and_fails_if_one_fails(
    table_overrides: list[str], tmp_path: Path
) -> None:
    done = matinee("overfit", "-m", *table_overrides, "model=mf,mf_bias,bias", cwd=tmp_path)
    assert "1 of the runs failed" in done.stderr
    assert done.returncode == 1
    assert "solved in closed form" in done.stderr
    rows = [line.split("|")[1].strip() for line in done.stdout.splitlines() if "pass" in line]
    assert rows == ["mf", "mf_bias"]
    folder = tmp_path / done.stdout.splitlines()[-1]
    assert {path.name for path in folder.iterdir()} == {"config.yaml", "loss.csv", "overfit.json"}

    short = matinee("overfit", *table_overrides, "steps=3", cwd=tmp_path)
    assert "did not memorize its batch" in failed(short)
    assert "FAIL: error above the threshold" in short.stdout


def test_a_ranking_loss_is_named_by_its_choice(tmp_path: Path) -> None:
    done = matinee(
        "overfit", "experiment=user_based/pooling", *CHAIN, "examples=8", "steps=3", cwd=tmp_path
    )
    assert "did not memorize its batch" in failed(done)
    assert "| pooling | softmax   |" in done.stdout
