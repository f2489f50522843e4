"""Parquet files, read row group by row group."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from matinee.data.columns.rows import RowReader
from matinee.data.columns.texts import is_text
from matinee.data.frames import require_columns
from matinee.data.source_location import Stretch
from matinee.errors import MatineeError
from matinee.files import most_unpacked

_ROWS_AT_ONCE = 1 << 19


def count_rows(paths: list[Path]) -> int:
    """Return the number of rows of some files, from their footers.

    Raises:
        MatineeError: If one is no Parquet file, or is too small for its rows.
    """
    total = 0
    for path in paths:
        with _told(path):
            rows = parquet.read_metadata(path).num_rows
        if rows > most_unpacked(path.stat().st_size):
            raise MatineeError(f"{path} claims {rows:,} rows, more than its size allows.")
        total += rows
    return total


def read_parquet(path: Path, reader: RowReader) -> None:
    """Read a Parquet file into a collector of rows, some hundred thousand rows at once.

    Args:
        path: The file.
        reader: Takes the rows; it knows which columns are wanted.

    Raises:
        MatineeError: If the file cannot be read, or lacks a column.
    """
    with _told(path):
        schema = parquet.read_schema(path)
    wanted = list(reader.names.values())
    require_columns(path, wanted, schema.names)
    texts = [
        n
        for c, n in reader.names.items()
        if c in ("user", "item", "part") and is_text(schema.field(n).type)
    ]
    with (
        _told(path),
        parquet.ParquetFile(
            path, read_dictionary=texts, pre_buffer=False, buffer_size=1 << 20
        ) as file,
    ):
        first = 1
        batches = file.iter_batches(
            _ROWS_AT_ONCE, columns=list(dict.fromkeys(wanted)), use_threads=True
        )
        for batch in batches:
            places = {
                name: batch.schema.get_field_index(column) for name, column in reader.names.items()
            }
            columns = {name: batch.column(place) for name, place in places.items()}
            stretch = Stretch(str(path), "row", range(first, first + batch.num_rows))
            reader.append(reader.parse(columns), stretch)
            first += batch.num_rows


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise MatineeError(f"{path} is no readable Parquet file ({error}).") from error
