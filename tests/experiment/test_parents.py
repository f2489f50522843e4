"""Runs that are made from another one: refitted on all of its data, or started from its weights."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from command_line import failed, matinee
from matinee.errors import MatineeError, Stopped
from matinee.experiment import building, running
from matinee.experiment.refitting import refit
from matinee.experiment.runs import Run
from matinee.files import checkpoint_path

NEXT_ITEM = ("data=sequence", "task=next_item", "loss=softmax", "split=leave_last_out")
MODELS = {
    "gru": (*NEXT_ITEM, "model=gru", "model.embedding_dim=8", "trainer.max_epochs=3"),
    "ease": (*NEXT_ITEM, "model=ease"),
    "mf_bias": ("model=mf_bias", "split=random", "trainer.max_epochs=4"),
    "bias": ("model=bias", "split=random"),
}
Finished = Callable[..., Path]


@pytest.mark.parametrize("model", MODELS)
def test_a_refit_trains_on_everything(finished: Finished, tmp_path: Path, model: str) -> None:
    folder = finished(*MODELS[model])
    before = json.loads((folder / "result.json").read_text())
    done = matinee("refit", f"run={folder}", f"run_folder={tmp_path / 'new'}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(tmp_path / "new")
    assert f"the metrics to report are those of {folder}" in done.stderr
    result = json.loads((tmp_path / "new/result.json").read_text())
    assert result["metrics"] == {}
    assert result["parent"]["run"] == str(folder)
    assert result["parent"]["metrics"] == before["metrics"]
    sizes = before["protocol"]["split"]["rows"]
    assert result["protocol"]["split"]["rows"]["train"] == sum(sizes.values())
    assert result["fit"]["epochs"] == before["fit"]["best_epoch"] + 1
    loaded = building.load_run(tmp_path / "new")
    assert loaded.task.warm_items[1:].all()
    answered = matinee("recommend", f"run={tmp_path / 'new'}", "user=u1")
    assert answered.returncode == 0, answered.stderr


def test_a_refit_of_the_closed_form_is_the_fit_of_all_rows(
    finished: Finished, tmp_path: Path
) -> None:
    refit(finished(*MODELS["bias"]), str(tmp_path / "new"))
    loaded = building.load_run(tmp_path / "new")
    mean = np.mean(loaded.datamodule.interactions.ratings, dtype=np.float64)
    assert float(loaded.task.network.global_mean) == pytest.approx(mean, abs=1e-6)


def test_a_refit_has_no_metrics_to_report(finished: Finished, tmp_path: Path) -> None:
    folder = finished(*MODELS["bias"])
    refit(folder, str(tmp_path / "runs/new"))
    sentence = (
        f"refitted on all of its data, so it has no metrics of its own; report those of {folder}"
    )
    assert sentence in failed(matinee("evaluate", f"run={tmp_path / 'runs/new'}"))
    assert "only refitted runs" in failed(matinee("report", str(tmp_path / "runs")))
    with pytest.raises(MatineeError, match="no metrics of its own"):
        Run(tmp_path / "runs/new").metrics()
    with pytest.raises(MatineeError, match="no metrics of its own"):
        refit(tmp_path / "runs/new", str(tmp_path / "third"))
    both = matinee("report", str(tmp_path))
    assert both.returncode == 0, both.stderr
    assert "left out: " in both.stderr and "not finished" not in both.stdout


def test_a_killed_refit_is_resumed(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = finished(*MODELS["mf_bias"])
    refit(folder, str(tmp_path / "whole"))

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(running, "_record", killed)
        with pytest.raises(Stopped):
            refit(folder, str(tmp_path / "cut"))
    done = matinee("train", f"resume={tmp_path / 'cut'}")
    assert done.returncode == 0, done.stderr
    one, other = (
        torch.load(checkpoint_path(tmp_path / name, "best"), weights_only=True)["state_dict"]
        for name in ("whole", "cut")
    )
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert (tmp_path / "cut/result.json").exists()


def test_a_refit_needs_the_data_of_its_parent(
    run: Finished, ratings_csv: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own.csv"
    own.write_text(ratings_csv.read_text())
    folder = run("model=bias", "split=random", f"dataset.path={own}")
    own.write_text(own.read_text() + "u1,999,3,99999\n")
    with pytest.raises(MatineeError, match=r"the data of .* have changed since it was trained"):
        refit(folder, str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_nothing_else_trains_without_rows_to_measure(run: Finished) -> None:
    with pytest.raises(MatineeError, match="leaves nothing to measure; use matinee refit"):
        run("model=bias", "split=everything")
