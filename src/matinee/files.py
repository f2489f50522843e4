"""Files written beside their target and renamed: they are there whole or not at all."""

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from matinee.errors import NotWritten


@contextmanager
def part_file(target: Path) -> Iterator[Path]:
    """Give a path beside `target` to write to; it becomes `target` at once, or nothing at all."""
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def write_whole(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a file, whole or not at all.

    Args:
        path: The file.
        write: Writes its content.

    Raises:
        NotWritten: If it cannot be written; an earlier file of that name is untouched.
    """
    with writing(path), part_file(path) as part, part.open("wb") as file:
        write(file)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Report that a file, or a file of a folder, cannot be written.

    Raises:
        NotWritten: In place of an ``OSError``.
    """
    try:
        yield
    except OSError as error:
        raise NotWritten(f"{path} could not be written ({error})") from error


def remove_parts(folder: Path, of: str = "*") -> None:
    """Remove what killed processes left beside their targets, where no living one writes.

    Args:
        folder: The folder of the targets; it need not be there.
        of: The name of the target, all of them by default.
    """
    for part in folder.glob(f".{of}.*.part"):
        part.unlink(missing_ok=True)


def checkpoint_path(run_folder: str | Path, name: str) -> Path:
    """Return the path of a run's ``best`` or ``last`` checkpoint."""
    return Path(run_folder) / "checkpoints" / f"{name}.ckpt"
