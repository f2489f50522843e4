"""A grid of runs can be started again: finished runs stay, stopped runs resume."""

import shutil
import signal
from pathlib import Path

import pytest
from filelock import FileLock

from matinee import cli
from matinee.errors import MatineeError
from matinee.experiment import running
from matinee.experiment.run_folder import (
    CONFIG,
    OVERRIDES,
    PROTOCOL,
    RESULT,
    check_same,
    read_result,
    write_yaml,
)
from matinee.files import checkpoint_path
from matinee.training.callbacks import SeedEachStep
from stopping import HOOK, signalling


def options(folder: Path, *more: str) -> list[str]:
    return [
        f"run_folder={folder}", "trainer.max_epochs=2", "callbacks.inspection=null",
        "logger=none", *more,
    ]  # fmt: skip


def test_a_finished_run_stays(compose_train, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "run"
    config = compose_train(*options(folder))
    assert running.train_or_resume(config, ["first"]) == folder
    before = (folder / RESULT).read_bytes()
    assert running.train_or_resume(compose_train(*options(folder)), ["again"]) == folder
    assert (folder / RESULT).read_bytes() == before
    moved = shutil.move(folder, tmp_path / "moved")
    again = compose_train(*options(moved, "name=other", "trainer.accelerator=auto"))
    assert running.train_or_resume(again, []) == Path(moved)
    assert (Path(moved) / RESULT).read_bytes() == before


def test_another_run_is_refused(compose_train, tmp_path: Path) -> None:
    running.train_or_resume(compose_train(*options(tmp_path / "run")), [])
    for override, sentence in [
        ("optimizer.lr=0.5", "optimizer.lr="),
        ("model=mf", "model._target_"),
    ]:
        with pytest.raises(MatineeError, match=sentence):
            running.train_or_resume(compose_train(*options(tmp_path / "run", override)), [])


def test_a_group_that_the_run_did_not_have_is_refused(compose_train, tmp_path: Path) -> None:
    write_yaml(tmp_path / CONFIG, compose_train("scheduler=none"))
    with pytest.raises(MatineeError, match=r"scheduler\._target_=None, not torch"):
        check_same(tmp_path, compose_train("scheduler=cosine"))
    write_yaml(tmp_path / CONFIG, compose_train("scheduler=none", "callbacks.early_stopping=null"))
    with pytest.raises(MatineeError, match=r"early_stopping\._target_=None, not lightning"):
        check_same(tmp_path, compose_train("scheduler=none"))
    write_yaml(tmp_path / CONFIG, compose_train("scheduler=none"))
    check_same(tmp_path, compose_train("scheduler=none", "name=other", "log_dir=elsewhere"))


def test_a_stopped_run_resumes_and_one_without_a_checkpoint_restarts(
    compose_train, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    running.train_or_resume(compose_train(*options(folder)), [])
    finished = read_result(folder)["metrics"]
    (folder / RESULT).unlink()
    last = checkpoint_path(folder, "last").stat().st_mtime_ns
    running.train_or_resume(compose_train(*options(folder)), [])
    assert read_result(folder)["metrics"] == finished
    assert checkpoint_path(folder, "last").stat().st_mtime_ns == last, "nothing was left to train"

    (folder / RESULT).unlink()
    shutil.rmtree(folder / "checkpoints")  # killed in its first epoch
    running.train_or_resume(compose_train(*options(folder)), [])
    assert read_result(folder)["metrics"] == finished

    shutil.rmtree(folder)
    folder.mkdir()
    (folder / CONFIG).touch()  # killed before it wrote more
    running.train_or_resume(compose_train(*options(folder)), [])
    assert read_result(folder)["metrics"] == finished


@pytest.mark.parametrize(
    ("whole", "part"),
    [([], None), ([], OVERRIDES), ([OVERRIDES], PROTOCOL), ([OVERRIDES, PROTOCOL], CONFIG)],
)
def test_a_run_killed_while_writing_its_first_files_restarts(
    compose_train, tmp_path: Path, whole: list[str], part: str | None
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / CONFIG).touch()
    for name in whole:
        (folder / name).write_text("{}")
    if part:
        (folder / f".{part}.0123abcd.part").write_text("ha")
    with pytest.raises(MatineeError, match=f"run_folder={folder} resume=true"):
        running.resume(folder)
    with pytest.raises(MatineeError, match="resume=true if its run was killed"):
        running.train(compose_train(*options(folder)), [])
    assert running.train_or_resume(compose_train(*options(folder)), []) == folder
    assert read_result(folder)
    assert not list(folder.glob(".*.part"))


def test_a_run_that_another_process_trains_is_left_alone(compose_train, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with FileLock(tmp_path / ".run.lock"):
        assert running.train_or_resume(compose_train(*options(folder)), []) is None
    assert not folder.exists()
    assert running.train_or_resume(compose_train(*options(folder)), []) == folder
    assert [path.name for path in tmp_path.iterdir()] == ["run"], "no lock is left"


def test_a_folder_is_needed(compose_train) -> None:
    with pytest.raises(MatineeError, match="run_folder"):
        running.train_or_resume(compose_train(), [])


def test_files_of_others_are_never_removed(compose_train, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.tex").touch()
    (folder / CONFIG).touch()
    with pytest.raises(MatineeError, match="is not empty"):
        running.train_or_resume(compose_train(*options(folder)), [])
    assert (folder / "thesis.tex").exists()


def test_a_grid_from_the_command_line(
    table_overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = f"{tmp_path}/${{hydra:runtime.choices.model}}_${{optimizer.lr}}"
    grid = [
        "train", "-m", "resume=true", *table_overrides, "model=mf,mf_bias", "optimizer.lr=0.1",
        f"log_dir={tmp_path}", *options(Path(folder)),
    ]  # fmt: skip
    for _ in range(2):
        cli.main(grid)
        assert capsys.readouterr().out.split() == [f"{tmp_path}/mf_0.1", f"{tmp_path}/mf_bias_0.1"]
    assert len(list(tmp_path.rglob(RESULT))) == 2


def test_a_signal_ends_the_whole_grid(
    table_overrides: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = f"{tmp_path}/${{hydra:runtime.choices.model}}"
    grid = [
        "train", "-m", "resume=true", *table_overrides, "model=mf,mf_bias", f"log_dir={tmp_path}",
        *options(Path(folder)),
    ]  # fmt: skip
    monkeypatch.setattr(SeedEachStep, HOOK, signalling(0, signal.SIGTERM))
    with pytest.raises(SystemExit) as ended:
        cli.main(grid)
    assert ended.value.code == 143
    assert "stopped; continue with" in capsys.readouterr().err
    assert (tmp_path / "mf").exists()
    assert not (tmp_path / "mf_bias").exists()
