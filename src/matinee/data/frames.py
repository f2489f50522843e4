"""Data frames of any library as Arrow tables."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from matinee.errors import MatineeError


def to_arrow(frame: Any, columns: Sequence[str] | None = None) -> pa.Table:
    """Turn a data frame into an Arrow table, without copies where the library allows it.

    Args:
        frame: A data frame of pandas, a table, record batch or stream of them of pyarrow, a mapping of names
            to columns, or an object with the Arrow PyCapsule or the dataframe interchange protocol.
        columns: The columns to take; None takes all.

    Raises:
        MatineeError: If it is none of these, or a column mixes types that Arrow cannot hold together.
    """
    try:
        if isinstance(frame, pd.DataFrame):
            return _table(frame, frame.columns if columns is None else columns)
        if isinstance(frame, Mapping):
            return _table(frame, frame if columns is None else columns)
        if isinstance(frame, pa.RecordBatch):
            table = pa.Table.from_batches([frame])
        elif isinstance(frame, pa.Table):
            table = frame
        elif isinstance(frame, pa.RecordBatchReader):
            table = frame.read_all()
        elif hasattr(frame, "__arrow_c_stream__") or hasattr(frame, "__arrow_c_array__"):
            table = pa.table(frame)
        elif hasattr(frame, "__dataframe__"):
            from pyarrow.interchange import from_dataframe

            table = from_dataframe(frame)
        else:
            raise MatineeError(
                f"a {type(frame).__name__} is no data frame; give one of pandas or polars, a pyarrow table "
                "or a mapping of names to columns."
            )
    except (pa.ArrowException, OverflowError, NotImplementedError) as error:
        raise MatineeError(f"the data frame cannot be read ({error}); convert it.") from error
    return table if columns is None else table.select(list(columns))


def select_columns(frame: Any, names: Mapping[str, Any]) -> pa.Table:
    """Take some columns of a data frame and give them other names.

    Args:
        frame: See `to_arrow`.
        names: The frame's name of each column by its new name.

    Raises:
        MatineeError: If the frame lacks a column, has it twice, or cannot be read.
    """
    if isinstance(frame, pd.DataFrame):
        present = list(frame.columns)
    elif isinstance(frame, Mapping):
        present = list(frame)
    else:
        frame = to_arrow(frame)
        present = frame.column_names
    check_names(names)
    require_columns("the data frame", list(names.values()), present)
    table = to_arrow(frame, list(names.values()))
    return pa.table(list(table.columns), names=list(names))


def check_names(names: Mapping[str, Any]) -> None:
    """Check that the columns of users, items, ratings, times and parts differ.

    Raises:
        MatineeError: If one is named twice.
    """
    roles = [name for canonical, name in names.items() if canonical != "title"]
    for name in roles:
        if roles.count(name) > 1:
            raise MatineeError(
                f"the column {name!r} is named twice; user, item, rating, timestamp and part differ."
            )


def require_columns(
    source: object, wanted: Sequence[str], present: Sequence[str], advice: str = ""
) -> None:
    """Check that a source has some columns.

    Args:
        source: Its name.
        wanted: The columns that it must have.
        present: Those that it has.
        advice: What else may be done if one is missing.

    Raises:
        MatineeError: If one is there twice or is missing; it names the nearest column and lists all of them.
    """
    for name in wanted:
        if list(present).count(name) > 1:
            raise MatineeError(f"{source} has several columns {name!r}; give them different names.")
        if name not in present:
            names = [str(column) for column in present]
            near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.0)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise MatineeError(
                f"{source} has no column {name!r}; {hint}Its columns are: {', '.join(names)}{advice}."
            )


def _table(frame: Any, columns: Iterable[Any]) -> pa.Table:
    """Take columns whose names may be numbers, as those of a headerless file in pandas."""
    names = list(columns)
    arrays = [_series(frame[name], str(name)) for name in names]
    return pa.table(arrays, names=[str(name) for name in names])


def _series(column: Any, name: str) -> pa.ChunkedArray:
    """Convert a column, whose objects may be integers and texts side by side."""
    if isinstance(column, pa.Array | pa.ChunkedArray):
        return column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])
    try:
        array = pa.array(column, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        array = pa.array(
            [_text(row, value, name, error) for row, value in enumerate(column, start=1)]
        )
    if pa.types.is_timestamp(array.type):
        _check_zones(column, name)
    return array if isinstance(array, pa.ChunkedArray) else pa.chunked_array([array])


def _check_zones(column: Any, name: str) -> None:
    """Reject objects of which some have a time zone and others none: Arrow reads these as UTC.

    Raises:
        MatineeError: If there are both; it names the first row that differs from the rows before it.
    """
    if str(getattr(column, "dtype", "object")) != "object":
        return  # all times of a typed column are of one kind
    kinds = (
        (row, value.tzinfo is None) for row, value in enumerate(column, start=1) if _is_time(value)
    )
    first = next(kinds, None)
    other = next((row for row, bare in kinds if first is not None and bare != first[1]), None)
    if other is not None:
        raise MatineeError(
            f"the table, row {other}, column {name!r}: some times have a zone and others none; convert the "
            "column with pandas.to_datetime(..., utc=True) or give all of them a zone."
        )


def _is_time(value: Any) -> bool:
    return isinstance(value, datetime) and value is not pd.NaT


def _text(row: int, value: Any, name: str, cause: Exception) -> str | None:
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return None
    if isinstance(value, str) or (
        isinstance(value, int | np.integer) and not isinstance(value, bool)
    ):
        return str(value)
    raise MatineeError(
        f"the table, row {row}, column {name!r}: {value!r} is neither an integer nor text as others of its "
        f"column are; convert it ({cause})."
    ) from cause
