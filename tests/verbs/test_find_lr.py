"""The range test sweeps what the optimizer reads, and its suggestion reaches a run."""

import csv
import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from command_line import failed, matinee
from matinee.config.composing import compose
from matinee.errors import MatineeError
from matinee.experiment.run_folder import load_config, read_result
from matinee.experiment.trainer import probe
from matinee.verbs.find_lr import RangeTest, range_test


@pytest.fixture
def composed(table_overrides: list[str]):
    def compose_find_lr(*overrides: str) -> DictConfig:
        return compose(*table_overrides, "name=test", *overrides, verb="find-lr")

    return compose_find_lr


def test_the_swept_rate_is_the_one_that_the_optimizer_steps_with(
    composed, monkeypatch: pytest.MonkeyPatch
) -> None:
    moves: list[float] = []
    step = torch.optim.SGD.step

    def watched(self, *arguments, **options):
        closure = options.pop("closure", None) or arguments[0]
        loss = closure()  # fills the gradients, without moving a weight
        table = max(self.param_groups[0]["params"], key=torch.numel)
        before = table.detach().clone()
        step(self)
        moves.append(float((before - table.detach()).norm() / table.grad.norm()))
        return loss

    monkeypatch.setattr(torch.optim.SGD, "step", watched)
    plain = ("optimizer=sgd", "optimizer.momentum=0", "min_lr=0.001", "max_lr=0.1", "steps=20")
    result = range_test(composed(*plain))
    assert len(moves) == len(result.rates) == 20
    np.testing.assert_allclose(moves, result.rates, rtol=0.02)  # float32 differences
    assert result.rates[0] == 0.001
    ratios = result.rates[2:] / result.rates[1:-1]
    np.testing.assert_allclose(ratios, 100 ** (1 / 20), rtol=1e-6)


def test_losses_are_those_of_the_steps_and_the_same_again(composed) -> None:
    first, again = (range_test(composed("steps=40")) for _ in range(2))
    other = range_test(composed("steps=40", "seed=1"))
    assert first.losses.tolist() == again.losses.tolist()
    assert first.losses.tolist() != other.losses.tolist()
    assert first.configured == 0.005
    # a rate of 1e-6 changes nothing yet: the first loss is that of predicting the mean
    assert 0.3 < first.losses[0] < 3


def test_a_curve_is_read_where_it_falls_fastest() -> None:
    rates = np.logspace(-6, 0, 101)
    noise = np.random.default_rng(0).normal(0, 0.01, 101)
    sigmoid = 1 / (1 + np.exp(-4 * (np.log10(rates) + 3)))  # steepest at 1e-3
    losses = 2 - sigmoid + noise
    losses[85:] = 2 + 4 ** np.arange(16)  # divergence
    suggestion = RangeTest(rates, losses, 0.1).suggestion
    assert suggestion is not None
    assert abs(np.log10(suggestion) + 3) < 0.2


@pytest.mark.parametrize("seed", range(10))
def test_noise_is_not_a_falling_loss(seed: int) -> None:
    noise = np.random.default_rng(seed).normal(1, 0.1, 100)
    assert RangeTest(np.logspace(-6, 0, 100), noise, 0.1).suggestion is None


def test_a_short_or_a_rising_curve_suggests_nothing() -> None:
    rates = np.logspace(-6, 0, 50)
    assert RangeTest(rates[:5], np.ones(5), 0.1).suggestion is None
    assert RangeTest(rates, np.linspace(1, 2, 50), 0.1).suggestion is None
    assert RangeTest(rates[:0], rates[:0], 0.1).suggestion is None


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["model=bias"], "closed form"),
        (["min_lr=1", "max_lr=0.1"], "min_lr=1 is not below max_lr=0.1"),
        (["min_lr=0"], "min_lr is 0"),
        (["max_lr=abc"], "max_lr is 'abc'"),
        (["steps=3"], "steps is 3"),
        (["steps=1.5"], "steps is 1.5"),
        (["train=3"], "train is 3"),
    ],
)
def test_mistakes_get_one_sentence(composed, overrides: list[str], sentence: str) -> None:
    with pytest.raises(MatineeError, match=sentence):
        range_test(composed(*overrides))


def test_the_verb_suggests_and_trains_with_the_suggestion(
    table_overrides: list[str], tmp_path: Path
) -> None:
    done = matinee(
        "find-lr", *table_overrides, "train=true", "trainer.max_epochs=2", "data.batch_size=128",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (written,) = tmp_path.rglob("learning_rate.json")
    record = json.loads(written.read_text())
    assert f" {record['suggestion']:g} |" in done.stdout
    assert f"training with optimizer.lr={record['suggestion']:g}" in done.stderr
    with (written.parent / "learning_rate.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == record["steps"]
    assert record["suggestion"] in [float(f"{float(row['lr']):.3g}") for row in rows]
    assert (written.parent / "learning_rate.png").read_bytes()[1:4] == b"PNG"

    folder = tmp_path / done.stdout.splitlines()[-1]
    assert load_config(folder).optimizer.lr == record["suggestion"]
    assert f"optimizer.lr={record['suggestion']:g}" in OmegaConf.load(folder / "overrides.yaml")
    assert "test/rmse" in read_result(folder)["metrics"]
    assert [path.name for path in tmp_path.iterdir()] == ["lightning_logs"]
    assert len(list(tmp_path.rglob("*.ckpt"))) == 2, "those of the run alone"


def test_no_suggestion_gets_a_sentence_and_keeps_the_curve(
    table_overrides: list[str], tmp_path: Path
) -> None:
    done = matinee(
        "find-lr", *table_overrides, "min_lr=1e-9", "max_lr=1e-8", "steps=20", cwd=tmp_path
    )
    assert "no learning rate from 1e-09 to 1e-08 clearly lowers the loss" in failed(done)
    assert "none" in done.stdout
    assert len(list(tmp_path.rglob("learning_rate.png"))) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_probe_at_once(number: int) -> None:
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as ended:
        probe(signal.raise_signal, number)
    assert ended.value.code == 128 + number
    assert signal.getsignal(number) is before
