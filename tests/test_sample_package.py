"""A user's package trains by the commands of CONTRIBUTING.md: from its folder, and installed."""

import json
import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from command_line import failed, matinee

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "tests" / "sample_package"
OPTIONS = ["trainer.max_epochs=1", "trainer.accelerator=cpu", "callbacks.inspection=null"]
COMMAND = re.compile(r"^MATINEE_PACKAGES=sample_parts matinee (.*)$", re.MULTILINE)
COMMANDS = [line.split() for line in COMMAND.findall((ROOT / "CONTRIBUTING.md").read_text())]


def targets() -> set[str]:
    """Return the parts that the configs of the package name."""
    files = (SAMPLE / "sample_parts" / "configs").rglob("*.yaml")
    lines = [line.strip() for file in files for line in file.read_text().splitlines()]
    prefix = "_target_: sample_parts."
    return {line.removeprefix(prefix) for line in lines if line.startswith(prefix)}


def check_run(folder: Path) -> str:
    """Check what a run has recorded, and return its config."""
    result = json.loads((folder / "result.json").read_text())
    assert result["environment"]["versions"]["sample_parts"] == "0.1.0"
    assert result["fit"]["epochs"] == 1
    if "experiment=ring" in (folder / "overrides.yaml").read_text():
        assert 1 <= result["metrics"]["test/mean_rank"] <= 20
        assert "weight_norm" in (folder / "metrics.csv").read_text()
        assert len((folder / "metrics.jsonl").read_text().splitlines()) == 2
    else:
        assert result["metrics"]["test/rmse"] > 0
    return (folder / "config.yaml").read_text()


def test_every_part_trains_from_its_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MATINEE_PACKAGES", "sample_parts")
    configs = []
    for number, words in enumerate(COMMANDS):
        folder = tmp_path / str(number)
        done = matinee(*words, *OPTIONS, f"run_folder={folder}", cwd=SAMPLE)
        assert done.returncode == 0, done.stderr
        configs.append(check_run(folder))
    assert len(targets()) == 11
    assert all(any(target in config for config in configs) for target in targets())
    monkeypatch.delenv("MATINEE_PACKAGES")
    measured_again = matinee("evaluate", f"run={tmp_path / '0'}", cwd=SAMPLE)
    assert "set MATINEE_PACKAGES=sample_parts" in failed(measured_again)


@pytest.mark.slow
def test_installed_package_trains_beside_the_wheel(tmp_path: Path) -> None:
    """Two wheels in an environment that has the libraries, but neither matinee nor the checkout."""
    for project in (ROOT, SAMPLE):
        subprocess.run(
            [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, project],
            check=True, capture_output=True,
        )  # fmt: skip
    wheels = sorted(tmp_path.glob("*.whl"))
    assert len(wheels) == 2
    place = tmp_path / "environment"
    venv.create(place, with_pip=True)
    python, empty = place / "bin" / "python", tmp_path / "empty"
    empty.mkdir()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MATINEE")}
    environment |= {"PYTHONPATH": "", "OMP_NUM_THREADS": "1"}

    def call(*command: str | Path) -> str:
        done = subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    call(python, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", *wheels)
    (own,) = (place / "lib").glob("python*/site-packages")
    libraries = sysconfig.get_path(
        "purelib"
    )  # read without its .pth files, hence without the checkout
    (own / "libraries.pth").write_text(f"{libraries}\n")
    found = call(
        python, "-c", "import matinee, sample_parts as s; print(matinee.__file__, s.__file__)"
    )
    assert all(Path(file).is_relative_to(own) for file in found.split())
    for words in COMMANDS:
        printed = call(place / "bin" / "matinee", *words, *OPTIONS)
        check_run(empty / printed.splitlines()[-1])
    call(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", SAMPLE / "test_sample_parts.py")
