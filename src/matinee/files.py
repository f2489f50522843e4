"""Files: written atomically, beside their target and then renamed; and rules for files of others."""

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from matinee.errors import MatineeError, NotWritten


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


def plain_file(folder: Path, name: str) -> Path:
    """Return the path of a file of a folder that somebody else may have made, such as a run folder.

    Args:
        folder: The folder, which may be a link itself.
        name: The file, relative to the folder; it need not exist.

    Raises:
        MatineeError: If the file, or a folder on the way to it, is a link, which may lead outside, or a
            device or a pipe, which may never end.
    """
    path = folder
    try:
        for part in Path(name).parts:
            path = path / part
            if path.is_symlink() or (path.exists() and not path.is_file() and not path.is_dir()):
                raise MatineeError(
                    f"{path} is a link or a device; put the file itself there, or remove it."
                )
    except OSError as error:
        raise MatineeError(f"{path} cannot be read ({error}); restore it.") from error
    return path


def check_plain_files(folder: Path) -> None:
    """Reject a folder that holds links or devices at any depth, before anything is written to it.

    Raises:
        MatineeError: At the first one.
    """
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            plain_file(Path(parent), name)


def most_unpacked(packed: int) -> int:
    """Return the most bytes that a compressed file may unpack to; real data unpack to 3 to 30 times.

    Args:
        packed: Size of the file, in bytes.
    """
    return (1 << 26) + 100 * packed


def checkpoint_path(run_folder: str | Path, name: str) -> Path:
    """Return the path of a run's ``best`` or ``last`` checkpoint."""
    return Path(run_folder) / "checkpoints" / f"{name}.ckpt"
