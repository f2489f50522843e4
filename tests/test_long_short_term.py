"""The study of long- and short-term dependencies: its estimates and its launcher."""

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from matinee.errors import MatineeError
from matinee.experiment.run_folder import PER_USER, read_result

ROOT = Path(__file__).resolve().parents[1]
LAUNCHER = ROOT / "launchers" / "06_long_short_term.sh"
RUNS = ROOT / "lightning_logs" / "long_short_term" / "ml-100k"


UNSEEN = RUNS.with_name("ml-100k-unseen")


@pytest.fixture
def cells(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "docs" / "long_short_term")
    return importlib.import_module("cells")


def made_up(cells: ModuleType, seed: int):
    rng = np.random.default_rng(seed)
    users = np.random.default_rng(9).integers(0, 12, 80).astype(str)
    values = {name: rng.random((3, 80)) for name in cells.MEASURES}
    return cells.Cell(users, values, {"some": users.astype(int) < 5})


@pytest.mark.parametrize("segment", [None, "some"])
def test_estimates_against_a_loop(cells: ModuleType, segment: str | None) -> None:
    one, two = made_up(cells, 1), made_up(cells, 2)
    chosen = one.segments[segment] if segment else np.ones(80, bool)
    users = sorted(set(one.users[chosen]))
    means, differences, ratios = [], [], []
    drawn = zip(cells.resamples(len(users), seed=0), cells.resamples(3, seed=1), strict=True)
    for of_users, of_seeds in drawn:
        ours = theirs = count = 0.0
        for user, weight in zip(users, of_users, strict=True):
            for window in np.flatnonzero((one.users == user) & chosen):
                for seed, times in enumerate(of_seeds):
                    ours += weight * times * one.values["MRR@20"][seed, window]
                    theirs += weight * times * two.values["MRR@20"][seed, window]
                    count += weight * times
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


def test_every_resample_draws_as_many(cells: ModuleType) -> None:
    weights = cells.resamples(7, seed=0)
    assert weights[0].tolist() == [1] * 7
    assert (weights.sum(1) == 7).all() and len(weights) == cells.RESAMPLES + 1


def test_intervals_cover_seeds_as_well_as_users(cells: ModuleType) -> None:
    """Where all users agree, only the seeds spread; the mean of three of them has a known error."""
    users = np.repeat(np.arange(50), 4).astype(str)
    values = np.repeat(np.array([[0.1], [0.2], [0.6]]), 200, axis=1)
    cell = cells.Cell(users, dict.fromkeys(cells.MEASURES, values), {})
    found = cells.estimate(cell)
    assert found.value == pytest.approx(0.3)
    assert (found.low, found.high) == pytest.approx((0.1, 0.6))  # 1 of 27 draws is one seed alone
    single = cells.Cell(users, dict.fromkeys(cells.MEASURES, values[:1]), {})
    assert vars(cells.estimate(single)) == pytest.approx({"value": 0.1, "low": 0.1, "high": 0.1})


def test_one_training_read_two_ways_shares_its_seeds(cells: ModuleType) -> None:
    """A constant distance has no spread, however far the seeds lie apart."""
    cell = made_up(cells, 1)
    further = {name: values + 0.5 for name, values in cell.values.items()}
    found = cells.estimate(cells.Cell(cell.users, further, {}), cell)
    assert vars(found) == pytest.approx({"value": 0.5, "low": 0.5, "high": 0.5})


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


def test_figures_hold_every_segment(cells: ModuleType) -> None:
    figures = pd.read_csv(
        RUNS / "figures.csv", index_col=["experiment", "setting", "segment", "measure"]
    )
    assert figures.index.is_unique
    study = cells.Study(RUNS)
    cell = study.run("gru")
    for segment in ("popularity=low", "history=200+"):
        for measure in cells.MEASURES:
            row = figures.loc["sequence_length", "gru, length 20", segment, measure]
            found = cells.estimate(cell, measure=measure, segment=segment)
            assert row[["value", "low", "high"]].tolist() == pytest.approx(
                list(vars(found).values()), abs=1e-6
            )
            assert row["windows"] == cell.segments[segment].sum()


def test_the_page_tells_what_the_tables_show() -> None:
    estimate = r"[-+]?\d\.\d+ \([-+]?\d\.\d+ to [-+]?\d\.\d+\)"
    pages = [ROOT / "README.md", ROOT / "docs" / "long_short_term.md"]
    words = re.sub(r"\s+", " ", "".join(page.read_text() for page in pages))
    told = re.findall(estimate, words)
    tables = [folder / "tables.md" for folder in (RUNS, UNSEEN)]
    shown = {one for table in tables for one in re.findall(estimate, table.read_text())}
    assert len(told) > 20
    assert [one for one in told if one not in shown] == []


@pytest.mark.slow
def test_the_launcher_trains_and_reads_changed_histories(tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [LAUNCHER, "--fast", "5", "model.embedding_dim=64"], capture_output=True, text=True,
        env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "LOGS": str(tmp_path / "logs")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "| user_attention, last_in_place - whole" in done.stdout
    assert len(list((tmp_path / "logs").rglob("evaluation.json"))) == 2 * 5
    assert (tmp_path / "logs" / "5_order.png").stat().st_size > 0
    headings = re.findall(r"^## \((\d)\)", (tmp_path / "logs" / "tables.md").read_text(), re.M)
    assert headings == ["5"], "nothing else has two settings to compare"
    assert "Warning" not in done.stderr

    figures = pd.read_csv(tmp_path / "logs" / "figures.csv")
    assert set(figures["measure"]) == {"Recall@1", "Recall@20", "MRR@20"}


@pytest.mark.parametrize(
    ("arguments", "variables", "sentence"),
    [
        (["6"], {}, "name one experiment, 1 to 5"),
        (["1", "2"], {}, "name one experiment, 1 to 5"),
        (["seed=3"], {}, "set LOGS=folder"),
        (["4"], {"JOBS": "0"}, "JOBS is 0"),
        (["4"], {"SEEDS": "0,x"}, "SEEDS is 0,x"),
        (["4"], {"MODELS": "gru,grru"}, "there is no model grru; choose of attention,"),
        (["4"], {"DATASET": "lastfm"}, "there is no dataset lastfm; choose of counting,lastfm-1k,"),
        (["4"], {"LOGS": "one,two"}, "LOGS is one,two"),
    ],
)
def test_the_launcher_refuses_before_it_begins(
    tmp_path: Path, arguments: list[str], variables: dict[str, str], sentence: str
) -> None:
    environment = {**os.environ, "LOGS": str(tmp_path / "logs")} | variables
    if arguments == ["seed=3"]:
        del environment["LOGS"]
    done = subprocess.run([LAUNCHER, *arguments], capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert sentence in done.stderr and len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_figures_of_other_ranks_are_refused(cells: ModuleType, run: Callable[..., Path]) -> None:
    folder = run("experiment=user_based/popularity")
    assert cells.read([folder]).seeds == 1
    with np.load(folder / PER_USER) as file:
        arrays = dict(file)
    np.savez(folder / PER_USER, **arrays | {"rank": arrays["rank"] + 1})
    with pytest.raises(MatineeError, match="makes an MRR of"):
        cells.read([folder])
    (folder / PER_USER).write_bytes(b"junk")
    with pytest.raises(MatineeError, match="cannot be read"):
        cells.read([folder])
