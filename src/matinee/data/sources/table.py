"""One's own interactions, from files of text or Parquet."""

from __future__ import annotations

import glob
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any, Literal

import numpy as np

from matinee.data.columns.ids import IdType
from matinee.data.columns.rows import BadRowPolicy, RowReader, Rules
from matinee.data.columns.time_cells import TimeUnit
from matinee.data.duplicates import DuplicatePolicy, check_policy
from matinee.data.frames import check_names
from matinee.data.interactions import Interactions
from matinee.data.sources.copies import with_copy
from matinee.data.sources.delimited import read_delimited
from matinee.data.sources.dialects import PARQUET, Dialect, Quoting, text_suffix
from matinee.data.sources.fetch import cache_dir
from matinee.data.sources.parquet_files import count_rows, read_parquet
from matinee.errors import MatineeError


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
    *,
    id_type: IdType = "auto",
    time_unit: TimeUnit | Literal["auto"] = "auto",
    bad_rows: BadRowPolicy = "error",
    delimiter: str | None = None,
    encoding: str = "utf-8",
    header: bool | None = None,
    column_names: Sequence[str] | None = None,
    quoting: Quoting | None = None,
    decimal: str = ".",
    comment: str | None = None,
    part: str | None = None,
    validation_path: str | Path | None = None,
    test_path: str | Path | None = None,
) -> Interactions:
    """Read interactions from files, and keep a fast copy of them.

    Args:
        path: A text file (.csv, .tsv, .tab or RecBole's .inter, perhaps with .gz, .bz2, .zst or .zip behind;
            any other ending with `delimiter`), a .parquet file, or a folder or glob pattern of files of one
            kind, which are read in the order of their names (numbers in them by value).
        user: Column of the user ids; `matinee.data.columns` says what ids, ratings and times may be.
        item: Column of the item ids.
        rating: Column of the ratings; None where there are none.
        timestamp: Column of the times; None keeps the order of the rows.
        title: Column of the items' titles; an item's first row decides.
        rating_scale: Lowest and highest possible rating; None takes them from the data.
        duplicates: What to do with repeated (user, item) pairs, see `Interactions.from_table`.
        data_dir: Folder of the fast copies; None is `cache_dir()`.
        id_type: Whether ids are `integer`, `text`, or what is written (`auto`).
        time_unit: What times that are numbers count: `s`, `ms`, `us` or `ns`; `auto` tells it by their size.
        bad_rows: Whether a bad row is an `error`, or left out and counted (`skip`).
        delimiter: What separates fields; of this and the next options see
            `matinee.data.sources.dialects.Dialect`.
        encoding: The text's encoding, as Python names it.
        header: Whether the first line names the columns; None: it does unless `column_names` are given.
        column_names: Names of all columns in order.
        quoting: `none`, `quotes` or `multiline`.
        decimal: The decimal sign of numbers, "." or ",".
        comment: A character; lines that begin with it are no rows.
        part: Column that names each row's part, train, validation or test, for `split=given`.
        validation_path: Files of the validation rows, if `path` has those of train, for `split=given`.
        test_path: Files of the test rows, likewise.

    Raises:
        MatineeError: If a file or a column is missing, a file is empty or of another kind, an option has no
            such value, or a row is bad; it names the file, line and column.
    """
    names = {
        "user": user,
        "item": item,
        "rating": rating,
        "timestamp": timestamp,
        "part": part,
        "title": title,
    }
    columns = {canonical: name for canonical, name in names.items() if name is not None}
    check_names(columns)
    check_policy(duplicates)
    rules = Rules(id_type, time_unit, rating_scale, decimal, bad_rows)
    dialect = Dialect(delimiter, encoding, header, column_names, quoting, comment)
    if part is not None and (validation_path or test_path):
        raise MatineeError(
            "part and validation_path or test_path exclude each other; give one of them."
        )
    paths = [(file, 0) for file in find_files(path)]
    for number, more in ((1, validation_path), (2, test_path)):
        if more is not None:
            paths += [(file, number) for file in find_files(more)]
    has_parts = bool(validation_path or test_path)
    if has_parts:
        _refuse_shared_files(paths)

    def build() -> Interactions:
        return _build(paths, columns, rules, dialect, duplicates, has_parts)

    files = [file for file, _ in paths]
    options = [
        [[str(file), number] for file, number in paths],
        columns,
        astuple(rules),
        astuple(dialect),
    ]
    digest = hashlib.sha256(json.dumps([*options, duplicates, has_parts], default=list).encode())
    folder = Path(data_dir).expanduser() if data_dir else cache_dir()
    name = f"{files[0].name}.{digest.hexdigest()[:16]}.arrow"
    return with_copy(folder / "tables" / name, files, build)


def _refuse_shared_files(paths: Sequence[tuple[Path, int]]) -> None:
    names, part_of = ("path", "validation_path", "test_path"), dict[Path, int]()
    for file, part in paths:
        other = part_of.setdefault(file.resolve(), part)
        if other != part:
            raise MatineeError(
                f"{file} belongs to {names[other]} and to {names[part]}; name each file in one of them."
            )


def _build(
    paths: Sequence[tuple[Path, int]],
    columns: dict[str, str],
    rules: Rules,
    dialect: Dialect,
    duplicates: DuplicatePolicy,
    has_parts: bool,
) -> Interactions:
    files = [file for file, _ in paths]
    whole = str(files[0]) if len(files) == 1 else f"{files[0].parent} ({len(files)} files)"
    reader = RowReader(
        columns, rules, whole, capacity=count_rows([file for file in files if _is_parquet(file)])
    )
    ends = []
    for file in files:
        if _is_parquet(file):
            read_parquet(file, reader)
        else:
            read_delimited(file, dialect, reader)
        ends.append(reader.num_rows)
    reader.report()
    parts = None
    if has_parts:
        sizes = np.diff([0, *ends])
        parts = np.repeat(np.array([part for _, part in paths], np.int8), sizes)
    return Interactions.from_rows(reader, duplicates=duplicates, parts=parts)


def find_files(path: str | Path) -> list[Path]:
    """List the files that a path, a folder or a glob pattern names, in the order of their names.

    Numbers in names count by value, so that part-10 comes after part-9. Files that begin with a dot or an
    underscore, such as _SUCCESS, are left out.

    Raises:
        MatineeError: If there are none, one is empty, or they are of several kinds.
    """
    if not str(path).strip():
        raise MatineeError("path is empty; set it to a file, a folder of files or a glob pattern.")
    path = Path(path).expanduser().absolute()
    if path.is_dir():
        found = [file for file in path.iterdir() if not file.name.startswith((".", "_"))]
        if folders := [file.name for file in found if file.is_dir()]:
            raise MatineeError(
                f"{path} holds the folder {folders[0]}; set path to a glob pattern of the files, such as "
                f"{path}/**/*.parquet."
            )
    elif path.exists():
        if not path.is_file():
            raise MatineeError(f"{path} is a device or a pipe; set path to a file.")
        found = [path]
    else:
        matches = [Path(match) for match in glob.glob(str(path), recursive=True)]
        found = [
            file for file in matches if file.is_file() and not file.name.startswith((".", "_"))
        ]
    if not found:
        raise MatineeError(
            f"{path} {'holds no files' if path.is_dir() else 'does not exist'}; set path to a text or "
            "Parquet file, a folder of them or a glob pattern."
        )
    found.sort(key=_natural)
    kinds = {text_suffix(file): file for file in found}
    if len(kinds) > 1:
        one, other = list(kinds.values())[:2]
        raise MatineeError(
            f"{path} holds files of several kinds, {one.name} and {other.name}; set path to a glob "
            "pattern of those to read."
        )
    for file in found:
        if file.stat().st_size == 0:
            raise MatineeError(f"{file} is empty; give it a header and at least one row.")
    return found


def _natural(path: Path) -> list[Any]:
    return [int(text) if text.isdecimal() else text for text in re.split("([0-9]+)", str(path))]


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() in PARQUET
