"""The wheel is complete: it trains from an empty folder in an environment of its own."""

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
@pytest.mark.network
def test_wheel_trains_in_an_empty_environment(tmp_path: Path, ratings_csv: Path) -> None:
    build = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(tmp_path),
        str(ROOT),
    ]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("matinee-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert "matinee/py.typed" in names
    templates = (ROOT / "src/matinee/verbs/report/templates").iterdir()
    assert {f"matinee/verbs/report/templates/{path.name}" for path in templates} <= names
    shipped = {str(path.relative_to(ROOT)) for path in (ROOT / "configs").rglob("*.yaml")}
    assert {f"matinee/{path}" for path in shipped} <= names

    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = [
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "-c",
        ROOT / "requirements/constraints.txt",
        wheel,
    ]
    subprocess.run(install, check=True)
    empty = tmp_path / "empty"
    empty.mkdir()
    done = subprocess.run(
        [
            tmp_path / "venv/bin/matinee", "train", "experiment=chronological/mf", "dataset=table",
            f"dataset.path={ratings_csv}", "dataset.user=who", "dataset.item=what",
            "dataset.rating=stars", "dataset.timestamp=moment", "trainer.max_epochs=2",
        ],
        cwd=empty, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (empty / done.stdout.splitlines()[-1] / "result.json").is_file()
