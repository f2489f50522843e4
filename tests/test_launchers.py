"""The launchers train, print a table at the end, and fail when a run fails."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from matinee.config.folders import config_dir

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
