"""Text files with delimiters, read block by block in several threads."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv as arrow_csv

from matinee.data.columns.rows import Parsed, RowReader
from matinee.data.columns.texts import MISSING
from matinee.data.source_location import Stretch
from matinee.data.sources.dialects import HEADER_AGAIN, Dialect, Layout, first_line, settle
from matinee.data.sources.quoting import SEPARATOR, check_quotes
from matinee.data.sources.streams import is_clean, line_blocks, line_problem
from matinee.errors import MatineeError

_IDS = pa.dictionary(pa.int32(), pa.string())
_NEWLINE = 10
_THREADS = min(4, os.cpu_count() or 1)


class _Block(NamedTuple):
    """Whole rows of a file."""

    data: bytes
    first_line: int
    num_lines: int
    is_start: (
        NDArray[np.bool_] | None
    )  # whether a row starts in each line; None: in all but blank ones
    refused: list[tuple[int, str]]  # lines from 0, and why

    def lines(self, num_rows: int) -> range | NDArray[np.int64]:
        """Return the line numbers of the block's rows."""
        if self.is_start is None and num_rows == self.num_lines:
            return range(self.first_line, self.first_line + num_rows)
        is_start = self.is_start
        if is_start is None:
            ends = np.flatnonzero(np.frombuffer(self.data, np.uint8) == _NEWLINE)
            is_start = np.diff(ends, prepend=-1) > 1
        lines = np.flatnonzero(is_start)
        if len(lines) != num_rows:
            raise AssertionError(
                f"{num_rows} rows are read of {len(lines)} at line {self.first_line}"
            )
        return lines + self.first_line


class _Read(NamedTuple):
    """What a block holds, typed."""

    parsed: Parsed
    lines: range | NDArray[np.int64]
    bad: list[tuple[int, str]]  # line numbers, and why


def read_delimited(path: Path, dialect: Dialect, reader: RowReader) -> None:
    """Read a text file into a collector of rows.

    Args:
        path: The file, perhaps compressed, see `matinee.data.sources.streams`.
        dialect: How it is written.
        reader: Takes the rows; it knows which columns are wanted.

    Raises:
        MatineeError: If the file cannot be read, or lacks a column.
    """
    blocks = line_blocks(path, dialect.encoding)
    first = next(blocks, b"")
    while first_line(first, dialect.comment)[1] is None and (more := next(blocks, b"")):
        first += more
    layout = settle(path, dialect, reader.names, first)
    file = _File(path, dialect, layout, reader)
    with ThreadPoolExecutor(_THREADS) as pool:
        waiting: deque[Future[_Read]] = deque()
        try:
            for block in file.cut(first, blocks):
                waiting.append(pool.submit(file.read, block))
                if len(waiting) > _THREADS:
                    file.append(waiting.popleft().result())
            while waiting:
                file.append(waiting.popleft().result())
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


@dataclass
class _File:
    path: Path
    dialect: Dialect
    layout: Layout
    reader: RowReader

    def __post_init__(self) -> None:
        self._times_are_quick = True

    def cut(self, first: bytes, blocks: Iterator[bytes]) -> Iterator[_Block]:
        """Cut the file into blocks of whole rows, without its header."""
        skip, line, rest = self.layout.header_lines, 1, b""
        block: bytes | None = first
        while block is not None:
            following = next(blocks, None)
            while skip and block:
                block, skip, line = block[block.index(b"\n") + 1 :], skip - 1, line + 1
            data = rest + self._prepared(block)
            cut, end = self._cut(data, line, following is None)
            rest = data[end:]
            if cut.num_lines:
                yield cut
            line += cut.num_lines
            block = following

    def _prepared(self, block: bytes) -> bytes:
        """Blank out comments and let one byte separate fields."""
        if self.dialect.comment and self.dialect.comment.encode() in block:
            block = re.sub(
                rb"(?m)^" + re.escape(self.dialect.comment.encode()) + rb".*$", b"", block
            )
        delimiter = self.layout.delimiter.encode()
        if len(delimiter) > 1:
            if SEPARATOR in block:
                raise MatineeError(
                    f"{self.path} holds the control character 0x1f, which stands for "
                    f"delimiter={self.layout.delimiter!r}; replace one of them."
                )
            block = block.replace(delimiter, SEPARATOR)
        return block

    def _cut(self, data: bytes, line: int, is_last: bool) -> tuple[_Block, int]:
        if self.layout.quoting == "none" or b'"' not in data:
            num_lines = int(np.count_nonzero(np.frombuffer(data, np.uint8) == _NEWLINE))
            return _Block(data, line, num_lines, None, []), len(data)
        found = check_quotes(
            data,
            self._delimiter,
            self.layout.num_fields,
            multiline=self.layout.quoting == "multiline",
            is_last=is_last,
        )
        data = _blanked(data[: found.end], [index for index, _ in found.refused])
        return _Block(data, line, found.num_lines, found.is_start, found.refused), found.end

    @property
    def _delimiter(self) -> bytes:
        delimiter = self.layout.delimiter.encode()
        return delimiter if len(delimiter) == 1 else SEPARATOR

    def read(self, block: _Block) -> _Read:
        """Type a block's rows; this runs in several threads."""
        header = self._prepared(self.layout.header) + b"\n"
        again = block.data.startswith(header) or b"\n" + header in block.data
        if again or not is_clean(block.data):
            block = _without_unreadable(block, header)
        table, ragged = self._table(block.data)
        bad = [(block.first_line + index, problem) for index, problem in block.refused]
        lines = block.lines(table.num_rows + len(ragged))
        if ragged:
            numbers = np.asarray(lines, np.int64)
            bad += [(int(numbers[place]), problem) for place, problem in ragged]
            lines = np.delete(numbers, [place for place, _ in ragged])
        columns = {name: _joined(table[name]) for name in table.column_names}
        return _Read(self.reader.parse(columns), lines, sorted(bad))

    def _table(self, data: bytes) -> tuple[pa.Table, list[tuple[int, str]]]:
        """Read rows by types that are quick or, where a cell does not fit, as text."""
        quick = self._types(data)
        try:
            table, ragged = self._parse(data, quick)
            if all(
                table[name].null_count == 0
                for name, kind in quick.items()
                if kind in (pa.int64(), pa.float32())
            ):
                return table, ragged
        except pa.ArrowInvalid:
            pass
        texts = {name: _IDS if name in ("user", "item", "part") else pa.string() for name in quick}
        table, ragged = self._parse(data, texts)
        if "timestamp" in texts and table.num_rows:
            first = table["timestamp"][0].as_py()
            self._times_are_quick = re.fullmatch(r"\s*-?[0-9]+\s*", first) is not None
        return table, ragged

    def _types(self, data: bytes) -> dict[str, pa.DataType]:
        is_hexadecimal = b"x" in data or b"X" in data  # Arrow would read 0x10 as 16
        whole = pa.int64() if self._times_are_quick and not is_hexadecimal else pa.string()
        kinds = {"rating": pa.float32(), "timestamp": whole, "title": pa.string(), "part": _IDS}
        if self.reader.rules.id_type == "integer" and not is_hexadecimal:
            kinds |= {"user": pa.int64(), "item": pa.int64()}
        return {name: kinds.get(name, _IDS) for name in self.reader.names}

    def _parse(
        self, data: bytes, types: Mapping[str, pa.DataType]
    ) -> tuple[pa.Table, list[tuple[int, str]]]:
        num_fields, delimiter = self.layout.num_fields, self.layout.delimiter
        fields = [f"f{place}" for place in range(num_fields)]
        names = {name: fields[place] for name, place in self.layout.places.items()}
        ragged = []

        def skip(row: Any) -> str:
            ragged.append(
                (
                    row.number - 1,
                    f"the row has {row.actual_columns} instead of {num_fields} fields between {delimiter!r}; "
                    "correct it",
                )
            )
            return "skip"

        quotes = '"' if self.layout.quoting != "none" else False
        table = arrow_csv.read_csv(
            pa.BufferReader(data),
            arrow_csv.ReadOptions(
                column_names=fields, use_threads=False, block_size=max(len(data), 1) + 1
            ),
            arrow_csv.ParseOptions(
                delimiter=self._delimiter.decode(),
                quote_char=quotes,
                newlines_in_values=bool(quotes) and b'"' in data,
                invalid_row_handler=skip,
            ),
            arrow_csv.ConvertOptions(
                column_types={names[name]: kind for name, kind in types.items()},
                include_columns=list(dict.fromkeys(names[name] for name in types)),
                decimal_point=self.reader.rules.decimal,
                null_values=list(MISSING),
                strings_can_be_null=False,
            ),
        )
        return pa.table({name: table[names[name]] for name in types}), ragged

    def append(self, read: _Read) -> None:
        """Add the rows of a block, in the order of the file."""
        self.reader.append(read.parsed, Stretch(str(self.path), "line", read.lines), read.bad)


def _joined(column: pa.ChunkedArray) -> pa.Array:
    if column.num_chunks == 1:
        return column.chunk(0)
    return column.combine_chunks() if column.num_chunks else pa.array([], column.type)


def _blanked(data: bytes, lines: list[int]) -> bytes:
    """Empty some lines, which are then no rows, so that the numbers of the others stay."""
    if not lines:
        return data
    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == _NEWLINE)
    parts, begin = [], 0
    for line in lines:
        parts.append(data[begin : ends[line - 1] + 1 if line else 0])
        begin = int(ends[line])
    return b"".join([*parts, data[begin:]])


def _without_unreadable(block: _Block, header: bytes) -> _Block:
    """Refuse the lines that are no text, and rows that repeat the header."""
    is_start, problems = block.is_start, {}
    for index, line in enumerate(block.data.splitlines(keepends=True)):
        if line == header and (is_start is None or is_start[index]):
            problems[index] = HEADER_AGAIN
        elif problem := line_problem(line):
            problems[index] = problem
    blank = list(problems)
    if is_start is not None:  # a wrong line may be one of several of a row
        rows = np.cumsum(is_start) - 1
        starts = np.flatnonzero(is_start)
        problems = {int(starts[rows[index]]): problem for index, problem in problems.items()}
        blank = np.flatnonzero(np.isin(rows, rows[list(problems)])).tolist()
        is_start = is_start & ~np.isin(np.arange(len(is_start)), list(problems))
    refused = sorted([*block.refused, *problems.items()])
    return block._replace(data=_blanked(block.data, blank), is_start=is_start, refused=refused)
