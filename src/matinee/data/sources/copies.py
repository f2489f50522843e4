"""Fast columnar copies of what was read, which are never those of other files."""

from __future__ import annotations

import hashlib
import json
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

_COPY_FORMAT = 3  # raise it whenever what is stored, or how it is computed, changes


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
    with ThreadPoolExecutor(1) as pool:
        hashed = pool.submit(_hashes, sources)
        if copy.is_file():
            try:
                found, interactions = _load_copy(copy)
                if found == hashed.result():
                    return interactions
            except (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException):
                pass  # damaged
        before = [_state(path) for path in sources]
        interactions = build()
        key = hashed.result()
    if before != [_state(path) for path in sources]:
        raise MatineeError(f"{sources[0]} changed while it was read; start again.")
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        _save_copy(copy, key, interactions)
    except OSError:
        pass  # a read-only folder or a full disk costs time at the next load, and nothing else
    return interactions


def _hashes(sources: Sequence[Path]) -> str:
    hashes = []
    for path in sources:
        try:
            with path.open("rb") as file:
                hashes.append([path.name, hashlib.file_digest(file, "sha256").hexdigest()])
        except OSError as error:
            raise MatineeError(f"{path} cannot be read ({error}).") from error
    return json.dumps([_COPY_FORMAT, hashes])


def _state(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


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


def _load_copy(copy: Path) -> tuple[str, Interactions]:
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
    interactions = Interactions(
        **{name: columns.get(name) for name in ARRAYS},  # type: ignore[arg-type]
        users=_unpack_frame(metadata["users"]),
        items=_unpack_frame(metadata["items"]),
        rating_scale=None if scale is None else (scale[0], scale[1]),
        **facts,
    )
    return metadata["key"].decode(), interactions


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
