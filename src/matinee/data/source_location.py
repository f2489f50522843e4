"""Origins: where a cell of a table was read, so that a message can name file, line and column."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from matinee.errors import MatineeError


class Origin(NamedTuple):
    """Where a table's rows were read, so that a message can name file, line and column.

    Attributes:
        source: Name of the file.
        first_line: Line number of the first row, or a function from a row's index (from 0) to its
            line number where rows and lines do not run in step; None counts rows from 1.
        names: The file's own column names for `user`, `item`, `rating` and `timestamp`.
    """

    source: str = "the table"
    first_line: int | Callable[[int], int] | None = None
    names: Mapping[str, str] = {}

    def place(self, row: int) -> str:
        """Return "line 7" or "row 7" for a row's index (from 0)."""
        if self.first_line is None:
            return f"row {row + 1}"
        line = self.first_line(row) if callable(self.first_line) else self.first_line + row
        return f"line {line}"

    def column(self, column: str) -> str:
        """Return the file's name of a canonical column, quoted."""
        return repr(self.names.get(column, column))

    def fault(self, column: str, row: int, problem: str) -> MatineeError:
        """Build the error for one cell."""
        return MatineeError(
            f"{self.source}, {self.place(row)}, column {self.column(column)}: {problem}."
        )

    def refuse(self, column: str, wrong: NDArray[np.bool_], problem: Callable[[int], str]) -> None:
        """Raise for the first row marked in `wrong`, a mask of shape (rows,), if there is any."""
        row = int(wrong.argmax())
        if wrong[row]:
            raise self.fault(column, row, problem(row))
