"""The benchmark of accelerators: its parts, and all of it in miniature on the CPU."""

import importlib.util
import json
import math
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import matinee

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "accelerator.py"


@pytest.fixture(scope="module")
def accelerator() -> Any:
    specification = importlib.util.spec_from_file_location("accelerator", SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["accelerator"] = module  # dataclasses look there
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def bench(accelerator: Any, tmp_path: Path) -> Any:
    return accelerator.Bench("cpu", True, tmp_path, math.inf)


def test_an_error_is_recorded_and_the_next_section_runs(
    accelerator: Any, bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(bench: Any, section: Any) -> None:
        section.row(what="before", value=1.5)
        raise SystemExit("the end")

    def unmet(bench: Any, section: Any) -> None:
        section.expect(False, "no such luck")

    monkeypatch.setattr(
        accelerator, "SECTIONS", {"broken": broken, "unmet": unmet, "fine": lambda b, s: None}
    )
    accelerator.run_sections(bench, ["broken", "unmet", "fine"], tmp_path)
    found = json.loads((tmp_path / "accelerator.json").read_text())
    assert [section["status"] for section in found] == ["error", "failed", "ok"]
    assert found[0]["rows"] == [{"what": "before", "value": 1.5}]
    assert "SystemExit: the end" in found[0]["error"]
    text = (tmp_path / "accelerator.md").read_text()
    assert "SystemExit: the end" in text
    assert "**Failed:** no such luck" in text


def test_a_cut_run_leaves_what_it_found(accelerator: Any, bench: Any, tmp_path: Path) -> None:
    def cut(bench: Any, section: Any) -> None:
        section.row(what="first", value=1)
        raise KeyboardInterrupt

    accelerator.SECTIONS["cut"] = cut
    try:
        with pytest.raises(KeyboardInterrupt):
            accelerator.run_sections(bench, ["cut"], tmp_path)
    finally:
        del accelerator.SECTIONS["cut"]
    assert json.loads((tmp_path / "accelerator.json").read_text())[0]["rows"]


def test_cases_end_with_the_time(accelerator: Any, bench: Any) -> None:
    section = accelerator.Section("any", lambda: None)
    assert list(bench.cases(section, "ab")) == ["a", "b"]
    bench.deadline = 0.0
    assert list(bench.cases(section, "ab")) == []
    assert section.failures == ["left out for want of time: a, b"]


def test_synchronisations_are_counted_by_their_line(accelerator: Any) -> None:
    with accelerator.counted_syncs(False) as count:
        for _ in range(3):
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        warnings.warn("something else", stacklevel=1)
    assert list(count.values()) == [3]
    assert "test_accelerator.py" in next(iter(count))


def test_a_line_of_matinee_is_blamed_before_that_of_torch(
    accelerator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matinee.metrics import ranking

    def waits(*_: Any, **__: Any) -> Any:
        warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        raise RuntimeError

    monkeypatch.setattr(torch.Tensor, "gather", waits)
    with accelerator.counted_syncs(False) as count, pytest.raises(RuntimeError):
        ranking.ranks(torch.zeros(1, 3), torch.ones(1, dtype=torch.int64))
    assert next(iter(count)).startswith("matinee/metrics/ranking.py:")


def test_bits_differ(accelerator: Any) -> None:
    state = {"a": torch.zeros(2), "b": [1.0, {"c": torch.ones(1)}]}
    assert accelerator.same_bits(state, {"a": torch.zeros(2), "b": [1.0, {"c": torch.ones(1)}]})
    other = {"a": torch.zeros(2), "b": [1.0, {"c": torch.ones(1) + 1e-7}]}
    assert not accelerator.same_bits(state, other)
    assert not accelerator.same_bits(state, {"a": torch.zeros(2)})


def test_curves_that_are_apart(accelerator: Any) -> None:
    reference = [{"train/loss": 2.0}, {"train/loss": 1.0}]
    near = [{"train/loss": 2.0}, {"train/loss": 1.5}]
    assert accelerator.apart(near, reference, "train/loss") == 0.5
    assert accelerator.apart(near[:1], reference, "train/loss") == float("inf")
    nothing = [{"train/loss": float("nan")}] * 2
    assert accelerator.apart(nothing, reference, "train/loss") == float("inf")


@pytest.mark.slow
def test_the_miniature_holds(accelerator: Any, tmp_path: Path) -> None:
    source = str(Path(matinee.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), "--miniature", "--device", "cpu"]
    done = subprocess.run(
        [*command, "--budget", "86400", "--output", str(tmp_path)],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    found = {
        section["name"]: section
        for section in json.loads((tmp_path / "accelerator.json").read_text())
    }
    assert {name: section["status"] for name, section in found.items()} == dict.fromkeys(
        accelerator.SECTIONS, "ok"
    ), done.stdout
    assert done.returncode == 0
    assert len(found["models"]["rows"]) == 18
    assert found["resume"]["rows"][0]["result"] == "the same bits"
    assert all(row["matinee"] > 0 for row in found["speed"]["rows"])
