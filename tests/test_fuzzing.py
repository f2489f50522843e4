"""Random changes to a good run folder, as somebody else might send it, against the verbs that read one.

Nothing of it may run, hang, end in a traceback or write anything; an error is one sentence.
"""

import copy
import json
import os
import pickle
import random
import shutil
import signal
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from command_line import matinee
from ratings import make_ratings

NUM_CHANGES = {"evaluate": 250, "recommend": 250, "report": 1500}
MOST_SECONDS = 5  # of the processor for one verb, a hundred times what most take
ARGUMENTS: dict[str, Callable[[Path], list[str]]] = {
    "evaluate": lambda runs: ["evaluate", f"run={runs / 'theirs'}", "trainer=cpu"],
    "recommend": lambda runs: ["recommend", f"run={runs / 'theirs'}", "user=u1"],
    "report": lambda runs: ["report", str(runs)],
}


class Bait:
    """What a pickle would call."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


class Mutator:
    """Changes a run folder in one random way.

    Args:
        rng: Makes all choices.
        folder: The run folder.
        outside: A folder that is not part of it; what appears there was written or run by mistake.
    """

    def __init__(self, rng: random.Random, folder: Path, outside: Path) -> None:
        self.rng, self.folder, self.outside = rng, folder, outside
        self.marker = outside / "marker"

    def change(self) -> str:
        """Change the folder and say how."""
        ways = [
            *[self.change_tree] * 8, self.change_bytes, self.change_bytes, self.change_text,
            self.change_arrays, self.change_arrays, self.change_checkpoint, self.change_table,
            self.replace_file, self.add_file,
        ]  # fmt: skip
        return str(self.rng.choice(ways)())

    def value(self) -> Any:
        """Return a value that does not belong there."""
        deep: Any = 1
        for _ in range(self.rng.choice([5, 29, 60, 400])):
            deep = {"a": deep} if self.rng.random() < 0.5 else [deep]
        here = str(self.marker)
        return self.rng.choice(
            [
                None, True, -1, 0, 1, 7, 2**31, 2**62, 10**400, 0.5, -1e300, float("nan"), float("inf"),
                "", "x", "1", "nan", "../../x", here, "/dev/zero", "~/x", "file:///etc/passwd", "a" * 5000,
                "\x1b[2J", "\x00", "=1+1", "<script>", "$\\frac", "${seed}", "${oc.env:HOME}", "${", "???",
                f"${{oc.create:{{_target_: os.mkdir, path: {here}}}}}", [], {}, [1, "x", None], {"a": 1},
                list(range(2000)), deep,
                {"_target_": "os.mkdir", "path": here},
                {"_target_": "builtins.open", "file": here, "mode": "x"},
                {"_target_": "pathlib.Path.mkdir", "self": here},
                {"_target_": "torch.optim.Adam", "_partial_": True},
                {"_target_": "lightning.pytorch.Trainer", "default_root_dir": here},
                {"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": here},
                {"_target_": "matinee.data.sources.table.load", "path": here, "data_dir": here},
                {"_target_": "matinee.files.write_whole", "path": here},
                "os.mkdir", "builtins.exec", "torch.load", "matinee.networks.popularity.Popularity",
            ]
        )  # fmt: skip

    def change_tree(self) -> str:
        """Replace, remove or add a value of a config or a result."""
        name = self.rng.choice(
            [
                "config.yaml",
                "config.yaml",
                "result.json",
                "result.json",
                "protocol.json",
                "overrides.yaml",
            ]
        )
        path = self.folder / name
        tree = yaml.safe_load(path.read_text())
        places = list(_places(tree))
        node, key = self.rng.choice(places) if places else ({}, "a")
        where, way, value = key, self.rng.choice(["set", "set", "remove", "add"]), self.value()
        if way == "remove":
            del node[key]
        elif way == "set" or isinstance(node, list):
            node[key] = value
        else:
            where = self.rng.choice(
                ["x", "_target_", "_args_", "hydra", "defaults", "../x", "${x}", ""]
            )
            node[where] = value
        if self.rng.random() < 0.02:
            tree = value
        path.write_text(json.dumps(tree))  # which is YAML, too
        return f"{way} {where} in {name} ({str(value)[:60]})"

    def change_bytes(self) -> str:
        """Change, cut or double some bytes of any file."""
        path = self.rng.choice([path for path in _files(self.folder) if path.stat().st_size])
        content = bytearray(path.read_bytes())
        for _ in range(self.rng.choice([1, 1, 8, 100])):
            content[self.rng.randrange(len(content))] = self.rng.randrange(256)
        place, way = self.rng.randrange(len(content)), self.rng.randrange(4)
        if way == 0:
            content = content[:place]
        elif way == 1:
            content = content[:place] * 2 + content[place:]
        path.write_bytes(content)
        return f"bytes of {path.name}"

    def change_text(self) -> str:
        """Put text of another meaning into a text file."""
        name = self.rng.choice(["config.yaml", "overrides.yaml", "result.json", "protocol.json"])
        path = self.folder / name
        text = path.read_text()
        place = self.rng.choice(
            [0, len(text), text.find("\n", self.rng.randrange(len(text) + 1)) + 1]
        )
        added = self.rng.choice(
            [
                f"x: !!python/object/apply:os.mkdir [{self.marker}]\n", "<<: *a\n", "a: &a [*a]\n",
                "&x ", "---\n", "\t", "}", "[" * 50_000, "{" * 200, "\x00", "\ufeff", "NaN", "9" * 5000,
                "a: " + "${a}" * 300 + "\n", "# " + "x" * 100_000 + "\n", "seed: 1\n", "? [a]\n: 1\n",
            ]
        )  # fmt: skip
        path.write_text(text[:place] + added + text[place:])
        return f"{added[:30]!r} in {name}"

    def change_arrays(self) -> str:
        """Change the arrays of per_user.npz."""
        path = self.folder / "per_user.npz"
        arrays: dict[str, Any] = dict(np.load(path))
        name = self.rng.choice([*arrays, "x", "../x"])
        length = len(arrays["user"])
        arrays[name] = self.rng.choice(
            [
                np.zeros(length), np.full(length, np.nan), np.full(length, -1), np.zeros(0), np.array(1.0),
                np.zeros((length, 2)), np.array(["x"] * length), np.ones(length, complex),
                np.ones(length, np.float16), np.full(length, 1e300), np.zeros(length, "datetime64[s]"),
                np.ones(length, [("a", "i4")]), np.arange(length), np.ones(length, bool),
                np.array(["\x1b", *["u1"] * (length - 1)]),
                np.array([Bait(self.marker)] * length, object),
            ]
        )  # fmt: skip
        if self.rng.random() < 0.2:
            del arrays[self.rng.choice(list(arrays))]
        np.savez(path, **arrays)
        return f"array {name}"

    def change_checkpoint(self) -> str:
        """Change the content of a checkpoint."""
        path = self.folder / "checkpoints" / "best.ckpt"
        checkpoint = torch.load(path, weights_only=True)
        node, key = self.rng.choice(list(_places(checkpoint)))
        value = self.rng.choice(
            [
                Bait(self.marker), torch.zeros(1).expand(10**10), torch.zeros(2, 3), torch.zeros(0),
                torch.full((5, 5), torch.nan), None, "x", [], {}, 2**70, torch.zeros(3, dtype=torch.int8),
                torch.eye(3).to_sparse(), np.float64(1), self.value(),
            ]
        )  # fmt: skip
        if not isinstance(node, tuple):
            node[key] = value
        if self.rng.random() < 0.1:
            path.write_bytes(pickle.dumps(Bait(self.marker)))
        elif self.rng.random() < 0.1:
            torch.save(checkpoint, path, _use_new_zipfile_serialization=False)
        else:
            torch.save(checkpoint, path)
        return f"{key} of the checkpoint"

    def change_table(self) -> str:
        """Change a cell of metrics.csv."""
        path = self.folder / "metrics.csv"
        rows = [line.split(",") for line in path.read_text().splitlines()]
        row = self.rng.choice(rows)
        row[self.rng.randrange(len(row))] = str(self.value())[:200]
        path.write_text("\n".join(map(",".join, rows)))
        return "a cell of metrics.csv"

    def replace_file(self) -> str:
        """Remove a file, or put a link, a pipe or a folder in its place."""
        path = self.rng.choice([*_files(self.folder), self.folder / "checkpoints"])
        way = self.rng.choice(["removed", "link", "link to itself", "dangling", "pipe", "folder"])
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
        if way == "link":
            path.symlink_to(
                self.rng.choice([self.outside, self.outside / "precious", Path("/dev/zero")])
            )
        elif way == "link to itself":
            path.symlink_to(path)
        elif way == "dangling":
            path.symlink_to(self.marker)
        elif way == "pipe":
            os.mkfifo(path)
        elif way == "folder":
            path.mkdir()
        return f"{path.name}: {way}"

    def add_file(self) -> str:
        """Add a file that a verb might find."""
        name = self.rng.choice(
            ["runs.parquet", "evaluation.json", ".hydra/config.yaml", "configs/model/mf.yaml", "torch.py",
             "sitecustomize.py", "inner/result.json", "inner/protocol.json", ".config.yaml.0.part",
             "\x1b[2J", "=1+1", "checkpoints/best.ckpt/x", "result.json.bak"]
        )  # fmt: skip
        path = self.folder / name
        if path.parent.is_file():
            path.parent.unlink()
        path.parent.mkdir(parents=True, exist_ok=True)
        bait = f"import os; os.mkdir({str(self.marker)!r})\n"
        path.write_text(self.rng.choice(["", "{}", "x: 1\n", bait, "PAR1" + "\x00" * 50 + "PAR1"]))
        return f"added {name!r}"


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(tree, dict | list):
        for key, value in list(tree.items() if isinstance(tree, dict) else enumerate(tree)):
            yield tree, key
            yield from _places(value)


def _files(folder: Path) -> list[Path]:
    read = [
        "config.yaml",
        "overrides.yaml",
        "result.json",
        "protocol.json",
        "metrics.csv",
        "per_user.npz",
    ]
    return [*(folder / name for name in read), folder / "checkpoints" / "best.ckpt"]


def _state(folder: Path) -> dict[str, Any]:
    """Return what changes if anything below a folder is written, without opening a file."""
    found = {}
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            status = os.lstat(os.path.join(parent, name))
            found[os.path.join(parent, name)] = (status.st_mode, status.st_size, status.st_mtime_ns)
    return found


@contextmanager
def _no_longer_than(seconds: float) -> Iterator[None]:
    """Raise ``TimeoutError`` after this time of the processor, or long after on the clock."""

    def stop(number: int, frame: Any) -> None:
        raise TimeoutError(f"more than {seconds} s")

    signals = {signal.SIGPROF: signal.ITIMER_PROF, signal.SIGALRM: signal.ITIMER_REAL}
    before = {number: signal.signal(number, stop) for number in signals}
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, 60 * seconds)
    try:
        yield
    finally:
        for number, timer in signals.items():
            signal.setitimer(timer, 0)
            signal.signal(number, before[number])


def fuzz(
    verb: str, good: Path, scratch: Path, seed: int, number: int
) -> tuple[list[str], Counter[int]]:
    """Change a copy of a run folder again and again, and let a verb read it.

    Returns:
        What went wrong, and how often each exit status occurred.
    """
    problems: list[str] = []
    statuses: Counter[int] = Counter()
    outside, runs = scratch / "outside", scratch / "runs"
    outside.mkdir(parents=True)
    (outside / "precious").write_text("keep")
    shutil.copytree(good, runs / "mine")
    settings = yaml.safe_load((runs / "mine" / "config.yaml").read_text())
    (runs / "mine" / "config.yaml").write_text(yaml.safe_dump({**settings, "name": "other/mine"}))
    for count in range(number):
        rng = random.Random(f"{seed} {verb} {count}")
        shutil.rmtree(runs / "theirs", ignore_errors=True)
        shutil.copytree(good, runs / "theirs")
        mutator = Mutator(rng, runs / "theirs", outside)
        words = mutator.change()
        if rng.random() < 0.2:
            try:
                words += f"; {mutator.change()}"
            except Exception:  # the first change broke the file
                words += "; no second change"
        before, bad = copy.copy(_state(scratch)), ""
        try:
            with _no_longer_than(MOST_SECONDS):
                done = matinee(*ARGUMENTS[verb](runs), cwd=scratch)
            statuses[done.returncode] += 1
            sentences = [li for li in done.stderr.splitlines() if li.startswith("matinee: ")]
            if done.returncode not in (0, 1) or len(sentences) != done.returncode:
                bad = f"status {done.returncode}: {done.stderr[-500:]}"
            if any(not c.isprintable() and c != "\n" for c in done.stdout):
                bad = "control characters"
        except BaseException:
            bad = traceback.format_exc()[-1200:]
        after = _state(scratch)
        if written := {p for p in before.keys() | after.keys() if before.get(p) != after.get(p)}:
            bad = f"wrote {sorted(written)}; {bad}"
            shutil.rmtree(mutator.marker, ignore_errors=True)
        if bad:
            problems.append(f"{seed} {verb} {count}: {words}\n{bad}")
    return problems, statuses


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small finished run with everything that a run leaves."""
    folder = tmp_path_factory.mktemp("good")
    path = make_ratings(folder / "ratings.csv", num_users=12, num_items=10)
    columns = ["user=who", "item=what", "rating=stars", "timestamp=moment"]
    done = matinee(
        "train", "dataset=table", f"dataset.path={path}", *(f"dataset.{entry}" for entry in columns),
        "trainer=cpu", "trainer.max_epochs=2", "model=mf", "logger=none", "callbacks.inspection=null",
        f"run_folder={folder / 'run'}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "run"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("verb", ARGUMENTS)
def test_no_change_to_a_run_folder_does_harm(
    good: Path, tmp_path: Path, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MATINEE_DATA", str(good.parent / "cache"))
    problems, statuses = fuzz(verb, good, tmp_path / "fuzzed", 0, NUM_CHANGES[verb])
    assert not problems, f"{len(problems)} problems, the first 5:\n" + "\n\n".join(problems[:5])
    assert statuses[0] and statuses[1]  # some changes are harmless, others are not
