"""The launchers train, print a table at the end, and fail when a run fails."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from matinee.config.folders import config_dir
from matinee.experiment.run_folder import read_result

LAUNCHERS = Path(__file__).resolve().parents[1] / "launchers"


def launch(
    name: str, *arguments: str, cwd: Path, **variables: str
) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [LAUNCHERS / name, *arguments], capture_output=True, text=True, cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PATH": path, **variables},
    )  # fmt: skip


@pytest.fixture
def small(table_overrides: list[str], tmp_path: Path) -> list[str]:
    """Overrides for runs on the small table, below the test's own folder."""
    return [*table_overrides, "data.batch_size=64", f"log_dir={tmp_path}/logs"]


@pytest.mark.parametrize("path", sorted(LAUNCHERS.glob("0*.sh")), ids=lambda path: path.stem)
def test_every_launcher_explains_itself(path: Path, tmp_path: Path) -> None:
    done = launch(path.name, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert f"launchers/{path.name} [--fast]" in done.stdout
    assert "ACCELERATOR" in done.stdout


@pytest.mark.slow
def test_overfitting_passes_and_fails_with_its_models(small: list[str], tmp_path: Path) -> None:
    done = launch("01_overfit_batch.sh", "--fast", "mf_bias", *small, "examples=16", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "matinee overfit -m experiment=chronological/mf_bias" in done.stdout
    assert [line.split()[-2] for line in done.stdout.splitlines() if "mf_bias |" in line] == [
        "pass"
    ]
    assert len(list(tmp_path.rglob("overfit.json"))) == 1

    done = launch("01_overfit_batch.sh", "mf", "grru", *small, "steps=2", cwd=tmp_path)
    assert done.returncode == 1
    assert "FAIL" in done.stdout
    assert "there is no model=grru; did you mean 'gru'" in done.stderr


def test_the_finder_suggests_for_each_model(small: list[str], tmp_path: Path) -> None:
    done = launch("02_run_lr_finder.sh", "--fast", *small, "data.batch_size=256", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert [row.split("|")[1].strip() for row in rows] == ["model", "mf_bias", "pooling"]
    assert len(list(tmp_path.rglob("learning_rate.png"))) == 2


@pytest.mark.slow
def test_sizes_are_swept(small: list[str], tmp_path: Path) -> None:
    logs = tmp_path / "sweep"
    small = [entry for entry in small if not entry.startswith("log_dir")]
    name = "03_find_embedding_size.sh"
    done = launch(name, "--fast", *small, cwd=tmp_path, LOGS=str(logs))
    assert done.returncode == 0, done.stderr
    rows = [line.split("|")[1].strip() for line in done.stdout.splitlines() if line[:1] == "|"]
    assert rows[2:] == ["2", "4"]
    assert (logs / "by_embedding_dim.png").is_file()

    done = launch(name, "--fast", *small, cwd=tmp_path, LOGS=str(tmp_path / "0"), SIZES="4,0")
    assert done.returncode == 1
    assert "embedding_dim is 0" in done.stderr


def test_sizes_are_swept_once_and_for_one_model(tmp_path: Path) -> None:
    name = "03_find_embedding_size.sh"
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "run").touch()
    done = launch(name, "--fast", cwd=tmp_path, LOGS=str(tmp_path / "logs"))
    assert done.returncode == 1
    assert "is not empty; name a new folder" in done.stderr

    done = launch(name, "popularityy", cwd=tmp_path)
    assert done.returncode == 1
    assert "name one model with an experiment" in done.stderr


def test_models_in_closed_form_are_not_trained(tmp_path: Path) -> None:
    script = f'usage() {{ :; }}; source "{LAUNCHERS}/common.sh"; trained_models'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    left_out = {"bias", "global_mean", "item_mean", "popularity", "markov", "slit"}
    left_out |= {"ease", "ials", "item_knn", "session_knn"}
    every = {path.stem for path in (config_dir() / "model").glob("*.yaml")}
    assert set(done.stdout.split()) == every - left_out


@pytest.mark.slow
def test_the_benchmark_compares_two_protocols_and_continues(
    table_overrides: list[str], tmp_path: Path
) -> None:
    def benchmark() -> str:
        name, logs = "07_benchmark.sh", str(tmp_path / "logs")
        done = launch(name, "--fast", *table_overrides, cwd=tmp_path, LOGS=logs)
        assert done.returncode == 0, done.stderr
        return done.stdout

    printed = benchmark()
    folders = {
        str(path.parent.relative_to(tmp_path / "logs")): path.stat().st_mtime_ns
        for path in (tmp_path / "logs").rglob("result.json")
    }
    runs = ["markov/seed0", "pooling/seed0", "pooling/seed1", "popularity/seed0"]
    splits = ("leave_last_out", "global_timeline")
    assert sorted(folders) == sorted(f"{split}/{run}" for split in splits for run in runs)
    for split in splits:
        assert f"ratings.csv, {split} split" in printed
    assert "peak GB" in printed and "95 % interval" in printed and "Kendall's tau" in printed
    assert (tmp_path / "logs/report.html").is_file()

    (tmp_path / "logs/global_timeline/pooling/seed1/result.json").unlink()
    assert table_of(benchmark()) == table_of(printed)
    for folder, written in folders.items():
        again = (tmp_path / "logs" / folder / "result.json").stat().st_mtime_ns
        assert (again > written) == (folder == "global_timeline/pooling/seed1"), folder


def table_of(printed: str) -> list[str]:
    """Return the rows of all tables up to the columns of seconds and memory."""
    return re.findall(r"^\|.*\d\.\d{4}", printed, re.MULTILINE)


@pytest.mark.slow
def test_the_benchmark_skips_the_timeline_of_data_without_times(tmp_path: Path) -> None:
    rows = [[user, *((user + step) % 7 + 7 * step for step in range(5))] for user in range(1, 40)]
    (tmp_path / "histories.txt").write_text("\n".join(" ".join(map(str, row)) for row in rows))
    data = ["dataset=lines", f"dataset.path={tmp_path}/histories.txt"]
    models = "no_such_model,popularity"
    done = launch(
        "07_benchmark.sh", *data, cwd=tmp_path, LOGS=str(tmp_path / "logs"), MODELS=models
    )
    assert "global_timeline is skipped: the data have no times." in done.stdout
    assert "| popularity |" in done.stdout and "Kendall" not in done.stdout
    assert done.returncode == 1 and "leave_last_out/no_such_model" in done.stderr


def test_the_benchmark_takes_one_data_set(tmp_path: Path) -> None:
    done = launch("07_benchmark.sh", "ml-100k", "ml-1m", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "name one data set, not: ml-100k ml-1m\n")


@pytest.mark.slow
def test_the_seed_changes_nothing_in_models_that_the_benchmark_trains_once(
    run: Callable[..., Path],
) -> None:
    every = {path.stem for path in (config_dir() / "experiment/leave_last_out").glob("*.yaml")}
    script = (LAUNCHERS / "07_benchmark.sh").read_text()
    (line,) = re.findall(r'^drawing=".*?"', script, re.MULTILINE)
    script = f'usage() {{ :; }}; source "{LAUNCHERS}/common.sh"; {line}; echo "$drawing"'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    once = every - set(done.stdout.split())
    assert {"markov", "ease"} <= once and "ials" not in once
    for model in once:
        metrics = [
            read_result(
                run(f"experiment=leave_last_out/{model}", f"seed={seed}", folder=f"{model}{seed}")
            )["metrics"]
            for seed in (0, 1)
        ]
        assert metrics[0] == metrics[1], model
