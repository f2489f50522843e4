"""A resumed fit ends as the uninterrupted one."""

import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from matinee.experiment import running
from matinee.experiment.run_folder import read_result
from matinee.files import checkpoint_path
from matinee.training.callbacks import checkpoints


def test_a_run_that_had_stopped_early_is_not_trained_on(run) -> None:
    folder: Path = run(
        "model=mf", "optimizer.lr=0", "trainer.max_epochs=9", "callbacks.early_stopping.patience=2",
        "callbacks.inspection=null",
    )  # fmt: skip
    finished = read_result(folder)
    assert finished["fit"]["epochs"] == 3, "nothing gets better after the first"
    assert finished["fit"]["best_epoch"] == 0, "an equal one is no better"
    table = (folder / "metrics.csv").read_bytes()
    (folder / "result.json").unlink()  # killed while it was measured
    running.resume(folder)
    assert read_result(folder)["fit"] == finished["fit"]
    assert read_result(folder)["metrics"] == finished["metrics"]
    assert (folder / "metrics.csv").read_bytes() == table


def test_the_seconds_of_a_fit_are_those_of_all_its_processes(
    run, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = itertools.count()  # every look at the clock finds it a second later
    monkeypatch.setattr(checkpoints, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    folder: Path = run("model=mf", "callbacks.inspection=null")
    (folder / "result.json").unlink()
    checkpoint = torch.load(checkpoint_path(folder, "last"), weights_only=True)
    (kept,) = (state for name, state in checkpoint["callbacks"].items() if "Checkpoints" in name)
    assert kept["seconds"] > 0
    monkeypatch.setattr(checkpoints, "time", SimpleNamespace(perf_counter=lambda: 0))
    running.resume(folder)
    assert read_result(folder)["environment"]["seconds"]["fit"] == kept["seconds"]
