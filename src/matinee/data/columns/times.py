"""Times to integers of one unit, without rounding; what a time is stands in `matinee.data.columns`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from matinee.data.columns.growing import GrowingArray
from matinee.data.columns.ids import FLOAT_LIMITS
from matinee.data.columns.ratings import not_a_number
from matinee.data.columns.texts import (
    MISSING_PROBLEM,
    NUMBER,
    TEXT,
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
from matinee.data.source_location import Fault, Locations
from matinee.errors import MatineeError

TimeUnit = Literal["s", "ms", "us", "ns"]

UNITS: tuple[TimeUnit, ...] = get_args(TimeUnit)
DIGITS: dict[TimeUnit, int] = {"s": 0, "ms": 3, "us": 6, "ns": 9}

# In seconds, 10**11 is the year 5138; in milliseconds it is 1973. So present times of each unit lie
# between two of these bounds.
_BOUNDS = (10**11, 10**14, 10**17)

_ISO = (
    r"^(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[T ](?P<hour>[0-9]{2}):(?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2})(?:[.,](?P<fraction>[0-9]+))?)?"
    r" ?(?P<zone>Z|z|UTC|GMT|[+-][0-9]{2}(?::?[0-9]{2})?)?)?$"
)
_EXAMPLE = "write seconds since 1970 or ISO 8601, such as 2001-02-03T04:05:06Z"
_TOO_FINE = "is finer than a nanosecond, the finest difference that is kept; round it"
_SLICE = 2**20


class ParsedTimes(NamedTuple):
    """Times of a chunk as integers, each of 10**-digits of their unit; shape (rows,).

    ``calendar`` times count seconds since 1970-01-01 UTC, the others count a unit that is not yet known.
    """

    values: NDArray[np.int64]
    calendar: bool
    digits: int

    def take(self, kept: NDArray[np.bool_]) -> ParsedTimes:
        """Keep some of the rows."""
        return self._replace(values=self.values[kept])


class Times:
    """A column of times that grows chunk by chunk.

    Args:
        unit: What numbers count; ``auto`` tells it by their magnitude.
        decimal: The decimal sign of numbers that are written as text.
        capacity: Number of rows to expect.
    """

    def __init__(
        self, unit: TimeUnit | Literal["auto"] = "auto", decimal: str = ".", capacity: int = 0
    ) -> None:
        self.unit, self.decimal = unit, decimal
        self._values = GrowingArray(np.int64, capacity)
        self._chunks: list[
            tuple[int, bool, int, int, int]
        ] = []  # start, calendar, digits, extremes

    def parse(self, column: pa.Array) -> tuple[ParsedTimes, list[Fault]]:
        """Read a chunk; this may run in several threads.

        Raises:
            MatineeError: If the column's type holds no times.
        """
        column = plain(column)
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        kind = column.type
        if pa.types.is_null(kind) or pa.types.is_decimal(kind):
            column, kind = column.cast(TEXT), TEXT
        if is_text(kind):
            return self._parse_texts(as_text(column))
        faults = []
        if column.null_count or pa.types.is_floating(kind):
            missing = to_mask(pc.is_null(column, nan_is_null=True))
            if missing.any():
                faults.append(Fault(missing, lambda _: "", lambda _: MISSING_PROBLEM))
                column = pc.if_else(pa.array(missing), pa.scalar(0).cast(kind), column)
        if pa.types.is_integer(kind):
            return self._parse_integers(column, faults)
        if pa.types.is_floating(kind):
            parsed, more = _parse_floats(column.to_numpy())
            return parsed, faults + more
        if pa.types.is_date(kind):
            seconds = (
                column.cast(pa.timestamp("s"))
                if pa.types.is_date32(kind)
                else column.cast(pa.timestamp("ms"))
            )
            kind, column = seconds.type, seconds
        if pa.types.is_timestamp(kind):
            values = column.cast(pa.timestamp(kind.unit)).view(pa.int64()).to_numpy()
            return ParsedTimes(*_coarsest(values, DIGITS[kind.unit], calendar=True)), faults
        raise MatineeError(f"timestamps are of type {kind}; they must be numbers, dates or times")

    def _parse_integers(
        self, column: pa.Array, faults: list[Fault]
    ) -> tuple[ParsedTimes, list[Fault]]:
        values = column.to_numpy()
        if values.dtype == np.uint64:
            too_large = values > np.uint64(2**63 - 1)
            if too_large.any():
                problem = "the time does not fit in 64 bits; correct it"
                faults.append(Fault(too_large, cell(column), lambda _: problem))
                values = np.where(too_large, 0, values)
        return ParsedTimes(values.astype(np.int64, copy=False), False, 0), faults

    def _parse_texts(self, texts: pa.Array) -> tuple[ParsedTimes, list[Fault]]:
        bare = trimmed(texts)
        if (quick := _cast_calendar(bare)) is not None:
            return quick, []
        missing = is_missing(bare)
        faults = []
        if missing.any():
            faults.append(Fault(missing, cell(texts), lambda _: MISSING_PROBLEM))
        if self.decimal != ".":
            numbers = pc.if_else(
                pc.match_substring(bare, "."), "x", pc.replace_substring(bare, self.decimal, ".")
            )
        else:
            numbers = bare
        is_number = matches(numbers, NUMBER) & ~missing
        is_date = matches(bare, "^[0-9]{4}-[0-9]{2}-[0-9]{2}") & ~missing
        if (calendar := bool(is_date.any())) and is_number.any():
            calendar = bool(is_date.argmax() < is_number.argmax())
        chosen, other = (is_date, is_number) if calendar else (is_number, is_date)
        unreadable = ~(chosen | other | missing)
        if unreadable.any():
            faults.append(
                Fault(
                    unreadable, cell(texts), lambda row: _no_time(texts[row].as_py(), self.decimal)
                )
            )
        if other.any():
            problem = (
                "times are written in several ways, as numbers and as dates; write all in one way"
            )
            faults.append(Fault(other, cell(texts), lambda _: problem))
        parsed, more = (
            _parse_iso(where(chosen, bare)) if calendar else _parse_numbers(where(chosen, numbers))
        )
        return parsed, faults + [
            Fault(wrong & chosen, cell(texts), told) for wrong, told in more(texts)
        ]

    def append(self, parsed: ParsedTimes) -> None:
        """Add the next rows."""
        if len(parsed.values) == 0:
            return
        low, high = int(parsed.values.min()), int(parsed.values.max())
        self._chunks.append((len(self._values), parsed.calendar, parsed.digits, low, high))
        self._values.append(parsed.values)

    def finish(self, locations: Locations) -> tuple[NDArray[np.int64], TimeUnit]:
        """Return the times, shape (rows,), and the coarsest unit that holds all of them exactly.

        Raises:
            MatineeError: If the unit of the numbers cannot be told, times are written in several ways, or
                no unit holds all of them exactly.
        """
        self._refuse_several_ways(locations)
        is_calendar = self._chunks[0][1]
        unit = "s" if is_calendar else self._told_unit(locations)
        factors = [digits + DIGITS[unit] for _, _, digits, _, _ in self._chunks]
        finest = max(factors)
        if finest > 9:
            raise self._error(locations, factors.index(finest), lambda _: True, _TOO_FINE)
        finest = next(digits for digits in (0, 3, 6, 9) if digits >= finest)
        for chunk, (_, _, _, low, high) in enumerate(self._chunks):
            scale = 10 ** (finest - factors[chunk])
            if not -(2**63) <= low * scale <= high * scale < 2**63:
                raise self._error(
                    locations,
                    chunk,
                    lambda value, scale=scale: not -(2**63) <= value * scale < 2**63,
                    f"is too far from 1970 for the fractions of a second that other rows have (10**-{finest}); "
                    "correct it",
                )
        ends = [start for start, *_ in self._chunks[1:]] + [len(self._values)]
        for (start, *_), end, digits in zip(self._chunks, ends, factors, strict=True):
            if digits < finest:
                self._values.values[start:end] *= 10 ** (finest - digits)
        values = self._values.release()
        while finest and _all_divisible(values, 1000):
            for at in range(0, len(values), _SLICE):
                values[at : at + _SLICE] //= 1000
            finest -= 3
        return values, next(unit for unit in UNITS if DIGITS[unit] == finest)

    def _refuse_several_ways(self, locations: Locations) -> None:
        for start, calendar, *_ in self._chunks:
            if calendar != self._chunks[0][1]:
                raise locations.error(
                    "timestamp",
                    start,
                    "times are written in several ways, as numbers and as dates; write all in one way",
                )

    def _told_unit(self, locations: Locations) -> TimeUnit:
        if self.unit != "auto":
            return self.unit
        lows = [low / 10**digits for *_, digits, low, _ in self._chunks]
        highs = [high / 10**digits for *_, digits, _, high in self._chunks]
        low, high = min(lows), max(highs)
        self._refuse_packed_dates(locations, low, high)
        largest = max(-low, high)
        if largest < _BOUNDS[0]:
            return "s"
        bracket = _bracket(largest)
        chunk = (highs if high == largest else lows).index(high if high == largest else low)
        example = self._row(
            chunk,
            lambda value: (
                value in (self._chunks[chunk][3], self._chunks[chunk][4])
                and abs(value / 10 ** self._chunks[chunk][2]) == largest
            ),
        )
        ends = [start for start, *_ in self._chunks[1:]] + [len(self._values)]
        for (start, _, digits, _, _), end in zip(self._chunks, ends, strict=True):
            values = self._values.values[start:end]
            smaller = np.abs(values) < _BOUNDS[bracket - 1] * 10**digits
            if smaller.any():
                row = start + int(smaller.argmax())
                _, place = locations.place(example)
                raise locations.error(
                    "timestamp",
                    row,
                    f"the time {_decimal(int(self._values.values[row]), digits)} and "
                    f"{_decimal(int(self._values.values[example]), self._chunks[chunk][2])} ({place}) differ so much "
                    f"that they may count different units; correct one or set time_unit to one of {', '.join(UNITS)}",
                )
        return UNITS[bracket]

    def _refuse_packed_dates(self, locations: Locations, low: float, high: float) -> None:
        """Refuse numbers all of which read as 20140407 or 20140407101530, calendar dates in digits."""
        if any(digits for _, _, digits, _, _ in self._chunks):
            return
        for zeros in (0, 4, 6):
            if not 19000101 * 10**zeros <= low <= high < 21010101 * 10**zeros:
                continue
            values = self._values.values
            dates = values // 10**zeros
            month, day = dates // 100 % 100, dates % 100
            if ((month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)).all():
                raise locations.error(
                    "timestamp",
                    0,
                    f"the time {values[0]}, like all others, looks like a date written without separators; "
                    "write it as 2001-02-03, or set time_unit=s if it is a number of seconds",
                )

    def _row(self, chunk: int, wanted: Callable[[int], bool]) -> int:
        start = self._chunks[chunk][0]
        end = self._chunks[chunk + 1][0] if chunk + 1 < len(self._chunks) else len(self._values)
        values = self._values.values[start:end].tolist()
        return start + next(row for row, value in enumerate(values) if wanted(value))

    def _error(
        self, locations: Locations, chunk: int, wanted: Callable[[int], bool], problem: str
    ) -> MatineeError:
        row, digits = self._row(chunk, wanted), self._chunks[chunk][2]
        value = int(self._values.values[row])
        return locations.error("timestamp", row, f"the time {_decimal(value, digits)} {problem}")


def _decimal(value: int, digits: int) -> str:
    if not digits:
        return str(value)
    sign, text = ("-" if value < 0 else ""), str(abs(value)).rjust(digits + 1, "0")
    return f"{sign}{text[:-digits]}.{text[-digits:]}"


def _bracket(value: float) -> int:
    return sum(value >= bound for bound in _BOUNDS)


def _all_divisible(values: NDArray[np.int64], divisor: int) -> bool:
    if len(values) and values[0] % divisor:
        return False
    return all(
        not (values[at : at + _SLICE] % divisor).any() for at in range(0, len(values), _SLICE)
    )


def _coarsest(
    values: NDArray[np.int64], digits: int, calendar: bool
) -> tuple[NDArray[np.int64], bool, int]:
    """Drop decimals that are 0 in all values."""
    while digits and _all_divisible(values, 1000):
        values, digits = values // 1000, digits - 3
    return values, calendar, digits


def _parse_floats(values: NDArray[np.floating[Any]]) -> tuple[ParsedTimes, list[Fault]]:
    limit, bits = FLOAT_LIMITS[values.dtype.itemsize], 8 * values.dtype.itemsize
    exact = values.astype(np.float64)
    wrong = ~(np.abs(exact) < limit)
    faults = []
    if wrong.any():
        problem = f"from {limit} on, float{bits} cannot tell times apart; store times as integers or as timestamps"
        faults.append(
            Fault(
                wrong,
                lambda row: exact[row],
                lambda row: f"the time {exact[row].item()!r}: {problem}",
            )
        )
        exact = np.where(wrong, 0, exact)
    for digits in (0, 3, 6):
        scaled = np.rint(exact * 10**digits)
        if (scaled / 10**digits == exact).all() and (np.abs(scaled) < 2**53).all():
            return ParsedTimes(scaled.astype(np.int64), False, digits), faults
    whole = np.floor(exact)
    too_large = np.abs(whole) >= 9e9
    if too_large.any():  # not seconds, and with fractions: the unit is not known yet
        scaled = np.rint(exact * 1000)
        same = scaled / 1000 == exact
        problem = "as a float, it cannot be told from its neighbours; store times as integers or as timestamps"
        return ParsedTimes(np.where(same, scaled, 0).astype(np.int64), False, 3), [
            *faults,
            *(
                []
                if same.all()
                else [
                    Fault(
                        ~same,
                        lambda row: exact[row],
                        lambda row: f"the time {exact[row].item()!r}: {problem}",
                    )
                ]
            ),
        ]
    nanos = whole.astype(np.int64) * 10**9 + np.rint((exact - whole) * 1e9).astype(np.int64)
    # Below 2**23 neighbouring float64 numbers are closer than a nanosecond.
    too_fine = (np.abs(exact) < 2**23) & (nanos / 1e9 != exact)
    if too_fine.any():
        faults.append(
            Fault(
                too_fine,
                lambda row: exact[row],
                lambda row: f"the time {exact[row].item()!r} {_TOO_FINE}",
            )
        )
    return ParsedTimes(nanos, False, 9), faults


def _cast_calendar(bare: pa.Array) -> ParsedTimes | None:
    """Read a chunk of times all of which are written alike, if the library can."""
    if len(bare) == 0 or (first := bare[0].as_py()) is None or first[4:5] != "-":
        return None
    if first.endswith((" UTC", "UTC", " GMT")):
        bare = pc.replace_substring_regex(bare, " ?(UTC|GMT)$", "Z")
    for unit in ("us", "ns"):
        for zone in (None, "UTC"):
            try:
                times = bare.cast(pa.timestamp(unit, zone))
            except pa.ArrowInvalid:
                continue
            if times.null_count:
                return None
            values = times.view(pa.int64()).to_numpy()
            return ParsedTimes(*_coarsest(values, DIGITS[unit], calendar=True))
    return None


_Told = Callable[[pa.Array], list[tuple[NDArray[np.bool_], Callable[[int], str]]]]


def _parse_iso(bare: pa.Array) -> tuple[ParsedTimes, _Told]:
    """Read ISO 8601 in any mix of forms; null stays null."""
    parts = pc.extract_regex(bare, _ISO)
    matched = to_mask(pc.is_valid(parts))

    def part(name: str) -> pa.Array:
        return pc.struct_field(parts, name)

    def number(texts: pa.Array) -> NDArray[np.int64]:
        filled = pc.if_else(pc.fill_null(pc.equal(texts, ""), True), "0", texts)
        values: NDArray[np.int64] = filled.cast(pa.int64()).to_numpy()
        return values

    date = part("date")
    year, month, day = (
        number(pc.utf8_slice_codeunits(date, start, stop))
        for start, stop in ((0, 4), (5, 7), (8, 10))
    )
    hour, minute, second = (number(part(name)) for name in ("hour", "minute", "second"))
    months = (year - 1970) * 12 + month - 1
    first_day = months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    days_in_month = (months + 1).astype("datetime64[M]").astype("datetime64[D]").astype(
        np.int64
    ) - first_day
    possible = (month >= 1) & (month <= 12) & (day >= 1) & (day <= days_in_month)
    possible &= (hour < 24) & (minute < 60) & (second < 60)
    zone = pc.replace_substring(part("zone"), ":", "")
    has_offset = matches(zone, "^[+-]")
    sign = np.where(matches(zone, "^-"), -1, 1)
    digits = pc.if_else(pa.array(has_offset), pc.utf8_slice_codeunits(zone, 1, 5), "")
    hours = number(pc.utf8_slice_codeunits(digits, 0, 2))
    minutes = number(pc.utf8_slice_codeunits(digits, 2, 4))
    possible &= (hours < 24) & (minutes < 60)
    seconds = (first_day + day - 1) * 86_400 + hour * 3600 + minute * 60 + second
    seconds -= sign * (hours * 3600 + minutes * 60)
    fraction = pc.utf8_rtrim(part("fraction"), "0")
    too_fine = to_mask(pc.fill_null(pc.greater(pc.utf8_length(fraction), 9), False))
    nanos = number(pc.utf8_rpad(pc.utf8_slice_codeunits(fraction, 0, 9), 9, "0"))
    readable = matched & possible & ~too_fine
    parsed, out_of_range = _with_nanos(
        np.where(readable, seconds, 0), np.where(readable, nanos, 0), calendar=True
    )

    def told(texts: pa.Array) -> list[tuple[NDArray[np.bool_], Callable[[int], str]]]:
        return [
            (~(matched & possible), lambda row: _no_time(texts[row].as_py(), ".")),
            (too_fine & matched & possible, lambda row: f"{texts[row].as_py()!r} {_TOO_FINE}"),
            (out_of_range, lambda row: _out_of_range(texts[row].as_py())),
        ]

    return parsed, told


def _with_nanos(
    whole: NDArray[np.int64], nanos: NDArray[np.int64], calendar: bool
) -> tuple[ParsedTimes, NDArray[np.bool_]]:
    """Join whole units and fractions of 10**-9 of them; mark the rows that int64 cannot hold."""
    digits = next(d for d in (0, 3, 6, 9) if not (nanos % 10 ** (9 - d)).any())
    largest = (2**63 - 1) // 10**digits - 1
    out_of_range = np.abs(whole) > largest
    whole = np.where(out_of_range, 0, whole)
    return ParsedTimes(
        whole * 10**digits + nanos // 10 ** (9 - digits), calendar, digits
    ), out_of_range


def _parse_numbers(bare: pa.Array) -> tuple[ParsedTimes, _Told]:
    """Read decimal numbers; null stays null."""
    has_exponent = matches(bare, "[eE]")
    too_fine = matches(bare, r"\.[0-9]{9}0*[1-9]") & ~has_exponent
    too_large = matches(bare, r"^[+-]?0*[1-9][0-9]{19,}") & ~has_exponent
    plain_numbers = where(~(has_exponent | too_fine | too_large), bare)
    decimals = pc.replace_substring_regex(plain_numbers, r"(\.[0-9]{9})0+$", r"\1").cast(
        pa.decimal128(38, 9)
    )
    if has_exponent.any():
        exponents, more = _cast_exponents(where(has_exponent, bare))
        too_fine |= more
        decimals = pc.coalesce(decimals, exponents)
    decimals = pc.fill_null(decimals, pa.scalar(0).cast(pa.decimal128(38, 9)))
    whole = pc.floor(decimals)
    unreadable = np.zeros(len(bare), np.bool_)
    try:
        units = whole.cast(pa.int64()).to_numpy()
    except pa.ArrowInvalid:
        values = whole.to_pylist()
        unreadable = np.array([not -(2**63) <= value < 2**63 for value in values], np.bool_)
        units = np.array(
            [0 if bad else int(v) for bad, v in zip(unreadable, values, strict=True)], np.int64
        )
    # The lower halves of 128-bit integers of 10**-9; the difference wraps around to the fraction.
    lower = np.frombuffer(decimals.buffers()[1], np.int64)[2 * decimals.offset :: 2][
        : len(decimals)
    ]
    nanos = np.where(unreadable, 0, lower - units * 10**9)
    parsed, out_of_range = _with_nanos(units, nanos, calendar=False)
    out_of_range |= unreadable | too_large

    def told(texts: pa.Array) -> list[tuple[NDArray[np.bool_], Callable[[int], str]]]:
        return [
            (too_fine, lambda row: f"{texts[row].as_py()!r} {_TOO_FINE}"),
            (out_of_range, lambda row: _out_of_range(texts[row].as_py())),
        ]

    return parsed, told


def _cast_exponents(numbers: pa.Array) -> tuple[pa.Array, NDArray[np.bool_]]:
    """Read numbers such as 1.4E9; those that 29 digits before and 9 after the point do not hold are marked."""
    kind = pa.decimal128(38, 9)
    try:
        return numbers.cast(kind), np.zeros(len(numbers), np.bool_)
    except pa.ArrowInvalid:
        if len(numbers) == 1:
            return pa.array([None], kind), np.ones(1, np.bool_)
    half = len(numbers) // 2
    parts = [_cast_exponents(numbers.slice(0, half)), _cast_exponents(numbers.slice(half))]
    return pa.concat_arrays([values for values, _ in parts]), np.concatenate(
        [wrong for _, wrong in parts]
    )


def _no_time(text: str, decimal: str) -> str:
    if any(character.isdigit() for character in text) and not_a_number(text, decimal).count(
        "decimal="
    ):
        return not_a_number(text, decimal)
    return f"{text!r} is no time; {_EXAMPLE}"


def _out_of_range(text: str) -> str:
    return f"{text!r} is too far from 1970 to be a time; correct it"
