"""Times to integers of one unit, without rounding; what a time is stands in `matinee.data.columns`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from matinee.data.columns.growing import GrowingArray
from matinee.data.columns.texts import MISSING_PROBLEM, TEXT, as_text, cell, is_text, plain, to_mask
from matinee.data.columns.time_cells import (
    DIGITS,
    SEVERAL_WAYS,
    TOO_FINE,
    UNITS,
    ParsedTimes,
    TimeUnit,
    all_divisible,
    coarsest,
    parse_floats,
    parse_texts,
    slices,
)
from matinee.data.source_location import Fault, Locations
from matinee.errors import MatineeError

# In seconds, 10**11 is the year 5138; in milliseconds it is 1973. So present times of each unit lie
# between two of these bounds.
_BOUNDS = (10**11, 10**14, 10**17)
_INT64 = range(-(2**63), 2**63)
_YEAR = 366 * 86_400
_ROUND = 10_000  # neither days nor hours are multiples of so many seconds


class _Chunk(NamedTuple):
    """Rows that were read at once: what their values are, and the extremes of them."""

    start: int
    stop: int
    calendar: bool
    digits: int
    low: int
    high: int

    @property
    def largest(self) -> float:
        return float(max(-self.low, self.high) / 10**self.digits)


class Times:
    """A column of times that grows chunk by chunk.

    Args:
        unit: What numbers count; ``auto`` tells it by their magnitude.
        decimal: The decimal sign of numbers that are written as text.
        capacity: Number of rows to expect.

    Attributes:
        notes: What a person should know of how the times were read.
    """

    def __init__(
        self, unit: TimeUnit | Literal["auto"] = "auto", decimal: str = ".", capacity: int = 0
    ) -> None:
        self.unit, self.decimal = unit, decimal
        self.notes: list[str] = []
        self._zoned: frozenset[bool] = frozenset()
        self._values = GrowingArray(np.int64, capacity)
        self._chunks: list[_Chunk] = []

    def parse(self, column: pa.Array) -> tuple[ParsedTimes, list[Fault]]:
        """Read a chunk; this may run in several threads.

        Raises:
            MatineeError: If the column's type holds no times.
        """
        column = plain(column)
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        kind, decimal = column.type, self.decimal
        if pa.types.is_null(kind) or pa.types.is_decimal(kind):
            column, kind, decimal = column.cast(TEXT), TEXT, "."
        if is_text(kind):
            return parse_texts(as_text(column), decimal)
        faults: list[Fault] = []
        if column.null_count or pa.types.is_floating(kind):
            missing = to_mask(pc.is_null(column, nan_is_null=True))
            if missing.any():
                faults.append(Fault(missing, lambda _: "", lambda _: MISSING_PROBLEM))
                column = pc.if_else(pa.array(missing), pa.scalar(0).cast(kind), column)
        if pa.types.is_date(kind):
            column = column.cast(pa.timestamp("s" if pa.types.is_date32(kind) else "ms"))
            kind = column.type
        if pa.types.is_timestamp(kind):
            values = column.view(pa.int64()).to_numpy()
            return ParsedTimes(*coarsest(values, DIGITS[kind.unit]), calendar=True), faults
        if pa.types.is_floating(kind):
            parsed, more = parse_floats(column.to_numpy())
            return parsed, faults + more
        if not pa.types.is_integer(kind):
            raise MatineeError(
                f"timestamps are of type {kind}; they must be numbers, dates or times"
            )
        values = column.to_numpy()
        if values.dtype == np.uint64 and (too_large := values > np.uint64(2**63 - 1)).any():
            problem = "the time does not fit in 64 bits; correct it"
            faults.append(Fault(too_large, cell(column), lambda _: problem))
            values = np.where(too_large, 0, values)
        return ParsedTimes(values.astype(np.int64, copy=False), 0, calendar=False), faults

    def append(self, parsed: ParsedTimes) -> None:
        """Add the next rows."""
        values = parsed.values
        self._zoned |= parsed.zoned
        if len(values):
            start, low, high = len(self._values), int(values.min()), int(values.max())
            self._values.append(values)
            chunk = _Chunk(start, len(self._values), parsed.calendar, parsed.digits, low, high)
            self._chunks.append(chunk)

    def finish(self, locations: Locations) -> tuple[NDArray[np.int64], TimeUnit]:
        """Return the times, shape (rows,), and the coarsest unit that holds all of them exactly.

        Raises:
            MatineeError: If the unit of the numbers cannot be told, times are written in several ways, or
                no unit holds all of them exactly.
        """
        for chunk in self._chunks:
            if chunk.calendar != self._chunks[0].calendar:
                raise locations.error("timestamp", chunk.start, SEVERAL_WAYS)
        unit = "s" if self._chunks[0].calendar else self._told_unit(locations)
        digits = self._scale_alike(unit, locations)
        values = self._values.release()
        self.notes = list(self._notes(values, digits))
        while digits and all_divisible(values, 1000):
            for part in slices(values):
                part //= 1000
            digits -= 3
        return values, next(unit for unit in UNITS if DIGITS[unit] == digits)

    def _notes(self, values: NDArray[np.int64], digits: int) -> Iterator[str]:
        """Tell what is unusual about times, which count 10**-digits seconds."""
        if len(self._zoned) > 1:
            yield "some times have a zone and others none, which are read as UTC"
        if self._chunks[0].calendar or self.unit != "auto":
            return
        low, high = min(c.low for c in self._chunks), max(c.high for c in self._chunks)
        if max(chunk.largest for chunk in self._chunks) < _YEAR:
            yield (
                "all times are within a year of 1970, read as seconds; set time_unit if this is right or "
                "they count something else"
            )
        if len(values) == 1:
            return
        if low == high:
            yield "all times are equal, so that rows are in the order of the source"
        elif all_divisible(values, _ROUND * 10**digits):
            yield f"all times are multiples of {_ROUND:,} seconds, as if they had been rounded"

    def _scale_alike(self, unit: TimeUnit, locations: Locations) -> int:
        """Let all values count 10**-digits seconds, and return these digits."""
        finest = max(chunk.digits for chunk in self._chunks) + DIGITS[unit]
        if finest > 9:
            row, chunk = next(
                (row, chunk)
                for chunk, values in self._by_chunk()
                if chunk.digits + DIGITS[unit] > 9
                for row in np.flatnonzero(values % 10 ** (chunk.digits + DIGITS[unit] - 9))[:1]
            )
            written = _decimal(self._values.values[chunk.start + row], chunk.digits)
            raise locations.error("timestamp", chunk.start + row, f"the time {written} {TOO_FINE}")
        for chunk, values in self._by_chunk():
            factor = 10 ** (finest - DIGITS[unit] - chunk.digits)
            if not (chunk.low * factor in _INT64 and chunk.high * factor in _INT64):
                row = int(np.argmax(np.abs(values.astype(np.float64)) * factor >= 2.0**63))
                written = _decimal(values[row], chunk.digits)
                raise locations.error(
                    "timestamp",
                    chunk.start + row,
                    f"the time {written} does not fit in 64 bits beside times as fine as those of other "
                    "rows; correct it",
                )
            if factor > 1:
                values *= factor
        return finest

    def _by_chunk(self) -> Iterator[tuple[_Chunk, NDArray[np.int64]]]:
        for chunk in self._chunks:
            yield chunk, self._values.values[chunk.start : chunk.stop]

    def _told_unit(self, locations: Locations) -> TimeUnit:
        """Tell what numbers count, by their magnitude."""
        if self.unit != "auto":
            return self.unit
        self._refuse_packed_dates(locations)
        largest = max(self._chunks, key=lambda chunk: chunk.largest)
        bracket = sum(largest.largest >= bound for bound in _BOUNDS)
        if bracket == 0:
            return "s"
        for chunk, values in self._by_chunk():
            smaller = np.abs(values) < _BOUNDS[bracket - 1] * 10**chunk.digits
            if smaller.any():
                row = int(smaller.argmax())
                extreme = largest.high if largest.high >= -largest.low else largest.low
                of_largest = self._values.values[largest.start : largest.stop]
                _, place = locations.place(largest.start + int(np.argmax(of_largest == extreme)))
                raise locations.error(
                    "timestamp",
                    chunk.start + row,
                    f"the time {_decimal(values[row], chunk.digits)} and "
                    f"{_decimal(extreme, largest.digits)} ({place}) differ so much that they may count "
                    f"different units; correct one, or set time_unit to one of {', '.join(UNITS)}",
                )
        return UNITS[bracket]

    def _refuse_packed_dates(self, locations: Locations) -> None:
        """Refuse numbers all of which read as 20140407, 20140407101530 or the like."""
        low, high = (min(c.low for c in self._chunks), max(c.high for c in self._chunks))
        if any(chunk.digits for chunk in self._chunks):
            return
        for zeros in (0, 2, 4, 6, 9):  # to the day, hour, minute, second, millisecond
            if not 19000101 * 10**zeros <= low <= high < 21010101 * 10**zeros:
                continue
            if all(_are_dates(part, zeros) for part in slices(self._values.values)):
                raise locations.error(
                    "timestamp",
                    0,
                    f"the time {self._values.values[0]}, like all others, looks like a date without "
                    "separators; write it as 2001-02-03, or set time_unit=s if it counts seconds",
                )


def _are_dates(values: NDArray[np.int64], zeros: int) -> bool:
    """Say whether numbers read as dates that are followed by so many digits of the time of day."""
    days = values // 10**zeros
    month, day = days // 100 % 100, days % 100
    possible = (month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)
    for place, end in ((2, 24), (4, 60), (6, 60)):  # hour, minute, second
        if zeros >= place:
            possible &= values // 10 ** (zeros - place) % 100 < end
    return bool(possible.all())


def _decimal(value: int, digits: int) -> str:
    """Write an integer of 10**-digits as a decimal number."""
    if not digits:
        return str(value)
    text = str(abs(int(value))).rjust(digits + 1, "0")
    return f"{'-' if value < 0 else ''}{text[:-digits]}.{text[-digits:]}"
