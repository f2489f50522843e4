"""Ratings to float32; what a number is stands in `matinee.data.columns`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from matinee.data.columns.growing import GrowingArray
from matinee.data.columns.texts import (
    MISSING_PROBLEM,
    NUMBER,
    TEXT,
    about,
    as_text,
    cell,
    is_missing,
    is_text,
    matches,
    plain,
    to_mask,
    trimmed,
    where,
)
from matinee.data.source_location import Fault
from matinee.errors import MatineeError


class Ratings:
    """A column of ratings that grows chunk by chunk.

    Args:
        scale: Lowest and highest possible rating; None takes them from the data.
        decimal: The decimal sign of numbers that are written as text.
        capacity: Number of rows to expect.

    Raises:
        MatineeError: If the scale is not two numbers in order.
    """

    def __init__(
        self, scale: Sequence[float] | None = None, decimal: str = ".", capacity: int = 0
    ) -> None:
        self.decimal = decimal
        self.scale = None if scale is None else _checked_scale(scale)
        self._values = GrowingArray(np.float32, capacity)

    def parse(self, column: pa.Array) -> tuple[NDArray[np.float32], list[Fault]]:
        """Read a chunk; this may run in several threads.

        Raises:
            MatineeError: If the column's type holds no numbers.
        """
        column = plain(column)
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        written, decimal = column, self.decimal
        if pa.types.is_null(column.type) or pa.types.is_decimal(column.type):
            # Arrow's own step from decimals to floats is not exact.
            column, decimal = column.cast(TEXT), "."
        kind = column.type
        faults: list[Fault] = []
        if is_text(kind):
            column, faults = _parse_texts(as_text(column), decimal)
        elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            raise MatineeError(f"ratings are of type {kind}; they must be numbers")
        elif column.null_count or pa.types.is_floating(kind):
            missing = to_mask(pc.is_null(column, nan_is_null=True))
            if missing.any():
                faults.append(Fault(missing, lambda _: "", lambda _: MISSING_PROBLEM))
                column = where(~missing, column)
        values: NDArray[np.float32] = (
            column.cast(pa.float32(), safe=False).fill_null(0).to_numpy(zero_copy_only=False)
        )
        shown = cell(written) if is_text(written.type) else lambda row: str(values[row])
        return values, faults + self._range_faults(values, shown)

    def _range_faults(self, values: NDArray[np.float32], written: Any) -> list[Fault]:
        faults = []
        infinite = ~np.isfinite(values)
        if infinite.any():
            problem = "the rating {} is not finite; correct it"
            faults.append(Fault(infinite, written, about(written, problem)))
        if self.scale:
            low, high = self.scale
            outside = ((values < np.float32(low)) | (values > np.float32(high))) & ~infinite
            if outside.any():
                problem = (
                    f"the rating {{}} is outside the scale {low:g} to {high:g}; correct it or "
                )
                faults.append(Fault(outside, written, about(written, problem + "set rating_scale")))
        return faults

    def append(self, values: NDArray[np.float32]) -> None:
        """Add the next rows."""
        self._values.append(values)

    def finish(self) -> tuple[NDArray[np.float32], tuple[float, float]]:
        """Return the ratings, shape (rows,), and their scale."""
        values = self._values.release()
        return values, self.scale or (float(values.min()), float(values.max()))


def _parse_texts(texts: pa.Array, decimal: str) -> tuple[pa.Array, list[Fault]]:
    bare = trimmed(texts)
    missing = is_missing(bare)
    bare = with_decimal_point(bare, decimal)
    wrong = ~missing & ~matches(bare, NUMBER)
    faults = []
    if missing.any():
        faults.append(Fault(missing, cell(texts), lambda _: MISSING_PROBLEM))
    if wrong.any():
        faults.append(
            Fault(wrong, cell(texts), lambda row: not_a_number(texts[row].as_py(), decimal))
        )
    return where(~(missing | wrong), bare).cast(pa.float32()), faults


def with_decimal_point(texts: pa.Array, decimal: str) -> pa.Array:
    """Replace another decimal sign by a point, and spoil texts that have one already."""
    if decimal == ".":
        return texts
    spoilt = pc.replace_substring(texts, ".", "x")
    return pc.replace_substring(spoilt, decimal, ".")


def not_a_number(text: str, decimal: str) -> str:
    """Say what is wrong with a text that is no number."""
    other = "," if decimal == "." else "."
    if other in text and matches(pa.array([text.strip().replace(other, ".")]), NUMBER)[0]:
        return f"{text!r} is not a number; set decimal={other!r} if that is its decimal sign"
    return f"{text!r} is not a number; correct it"


def _checked_scale(scale: Any) -> tuple[float, float]:
    try:
        low, high = (float(bound) for bound in scale)
    except (TypeError, ValueError):
        low, high = 1.0, 0.0
    if not low <= high:
        raise MatineeError(f"rating_scale={scale} must be two numbers, [lowest, highest].")
    return low, high
