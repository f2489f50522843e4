"""A run that is killed at any point, or meets a full disk, ends as one that nothing happened to."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ratings import make_ratings

TESTS = Path(__file__).resolve().parents[1]
KILLED = -9
TASKS = {
    "rating": "matinee.training.tasks.rating:RatingTask",
    "next item": "matinee.training.tasks.next_item:NextItemTask",
}
HOOKS = "matinee.training.callbacks"
Place = tuple[str, str, int]
PLACES: list[Place] = [  # see killing.py, in the order of a run
    ("write", "overrides.yaml", 1),
    ("replace", "protocol.json", 1),
    ("write", "config.yaml", 1),
    ("replaced", "config.yaml", 1),
    ("call", f"{HOOKS}:SeedEachStep.on_train_batch_start", 1),
    ("call", f"{HOOKS}:EpochMetrics.on_validation_epoch_end", 1),
    ("write", "metrics.csv", 1),
    ("write", "best.ckpt", 1),
    ("replaced", "best.ckpt", 1),
    ("replace", "last.ckpt", 1),
    ("call", f"{HOOKS}:SeedEachStep.on_train_batch_start", 12),
    ("write", "metrics.csv", 2),
    ("write", "last.ckpt", 2),
    ("replaced", "last.ckpt", 2),
    ("replaced", "best.ckpt", 2),
    ("replaced", "last.ckpt", 3),
    ("call", "TASK.measure", 1),
    ("call", "TASK.measure", 2),
    ("write", "per_user.npz", 1),
    ("replaced", "per_user.npz", 1),
    ("call", "TASK.figures", 1),
    ("write", "metadata.tsv", 1),
    ("write", "tensors.tsv", 1),
    ("write", "projector_config.pbtxt", 1),
    ("call", f"{HOOKS}.inspection:hyperparameters", 1),
    ("write", "result.json", 1),
    ("replace", "result.json", 1),
    ("replaced", "result.json", 1),
]
FILLED: list[Place] = [
    ("write", "overrides.yaml", 1),
    ("write", "events", 1),
    ("write", "metrics.csv", 1),
    ("write", "best.ckpt", 1),
    ("write", "last.ckpt", 1),
    ("write", "metrics.csv", 2),
    ("write", "last.ckpt", 2),
    ("write", "per_user.npz", 1),
    ("write", "events", 2),
    ("write", "tensors.tsv", 1),
    ("write", "projector_config.pbtxt", 1),
    ("write", "result.json", 1),
]

Run = Callable[..., int]


@pytest.fixture(scope="module")
def command() -> Iterator[Run]:
    """Run a command in a fork of a process that has imported everything; return its status."""
    with subprocess.Popen(
        [sys.executable, TESTS / "killing.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:  # fmt: skip
        assert process.stdin is not None and process.stdout is not None

        def run(folder: Path, *arguments: str, **fault: Any) -> int:
            folder.mkdir(exist_ok=True)
            asked = {"arguments": ["train", *arguments], "cwd": str(folder), **fault}
            print(json.dumps(asked), file=process.stdin, flush=True)
            return int(process.stdout.readline())

        yield run
        process.stdin.close()


@pytest.fixture(scope="module")
def overrides(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    table = make_ratings(
        tmp_path_factory.mktemp("data") / "ratings.csv", num_users=30, num_items=20
    )
    columns = {"user": "who", "item": "what", "rating": "stars", "timestamp": "moment"}
    common = [
        "trainer.max_epochs=3",
        "trainer.accelerator=cpu",
        "run_folder=run",
        "optimizer.lr=0.02",
    ]
    return {
        "rating": [
            "dataset=table", f"dataset.path={table}", *(f"dataset.{k}={v}" for k, v in columns.items()),
            "model=mf_bias", "model.embedding_dim=4", "data.batch_size=32", *common,
        ],
        "next item": [
            "experiment=counting/gru", "model.embedding_dim=8", "dataset.num_rows=60",
            "dataset.length=8", "data.batch_size=8", *common,
        ],
    }  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(
    command: Run, overrides: dict[str, list[str]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    """Return the content of the runs that nothing happened to."""
    found = {}
    for kind, words in overrides.items():
        folder = tmp_path_factory.mktemp("undisturbed") / kind
        assert command(folder, *words) == 0, (folder / "errors.txt").read_text()
        found[kind] = content(folder / "run")
    return found


def content(run: Path) -> dict[str, Any]:
    """Return what every file of a run says, apart from times and the commit; event files together."""
    found: dict[str, Any] = {}
    for path in sorted(path for path in run.rglob("*") if path.is_file()):
        name = path.relative_to(run).as_posix()
        if path.suffix == ".ckpt":
            found[name] = plain(torch.load(path, weights_only=True))
        elif path.suffix == ".npz":
            with np.load(path) as arrays:
                found[name] = {key: arrays[key].tolist() for key in arrays.files}
        elif name == "result.json":
            result = json.loads(path.read_text())
            for key in ("seconds", "finished", "commit", "peak_memory_bytes"):
                del result["environment"][key]
            found[name] = result
        elif "tfevents" not in name:
            found[name] = re.sub(r"resume: true\n|- resume=true\n", "", path.read_text())
    reader = EventAccumulator(str(run)).Reload()
    tags = reader.Tags()
    found["curves"] = {
        (tag, event.step): event.value for tag in tags["scalars"] for event in reader.Scalars(tag)
    }
    found["shown"] = {kind: set(tags[kind]) for kind in ("images", "tensors", "histograms")}
    return found


def plain(tree: Any) -> Any:
    if isinstance(tree, torch.Tensor):
        return tree.tolist()
    if isinstance(tree, dict):
        return {str(key): plain(value) for key, value in tree.items() if key != "seconds"}
    return [plain(value) for value in tree] if isinstance(tree, list | tuple) else tree


def at(kind: str, place: Place) -> list[Any]:
    event, name, number = place
    return [event, name.replace("TASK", TASKS[kind]), number]


def assert_whole(folder: Path, expected: dict[str, Any]) -> None:
    """Assert that a run has all files of another and the same content, and that nothing else is left."""
    found = content(folder / "run")
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == value, name
    rest = {path.name for path in folder.iterdir()}
    assert rest == {"run", "output.txt", "errors.txt"}, "no lock is left"


@pytest.mark.slow
@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("place", PLACES, ids=str)
def test_a_killed_run_ends_with_the_same_bits_and_files(
    kind: str, place: Place, command: Run, overrides, undisturbed, tmp_path: Path
) -> None:
    folder = tmp_path / "trial"
    assert command(folder, *overrides[kind], fault="kill", at=at(kind, place)) == KILLED
    if (folder / "run" / "config.yaml").read_text():
        status = command(folder, "resume=run")
    else:
        assert command(folder, "resume=run") == 1
        assert "run_folder=run resume=true" in (folder / "errors.txt").read_text()
        status = command(folder, *overrides[kind], "resume=true")
    assert status == 0, (folder / "errors.txt").read_text()
    assert_whole(folder, undisturbed[kind])


@pytest.mark.slow
@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("place", FILLED, ids=str)
def test_a_run_on_a_full_disk_says_what_goes_on(
    kind: str, place: Place, command: Run, overrides, undisturbed, tmp_path: Path
) -> None:
    folder = tmp_path / "trial"
    assert command(folder, *overrides[kind], fault="full", at=at(kind, place)) == 1
    errors = (folder / "errors.txt").read_text()
    assert "Traceback" not in errors
    (sentence,) = [line for line in errors.splitlines() if line.startswith("matinee: ")]
    assert "No space left on device" in sentence
    kept = (folder / "run" / "checkpoints" / "last.ckpt").exists()
    if kept:
        assert sentence.endswith("free disk space, then go on with 'matinee train resume=run'.")
    else:
        assert sentence.endswith("free disk space, then start it again.")
        assert not (folder / "run").exists()
    again = ["resume=run"] if kept else overrides[kind]
    assert command(folder, *again) == 0, (folder / "errors.txt").read_text()
    assert_whole(folder, undisturbed[kind])
