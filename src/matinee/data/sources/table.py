"""One's own interactions, from a CSV, TSV or Parquet file."""

from __future__ import annotations

import csv
import difflib
import gzip
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from matinee.data.interactions import DuplicatePolicy, Interactions
from matinee.data.source_location import Origin
from matinee.data.sources.fetch import cache_dir, with_copy
from matinee.errors import MatineeError

_DELIMITERS = {".csv": ",", ".csv.gz": ",", ".tsv": "\t", ".tsv.gz": "\t"}
_TEXT = pa.large_string()
_NUMBERS = (pa.int64(), pa.float64())
_IDS = pa.dictionary(pa.int32(), pa.string())
_TIMES = (*_NUMBERS, pa.timestamp("us"), pa.timestamp("us", "UTC"))


def load(
    path: str | Path,
    user: str,
    item: str,
    rating: str | None = None,
    timestamp: str | None = None,
    title: str | None = None,
    rating_scale: Sequence[float] | None = None,
    duplicates: DuplicatePolicy = "error",
    data_dir: str | Path | None = None,
) -> Interactions:
    """Read interactions from a table with a header, and keep a fast copy of them.

    Args:
        path: A .csv, .tsv (also with .gz) or .parquet file in UTF-8.
        user: Column of the user ids, numbers or text.
        item: Column of the item ids, numbers or text.
        rating: Column of the ratings, numbers; None where there are none.
        timestamp: Column of the times, either whole seconds or ISO 8601 dates and times (UTC
            unless they say otherwise); None keeps the order of the rows.
        title: Column of the items' titles; an item's first row decides.
        rating_scale: Lowest and highest possible rating; None takes them from the data.
        duplicates: What to do with repeated (user, item) pairs, see `Interactions.from_table`.
        data_dir: Folder of the fast copies; None is `cache_dir()`.

    Raises:
        MatineeError: If the file or a column is missing, the file is empty or of another kind, or
            a row is malformed or invalid; it names the file, line and column.
    """
    path = Path(path).expanduser().absolute()
    names = {"user": user, "item": item, "rating": rating, "timestamp": timestamp, "title": title}
    columns = {canonical: name for canonical, name in names.items() if name is not None}
    roles = [name for canonical, name in columns.items() if canonical != "title"]
    for name in roles:
        if roles.count(name) > 1:
            raise MatineeError(
                f"the column {name!r} is named twice; user, item, rating and timestamp differ."
            )
    if path.is_dir():
        raise MatineeError(f"{path} is a folder; name the file in it.")
    if not path.is_file():
        raise MatineeError(f"{path} does not exist; set path to a .csv, .tsv or .parquet file.")
    if path.stat().st_size == 0:
        raise MatineeError(f"{path} is empty; give it a header and at least one row.")

    def build() -> Interactions:
        table, origin = _read(path, columns)
        return Interactions.from_table(
            table,
            items=_titles(table) if title else None,
            rating_scale=rating_scale,
            duplicates=duplicates,
            origin=origin,
        )

    options = json.dumps([str(path), columns, str(rating_scale), duplicates])
    name = f"{path.name}.{hashlib.sha256(options.encode()).hexdigest()[:16]}.arrow"
    folder = Path(data_dir).expanduser() if data_dir else cache_dir()
    return with_copy(folder / "tables" / name, [path], build)


def _read(path: Path, columns: Mapping[str, str]) -> tuple[pa.Table, Origin]:
    names = list(dict.fromkeys(columns.values()))
    if path.name.endswith(".parquet"):
        try:
            require_columns(path, names, parquet.read_schema(path).names)
            table = parquet.read_table(path, columns=names)
        except (pa.ArrowException, OSError) as error:
            raise MatineeError(f"{path} is no readable Parquet file ({error}).") from error
        origin = Origin(str(path), None, columns)
    else:
        suffix = next((s for s in _DELIMITERS if path.name.endswith(s)), None)
        if suffix is None:
            known = ", ".join([*_DELIMITERS, ".parquet"])
            raise MatineeError(f"{path} is of unknown kind; its name must end in one of {known}.")
        delimiter = _DELIMITERS[suffix]
        table = _read_text(path, columns, delimiter)
        origin = Origin(str(path), line_of(path, delimiter), columns)
    table = pa.table([table[name] for name in columns.values()], names=list(columns))
    if "timestamp" in columns:
        times = _narrowed(table["timestamp"], _TIMES)
        _refuse_text(times, origin)
        table = table.set_column(table.column_names.index("timestamp"), "timestamp", times)
    if "title" in columns:
        titles = table["title"].cast(_TEXT)
        table = table.set_column(table.column_names.index("title"), "title", titles)
    return table, origin


def _read_text(path: Path, columns: Mapping[str, str], delimiter: str) -> pa.Table:
    """Read ids and times as integers where all are, and otherwise as what their text allows."""
    try:
        with _open(path) as file:
            header = next(csv.reader(file, delimiter=delimiter), [])
    except (UnicodeDecodeError, OSError, EOFError, csv.Error) as error:
        raise MatineeError(f"{path} is no readable UTF-8 text ({error}); convert it.") from error
    require_columns(path, list(columns.values()), header)
    kinds = {"user": _IDS, "item": _IDS, "rating": pa.float32(), "title": _TEXT}
    types = {name: kinds.get(canonical, pa.int64()) for canonical, name in columns.items()}
    try:
        table = _arrow_read(path, types, delimiter, None, 0)
    except pa.ArrowInvalid:
        types = {name: kinds.get(canonical, _TEXT) for canonical, name in columns.items()}
        types |= {columns["user"]: _TEXT, columns["item"]: _TEXT}
        table = read_delimited(path, types, delimiter=delimiter)
    for name in (columns["user"], columns["item"]):
        table = table.set_column(table.column_names.index(name), name, _ids(table[name]))
    return table


def _ids(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Read ids as integers if every one is written as an integer is, and leave them text otherwise.

    So 007 and 7 stay two ids, and no id is rounded. Whole floats (7.0), as tables with gaps
    write integers, count as integers where all ids are written so.
    """
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    column = column.unify_dictionaries()
    texts = column.chunk(0).dictionary if column.num_chunks else pa.array([], pa.string())
    texts = pc.if_else(pc.equal(texts, ""), pa.scalar(None, texts.type), texts)
    whole = texts
    if pc.all(pc.match_substring_regex(texts, r"^-?[0-9]+\.0$")).as_py():
        whole = pc.replace_substring_regex(texts, r"\.0$", "")
    values = texts
    numbers = _cast(whole, pa.int64())
    floats = _cast(texts, pa.float64())
    if numbers is not None and pc.all(pc.equal(numbers.cast(whole.type), whole)).as_py():
        values = numbers
    elif floats is not None and pc.any(pc.not_equal(floats, pc.floor(floats))).as_py():
        values = floats  # a fraction among numbers is refused, with its line, as no id
    return pa.chunked_array([values.take(chunk.indices) for chunk in column.chunks], values.type)


def _cast(column: pa.Array, kind: pa.DataType) -> pa.Array | None:
    try:
        return column.cast(kind)
    except pa.ArrowInvalid:
        return None


def _narrowed(column: pa.ChunkedArray, kinds: Sequence[pa.DataType]) -> pa.ChunkedArray:
    """Cast text to the first type that takes all of it; text it stays where none does."""
    if not (pa.types.is_large_string(column.type) or pa.types.is_string(column.type)):
        return column
    column = pc.if_else(pc.equal(column, ""), pa.scalar(None, column.type), column)
    for kind in kinds:
        try:
            return column.cast(kind)
        except pa.ArrowInvalid:
            continue
    return column


def _refuse_text(times: pa.ChunkedArray, origin: Origin) -> None:
    if not (pa.types.is_large_string(times.type) or pa.types.is_string(times.type)):
        return
    for row, value in enumerate(times.to_pylist()):
        if value is not None and not any(_readable(value, kind) for kind in _TIMES):
            problem = f"{value!r} is no time; write whole seconds or ISO 8601 (2001-02-03T04:05)"
            raise origin.fault("timestamp", row, problem)
    raise MatineeError(
        f"{origin.source}, column {origin.column('timestamp')}: times are written in several ways; "
        "write all as seconds, or all as ISO 8601 with or without a zone."
    )


def _titles(table: pa.Table) -> pd.DataFrame:
    first = table.group_by("item", use_threads=False).aggregate([("title", "first")])
    titles: pd.DataFrame = first.rename_columns(["raw_id", "title"]).to_pandas()
    return titles.dropna(subset="raw_id")


def require_columns(path: Path, wanted: Sequence[str], present: Sequence[str]) -> None:
    """Check that a file has some columns.

    Raises:
        MatineeError: If one is there twice or is missing; it names the nearest column and lists all of them.
    """
    for name in wanted:
        if list(present).count(name) > 1:
            raise MatineeError(f"{path} has several columns {name!r}; give them different names.")
        if name not in present:
            near = difflib.get_close_matches(name, present, n=1, cutoff=0.0)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise MatineeError(
                f"{path} has no column {name!r}; {hint}Its columns are: {', '.join(present)}."
            )


def read_delimited(
    path: Path,
    types: Mapping[str, pa.DataType],
    *,
    delimiter: str,
    fields: Sequence[str] | None = None,
    skip: int = 0,
) -> pa.Table:
    """Read some columns of a delimited text file, in the order and types of `types`.

    Args:
        path: The file, UTF-8, perhaps compressed with gzip.
        types: The columns to read, and their Arrow types.
        delimiter: The one character between fields.
        fields: Names of all fields of a row; None reads them from the file's first line.
        skip: Lines to skip at the start.

    Raises:
        MatineeError: If a row has too few or too many fields or one that cannot be read; it names
            the line, the column and the value.
    """
    try:
        return _arrow_read(path, types, delimiter, fields, skip)
    except (pa.ArrowInvalid, KeyError) as error:
        raise _explain(path, types, delimiter, fields, skip, error) from error


def _arrow_read(
    path: Path,
    types: Mapping[str, pa.DataType],
    delimiter: str,
    fields: Sequence[str] | None,
    skip: int,
) -> pa.Table:
    return arrow_csv.read_csv(
        path,
        arrow_csv.ReadOptions(column_names=fields, skip_rows=skip),
        arrow_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        arrow_csv.ConvertOptions(column_types=dict(types), include_columns=list(types)),
    )


def _explain(
    path: Path,
    types: Mapping[str, pa.DataType],
    delimiter: str,
    fields: Sequence[str] | None,
    skip: int,
    error: Exception,
) -> MatineeError:
    """Find the row that a failed read stumbled over, slowly."""
    try:
        records = _records(path, delimiter, skip)
        names = fields or next(records, (0, []))[1]
        for line, values in records:
            if len(values) != len(names):
                return MatineeError(
                    f"{path}, line {line}: the row has {len(values)} instead of {len(names)} "
                    f"fields between {delimiter!r}; correct it."
                )
            for name, value in zip(names, values, strict=True):
                if name in types and value and not _readable(value, types[name]):
                    return MatineeError(
                        f"{path}, line {line}, column {name!r}: {value!r} is not a number of type "
                        f"{types[name]}; correct it."
                    )
    except UnicodeDecodeError:
        return MatineeError(f"{path} is not UTF-8 text; convert it.")
    except (OSError, EOFError, csv.Error) as cause:
        error = cause
    return MatineeError(f"{path} cannot be read ({error}); correct it.")


def _readable(value: str, kind: pa.DataType) -> bool:
    try:
        pa.array([value]).cast(kind)
    except pa.ArrowInvalid:
        return False
    return True


def _open(path: Path) -> Any:
    opener: Callable[..., Any] = gzip.open if path.suffix == ".gz" else open
    return opener(path, "rt", encoding="utf-8-sig", newline="")


def _records(path: Path, delimiter: str, skip: int) -> Iterator[tuple[int, list[str]]]:
    """Yield the line on which each record begins, and its fields; blank lines are no records."""
    with _open(path) as file:
        for _ in range(skip):
            next(file)
        reader = csv.reader(file, delimiter=delimiter)
        line = skip + 1
        for values in reader:
            if values:
                yield line, values
            line = skip + reader.line_num + 1


def line_of(path: Path, delimiter: str, skip: int = 0) -> Callable[[int], int]:
    """Return the function from a row after the header (from 0) to the line it begins on."""

    def find(row: int) -> int:
        for index, (line, _) in enumerate(_records(path, delimiter, skip)):
            if index == row + 1:
                return line
        return row + skip + 2

    return find
