"""Dialects: how a text file separates, quotes and names its fields."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from matinee.data.frames import require_columns
from matinee.data.sources.quoting import first_record, split_record
from matinee.data.sources.streams import COMPRESSIONS, uncompressed_name
from matinee.errors import MatineeError

Quoting = Literal["none", "quotes", "multiline"]

HEADER_AGAIN = (
    "the row repeats the header; remove it, or set header=true if the file has a header of its own"
)
DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".inter": "\t"}
PARQUET = (".parquet", ".pq")

_DELIMITER_WORDS = {
    "comma": ",",
    "tab": "\t",
    "\\t": "\t",
    "semicolon": ";",
    "pipe": "|",
    "space": " ",
}
_OTHERS = (",", "\t", ";", "|")  # tried where a file's own delimiter does not give the columns


@dataclass(frozen=True)
class Dialect:
    """How a text file is written.

    Attributes:
        delimiter: What separates fields: a text, or ``tab``, ``comma``, ``semicolon``, ``pipe`` or
            ``space``. None takes what the file's ending says, or that one of comma, tab, semicolon and
            pipe which gives the columns that are asked for.
        encoding: The encoding, as Python names it.
        header: Whether the first line names the columns; None: it does unless ``column_names`` are given.
        column_names: Names of all columns; they replace those of a header.
        quoting: ``none`` takes quotation marks as text; ``quotes`` lets a field between quotation marks hold
            delimiters and line breaks, but refuses one that seems to swallow rows, which ``multiline``
            allows. None is ``none`` where tabs separate fields, and ``quotes`` elsewhere.
        comment: A character; lines that begin with it are no rows. None: there are none.
    """

    delimiter: str | None = None
    encoding: str = "utf-8"
    header: bool | None = None
    column_names: Sequence[str] | None = None
    quoting: Quoting | None = None
    comment: str | None = None

    def __post_init__(self) -> None:
        if self.quoting not in (None, *get_args(Quoting)):
            raise MatineeError(
                f"quoting={self.quoting!r} is unknown; choose one of {', '.join(get_args(Quoting))}."
            )
        for option, value in (("delimiter", self.delimiter), ("comment", self.comment)):
            if value is not None and (not value or '"' in value or set(value) & {"\n", "\r"}):
                raise MatineeError(
                    f"{option}={value!r} cannot be used; give a text without quotes or line breaks."
                )
        if self.comment is not None and len(self.comment.encode()) != 1:
            raise MatineeError(
                f"comment={self.comment!r} must be one ASCII character, such as '#'."
            )
        if self.header is False and not self.column_names:
            raise MatineeError(
                "header=false needs column_names, the names of all columns in order."
            )


@dataclass(frozen=True)
class Layout:
    """A dialect that is settled for one file.

    Attributes:
        delimiter: What separates fields.
        quoting: How quotation marks are taken.
        num_fields: Number of fields of a row.
        places: The place (from 0) of each column that is read.
        header_lines: Lines to skip at the start.
        header: The header, or what it would be; no row may repeat it.
    """

    delimiter: str
    quoting: Quoting
    num_fields: int
    places: dict[str, int]
    header_lines: int
    header: bytes


def delimiter_of(option: str) -> str:
    """Return the text that an option stands for, such as a tab for ``tab``."""
    return _DELIMITER_WORDS.get(option, option)


def text_suffix(path: Path) -> str:
    """Return the ending that tells a file's kind, such as ``.csv`` of ``log.csv.gz``."""
    return Path(uncompressed_name(path)).suffix.lower()


def settle(path: Path, dialect: Dialect, columns: Mapping[str, str], start: bytes) -> Layout:
    """Find out what a dialect leaves open, from a file's name and its first lines.

    Args:
        path: The file.
        dialect: What is known of it.
        columns: The file's names of the columns to read, by their canonical names.
        start: The first lines.

    Raises:
        MatineeError: If the kind of file is unknown or a column is missing.
    """
    suffix = text_suffix(path)
    if dialect.delimiter is None and suffix not in DELIMITERS:
        known = ", ".join([*DELIMITERS, *PARQUET])
        raise MatineeError(
            f"{path} is of unknown kind; its name must end in one of {known}, text also in "
            f"{', '.join(COMPRESSIONS)}, or set delimiter."
        )
    given = dialect.delimiter if dialect.delimiter is not None else DELIMITERS[suffix]
    given = delimiter_of(given)
    others = () if dialect.delimiter is not None else _OTHERS
    number, line = first_line(start, dialect.comment)
    if line is None:
        raise MatineeError(f"{path} is empty; give it a header and at least one row.")
    for delimiter in dict.fromkeys([given, *others]):
        quoting = dialect.quoting or ("none" if delimiter == "\t" else "quotes")
        record = line
        if quoting != "none":
            record = first_record(start, number - 1, delimiter.encode())
        fields = split_record(record, delimiter.encode(), quoting != "none")
        names = _names(path, dialect, fields)
        found = {canonical: _find(name, names) for canonical, name in columns.items()}
        places = {canonical: place for canonical, place in found.items() if place is not None}
        if len(places) == len(columns) and (not others or len(names) == len(fields)):
            has_header = dialect.header if dialect.header is not None else not dialect.column_names
            num_lines = number + record.count(b"\n") if has_header else 0
            require_columns(path, [names[place] for place in places.values()], names)
            header = record if has_header else delimiter.join(names).encode()
            return Layout(delimiter, quoting, len(names), places, num_lines, header)
    quotes = (dialect.quoting or ("none" if given == "\t" else "quotes")) != "none"
    fields = split_record(line, given.encode(), quotes)
    names = _names(path, dialect, fields)
    advice = "" if dialect.column_names else "; if it has no header, set column_names"
    if not quotes and any(name.startswith('"') for name in names):
        advice = "; if quotation marks are not part of the names, set quoting=quotes"
    require_columns(path, list(columns.values()), names, advice)
    raise MatineeError(
        f"{path}, line {number}: the row has {len(fields)} fields between {given!r}, and column_names has "
        f"{len(names)} names; correct delimiter or column_names."
    )


def first_line(start: bytes, comment: str | None) -> tuple[int, bytes | None]:
    """Return the number and the text of the first line that is neither blank nor a comment."""
    for number, line in enumerate(start.split(b"\n"), start=1):
        if line.strip() and not (comment and line.startswith(comment.encode())):
            return number, line
    return 0, None


def _names(path: Path, dialect: Dialect, fields: Sequence[bytes]) -> list[str]:
    if dialect.column_names:
        return [str(name) for name in dialect.column_names]
    try:
        return [field.decode() for field in fields]
    except UnicodeDecodeError as error:
        raise MatineeError(f"{path}, line 1: the header is not UTF-8; set encoding.") from error


def _find(name: str, names: Sequence[str]) -> int | None:
    """Find a column by its name, or by the part before the type of a header such as user_id:token."""
    if name in names:
        return names.index(name)
    untyped = [re.sub(r":(token|float|token_seq|float_seq)$", "", other) for other in names]
    return untyped.index(name) if untyped.count(name) == 1 else None
