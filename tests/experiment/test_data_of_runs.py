"""Runs find their data from any folder and after a move, or take what is handed over in Python."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

import matinee
from command_line import failed
from command_line import matinee as command
from matinee.data.interactions import Interactions
from matinee.errors import MatineeError

OVERRIDES = ["split=random", "model=bias", "trainer.accelerator=cpu", "logger=none"]
OVERRIDES += ["callbacks.inspection=null", "callbacks.progress_bar=null"]


def frame() -> pd.DataFrame:
    pairs = [(user, item) for user in range(1, 9) for item in range(1, 7)]
    table = pd.DataFrame(pairs, columns=["user", "item"])
    return table.assign(rating=table["user"] * table["item"] % 5 + 1)


@pytest.fixture
def trained(tmp_path, monkeypatch) -> Path:
    """Train on a file that is named from the current folder; return the folder of both."""
    monkeypatch.setenv("MATINEE_DATA", str(tmp_path / "cache"))
    home = tmp_path / "home"
    (home / "sub").mkdir(parents=True)
    frame().to_csv(home / "r.csv", index=False)
    dataset = ["dataset=table", "dataset.path=r.csv", "dataset.user=user", "dataset.item=item"]
    done = command(
        "train", *OVERRIDES, *dataset, "dataset.rating=rating", "run_folder=run", cwd=home
    )
    assert done.returncode == 0, done.stderr
    return home


def recommend(home: Path, *arguments: str, run: str = "run", cwd: Path | None = None):
    return command(
        "recommend", f"run={run}", "user=1", "repeat=true", "top_k=1", *arguments, cwd=cwd or home
    )


def test_a_run_works_from_any_folder(trained):
    here = recommend(trained)
    assert here.returncode == 0, here.stderr
    assert recommend(trained, run="../run", cwd=trained / "sub").stdout == here.stdout
    resumed = command("train", f"resume={trained / 'run'}", cwd=trained / "sub")
    assert resumed.returncode == 0, resumed.stderr


def test_moved_data_are_named(trained):
    before = recommend(trained).stdout
    shutil.move(trained / "r.csv", trained / "sub" / "r.csv")
    shutil.move(trained / "run", trained / "sub" / "run")
    assert "r.csv does not exist" in failed(recommend(trained, run="sub/run"))
    moved = recommend(trained, "dataset.path=sub/r.csv", run="sub/run")
    assert moved.stdout == before
    measured = command("evaluate", "run=sub/run", "dataset.path=sub/r.csv", cwd=trained)
    assert measured.returncode == 0, measured.stderr


def test_other_data_are_refused(trained):
    frame().assign(rating=1).to_csv(trained / "other.csv", index=False)
    for verb in ("recommend", "evaluate"):
        done = command(verb, "run=run", "dataset.path=other.csv", cwd=trained)
        assert "the data of run have changed since it began" in failed(done)
    assert "dataset.test_path does not" not in failed(recommend(trained, "dataset.pth=r.csv"))
    loaded = matinee.load_run(
        trained / "run", dataset=Interactions.from_frame(frame(), rating="rating")
    )
    assert len(loaded.datamodule.interactions) == 48
    with pytest.raises(
        MatineeError,
        match=r"dataset\.folder does not belong to this run's dataset, whose keys are path",
    ):
        matinee.load_run(trained / "run", dataset={"folder": "x"})
    with pytest.raises(MatineeError, match=r"give interactions, or dataset\.path"):
        matinee.load_run(trained / "run", dataset="r.csv")


def test_interactions_are_handed_over(tmp_path):
    log = Interactions.from_frame(frame(), rating="rating")
    run = matinee.train(*OVERRIDES, f"run_folder={tmp_path / 'run'}", dataset=log)
    assert set(run.metrics().index) == {"train", "val", "test"}
    loaded = matinee.load_run(run, dataset=log)
    assert len(matinee.recommend(loaded, user=1, repeat=True, top_k=3)) == 3
    again = matinee.evaluate(loaded)
    pd.testing.assert_frame_equal(again, run.metrics()[again.columns], check_exact=True)
    assert matinee.resume(run, dataset=log).folder == run.folder


def test_skipped_rows_are_counted_in_the_result(tmp_path, monkeypatch):
    monkeypatch.setenv("MATINEE_DATA", str(tmp_path / "cache"))
    text = frame().to_csv(index=False)
    (tmp_path / "r.csv").write_text(text + "NULL,1,5\n9,1,good\n9,1\n")
    dataset = ["dataset=table", f"dataset.path={tmp_path / 'r.csv'}", "dataset.user=user"]
    dataset += ["dataset.item=item", "dataset.rating=rating", "dataset.bad_rows=skip"]
    run = matinee.train(*OVERRIDES, *dataset, f"run_folder={tmp_path / 'run'}")
    result = json.loads((run.folder / "result.json").read_text())
    assert result["protocol"]["dataset"]["source"] == {"rows": 51, "bad_rows_skipped": 3}


def test_what_was_handed_over_is_asked_for_again(tmp_path):
    log = Interactions.from_frame(frame(), rating="rating")
    run = matinee.train(*OVERRIDES, f"run_folder={tmp_path / 'run'}", dataset=log)
    with pytest.raises(
        MatineeError, match=f"handed over in Python .SHA-256 {log.fingerprint[:12]}"
    ):
        matinee.load_run(run)
    other = Interactions.from_frame(frame().iloc[1:], rating="rating")
    with pytest.raises(MatineeError, match=r"the data of .* have changed"):
        matinee.load_run(run, dataset=other)
    with pytest.raises(MatineeError, match="dataset is given twice"):
        matinee.train(*OVERRIDES, "dataset=ml-100k", dataset=log)
