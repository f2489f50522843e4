"""Runs that are made from another one: refitted on all of its data, or started from its weights."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from command_line import failed, matinee
from matinee.errors import MatineeError, Stopped
from matinee.experiment import building, running, warm_start
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


@pytest.fixture
def growing(ratings_csv: Path, tmp_path: Path) -> tuple[str, str]:
    """Overrides of a table, and of the same table later, with newer rows, new users and new items."""
    header, *lines = ratings_csv.read_text().splitlines()
    old = [
        line
        for line in lines[:1000]
        if not line.startswith(("u1,", "u30,")) and ",110," not in line
    ]
    for name, rows in (("old", old), ("new", lines)):
        (tmp_path / f"{name}.csv").write_text("\n".join([header, *rows]) + "\n")
    return f"dataset.path={tmp_path / 'old.csv'}", f"dataset.path={tmp_path / 'new.csv'}"


LATER = ("split=chronological", "trainer.max_epochs=2")
STARTED = {
    "gru": ("data=sequence", "task=next_item", "loss=softmax", "model=gru", "model.embedding_dim=8"),
    "user_gru": ("data=sequence", "task=next_item", "loss=softmax", "model=user_gru"),
    "mf_bias": ("model=mf_bias",),
    "ncf": ("model=ncf", "loss=star_classification"),
    "live": ("data=live", "task=live", "model=listening", "loss=mse"),
}  # fmt: skip


@pytest.mark.parametrize("model", STARTED)
def test_rows_are_mapped_by_raw_id(
    run: Finished, growing: tuple[str, str], tmp_path: Path, model: str
) -> None:
    old, new = growing
    parent = building.load_run(run(*LATER, *STARTED[model], old, folder="old"))
    begun: dict[str, torch.Tensor] = {}

    def kept(experiment: building.Experiment, *others: object) -> None:
        begun.update({k: v.clone() for k, v in experiment.task.state_dict().items()})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "freeze", kept)
        folder = run(
            *LATER, *STARTED[model], new, f"from={tmp_path / 'old'}", "freeze=[x]", folder="new"
        )
    child = building.load_run(folder)
    old_state, mapped = parent.task.state_dict(), 0
    for side in ("users", "items"):
        here, there = (
            getattr(one.datamodule.interactions, side)["raw_id"] for one in (child, parent)
        )
        where = {raw: row for row, raw in enumerate(there, start=1)}
        warm = getattr(parent.task, f"warm_{side}")
        rows = [0, *(where.get(raw, 0) for raw in here)]
        rows = [row if warm[row] else 0 for row in rows]
        assert 0 < rows.count(0) < len(rows)
        for name, tensor in begun.items():
            if name.startswith("network.") and tensor.shape[:1] == (len(rows),):
                assert torch.equal(tensor, old_state[name][rows]), name
                mapped += 1
        assert getattr(child.task, f"warm_{side}")[torch.tensor(rows) > 0].all()
    assert mapped >= 2
    assert json.loads((folder / "result.json").read_text())["parent"]["kind"] == "start"
    assert matinee("evaluate", f"run={folder}").returncode == 0
    (tmp_path / "old/config.yaml").unlink()  # the child needs its parent no more
    assert matinee("evaluate", f"run={folder}").returncode == 0


def test_frozen_parts_stay(run: Finished, growing: tuple[str, str], tmp_path: Path) -> None:
    old, new = growing
    run(*LATER, *STARTED["gru"], old, folder="old")
    options = (*LATER, *STARTED["gru"], new, f"from={tmp_path / 'old'}")
    child = building.load_run(run(*options, "freeze=[encoder]", folder="new"))
    parent = building.load_run(tmp_path / "old")
    for name, weight in child.task.network.encoder.named_parameters():
        assert torch.equal(weight, dict(parent.task.network.encoder.named_parameters())[name])
    moved = child.task.network.item_embeddings.weight[0]
    assert not torch.equal(moved, parent.task.network.item_embeddings.weight[0])
    for names, sentence in (
        ("[x]", "it has item_embeddings"),
        ("[encoder,item_embeddings,item_biases]", "nothing"),
    ):
        with pytest.raises(MatineeError, match=sentence):
            run(*options, f"freeze={names}", folder="other")
    with pytest.raises(MatineeError, match="freeze belongs to from="):
        run(*LATER, new, "freeze=[encoder]", folder="other")


def test_what_cannot_be_started_from(
    run: Finished, growing: tuple[str, str], tmp_path: Path
) -> None:
    old, new = growing
    start = f"from={run(*LATER, *STARTED['mf_bias'], old, folder='old')}"
    for overrides, sentence in (
        (("split=random", "model=mf_bias"), "has learned from .* rows of validation"),
        (("split=chronological", "model=mf"), "does not fit this model: user_factors"),
        (
            ("split=chronological", "model=mf_bias", "model.embedding_dim=5"),
            r"that run has \(\d+, \d+\)",
        ),
        (("split=chronological", "model=bias"), "solved anew"),
        (("split=chronological", *STARTED["gru"]), "another task"),
        (("split=chronological", "model=mf_bias", "from=none"), "is no run folder"),
    ):
        with pytest.raises(MatineeError, match=sentence):
            run(new, start, *overrides, folder="other")
        assert not (tmp_path / "other").exists()


def test_a_start_that_is_killed_is_resumed_with_the_same_bits(
    run: Finished, growing: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = growing
    options = (
        *LATER,
        *STARTED["gru"],
        new,
        f"from={run(*LATER, *STARTED['gru'], old, folder='old')}",
    )
    whole = run(*options, "freeze=[encoder]", folder="whole")

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(running, "_record", killed)
        with pytest.raises(Stopped):
            run(*options, "freeze=[encoder]", folder="cut")
    assert matinee("train", f"resume={tmp_path / 'cut'}").returncode == 0
    one, other = (json.loads((f / "result.json").read_text()) for f in (whole, tmp_path / "cut"))
    assert one["metrics"] == other["metrics"]


def test_the_state_of_the_optimizer_is_mapped(
    run: Finished, growing: tuple[str, str], tmp_path: Path
) -> None:
    old, new = growing
    begun: list[dict[str, torch.Tensor]] = []

    class Seen(warm_start.OptimizerState):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            super().on_train_start(trainer, pl_module)
            (optimizer,) = trainer.optimizers
            begun.extend({k: v.clone() for k, v in s.items()} for s in optimizer.state.values())

    options = (
        *LATER,
        *STARTED["gru"],
        new,
        f"from={run(*LATER, *STARTED['gru'], old, folder='old')}",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(warm_start, "OptimizerState", Seen)
        child = building.load_run(run(*options, "optimizer_state=true", folder="new"))
    last = torch.load(checkpoint_path(tmp_path / "old", "last"), weights_only=True)
    saved = last["optimizer_states"][0]["state"]
    parent = building.load_run(tmp_path / "old")
    here, there = (one.datamodule.interactions.items["raw_id"].tolist() for one in (child, parent))
    rows = [0, *(there.index(raw) + 1 if raw in there else 0 for raw in here)]
    rows = [row if parent.task.warm_items[row] else 0 for row in rows]
    for name in ("exp_avg", "exp_avg_sq"):
        assert torch.equal(begun[0][name], saved[0][name][rows])
    assert begun[0]["step"] == saved[0]["step"] > 0
    with pytest.raises(MatineeError, match=r"was trained by torch\.optim\.Adam"):
        run(*options, "optimizer_state=true", "optimizer=sgd", folder="other")
    with pytest.raises(MatineeError, match="optimizer_state belongs to from="):
        run(*LATER, new, "optimizer_state=true", folder="other")
