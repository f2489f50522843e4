"""Records: the results of a search in one file, and the claims of the processes that share it.

A file is rewritten whole, in the order of the trials, for every result, and renamed into place: a
kill leaves the old one or the new one, and a finished file is the same whoever wrote it in whatever
order. A claim is a lock that the operating system lets go of when its process dies.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from matinee.config.trees import differences
from matinee.errors import MatineeError
from matinee.files import write_whole

Row = dict[str, Any]  # the keys below, and the two metrics of a trial
ROW = {"trial", "hash_ID", "hyperparameters", "failure"}
POLL_SECONDS = 0.2


class Records:
    """The file of a search: a line that says what was searched, then one line a trial.

    Args:
        path: The file, ``.jsonl``; it need not be there.
        about: What must be equal for trials to stand in one file, JSON values by name.
        figures: Names of the metrics of a trial.

    Raises:
        MatineeError: If the file is of another search or broken, or its folder cannot be written.
    """

    def __init__(self, path: Path, about: Mapping[str, Any], figures: Sequence[str]) -> None:
        self.path = path
        self.figures = figures
        self.about = json.loads(json.dumps(about))
        with self.locked():
            if (found := read_records(path, figures)[0]) is not None:
                check_search(found, self.about, path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of the file."""
        lock = self._lock(f".{self.path.name}.lock")
        acquire(lock)
        try:
            yield
        finally:
            lock.release()

    def rows(self) -> dict[str, Row]:
        """Return the rows by hash, in the order of the trials."""
        return {row["hash_ID"]: row for row in read_records(self.path, self.figures)[1]}

    def add(self, row: Row) -> None:
        """Write a row to its place; one of a known hash changes nothing."""
        with self.locked():
            rows = self.rows()
            rows.setdefault(row["hash_ID"], row)
            ordered = sorted(rows.values(), key=lambda known: known["trial"])
            lines = [json.dumps(line) + "\n" for line in (self.about, *ordered)]
            write_whole(self.path, lambda file: file.write("".join(lines).encode()))

    @contextmanager
    def claimed(self, names: Sequence[str]) -> Iterator[str]:
        """Claim the first name that no living process holds; wait for one if all are held."""
        locks = {name: self._lock(f".claims/{self.path.stem}/{name}") for name in names}
        name = next((name for name in names if acquire(locks[name], blocking=False)), None)
        if name is None:
            name = names[0]
            acquire(locks[name])
        try:
            yield name
        finally:
            locks[name].release()

    def _lock(self, name: str) -> FileLock:
        return FileLock(self.path.parent / name, poll_interval=POLL_SECONDS)


def acquire(lock: FileLock, blocking: bool = True) -> bool:
    """Acquire a lock, whose folder is made if need be.

    Returns:
        Whether it is ours now: False if another process holds it and ``blocking`` is false.

    Raises:
        MatineeError: If it cannot be written.
    """
    path = Path(lock.lock_file)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=blocking)
    except Timeout:
        return False
    except OSError as error:
        raise MatineeError(
            f"{path.parent} cannot be written ({error}); set log_dir=... to a folder that can."
        ) from error
    return True


def read_records(path: Path, figures: Sequence[str]) -> tuple[dict[str, Any] | None, list[Row]]:
    """Read what was searched and the rows; a last line that was not finished is left out.

    Args:
        path: The file.
        figures: Names of the metrics of a trial.

    Returns:
        None and no rows where there is no file.

    Raises:
        MatineeError: If another line is broken.
    """
    try:
        text = path.read_text()
    except FileNotFoundError:
        return None, []
    except (OSError, UnicodeDecodeError) as error:
        raise MatineeError(
            f"{path} cannot be read ({error}); restore it or move it away."
        ) from error
    lines = text.splitlines()
    parsed: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            parsed.append(_row(line, figures) if parsed else _parsed(line, {"space"}))
        except ValueError as error:
            if number < len(lines) or text.endswith("\n"):
                raise MatineeError(
                    f"{path}, line {number}: no record of a search ({error}); correct the line, or "
                    "delete it to have its trial run again."
                ) from error
            print(f"{path}: the last line was not finished and is left out", file=sys.stderr)
    return (parsed[0], parsed[1:]) if parsed else (None, [])


def _parsed(line: str, keys: set[str]) -> dict[str, Any]:
    content = json.loads(line)
    if not isinstance(content, dict) or not keys <= content.keys():
        raise ValueError(f"it lacks {' and '.join(sorted(keys))}")
    return content


def _row(line: str, figures: Sequence[str]) -> Row:
    row = _parsed(line, ROW | set(figures))
    for key in figures:
        if not isinstance(row[key], float | int | None):
            raise ValueError(f"{key} is {row[key]!r}")
    return row


def check_search(found: Mapping[str, Any], about: Mapping[str, Any], where: object) -> None:
    """Refuse to go on with a search of something else.

    Raises:
        MatineeError: Naming the first difference.
    """
    for key, there, here in differences(found, about):
        raise MatineeError(
            f"{where} holds a search of another {key} ({json.dumps(there)} there, {json.dumps(here)} "
            "here); set log_dir=... to begin another one."
        )
