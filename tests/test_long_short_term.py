"""The study of long- and short-term dependencies: its estimates and its launcher."""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from matinee.run_folder import read_result

ROOT = Path(__file__).resolve().parents[1]
RUNS = ROOT / "lightning_logs" / "long_short_term" / "ml-100k"


@pytest.fixture
def cells(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "docs" / "long_short_term")
    return importlib.import_module("cells")


def made_up(cells: ModuleType, seed: int):
    rng = np.random.default_rng(seed)
    users = np.random.default_rng(9).integers(0, 12, 80).astype(str)
    values = {name: rng.random(80) for name in cells.MEASURES}
    return cells.Cell(users, values, {"some": users.astype(int) < 5}, seeds=1)


@pytest.mark.parametrize("segment", [None, "some"])
def test_estimates_against_a_loop(cells: ModuleType, segment: str | None) -> None:
    one, two = made_up(cells, 1), made_up(cells, 2)
    chosen = one.segments[segment] if segment else np.ones(80, bool)
    users = sorted(set(one.users[chosen]))
    means, differences, ratios = [], [], []
    for weights in cells.resamples(len(users)):
        ours = theirs = count = 0.0
        for user, weight in zip(users, weights, strict=True):
            for window in np.flatnonzero((one.users == user) & chosen):
                ours += weight * one.values["MRR@20"][window]
                theirs += weight * two.values["MRR@20"][window]
                count += weight
        means.append(ours / count)
        differences.append((ours - theirs) / count)
        ratios.append(ours / theirs)
    for found, wanted in [
        (cells.estimate(one, segment=segment), means),
        (cells.estimate(one, two, segment=segment), differences),
        (cells.estimate(one, two, segment=segment, ratio=True), ratios),
    ]:
        assert found.value == pytest.approx(wanted[0])
        assert (found.low, found.high) == pytest.approx(np.percentile(wanted[1:], [2.5, 97.5]))


def test_every_resample_draws_as_many_users(cells: ModuleType) -> None:
    weights = cells.resamples(7)
    assert weights[0].tolist() == [1] * 7
    assert (weights.sum(1) == 7).all() and len(weights) == cells.RESAMPLES + 1


def test_estimates_are_the_recorded_figures(cells: ModuleType) -> None:
    study = cells.Study(RUNS)
    for seed_folders, cell in [
        (RUNS.glob("runs/gru/dim64_length20_drop0.0_seed*"), study.run("gru")),
        (RUNS.glob("folds/user_gru/min2_fold3_seed*"), study.folds("user_gru", 2, 3)),
    ]:
        results = [read_result(folder)["metrics"] for folder in seed_folders]
        assert len(results) == cell.seeds
        for measure in cells.MEASURES:
            recorded = np.mean([metrics[f"test/{measure.lower()}"] for metrics in results])
            assert cells.estimate(cell, measure=measure).value == pytest.approx(recorded)
        low = np.mean([metrics["test/mrr@20/popularity=low"] for metrics in results])
        assert cells.estimate(cell, segment="popularity=low").value == pytest.approx(low)


def test_windows_of_different_length_are_paired(cells: ModuleType) -> None:
    """Popularity and history of the targets are the same, window by window."""
    study = cells.Study(RUNS)
    short, long = study.run("gru", length=20), study.run("gru", length=50)
    assert short.users.tolist() == long.users.tolist()
    for name, mask in short.segments.items():
        assert np.array_equal(mask, long.segments[name]), name
    with pytest.raises(ValueError, match="same windows"):
        cells.estimate(short, study.folds("gru", 20))


def test_the_launcher_trains_and_reads_changed_histories(tmp_path: Path) -> None:
    launcher = ROOT / "launchers" / "06_long_short_term.sh"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [launcher, "--fast", "5", "model.embedding_dim=64"], capture_output=True, text=True,
        env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "LOGS": str(tmp_path / "logs")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "| user_attention, last_in_place - whole" in done.stdout
    assert len(list((tmp_path / "logs").rglob("evaluation.json"))) == 2 * 5
    assert (tmp_path / "logs" / "5_order.png").stat().st_size > 0
    assert (tmp_path / "logs" / "tables.md").read_text() in done.stdout

    for arguments in (["6"], ["1", "2"]):
        done = subprocess.run([launcher, *arguments], capture_output=True, text=True)
        assert done.returncode == 1 and "name one experiment, 1 to 5" in done.stderr
    done = subprocess.run([launcher, "seed=3"], capture_output=True, text=True)
    assert done.returncode == 1 and "set LOGS=folder" in done.stderr
