"""Where rows were read, and which of them are refused, so that messages name file, line and column."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from matinee.errors import MatineeError

MOST_BAD_ROWS_SHOWN = 5
_MOST_CHARACTERS_SHOWN = 40


class Stretch(NamedTuple):
    """Consecutive rows of one source.

    Attributes:
        source: Name of the file.
        unit: What counts its rows, "line" or "row".
        numbers: The number of each row, ascending; shape (rows,).
        step: Usual difference of the numbers of two rows: 1, or 0 where lines hold many rows.
    """

    source: str
    unit: str
    numbers: range | NDArray[np.int64]
    step: int = 1

    def take(self, kept: NDArray[np.bool_]) -> Stretch:
        """Keep some of the rows; ``kept`` is a mask of shape (rows,)."""
        return self._replace(numbers=np.asarray(self.numbers, np.int64)[kept])


class BadRow(NamedTuple):
    """A row that is refused.

    Attributes:
        place: File and line.
        column: The file's name of the column, or "" if the whole row is wrong.
        value: What is written there.
        problem: What is wrong and what to do.
    """

    place: tuple[str, str]
    column: str
    value: str
    problem: str


@dataclass
class Locations:
    """The places of all rows of a table, kept in memory proportional to the gaps between them.

    Attributes:
        names: The file's own names of the columns ``user``, ``item``, ``rating``, ``timestamp``, ...
    """

    names: Mapping[str, str] = field(default_factory=dict)
    _starts: list[int] = field(default_factory=list)
    _runs: list[tuple[Stretch, NDArray[np.int64], NDArray[np.int64]]] = field(default_factory=list)
    _num_rows: int = 0

    def append(self, stretch: Stretch) -> None:
        """Add the places of the next rows."""
        if len(stretch.numbers) == 0:
            return
        if isinstance(stretch.numbers, range):
            rows, numbers = np.zeros(1, np.int64), np.array([stretch.numbers[0]])
        else:
            rows = np.flatnonzero(np.r_[True, np.diff(stretch.numbers) != stretch.step])
            numbers = stretch.numbers[rows]
        self._starts.append(self._num_rows)
        self._runs.append((stretch._replace(numbers=range(0)), rows, numbers))
        self._num_rows += len(stretch.numbers)

    def place(self, row: int) -> tuple[str, str]:
        """Return the file and "line 7" of a row (from 0)."""
        index = bisect_right(self._starts, row) - 1
        stretch, rows, numbers = self._runs[index]
        row -= self._starts[index]
        run = int(np.searchsorted(rows, row, side="right")) - 1
        number = numbers[run] + stretch.step * (row - rows[run])
        return stretch.source, f"{stretch.unit} {number}"

    def column(self, column: str) -> str:
        """Return the file's name of a canonical column, quoted."""
        return repr(self.names.get(column, column))

    def error(self, column: str, row: int, problem: str) -> MatineeError:
        """Build the error for one cell."""
        source, place = self.place(row)
        return MatineeError(f"{source}, {place}, column {self.column(column)}: {problem}.")


class Fault(NamedTuple):
    """Cells of a column that are refused for one reason.

    Attributes:
        wrong: Mask of the rows, shape (rows,).
        value: What a row's cell holds.
        problem: What is wrong with a row's cell, and what to do.
    """

    wrong: NDArray[np.bool_]
    value: Callable[[int], object]
    problem: Callable[[int], str]


@dataclass
class BadRows:
    """Rows that were refused, the first few of them in full.

    Attributes:
        count: Number of all of them.
        first: The first ones.
    """

    count: int = 0
    first: list[BadRow] = field(default_factory=list)

    def extend(self, rows: list[BadRow], count: int | None = None) -> None:
        """Add refused rows in the order of the file; ``count`` of them, if more than those given."""
        self.count += len(rows) if count is None else count
        self.first += rows[: MOST_BAD_ROWS_SHOWN - len(self.first)]

    def error(self, advice: str = "; bad_rows=skip leaves such rows out") -> MatineeError:
        """Build the error that names the first row; a table of the first ones is its note.

        Args:
            advice: What else may be done if several rows are bad.
        """
        (source, place), column, _, problem = self.first[0]
        where = f"{source}, {place}" + (f", column {column!r}" if column else "")
        more = ""
        if self.count > 1:
            others = f"{self.count - 1:,} more rows are" if self.count > 2 else "1 more row is"
            more = f" {others} bad{advice}."
        error = MatineeError(f"{where}: {problem}.{more}")
        if self.count > 1:
            error.add_note(self.table())
        return error

    def table(self) -> str:
        """Show the first bad rows as a table, with the count of the rest."""
        rows = [("file", "place", "column", "value", "problem")]
        rows += [
            (
                bad.place[0].rpartition("/")[2],
                bad.place[1],
                bad.column,
                _short(bad.value),
                bad.problem,
            )
            for bad in self.first
        ]
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = [
            "  ".join(
                [*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]]
            )
            for row in rows
        ]
        if rest := self.count - len(self.first):
            lines.append(f"and {rest:,} more")
        return "\n".join(lines)


def _short(value: str) -> str:
    text = "".join(character if character.isprintable() else "\ufffd" for character in value)
    return text if len(text) <= _MOST_CHARACTERS_SHOWN else text[: _MOST_CHARACTERS_SHOWN - 1] + "…"
