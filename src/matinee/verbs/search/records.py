"""The file with the results of a search, and the claims of the processes that share it.

Every result rewrites the file atomically, in the order of the trials. A kill leaves the old or the new
file, and the finished file does not depend on which process ran what, and when. A claim is a lock that
the operating system releases when its process dies.
"""

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from matinee.config.trees import differences
from matinee.errors import MatineeError
from matinee.files import write_whole

Row = dict[str, Any]  # the keys below, and the metrics of a trial
ROW = {"trial", "hash_ID", "hyperparameters", "failure"}
PRUNED = (
    "pruned"  # the failure of a trial that was ended early; its metrics are those of its best epoch
)
POLL_SECONDS = 0.2


class Records:
    """The file of a search: a line that identifies the search, then one line for each trial.

    Args:
        path: The file, ``.jsonl``; it need not exist.
        identity: What all trials in one file have in common, JSON values by name.
        metric_names: Names of the metrics of a trial.

    Raises:
        MatineeError: If the file is from another search or broken, or its folder cannot be written.
    """

    def __init__(
        self, path: Path, identity: Mapping[str, Any], metric_names: Sequence[str]
    ) -> None:
        self.path = path
        self.metric_names = metric_names
        self.identity = json.loads(json.dumps(identity))
        with self.locked():
            if (found := read_records(path, metric_names)[0]) is not None:
                check_search(found, self.identity, path)

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
        return {row["hash_ID"]: row for row in read_records(self.path, self.metric_names)[1]}

    def add(self, *new: Row) -> None:
        """Add rows in the order of the trials; a row with a known hash changes nothing."""
        with self.locked():
            rows = self.rows()
            for row in new:
                rows.setdefault(row["hash_ID"], row)
            ordered = sorted(rows.values(), key=lambda known: known["trial"])
            lines = [json.dumps(line) + "\n" for line in (self.identity, *ordered)]
            write_whole(self.path, lambda file: file.write("".join(lines).encode()))

    @contextmanager
    def claimed(self, names: Sequence[str]) -> Iterator[str]:
        """Claim the first name that no running process holds; wait for one if all are held."""
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
    """Acquire a lock and create its folder if there is none.

    Returns:
        Whether this process holds it now: False if another one does and ``blocking`` is false.

    Raises:
        MatineeError: If the lock file cannot be written.
    """
    path = Path(lock.lock_file)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=blocking)
    except Timeout:
        return False
    except OSError as error:
        raise MatineeError(
            f"{path.parent} cannot be written ({error}); set log_dir=... to a writable folder."
        ) from error
    return True


def read_records(
    path: Path, metric_names: Sequence[str]
) -> tuple[dict[str, Any] | None, list[Row]]:
    """Read the identity of a search and its rows; an incomplete last line is left out.

    Args:
        path: The file.
        metric_names: Names of the metrics of a trial.

    Returns:
        None and no rows if there is no file.

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
            parsed.append(_row(line, metric_names) if parsed else _parsed(line, {"space"}))
        except ValueError as error:
            if number < len(lines) or text.endswith("\n"):
                raise MatineeError(
                    f"{path}, line {number}: not a record of a search ({error}); correct the line, or "
                    "delete it to run its trial again."
                ) from error
            print(f"{path}: the last line is incomplete and is left out", file=sys.stderr)
    return (parsed[0], parsed[1:]) if parsed else (None, [])


def _parsed(line: str, keys: set[str]) -> dict[str, Any]:
    content = json.loads(line)
    if not isinstance(content, dict) or not keys <= content.keys():
        raise ValueError(f"it has no {' and '.join(sorted(keys))}")
    return content


def _row(line: str, metric_names: Sequence[str]) -> Row:
    row = _parsed(line, ROW | set(metric_names))
    for key in metric_names:
        value = row[key]
        if value is not None and not (isinstance(value, float | int) and math.isfinite(value)):
            raise ValueError(f"{key} is {value!r}, not a finite number")
    return row


def check_search(found: Mapping[str, Any], identity: Mapping[str, Any], where: object) -> None:
    """Refuse to resume another search.

    Raises:
        MatineeError: Naming the first difference.
    """
    for key, there, here in differences(found, identity):
        raise MatineeError(
            f"{where} holds a search with another {key} ({json.dumps(there)} there, {json.dumps(here)} "
            "here); set log_dir=... to start a new one."
        )
