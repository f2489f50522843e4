"""Cells that hold times, of text or floats, to integers that lose nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from matinee.data.columns.ids import FLOAT_LIMITS
from matinee.data.columns.ratings import not_a_number, with_decimal_point
from matinee.data.columns.texts import (
    MISSING_PROBLEM,
    NUMBER,
    about,
    cell,
    is_missing,
    matches,
    to_mask,
    trimmed,
    where,
)
from matinee.data.source_location import Fault

TimeUnit = Literal["s", "ms", "us", "ns"]

UNITS: tuple[TimeUnit, ...] = get_args(TimeUnit)
DIGITS: dict[TimeUnit, int] = {"s": 0, "ms": 3, "us": 6, "ns": 9}
SEVERAL_WAYS = "times are written in several ways, as numbers and as dates; write all in one way"
TOO_FINE = "is finer than a nanosecond, the finest difference that is kept; round it"

_EXAMPLE = "write seconds since 1970 or ISO 8601, such as 2001-02-03T04:05:06Z"
_TOO_FAR = "is too far from 1970 to be a time; correct it"
_ISO = (
    r"^(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[T ](?P<hour>[0-9]{2}):(?P<minute>[0-9]{2})"
    r"(?::(?P<second>[0-9]{2})(?:[.,](?P<fraction>[0-9]+))?)?"
    r" ?(?P<zone>Z|z|UTC|GMT|[+-][0-9]{2}(?::?[0-9]{2})?)?)?$"
)
_DECIMAL = pa.decimal128(38, 9)
_SLICE = 2**20

_Wrong = list[tuple[NDArray[np.bool_], str]]  # rows, and what is wrong with the text of each


class ParsedTimes(NamedTuple):
    """Times of a chunk as integers, each of 10**-digits of their unit; shape (rows,).

    Those of a ``calendar`` count seconds since 1970-01-01 UTC; the unit of others is not yet known.
    ``zoned`` holds whether texts have a time zone, for both kinds if there are both.
    """

    values: NDArray[np.int64]
    digits: int
    calendar: bool
    zoned: frozenset[bool] = frozenset()

    def take(self, kept: NDArray[np.bool_]) -> ParsedTimes:
        """Keep some of the rows."""
        return self._replace(values=self.values[kept])


def slices(values: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Cut an array into views, to save memory."""
    return (values[start : start + _SLICE] for start in range(0, len(values), _SLICE))


def all_divisible(values: NDArray[np.int64], divisor: int) -> bool:
    """Say whether a divisor divides all values."""
    if len(values) and values[0] % divisor:
        return False
    return not any((part % divisor).any() for part in slices(values))


def coarsest(values: NDArray[np.int64], digits: int) -> tuple[NDArray[np.int64], int]:
    """Drop decimals that are 0 in all values, three at a time."""
    while digits and all_divisible(values, 1000):
        values, digits = values // 1000, digits - 3
    return values, digits


def parse_floats(values: NDArray[np.floating[Any]]) -> tuple[ParsedTimes, list[Fault]]:
    """Read floats as the shortest decimals that they are the nearest floats to."""
    bits = 8 * values.dtype.itemsize
    limit = FLOAT_LIMITS[bits]
    exact = values.astype(np.float64)
    faults: list[Fault] = []

    def refuse(wrong: NDArray[np.bool_], problem: str) -> None:
        if wrong.any():
            told = [f"the time {value!r} {problem}" for value in exact[wrong][:5].tolist()]
            rows = np.flatnonzero(wrong)[:5].tolist()
            named = dict(zip(rows, told, strict=True))
            kept = exact.copy()
            faults.append(Fault(wrong, lambda row: kept[row], lambda row: named[row]))

    too_large = ~(np.abs(exact) < limit)
    refuse(
        too_large,
        f"is not exact: from {limit} on, float{bits} cannot tell times apart; store times as integers or "
        "timestamps",
    )
    exact = np.where(too_large, 0, exact)
    for digits in (0, 3, 6):
        scaled = np.rint(exact * 10**digits)
        if (np.abs(scaled) < 2**53).all() and (scaled / 10**digits == exact).all():
            return ParsedTimes(scaled.astype(np.int64), digits, calendar=False), faults
    whole = np.floor(exact)
    too_far = np.abs(whole) >= 9e9  # with nanoseconds beside them, int64 does not hold these
    refuse(too_far, "has a fraction that cannot be kept; store times as integers or timestamps")
    whole, exact = np.where(too_far, 0, whole), np.where(too_far, 0, exact)
    nanos = whole.astype(np.int64) * 10**9 + np.rint((exact - whole) * 1e9).astype(np.int64)
    # From 2**23 on, neighbouring float64 numbers are further apart than a nanosecond.
    refuse((np.abs(exact) < 2**23) & (nanos / 1e9 != exact), TOO_FINE)
    return ParsedTimes(nanos, 9, calendar=False), faults


def parse_texts(texts: pa.Array, decimal: str) -> tuple[ParsedTimes, list[Fault]]:
    """Read texts, all of which must be numbers or all dates; the first one decides."""
    bare = trimmed(texts)
    if (quick := _cast_alike(bare)) is not None:
        return quick, []
    missing = is_missing(bare)
    numbers = with_decimal_point(bare, decimal)
    is_number = matches(numbers, NUMBER) & ~missing
    is_date = matches(bare, "^[0-9]{4}-[0-9]{2}-[0-9]{2}") & ~missing
    calendar = bool(is_date.any())
    if calendar and is_number.any():
        calendar = bool(is_date.argmax() < is_number.argmax())
    chosen, other = (is_date, is_number) if calendar else (is_number, is_date)
    parse = _parse_iso if calendar else _parse_numbers
    parsed, wrong = parse(where(chosen, bare if calendar else numbers))

    def unreadable(row: int) -> str:
        text = texts[row].as_py()
        hint = not_a_number(text, decimal)
        return hint if "decimal=" in hint else f"{text!r} is no time; {_EXAMPLE}"

    faults = [
        Fault(missing, cell(texts), lambda _: MISSING_PROBLEM),
        Fault(~(chosen | other | missing), cell(texts), unreadable),
        Fault(other, cell(texts), lambda _: SEVERAL_WAYS),
    ]
    for mask, problem in wrong:
        faults.append(Fault(mask & chosen, cell(texts), about(cell(texts), f"{{!r}} {problem}")))
    return parsed, [fault for fault in faults if fault.wrong.any()]


def _cast_alike(bare: pa.Array) -> ParsedTimes | None:
    """Read a chunk of dates all of which are written as the first one is, if Arrow can.

    It is asked once, since where it cannot it takes twenty times as long.
    """
    first = bare[0].as_py() if len(bare) else None
    if first is None or first[4:5] != "-" or bare.null_count:
        return None
    if first.endswith(("UTC", "GMT")):
        bare = pc.replace_substring_regex(bare, " ?(UTC|GMT)$", "Z")
    has_zone = re.search(r"(Z|UTC|GMT|[+-]\d\d(:?\d\d)?)$", first[10:]) is not None
    is_long = pc.max(pc.binary_length(bare)).as_py() > len("2001-02-03T04:05:06.123456")
    digits = 9 if is_long and matches(bare, r"[.,]\d{7}").any() else 6
    kind = pa.timestamp("us" if digits == 6 else "ns", "UTC" if has_zone else None)
    try:
        values = bare.cast(kind).view(pa.int64()).to_numpy()
    except pa.ArrowInvalid:
        return None
    return ParsedTimes(*coarsest(values, digits), True, frozenset({has_zone}))


def _parse_iso(bare: pa.Array) -> tuple[ParsedTimes, _Wrong]:
    """Read ISO 8601 in any mix of its forms; null stands for nothing and is read as 1970."""
    parts = pc.extract_regex(bare, _ISO)
    matched = to_mask(pc.is_valid(parts))

    def part(name: str) -> pa.Array:
        return pc.struct_field(parts, name)

    def number(texts: pa.Array) -> NDArray[np.int64]:
        filled = pc.if_else(pc.fill_null(pc.equal(texts, ""), True), "0", texts)
        values: NDArray[np.int64] = filled.cast(pa.int64()).to_numpy()
        return values

    def digits(text: pa.Array, start: int, stop: int) -> NDArray[np.int64]:
        return number(pc.utf8_slice_codeunits(text, start, stop))

    year, month, day = (digits(part("date"), *place) for place in ((0, 4), (5, 7), (8, 10)))
    hour, minute, second = (number(part(name)) for name in ("hour", "minute", "second"))
    months = (year - 1970) * 12 + month - 1
    first_day, next_first_day = _first_days(months), _first_days(months + 1)
    possible = (month >= 1) & (month <= 12) & (day >= 1) & (first_day + day <= next_first_day)
    possible &= (hour < 24) & (minute < 60) & (second < 60)
    zone = pc.replace_substring(part("zone"), ":", "")
    offset = where(matches(zone, "^[+-]"), zone)
    hours, minutes = digits(offset, 1, 3), digits(offset, 3, 5)
    possible &= (hours < 24) & (minutes < 60)
    sign = np.where(matches(offset, "^-"), -1, 1)
    seconds = (first_day + day - 1) * 86_400 + hour * 3600 + minute * 60 + second
    seconds -= sign * (hours * 3600 + minutes * 60)
    fraction = pc.utf8_rtrim(part("fraction"), "0")
    too_fine = to_mask(pc.fill_null(pc.greater(pc.utf8_length(fraction), 9), False))
    nanos = digits(pc.utf8_rpad(fraction, 9, "0"), 0, 9)
    readable = matched & possible & ~too_fine
    parsed, too_far = _joined(np.where(readable, seconds, 0), np.where(readable, nanos, 0))
    has_zone = matches(part("zone"), ".")[readable]
    return parsed._replace(calendar=True, zoned=frozenset(np.unique(has_zone).tolist())), [
        (~(matched & possible), f"is no time; {_EXAMPLE}"),
        (too_fine, TOO_FINE),
        (too_far, f"has a fraction and {_TOO_FAR}"),
    ]


def _first_days(months: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the days from 1970-01-01 to the first day of months since then."""
    days: NDArray[np.int64] = (
        months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    )
    return days


def _parse_numbers(bare: pa.Array) -> tuple[ParsedTimes, _Wrong]:
    """Read decimal numbers exactly; null stands for nothing and is read as 0."""
    has_exponent = matches(bare, "[eE]")
    too_fine = matches(bare, r"\.[0-9]{9}0*[1-9]") & ~has_exponent
    too_far = matches(bare, r"^[+-]?0*[1-9][0-9]{19}") & ~has_exponent
    usual = where(~(has_exponent | too_fine | too_far), bare)
    decimals = pc.replace_substring_regex(usual, r"(\.[0-9]{9})0+$", r"\1").cast(_DECIMAL)
    unfit = np.zeros(len(bare), np.bool_)
    if has_exponent.any():
        exponents, unfit = _cast_exponents(where(has_exponent, bare))
        decimals = pc.coalesce(decimals, exponents)
    decimals = pc.fill_null(decimals, pa.scalar(0).cast(_DECIMAL))
    floors = pc.floor(decimals)
    low, high = (pa.scalar(Decimal(bound), _DECIMAL) for bound in (-(2**63), 2**63))
    beyond = to_mask(pc.or_(pc.less(floors, low), pc.greater_equal(floors, high)))
    whole = where(~beyond, floors).cast(pa.int64()).fill_null(0).to_numpy()
    # The lower halves of 128-bit integers of 10**-9; the difference wraps around to the fraction.
    halves = np.frombuffer(decimals.buffers()[1], np.int64)[2 * decimals.offset :]
    nanos = np.where(beyond, 0, halves[: 2 * len(decimals) : 2] - whole * 10**9)
    parsed, unheld = _joined(whole, nanos)
    return parsed, [
        (too_fine, TOO_FINE),
        (unfit, "is finer than a nanosecond or too far from 1970; correct it"),
        (too_far | beyond | unheld, _TOO_FAR),
    ]


def _cast_exponents(numbers: pa.Array) -> tuple[pa.Array, NDArray[np.bool_]]:
    """Read numbers such as 1.4E9, and mark those that no decimal of 29 + 9 digits holds."""
    try:
        return numbers.cast(_DECIMAL), np.zeros(len(numbers), np.bool_)
    except pa.ArrowInvalid:
        if len(numbers) == 1:
            return pa.array([None], _DECIMAL), np.ones(1, np.bool_)
    half = len(numbers) // 2
    parts = [_cast_exponents(part) for part in (numbers.slice(0, half), numbers.slice(half))]
    values = pa.concat_arrays([values for values, _ in parts])
    return values, np.concatenate([wrong for _, wrong in parts])


def _joined(
    whole: NDArray[np.int64], nanos: NDArray[np.int64]
) -> tuple[ParsedTimes, NDArray[np.bool_]]:
    """Join whole units and fractions of 10**-9 of them; mark the rows that int64 does not hold."""
    digits = next(d for d in (0, 3, 6, 9) if not (nanos % 10 ** (9 - d)).any())
    unheld = np.abs(whole) > (2**63 - 1) // 10**digits - 1
    whole = np.where(unheld, 0, whole)
    values = whole * 10**digits + nanos // 10 ** (9 - digits)
    return ParsedTimes(values, digits, calendar=False), unheld
