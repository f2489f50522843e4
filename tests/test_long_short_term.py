"""The study of long- and short-term dependencies: its estimates and its launcher."""

import importlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from matinee.errors import MatineeError
from matinee.experiment.run_folder import PER_USER, read_result

ROOT = Path(__file__).resolve().parents[1]
LAUNCHER = ROOT / "launchers" / "06_long_short_term.sh"
STUDY = ROOT / "lightning_logs" / "long_short_term" / "ml-100k"
UNSEEN = STUDY.with_name("ml-100k-unseen")


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Import a module of the study by name."""
    monkeypatch.syspath_prepend(ROOT / "docs" / "long_short_term")
    return importlib.import_module


@pytest.fixture
def estimates(scripts: Callable[[str], ModuleType]) -> ModuleType:
    return scripts("estimates")


@pytest.fixture
def ranks(scripts: Callable[[str], ModuleType]) -> ModuleType:
    return scripts("ranks")


def made_up(estimates: ModuleType, seed: int):
    rng = np.random.default_rng(seed)
    users = np.random.default_rng(9).integers(0, 12, 80).astype(str)
    values = {name: rng.random((3, 80)) for name in estimates.MEASURES}
    return estimates.Cell(users, values, {"some": users.astype(int) < 5})


@pytest.mark.parametrize("segment", [None, "some"])
def test_estimates_against_a_loop(estimates: ModuleType, segment: str | None) -> None:
    one, two = made_up(estimates, 1), made_up(estimates, 2)
    chosen = one.segments[segment] if segment else np.ones(80, bool)
    users = sorted(set(one.users[chosen]))
    means, differences, ratios = [], [], []
    drawn = zip(
        np.vstack([np.ones(len(users)), estimates.resamples(len(users), seed=0)]),
        np.vstack([np.ones(3), estimates.resamples(3, seed=1)]),
        strict=True,
    )
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
        (estimates.estimate(one, segment=segment), means),
        (estimates.estimate(one, two, segment=segment), differences),
        (estimates.estimate(one, two, segment=segment, ratio=True), ratios),
    ]:
        assert found.value == pytest.approx(wanted[0])
        assert (found.low, found.high) == pytest.approx(np.percentile(wanted[1:], [2.5, 97.5]))


def test_every_resample_draws_as_many(estimates: ModuleType) -> None:
    weights = estimates.resamples(7, seed=0)
    assert (weights.sum(1) == 7).all() and len(weights) == estimates.RESAMPLES


def test_intervals_cover_seeds_as_well_as_users(estimates: ModuleType) -> None:
    """If all users agree, only the seeds vary; the mean of three of them has a known error."""
    users = np.repeat(np.arange(50), 4).astype(str)
    values = np.repeat(np.array([[0.1], [0.2], [0.6]]), 200, axis=1)
    cell = estimates.Cell(users, dict.fromkeys(estimates.MEASURES, values), {})
    found = estimates.estimate(cell)
    assert found.value == pytest.approx(0.3)
    assert (found.low, found.high) == pytest.approx((0.1, 0.6))  # 1 of 27 draws is one seed alone
    single = estimates.Cell(users, dict.fromkeys(estimates.MEASURES, values[:1]), {})
    assert vars(estimates.estimate(single)) == pytest.approx(
        {"value": 0.1, "low": 0.1, "high": 0.1}
    )


def test_one_training_with_two_kinds_of_histories_shares_its_seeds(estimates: ModuleType) -> None:
    """A constant distance has no spread, however far the seeds lie apart."""
    cell = made_up(estimates, 1)
    further = {name: values + 0.5 for name, values in cell.values.items()}
    found = estimates.estimate(estimates.Cell(cell.users, further, {}), cell)
    assert vars(found) == pytest.approx({"value": 0.5, "low": 0.5, "high": 0.5})


def test_estimates_are_the_recorded_metrics(
    estimates: ModuleType, run: Callable[..., Path], tmp_path: Path
) -> None:
    for seed in (0, 1):
        options = ("split=user_tail", "data.segments=[popularity]", f"seed={seed}")
        run("experiment=user_based/popularity", *options, folder=f"runs/popularity/{seed}")
    (cell,) = estimates.Study(tmp_path).cells.values()
    results = [read_result(tmp_path / f"runs/popularity/{s}")["metrics"] for s in (0, 1)]
    for measure in estimates.MEASURES:
        recorded = np.mean([metrics[f"test/{measure.lower()}"] for metrics in results])
        assert estimates.estimate(cell, measure=measure).value == pytest.approx(recorded)
    low = np.mean([metrics["test/mrr@20/popularity=low"] for metrics in results])
    assert estimates.estimate(cell, segment="popularity=low").value == pytest.approx(low)


def test_windows_of_different_length_are_paired(estimates: ModuleType) -> None:
    """Popularity and history of the targets are the same, window by window."""
    study = estimates.Study(STUDY)
    short, long = study.run("gru", length=20), study.run("gru", length=50)
    assert short.users.tolist() == long.users.tolist()
    for name, mask in short.segments.items():
        assert np.array_equal(mask, long.segments[name]), name
    with pytest.raises(ValueError, match="same windows"):
        estimates.estimate(short, study.folds("gru", 20))


@pytest.mark.parametrize(
    ("folder", "number", "experiment"),
    [(STUDY, 1, "time_folds"), (STUDY, 3, "embedding_size"), (UNSEEN, 4, "sequence_length")],
)
def test_the_committed_tables_follow_from_the_committed_ranks(
    scripts: Callable[[str], ModuleType], folder: Path, number: int, experiment: str
) -> None:
    experiments = scripts("experiments")
    result = getattr(experiments, experiment)(scripts("estimates").Study(folder))
    plt.close(result.figure)
    text = (folder / "tables.md").read_text()
    (section,) = (part for part in text.split("## ") if part.startswith(f"({number})"))
    assert result.text == section.split("\n\n", 1)[1].split("\n\n!")[0].rstrip("\n")


def test_popularity_is_as_the_page_says(estimates: ModuleType) -> None:
    page = (ROOT / "docs" / "long_short_term.md").read_text()
    for folder in (STUDY, UNSEEN):
        cell = estimates.Study(folder).cells["popularity", "popularity"]
        for measure in ("MRR@20", "Recall@20"):
            assert f"{estimates.estimate(cell, measure=measure).value:.4f}" in page


def test_every_measure_has_a_row_in_every_segment(
    scripts: Callable[[str], ModuleType], estimates: ModuleType
) -> None:
    cell = made_up(estimates, 1)
    result = scripts("experiments").Result(None, [("some model", cell), ("untrained", None)], [])
    rows = pd.DataFrame(result.rows("order")).set_index(["setting", "segment", "measure"])
    assert rows.index.is_unique and len(rows) == 2 * 3
    for segment, name in ((None, "all"), ("some", "some")):
        for measure in estimates.MEASURES:
            row = rows.loc["some model", name, measure]
            found = estimates.estimate(cell, measure=measure, segment=segment)
            assert row[["value", "low", "high"]].tolist() == list(vars(found).values())
            assert row["windows"] == (80 if segment is None else cell.segments["some"].sum())


def test_the_page_states_what_the_tables_show() -> None:
    estimate = r"[-+]?\d\.\d+ \([-+]?\d\.\d+ to [-+]?\d\.\d+\)"
    pages = [ROOT / "README.md", ROOT / "docs" / "long_short_term.md"]
    words = re.sub(r"\s+", " ", "".join(page.read_text() for page in pages))
    told = re.findall(estimate, words)
    tables = [folder / "tables.md" for folder in (STUDY, UNSEEN)]
    shown = {one for table in tables for one in re.findall(estimate, table.read_text())}
    assert len(told) > 20
    assert [one for one in told if one not in shown] == []


@pytest.mark.slow
def test_the_launcher_trains_and_reads_changed_histories(ranks: ModuleType, tmp_path: Path) -> None:
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

    table = pd.read_csv(tmp_path / "logs" / "estimates.csv")
    assert set(table["measure"]) == {"Recall@1", "Recall@20", "MRR@20"}

    rows = ranks.read_ranks(tmp_path / "logs")
    ranks.write_ranks(rows, tmp_path / "logs")
    shutil.rmtree(tmp_path / "logs" / "runs")
    packed = ranks.read_ranks(tmp_path / "logs")
    assert len(packed) == 2 * 6
    for row, again in zip(rows, packed, strict=True):
        assert row.keys() == again.keys()
        for name, value in row.items():
            assert np.array_equal(value, again[name]) and type(value) is type(again[name]), name


@pytest.mark.parametrize(
    ("arguments", "variables", "sentence"),
    [
        (["6"], {}, "name one experiment, 1 to 5"),
        (["1", "2"], {}, "name one experiment, 1 to 5"),
        (["seed=3"], {}, "set LOGS=folder"),
        (["4"], {"JOBS": "0"}, "JOBS is 0"),
        (["4"], {"SEEDS": "0,x"}, "SEEDS is 0,x"),
        (["4"], {"MODELS": "gru,grru"}, "there is no model grru; choose one of attention,"),
        (
            ["4"],
            {"DATASET": "lastfm"},
            "there is no dataset lastfm; choose one of counting,in_memory,lastfm-1k,",
        ),
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


def test_ranks_that_do_not_make_the_recorded_mrr_are_refused(
    ranks: ModuleType, run: Callable[..., Path], tmp_path: Path
) -> None:
    folder = run("experiment=user_based/popularity", folder="popularity")
    ranks.write_ranks(ranks.read_ranks(tmp_path), tmp_path)
    with np.load(folder / PER_USER) as file:
        arrays = dict(file)
    np.savez(folder / PER_USER, **arrays | {"rank": arrays["rank"] + 1})
    with pytest.raises(MatineeError, match="make an MRR of"):
        ranks.read_ranks(tmp_path)
    (folder / PER_USER).write_bytes(b"junk")
    with pytest.raises(MatineeError, match="cannot be read"):
        ranks.read_ranks(tmp_path)
    shutil.rmtree(folder)
    assert len(ranks.read_ranks(tmp_path)) == 1
    (tmp_path / "ranks.parquet").write_bytes(b"junk")
    with pytest.raises(MatineeError, match="is not a table of ranks"):
        ranks.read_ranks(tmp_path)
