"""Two processes on the CPU, over gloo: they train what one does, and stop, resume and fail together."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from matinee.batches.loading import mix_seed
from matinee.experiment import building, measuring, running
from matinee.experiment.run_folder import read_result
from matinee.experiment.trainer import make_trainer

SPY = """
import json, os, sys
import torch
from matinee.training import callbacks
from matinee import cli
from matinee.training.callbacks import epoch_metrics

def note(kind, value):
    with open(f"{os.environ['NOTES']}/{kind}{os.environ.get('LOCAL_RANK', '0')}", "a") as file:
        file.write(json.dumps(value) + "\\n")

log, seed = epoch_metrics._log, callbacks.SeedEachStep.on_train_batch_start

def spied_log(metrics, stage, task):
    if stage == "val":
        note("val", dict(metrics))
    log(metrics, stage, task)

def spied_seed(self, trainer, pl_module, batch, batch_idx):
    seed(self, trainer, pl_module, batch, batch_idx)
    note("seed", torch.default_generator.initial_seed())

epoch_metrics._log = spied_log
callbacks.SeedEachStep.on_train_batch_start = spied_seed
cli.main(sys.argv[1:])
"""

RATING = [
    "split=random", "split.validation_share=0.1015","task.unknown_users=0", "task.unknown_items=0",
    "trainer.max_epochs=3", "logger=none",
]  # fmt: skip
SEQUENCE = [
    "experiment=user_based/gru", "dataset=markov", "dataset.num_users=100", "dataset.num_items=20",
    "dataset.num_interactions=1500", "model.embedding_dim=4", "data.batch_size=2", "trainer=cpu",
    "trainer.max_epochs=4", "callbacks.early_stopping=null", "logger=none",
]  # fmt: skip
STOP_AT = 60  # the fifth step of the second epoch; they agree to stop before its last
TESTS = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


def start(*arguments: str, program: tuple[str, ...] = ("-m", "matinee")) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *program, "train", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def finish(process: subprocess.Popen[str], status: int = 0) -> tuple[str, str]:
    try:
        output, errors = process.communicate()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == status, errors
    while alive(process.pid):  # the helpers end on their own
        time.sleep(0.1)
    return output, errors


def alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def weights(folder: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]


def epochs(folder: Path) -> list[dict[str, float]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def test_two_processes_train_what_one_does(
    table_overrides: list[str], compose_train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "spy.py").write_text(SPY)
    monkeypatch.setenv("NOTES", str(tmp_path))
    two, one = tmp_path / "two", tmp_path / "one"
    output, _ = finish(
        start(
            *table_overrides,
            *RATING,
            "trainer.devices=2",
            "data.batch_size=32",
            f"run_folder={two}",
            program=(str(tmp_path / "spy.py"),),
        )
    )
    assert output.count(str(two)) == 1, "one process alone reports"
    running.train(compose_train(*RATING, "data.batch_size=64", f"run_folder={one}"), [])

    rows = read_result(one)["protocol"]["split"]["rows"]["train"]
    assert rows % 2 == 0 and rows % 64 != 0, (
        "no row is taken twice, and the last batch is a small one"
    )
    alone, together = weights(one), weights(two)
    for name in alone:
        torch.testing.assert_close(together[name], alone[name], rtol=1e-4, atol=1e-6)
    for ours, theirs in zip(epochs(two), epochs(one), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)
    result, expected = read_result(two), read_result(one)
    assert result["metrics"] == pytest.approx(expected["metrics"], rel=1e-5)
    assert result["fit"] == expected["fit"]
    assert result["environment"]["devices"] == 2

    notes = {
        kind: [(tmp_path / f"{kind}{rank}").read_text().splitlines() for rank in (0, 1)]
        for kind in ("val", "seed")
    }
    assert notes["val"][0] == notes["val"][1] and len(notes["val"][0]) == 3, "the very same figures"
    steps = result["fit"]["steps"]
    for rank in (0, 1):
        assert list(map(int, notes["seed"][rank])) == [mix_seed(0, s, rank) for s in range(steps)]

    loaded = building.load_run(two)
    metrics = measuring.evaluate(loaded, make_trainer(loaded.config, None)).metrics
    assert metrics == result["metrics"], "to the last bit"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    finish(start(*SEQUENCE, "trainer.devices=2", f"run_folder={folder}"))
    return folder


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_resumes_to_the_same_bits(
    undisturbed: Path, tmp_path: Path, sent: signal.Signals
) -> None:
    folder = tmp_path / "run"
    stopping = (str(TESTS / "stopping.py"), str(STOP_AT), str(int(sent)))
    process = start(*SEQUENCE, "trainer.devices=2", f"run_folder={folder}", program=stopping)
    _, errors = finish(process, status=128 + sent)
    assert not (folder / "result.json").exists()
    assert errors.count(f"resume={folder}") == 1 and "Traceback" not in errors
    if sent == signal.SIGINT:
        return
    finish(start(f"resume={folder}"))
    for name in ("best", "last"):
        whole, resumed = weights(undisturbed, name), weights(folder, name)
        assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    assert read_result(folder)["metrics"] == read_result(undisturbed)["metrics"]
    for ours, theirs in zip(epochs(folder), epochs(undisturbed), strict=True):
        assert ours == pytest.approx(theirs)
    loaded = building.load_run(folder)
    metrics = measuring.evaluate(loaded, make_trainer(loaded.config, None)).metrics
    assert metrics == read_result(folder)["metrics"]


def test_an_error_is_reported_once_and_ends_all_processes(
    table_overrides: list[str], tmp_path: Path
) -> None:
    patient = tmp_path / "patient.py"  # however slowly the first process ends
    patient.write_text(
        "import sys\nfrom matinee import cli\nfrom matinee.training import processes\n"
        "processes.REPORT_AFTER = 3600\ncli.main(sys.argv[1:])\n"
    )
    process = start(
        *table_overrides, "trainer.devices=2", "optimizer=sgd", "optimizer.lr=1e30",
        f"run_folder={tmp_path / 'run'}", "logger=none", program=(str(patient),),
    )  # fmt: skip
    _, errors = finish(process, status=1)
    assert errors.count("matinee: ") == 1 and "Traceback" not in errors
    assert "became" in errors and not (tmp_path / "run").exists()


def test_each_run_of_a_multirun_on_two_devices_has_its_own_command(
    table_overrides: list[str], tmp_path: Path
) -> None:
    process = start(
        "-m", *table_overrides, "model=bias", "model.item_damping=1,-1", "trainer.devices=2",
        f"log_dir={tmp_path}",
    )  # fmt: skip
    _, errors = finish(process, status=1)
    assert "item_damping is -1" in errors and "1 of the runs failed" in errors
    (result,) = tmp_path.rglob("result.json")
    assert read_result(result.parent)["environment"]["devices"] == 1, "a closed form needs no help"


def test_a_grid_on_two_devices_is_started_again(table_overrides: list[str], tmp_path: Path) -> None:
    folder = f"{tmp_path}/${{hydra:runtime.choices.model}}"
    grid = [
        "-m", "resume=true", *table_overrides, "model=mf,mf_bias", "trainer.devices=2",
        "trainer.max_epochs=2", "callbacks.inspection=null", "logger=none", f"log_dir={tmp_path}",
        f"run_folder={folder}",
    ]  # fmt: skip
    finish(start(*grid))
    finished = read_result(tmp_path / "mf_bias")
    assert finished["environment"]["devices"] == 2
    (tmp_path / "mf_bias" / "result.json").unlink()
    output, _ = finish(start(*grid))
    assert output.split() == [f"{tmp_path}/mf", f"{tmp_path}/mf_bias"]
    assert read_result(tmp_path / "mf_bias")["metrics"] == finished["metrics"]
