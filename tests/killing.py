"""Commands that are killed, or meet a full disk, at an exact event; PyTorch is imported once for all.

``python killing.py`` reads lines of JSON and runs a command for each, in a fork of this process::

    {"arguments": ["train", ...], "cwd": FOLDER, "fault": "kill", "at": ["write", "last.ckpt", 2]}

It answers each with a line of JSON: the exit status, or minus the signal. Output and errors of the
command go to ``output.txt`` and ``errors.txt`` in the folder ``cwd``. The events, which are counted from 1:

- ``write NAME``: half of the first write to a file that is called so when it is finished, is done;
- ``replace NAME``, ``replaced NAME``: a file is about to get its name, or just got it;
- ``call MODULE:NAME``: a function or method begins.

After a fault of the kind ``full``, which only ``write`` can have, no write to any file succeeds.
"""

import builtins
import importlib
import io
import json
import os
import re
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from matinee import cli

IMPORTED = (
    "matinee.config.composing", "matinee.experiment.running", "matinee.display.plotting",
    "matinee.verbs.printing", "torch.utils.tensorboard",
)  # fmt: skip
PART = re.compile(r"\.(.*)\.[0-9a-f]{32}\.part")


class Fault:
    """Lets an event happen and counts it; the chosen one kills the process, or fills the disk."""

    def __init__(self, fault: str, at: list[Any], folder: Path) -> None:
        self.kind, self.name, self.number = at
        self.fault = fault
        self.folder = folder
        self.seen = 0
        self.full = False

    def happens(self, kind: str, name: str) -> bool:
        if kind != self.kind or not name.startswith(self.name):
            return False
        self.seen += 1
        return self.seen == self.number

    def install(self) -> None:
        open_file, replace = io.open, os.replace

        def opened(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
            writes = not isinstance(file, int) and set(mode) & set("wax")
            path = Path(os.fsdecode(file) if writes else "").absolute()
            if self.folder not in path.parents:
                return open_file(file, mode, *args, **options)
            raw = Written(self, path, mode)
            if "b" in mode:
                return io.BufferedWriter(raw)
            options = {key: options[key] for key in ("encoding", "newline") if key in options}
            return io.TextIOWrapper(io.BufferedWriter(raw), **options)

        def replaced(source: Any, target: Any) -> None:
            name = Path(target).name
            if self.happens("replace", name):
                die()
            replace(source, target)
            if self.happens("replaced", name):
                die()

        builtins.open = io.open = opened  # type: ignore[assignment]
        os.replace = replaced  # type: ignore[assignment]
        if self.kind == "call":
            module, _, path = self.name.partition(":")
            *owners, last = path.split(".")
            owner = importlib.import_module(module)
            for attribute in owners:
                owner = getattr(owner, attribute)
            function = getattr(owner, last)

            def called(*args: Any, **options: Any) -> Any:
                if self.happens("call", self.name):
                    die()
                return function(*args, **options)

            setattr(owner, last, called)


class Written(io.FileIO):
    """A file that counts as written at its first write."""

    def __init__(self, fault: Fault, path: Path, mode: str) -> None:
        super().__init__(path, mode.replace("b", "").replace("t", "").replace("+", ""))
        self.watched = fault
        part = PART.fullmatch(path.name)
        self.final = part[1] if part else path.name
        self.fresh = True

    def write(self, content: Any) -> int:
        if self.fresh and self.watched.happens("write", self.final):
            super().write(memoryview(content)[: len(content) // 2])
            if self.watched.fault == "kill":
                die()
            self.watched.full = True
        self.fresh = False
        if self.watched.full:
            raise OSError(28, "No space left on device")
        return super().write(content)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def run(arguments: list[str], cwd: str, fault: str | None = None, at: Any = None) -> None:
    """Run a command in this process, which it ends."""
    os.chdir(cwd)
    for stream, name in ((1, "output.txt"), (2, "errors.txt")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    if fault is not None:
        Fault(fault, at, Path(cwd) / "run").install()
    status: Any = 0
    try:
        cli.main(arguments)
    except SystemExit as end:
        status = end.code or 0
    except BaseException:
        traceback.print_exc()
        status = 99
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    for name in IMPORTED:
        importlib.import_module(name)
    for line in sys.stdin:
        child = os.fork()
        if not child:
            run(**json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
