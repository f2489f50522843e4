"""A run from config to run folder, measured again, and resumed."""

import csv
import fcntl
import itertools
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from matinee.errors import AtWork, MatineeError, Stopped
from matinee.experiment import building, measuring, run_folder, running
from matinee.experiment.run_folder import read_result, sole_writer
from matinee.experiment.trainer import fit, make_trainer
from matinee.files import checkpoint_path
from matinee.training.callbacks import AtomicCheckpointIO, SeedEachStep
from matinee.training.loaders import Loaders
from stopping import HOOK, signalling

TESTS = Path(__file__).resolve().parents[1]
Run = Callable[..., Path]
NEXT_ITEM = ["experiment=user_based/gru", "model.embedding_dim=8"]


def test_run_folder_holds_config_metrics_and_checkpoints(run: Run) -> None:
    folder = run("model=mf_bias")
    names = {path.name for path in folder.iterdir() if "tfevents" not in path.name}
    assert names == {
        "checkpoints", "config.yaml", "metrics.csv", "overrides.yaml", "per_user.npz", "protocol.json",
        "result.json",
    }  # fmt: skip
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert any("tfevents" in path.name for path in folder.iterdir())
    result = read_result(folder)
    for name in ("train/rmse", "val/rmse", "val/mae", "test/rmse", "test/mae"):
        assert result["metrics"][name] > 0
    protocol = result["protocol"]
    assert len(protocol["dataset"]["sha256"]) == len(protocol["split"]["fingerprint"]) == 64
    assert {"rows", "cold", "name"} <= set(protocol["split"])
    assert {"candidates", "filter_seen", "ties", "averaging"} <= set(protocol)
    assert result["environment"]["versions"]["torch"] == torch.__version__
    config = OmegaConf.load(folder / "config.yaml")
    assert config.trainer.max_epochs == 2
    assert "model=mf_bias" in OmegaConf.load(folder / "overrides.yaml")
    with (folder / "metrics.csv").open() as file:
        epochs = list(csv.DictReader(file))
    assert [row["epoch"] for row in epochs] == ["0", "1"]
    assert float(epochs[1]["train/loss"]) < float(epochs[0]["train/loss"])


def test_peak_memory_is_known_of_the_first_run_of_a_process(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "_runs", itertools.count())
    monkeypatch.setattr(running, "_peak_memory", lambda: 300)
    results = [read_result(run("model=bias", folder=name)) for name in ("first", "second")]
    assert [result["environment"]["peak_memory_bytes"] for result in results] == [300, None]


def test_peak_memory_is_at_least_what_is_in_use() -> None:
    array = np.ones(2**24)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    peak = running._peak_memory()
    assert max(array.nbytes, 0.9 * pages * os.sysconf("SC_PAGESIZE")) <= peak < 2**40


def test_per_user_file_adds_up_to_the_test_metric(run: Run) -> None:
    folder = run("split=random")
    with np.load(folder / "per_user.npz") as per_user:
        total = (per_user["rmse"] ** 2 * per_user["count"]).sum() / per_user["count"].sum()
        assert str(per_user["user"][0]).startswith("u"), "raw ids, as in the source"
    assert np.sqrt(total) == pytest.approx(read_result(folder)["metrics"]["test/rmse"])


@pytest.mark.parametrize("model", ["bias", "mf", "mf_bias", "ncf"])
def test_evaluation_of_a_loaded_run_gives_the_recorded_metrics(finished: Run, model: str) -> None:
    folder = finished(f"model={model}")
    loaded = building.load_run(folder)
    metrics = measuring.evaluate(loaded, make_trainer(loaded.config, None)).metrics
    assert metrics == read_result(folder)["metrics"]


def test_metrics_do_not_depend_on_the_evaluation_batch(run: Run) -> None:
    whole = read_result(run("data.eval_batch_size=100000"))["metrics"]
    single = read_result(run("data.eval_batch_size=7", folder="small"))["metrics"]
    assert whole == pytest.approx(single, rel=1e-5)


def test_best_epoch_is_measured_not_the_last(run: Run) -> None:
    folder = run("optimizer.lr=0.3", "trainer.max_epochs=6", "callbacks.early_stopping=null")
    with (folder / "metrics.csv").open() as file:
        epochs = [float(row["val/rmse"]) for row in csv.DictReader(file)]
    assert read_result(folder)["metrics"]["val/rmse"] == pytest.approx(min(epochs), abs=1e-6)
    assert read_result(folder)["fit"]["best_epoch"] == epochs.index(min(epochs))
    assert min(epochs) < epochs[-1]


def test_runs_are_equal_only_if_their_seeds_are(run: Run) -> None:
    first, again, other = (
        torch.load(run(f"seed={seed}", "model=ncf", folder=name) / "checkpoints/last.ckpt")[
            "state_dict"
        ]
        for seed, name in ((0, "a"), (0, "b"), (1, "c"))
    )
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("experiment_of", [[], NEXT_ITEM])
def test_trainer_test_gives_the_recorded_metrics(run: Run, experiment_of: list[str]) -> None:
    folder = run(*experiment_of)
    loaded = building.load_run(folder)
    trainer = make_trainer(loaded.config, folder)
    measured = trainer.test(loaded.task, datamodule=Loaders(loaded.datamodule), verbose=False)[0]
    recorded = read_result(folder)["metrics"]
    assert measured == {name: np.float32(recorded[name]) for name in measured}, "logged as float32"
    assert ("test/mrr" if experiment_of else "test/rmse") in measured


def test_a_run_folder_is_never_overwritten(run: Run) -> None:
    run()
    with pytest.raises(MatineeError, match="not empty"):
        run()


def test_runs_started_in_the_same_second_get_separate_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noon = datetime(2026, 1, 2, 12, 0, 0)
    stopped_clock = SimpleNamespace(datetime=SimpleNamespace(now=lambda: noon))
    monkeypatch.setattr(run_folder, "datetime", stopped_clock)
    names = [run_folder.claim_folder(None, tmp_path).name for _ in range(3)]
    assert names == [f"2026-01-02_12-00-00{suffix}" for suffix in ("", "_1", "_2")]


def test_nothing_is_left_behind_when_the_trainer_cannot_be_made(run: Run, tmp_path: Path) -> None:
    with pytest.raises(MatineeError, match=r"trainer.*abacus"):
        run("trainer.accelerator=abacus")
    assert not (tmp_path / "run").exists()


def test_resuming_a_finished_run_changes_nothing(finished: Run) -> None:
    folder = finished()
    before = (folder / "result.json").read_bytes()
    assert running.resume(folder) == folder
    assert (folder / "result.json").read_bytes() == before


STEPPED = [
    "scheduler=cosine", "trainer.max_epochs=3", "data.batch_size=8", "logger=none",
    "callbacks.early_stopping=null", "callbacks.inspection=null",
]  # fmt: skip
FITS = {
    "rating": ["model=ncf", *STEPPED],
    "next item": [
        *NEXT_ITEM,
        "loss=bpr",
        "sampler=uniform",
        "data.length=5",
        *STEPPED,
        "data.batch_size=2",
    ],
}
STOP_AT = {
    "rating": 195,
    "next item": 175,
}  # in the second epoch, with 50 of its steps added up, more not


@pytest.fixture(scope="session")
def undisturbed(
    compose_train: Callable[..., DictConfig], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Return the folders of the fits that nobody stopped."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return {
        kind: running.train(compose_train(*fit, f"run_folder={folder / kind}"), [])
        for kind, fit in FITS.items()
    }


def assert_equal_runs(folder: Path, other: Path) -> None:
    """Assert the same weights, metrics and table of epochs; sums may differ in their last bit."""
    for name in ("best", "last"):
        ours, theirs = (
            torch.load(checkpoint_path(run, name), weights_only=True)["state_dict"]
            for run in (folder, other)
        )
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert read_result(folder)["metrics"] == read_result(other)["metrics"]
    tables = [read_epochs(run) for run in (folder, other)]
    assert tables[0] == [pytest.approx(row) for row in tables[1]]


def read_epochs(folder: Path) -> list[dict[str, float]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


@pytest.mark.parametrize("kind", FITS)
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_run_stopped_within_an_epoch_resumes_to_the_same_bits(
    run: Run,
    undisturbed: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    sent: signal.Signals,
) -> None:
    folder, step = tmp_path / "run", STOP_AT[kind]
    with monkeypatch.context() as patch:
        patch.setattr(SeedEachStep, HOOK, signalling(step, sent))
        with pytest.raises(Stopped, match=f"resume={folder}") as stopped:
            run(*FITS[kind])
    assert stopped.value.status == 128 + sent
    last = torch.load(checkpoint_path(folder, "last"), weights_only=True)
    assert (last["epoch"], last["global_step"]) == (1, step + 1), "the step is finished"
    assert not (folder / "result.json").exists()
    running.resume(folder)
    assert_equal_runs(folder, undisturbed[kind])


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_stopped_process_leaves_a_run_that_can_be_resumed(
    table_overrides: list[str], undisturbed: dict[str, Path], tmp_path: Path, sent: signal.Signals
) -> None:
    folder = tmp_path / "stopped"
    done = subprocess.run(
        [
            sys.executable, TESTS / "stopping.py", str(STOP_AT["rating"]), str(int(sent)), "train",
            *table_overrides, *FITS["rating"], "name=test", f"run_folder={folder}",
        ],
        capture_output=True, text=True,
    )  # fmt: skip
    status = -sent if sent == signal.SIGKILL else 128 + sent
    assert done.returncode == status, done.stderr
    assert not (folder / "result.json").exists()
    if sent != signal.SIGKILL:
        assert f"resume={folder}" in done.stderr and "Traceback" not in done.stderr
    running.resume(folder)
    assert_equal_runs(folder, undisturbed["rating"])


def test_changed_data_are_noticed(compose_train, ratings_csv: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.csv"
    copy.write_text(ratings_csv.read_text())
    config = compose_train(f"dataset.path={copy}", "model=bias", f"run_folder={tmp_path / 'run'}")
    folder = running.train(config, [])
    copy.write_text(copy.read_text() + "u1,999,3,99999\n")
    with pytest.raises(MatineeError, match="have changed"):
        building.load_run(folder)


def test_resuming_with_other_data_is_refused(
    compose_train, ratings_csv: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.csv"
    copy.write_text(ratings_csv.read_text())
    folder = running.train(
        compose_train(f"dataset.path={copy}", f"run_folder={tmp_path / 'run'}"), []
    )
    (folder / "result.json").unlink()
    copy.write_text(copy.read_text().replace("u1,", "u2001,"))
    with pytest.raises(MatineeError, match="have changed"):
        running.resume(folder)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["trainer.max_epochs=0", "scheduler=none"], "max_epochs is 0"),
        (["+trainer.limit_train_batches=0"], "limit_train_batches is 0"),
        (["+trainer.limit_val_batches=0.0"], "limit_val_batches is 0"),
        (["+trainer.max_steps=0"], "max_steps is 0"),
        (["callbacks.metrics=null"], "callbacks.metrics cannot be left out"),
        (["callbacks.checkpoints=null"], "callbacks.checkpoints cannot be left out"),
        (["callbacks.early_stopping.monitor=val/rmsse"], "early_stopping.monitor is not logged"),
        (["callbacks.checkpoints.monitor=val/rmsse"], "is not logged each epoch"),
        (["callbacks.checkpoints.mode=mim"], "mode is mim"),
        (["scheduler.T_max=0"], "the fit cannot go on"),
        (["model.init_std=-1"], "init_std|std"),
    ],
)
def test_a_fit_that_cannot_start_leaves_no_folder(
    run, tmp_path: Path, overrides: list[str], sentence: str
) -> None:
    with pytest.raises(MatineeError, match=sentence):
        run(*overrides)
    assert not (tmp_path / "run").exists()


def damage_config(folder: Path) -> None:
    (folder / "config.yaml").write_text("model: [unclosed")


def damage_target(folder: Path) -> None:
    config = OmegaConf.load(folder / "config.yaml")
    config.model._target_ = "os.system"
    OmegaConf.save(config, folder / "config.yaml")


def damage_checkpoint(folder: Path) -> None:
    path = folder / "checkpoints/best.ckpt"
    path.write_bytes(path.read_bytes()[:-200])


def hostile_checkpoint(folder: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (folder / "owned",)  # type: ignore[return-value]

    torch.save({"state_dict": {}, "x": Hostile()}, folder / "checkpoints/best.ckpt")


def foreign_checkpoint(folder: Path) -> None:
    torch.save({"state_dict": {"network.other": torch.zeros(2)}}, folder / "checkpoints/best.ckpt")


def missing_checkpoint(folder: Path) -> None:
    (folder / "checkpoints/best.ckpt").unlink()


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (damage_config, "cannot be read"),
        (damage_target, "not allowed"),
        (damage_checkpoint, "damaged"),
        (hostile_checkpoint, "damaged or holds more than plain values"),
        (foreign_checkpoint, "does not fit"),
        (missing_checkpoint, "is missing"),
    ],
)
def test_a_damaged_run_is_reported_in_one_sentence(
    finished: Run, damage: Callable[[Path], None], sentence: str
) -> None:
    folder = finished("model=mf")
    damage(folder)
    with pytest.raises(MatineeError, match=sentence):
        building.load_run(folder)
    assert not (folder / "owned").exists()


def test_a_broken_last_checkpoint_stops_resuming(finished: Run) -> None:
    folder = finished("model=mf")
    (folder / "result.json").unlink()
    (folder / "checkpoints/last.ckpt").write_bytes(b"nothing")
    with pytest.raises(MatineeError, match="damaged"):
        running.resume(folder)


def test_result_of_an_unfinished_or_broken_run(finished: Run, tmp_path: Path) -> None:
    with pytest.raises(MatineeError, match="holds no result"):
        read_result(tmp_path)
    folder = finished("model=bias")
    (folder / "result.json").write_text("{")
    with pytest.raises(MatineeError, match="no JSON"):
        read_result(folder)


def test_nan_names_the_step_and_keeps_the_checkpoint(run: Run, tmp_path: Path) -> None:
    with pytest.raises(MatineeError, match=r"became (nan|inf) at step \d+ \(epoch"):
        run("optimizer=sgd", "optimizer.lr=1e30", "trainer.max_epochs=20")
    assert not (tmp_path / "run" / "result.json").exists()


def test_fit_finds_the_nan_step_exactly(compose_train, tmp_path: Path, monkeypatch) -> None:
    config = compose_train(
        "model=mf", "trainer.max_epochs=2", f"run_folder={tmp_path}", "data.batch_size=16"
    )
    built = building.build(config)
    step = built.task.training_step

    def poisoned(batch, batch_idx):
        outputs = step(batch, batch_idx)
        if built.task.trainer.global_step == 36:  # the 37th step
            outputs["data_loss"] = outputs["data_loss"] * float("nan")
        return outputs

    monkeypatch.setattr(built.task, "training_step", poisoned)
    with pytest.raises(MatineeError, match="nan at step 37 "):
        fit(make_trainer(config, tmp_path), built.task, built.datamodule, tmp_path, None)


def test_full_disk_keeps_the_previous_checkpoint(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit on file size stands in for the disk: writing past it fails like a full one."""
    save = AtomicCheckpointIO.save_checkpoint

    def limited(self: Any, checkpoint: dict[str, Any], *rest: Any, **options: Any) -> None:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        if checkpoint["epoch"] == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        try:
            save(self, checkpoint, *rest, **options)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", limited)
    with pytest.raises(MatineeError, match="could not be written"):
        run("model=mf", "logger=none", "trainer.max_epochs=4")
    folder = tmp_path / "run"
    last = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    assert last["epoch"] == 1
    names = {path.name for path in (folder / "checkpoints").iterdir()}
    assert names == {"best.ckpt", "last.ckpt"}
    assert not (folder / "result.json").exists()


def test_result_is_plain_json(finished: Run) -> None:
    result = json.loads((finished("model=bias") / "result.json").read_text())
    assert set(result) == {"metrics", "headline", "fit", "protocol", "environment"}


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_flipped_bits_of_a_checkpoint_are_noticed(finished, share: float) -> None:
    folder = finished()
    path = folder / "checkpoints" / "best.ckpt"
    content = bytearray(path.read_bytes())
    place = int(len(content) * share)
    content[place : place + 64] = bytes(255 - byte for byte in content[place : place + 64])
    path.write_bytes(content)
    with pytest.raises(MatineeError, match="damaged"):
        building.load_run(folder)


def test_an_epoch_without_its_checkpoint_is_written_again(run) -> None:
    """A kill between the two writes of an epoch costs no row and doubles none."""
    folder = run("model=mf", "trainer.max_epochs=3")
    (folder / "result.json").unlink()
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(config.replace("max_epochs: 3", "max_epochs: 5"))
    rows = (folder / "metrics.csv").read_text().splitlines()
    with (folder / "metrics.csv").open("a") as file:
        file.write(rows[-1].replace("2,", "3,", 1) + "\n")
    running.resume(folder)
    written = (folder / "metrics.csv").read_text().splitlines()
    assert written[:4] == rows
    assert [row.split(",")[0] for row in written[1:]] == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("epochs", [2, 3])
@pytest.mark.parametrize("content", [None, "", "epoch,step\n0,1\n", "a,b\n1,2\n1,2\n"])
def test_a_missing_or_broken_table_of_epochs_is_rebuilt(
    finished, content: str | None, epochs: int
) -> None:
    folder = finished("model=mf")
    table = folder / "metrics.csv"
    before = table.read_text().splitlines()
    (folder / "result.json").unlink()
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(config.replace("max_epochs: 2", f"max_epochs: {epochs}"))
    table.unlink() if content is None else table.write_text(content)
    running.resume(folder)
    assert table.read_text().splitlines()[:3] == before
    assert len(table.read_text().splitlines()) == 1 + epochs


def test_one_process_at_a_time_trains_in_a_folder(
    finished, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = finished("model=mf")
    recorded = (folder / "result.json").read_bytes()
    (folder / "result.json").unlink()
    with sole_writer(folder), pytest.raises(AtWork, match="another process"):
        running.resume(folder)
    monkeypatch.chdir(folder)
    part = checkpoint_path(folder, "last").with_name(".last.ckpt.12.part")
    part.touch()  # of a process that was killed
    running.resume(Path())
    assert not part.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["run"], "no lock is left"

    @contextmanager
    def late(folder: Path) -> Iterator[None]:
        (folder / "result.json").write_bytes(recorded)  # another finishes before it lets go
        yield

    (folder / "result.json").unlink()
    monkeypatch.setattr(running, "sole_writer", late)
    running.resume(folder)
    assert (folder / "result.json").read_bytes() == recorded, "nothing is done twice"


def test_a_lock_file_removed_by_its_owner_is_not_used(tmp_path: Path) -> None:
    with sole_writer(tmp_path / "run"):
        held = os.open(tmp_path / ".run.lock", os.O_RDWR)  # one who came too early
    fcntl.flock(held, fcntl.LOCK_EX)
    with sole_writer(tmp_path / "run"):
        assert not os.fstat(held).st_nlink
    os.close(held)
