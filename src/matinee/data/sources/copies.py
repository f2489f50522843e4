"""Fast columnar copies of what was read, which are never those of other files."""

from __future__ import annotations

import hashlib
import json
import os
import time
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from matinee.data.interactions import ARRAYS, Interactions
from matinee.errors import MatineeError
from matinee.files import part_file

_COPY_FORMAT = 4  # raise it whenever what is stored, or how it is computed, changes


def with_copy(
    copy: Path, sources: Sequence[Path], build: Callable[[], Interactions]
) -> Interactions:
    """Load the columnar copy of some interactions, or build them and leave a copy.

    The copy is an Arrow file with the SHA-256 of every source file and a checksum of every column: a source
    with another content is read again, whatever its size and times; a damaged copy is built anew, and where
    no copy can be written none is.

    Args:
        copy: Where the copy is, named after whatever options decide on its content.
        sources: The files that `build` reads.
        build: Reads the sources.

    Raises:
        MatineeError: If a source cannot be read, or changes while it is read.
    """
    try:
        if _is_of(_stored_key(copy), sources):
            return _load_copy(copy)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException):
        pass  # absent or damaged
    began, states = time.time_ns(), [_state(path) for path in sources]
    with ThreadPoolExecutor(1) as pool:
        hashes = pool.submit(lambda: [_sha256(path) for path in sources])
        interactions = build()
    for path, state in zip(sources, states, strict=True):
        if state != _state(path):
            raise MatineeError(f"{path} changed while it was read; start again.")
    files = [
        {
            "name": path.name,
            "sha256": sha256,
            "state": state if _shows_changes(path, began) else None,
        }
        for path, sha256, state in zip(sources, hashes.result(), states, strict=True)
    ]
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        _save_copy(copy, json.dumps([_COPY_FORMAT, files]), interactions)
    except OSError:
        pass  # a read-only folder or a full disk costs time at the next load, and nothing else
    return interactions


def _is_of(key: str, sources: Sequence[Path]) -> bool:
    """Say whether the sources are those that a copy was made of."""
    version, files = json.loads(key)
    return version == _COPY_FORMAT and all(
        file["name"] == path.name
        and (file["state"] == _state(path) or file["sha256"] == _sha256(path))
        for file, path in zip(files, sources, strict=True)
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _state(path: Path) -> list[int]:
    """Return what changes with a file's content: nobody can set the time of its last change (ctime)."""
    try:
        status = path.stat()
    except OSError as error:
        raise MatineeError(f"{path} cannot be read ({error}).") from error
    return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _shows_changes(path: Path, since: int) -> bool:
    """Say whether any change of a file after a moment (ns) changes its state for sure.

    It may not if the file had changed just before, since the clocks of file systems tick; in images, which
    are mounted with made-up times; and where the last of the times is that of creation.
    """
    if os.name == "nt" or os.statvfs(path).f_flag & os.ST_RDONLY:
        return False
    changed = path.stat().st_ctime_ns
    tick = 2 * 10**9 if changed % 10**9 == 0 else 10**8
    return changed + tick < since


def _stored_key(copy: Path) -> str:
    with pa.memory_map(str(copy)) as file:
        key: bytes = pa.ipc.open_file(file).schema.metadata[b"key"]
        return key.decode()


def _save_copy(copy: Path, key: str, interactions: Interactions) -> None:
    arrays = {name: getattr(interactions, name) for name in ARRAYS}
    columns = {name: array for name, array in arrays.items() if array is not None}
    facts = {
        "rating_scale": interactions.rating_scale,
        "duplicates_resolved": interactions.duplicates_resolved,
        "source": dict(interactions.source),
        "time_unit": interactions.time_unit,
    }
    metadata = {
        "key": key.encode(),
        "facts": json.dumps(facts).encode(),
        "users": _pack(interactions.users),
        "items": _pack(interactions.items),
    }
    metadata["checksum"] = _checksum([*metadata.values(), *columns.values()])
    table = pa.table(columns).replace_schema_metadata(metadata)
    with part_file(copy) as part, pa.ipc.new_file(str(part), table.schema) as writer:
        writer.write_table(table)


def _load_copy(copy: Path) -> Interactions:
    with pa.memory_map(str(copy)) as file:
        table = pa.ipc.open_file(file).read_all()
        # Copied, because mapped memory is read-only, which tensors on top of it must not be.
        columns = {name: table[name].to_numpy().copy() for name in table.column_names}
    metadata = {name.decode(): value for name, value in table.schema.metadata.items()}
    checksum = metadata.pop("checksum")
    if checksum != _checksum([*metadata.values(), *columns.values()]):
        raise ValueError("the copy is damaged")
    facts = json.loads(metadata["facts"])
    scale = facts.pop("rating_scale")
    return Interactions(
        **{name: columns.get(name) for name in ARRAYS},  # type: ignore[arg-type]
        users=_unpack_frame(metadata["users"]),
        items=_unpack_frame(metadata["items"]),
        rating_scale=None if scale is None else (scale[0], scale[1]),
        **facts,
    )


def _checksum(parts: Sequence[Any]) -> bytes:
    checksum = 0
    for part in parts:
        checksum = zlib.crc32(part, checksum)
    return str(checksum).encode()


def _pack(frame: pd.DataFrame) -> bytes:
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pandas(frame)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _unpack_frame(packed: bytes) -> pd.DataFrame:
    frame: pd.DataFrame = pa.ipc.open_stream(packed).read_pandas()
    return frame
