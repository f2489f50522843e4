"""Quotation marks in text files: which of them belong together, and which lines are refused.

A quotation mark opens a field at its very beginning and closes it before a delimiter or the end of the
line; between the two, a doubled one stands for itself. Anywhere else it is text. A line in which a quoted
field is never closed, or goes on behind its closing mark, is refused alone: the next line begins a new
row, so that a stray mark can never swallow rows.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SEPARATOR = b"\x1f"  # stands for a delimiter of several characters

_QUOTE, _NEWLINE = 34, 10
_MOST_LINES = 10_000  # of one quoted field
_REMEDY = "correct it, or set quoting=none if quotation marks are text"


class Lines(NamedTuple):
    """What the lines of a block are.

    Attributes:
        is_start: Whether a row starts in a line, shape (lines,).
        refused: The refused lines (from 0), and what is wrong with each.
        end: Number of bytes up to a row that goes on behind the block.
        num_lines: Number of lines up to there.
    """

    is_start: NDArray[np.bool_]
    refused: list[tuple[int, str]]
    end: int
    num_lines: int


@lru_cache
def _patterns(delimiter: bytes) -> tuple[re.Pattern[bytes], re.Pattern[bytes], re.Pattern[bytes]]:
    d = re.escape(delimiter)
    field = rb'(?:"(?:[^"]|"")*+"|[^"\n' + d + rb"][^\n" + d + rb"]*+|)"
    row = re.compile(field + rb"(?:" + d + field + rb")*+\n?")
    unclosed = re.compile(rb"(?:" + field + d + rb')*+"(?:[^"]|"")*+')
    return row, unclosed, re.compile(field)


def split_record(line: bytes, delimiter: bytes, quotes: bool) -> list[bytes]:
    """Split one line into fields, without the quotation marks around them."""
    if not quotes:
        return line.split(delimiter)
    if len(delimiter) > 1:
        line, delimiter = line.replace(delimiter, SEPARATOR), SEPARATOR
    fields, place = [], 0
    field = _patterns(delimiter)[2]
    while True:
        match = field.match(line, place)
        assert match
        end = match.end()
        if end < len(line) and line[end : end + 1] != delimiter:  # a stray mark: text
            end = line.find(delimiter, end) if delimiter in line[end:] else len(line)
        text = line[place:end]
        if len(text) > 1 and text.startswith(b'"') and text.endswith(b'"'):
            text = text[1:-1].replace(b'""', b'"')
        fields.append(text)
        if end == len(line):
            return fields
        place = end + 1


def first_record(block: bytes, line: int, delimiter: bytes) -> bytes:
    """Return the row that begins in a line (from 0), which may take several lines, without its end."""
    ends = np.flatnonzero(np.frombuffer(block, np.uint8) == _NEWLINE)
    starts = np.r_[0, ends[:-1] + 1]
    if len(delimiter) > 1:
        return first_record(block.replace(delimiter, SEPARATOR), line, SEPARATOR).replace(
            SEPARATOR, delimiter
        )
    count, problem = _read_record(block, line, starts, ends, _patterns(delimiter), delimiter, 0)
    last = line if count is None or problem else line + count - 1
    return block[starts[line] : ends[last]]


def check_quotes(
    block: bytes,
    delimiter: bytes,
    num_fields: int,
    *,
    multiline: bool,
    is_last: bool,
) -> Lines:
    """Find the rows of a block whose fields may be quoted.

    Args:
        block: Whole lines.
        delimiter: One byte.
        num_fields: Number of fields of a row; a quoted field is refused if one of its lines has as many.
        multiline: Whether a quoted field may hold such lines.
        is_last: Whether no other block follows.
    """
    characters = np.frombuffer(block, np.uint8)
    ends = np.flatnonzero(characters == _NEWLINE)
    starts = np.r_[0, ends[:-1] + 1]
    is_start = ends > starts  # blank lines are no rows
    quotes = np.flatnonzero(characters == _QUOTE)
    suspicious = _lines_out_of_step(characters, quotes, ends, delimiter[0])
    refused: list[tuple[int, str]] = []
    free = 0
    for line in suspicious.tolist():
        if line < free:
            continue
        count, problem = _read_record(
            block,
            line,
            starts,
            ends,
            _patterns(delimiter),
            delimiter,
            0 if multiline else num_fields,
        )
        if count is None and not is_last and len(ends) - line < _MOST_LINES:
            return Lines(is_start[:line], refused, int(starts[line]), line)
        if count is None or problem:
            refused.append((line, problem or f"a quoted field is never closed; {_REMEDY}"))
            is_start[line] = False
        else:
            is_start[line + 1 : line + count] = False
            free = line + count
    return Lines(is_start, refused, len(block), len(ends))


def _lines_out_of_step(
    characters: NDArray[np.uint8],
    quotes: NDArray[np.int64],
    ends: NDArray[np.int64],
    delimiter: int,
) -> NDArray[np.int64]:
    """Return the lines whose quotation marks do not open and close whole fields in turn."""
    line = np.cumsum(characters == _NEWLINE, dtype=np.int32)[quotes]
    counts = np.bincount(line, minlength=len(ends))
    ordinal = np.arange(len(quotes)) - (np.cumsum(counts) - counts)[line]
    padded = np.r_[np.uint8(_NEWLINE), characters, np.uint8(_NEWLINE)]
    before, after = padded[quotes], padded[quotes + 2]
    opens = ordinal % 2 == 0
    neighbour = np.where(opens, before, after)
    in_step = (neighbour == delimiter) | (neighbour == _NEWLINE)
    in_step |= (neighbour == _QUOTE) & (~opens | (ordinal > 0))
    return np.union1d(line[~in_step], np.flatnonzero(counts % 2))


def _read_record(
    block: bytes,
    line: int,
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    patterns: tuple[re.Pattern[bytes], ...],
    delimiter: bytes,
    num_fields: int,
) -> tuple[int | None, str]:
    """Return how many lines the row of a line takes, None if it has no end, and what is wrong."""
    row, unclosed, _ = patterns
    start = int(starts[line])
    for last in range(line, min(len(ends), line + _MOST_LINES)):
        added = block[starts[last] : ends[last]]
        if last > line:
            if num_fields and added.count(delimiter) + 1 == num_fields:
                return 1, (
                    "a quoted field runs on into a line that looks like a row; set quoting=none if quotation "
                    "marks are text, or quoting=multiline if fields do hold such lines"
                )
            if b'"' not in added:
                continue
        record = block[start : ends[last]]
        if row.fullmatch(record):
            return last - line + 1, ""
        if not unclosed.fullmatch(record):
            return 1, f"text follows the closing quotation mark of a field; {_REMEDY}"
    return None, ""
