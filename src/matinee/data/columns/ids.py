"""Raw ids of users or items to contiguous ids; what an id is stands in `matinee.data.columns`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from matinee.data.columns.growing import GrowingArray
from matinee.data.columns.texts import (
    MISSING_PROBLEM,
    NULL,
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
)
from matinee.data.source_location import Fault, Locations
from matinee.errors import MatineeError

IdType = Literal["auto", "text", "integer"]
RawIds = NDArray[np.int64] | NDArray[np.uint64] | list[str]

# The first whole number that a float of so many bits may have rounded another one to.
FLOAT_LIMITS = {16: 2**11, 32: 2**24, 64: 2**53}

_INTEGER = r"^(0|-?[1-9][0-9]*)(\.0)?$"  # as it is written, apart from ".0"
_ANY_INTEGER = r"^[+-]?[0-9]+(\.0+)?$"
_WHOLE_DECIMAL = r"^-?[0-9]+\.0+$"
_SHORTENED = r"^-?[0-9](\.[0-9]+)?[eE]\+[0-9]{2,}$"  # as spreadsheets and pandas write large floats
_WORD_PROBLEM = (
    "stands for a missing value; fill it or remove the row, or set id_type=text if it is an id"
)
_FEW_ENTRIES = 2**16
_SLICE = 2**20


class ParsedIds(NamedTuple):
    """Ids of a chunk: integers, or codes of texts; shape (rows,)."""

    integers: NDArray[np.int64] | None
    codes: NDArray[np.int32] | None = None
    texts: pa.Array | None = None

    def take(self, kept: NDArray[np.bool_]) -> ParsedIds:
        """Keep some of the rows."""
        if self.integers is not None:
            return ParsedIds(self.integers[kept])
        assert self.codes is not None
        return ParsedIds(None, self.codes[kept], self.texts)

    def first_rows(self) -> NDArray[np.int64]:
        """Return the first row of each distinct id of the chunk, ascending."""
        if self.integers is not None:
            _, rows = np.unique(self.integers, return_index=True)
        else:
            assert self.codes is not None
            assert self.texts is not None
            rows = np.full(len(self.texts), -1, np.int64)
            rows[self.codes[::-1]] = np.arange(len(self.codes))[::-1]
            rows = rows[rows >= 0]
        return np.sort(rows)


class Ids:
    """A column of ids that grows chunk by chunk.

    Args:
        name: ``user`` or ``item``.
        id_type: How ids are read, see `matinee.data.columns`.
        capacity: Number of rows to expect.

    Attributes:
        notes: What a person should know of how the ids were read.
    """

    def __init__(self, name: str, id_type: IdType, capacity: int = 0) -> None:
        self.name, self.id_type, self._capacity = name, id_type, capacity
        self.notes: list[str] = []
        self._integers = GrowingArray(np.int64)
        self._codes = GrowingArray(np.int32)
        self._chunks: list[bool] = []  # whether each chunk holds integers, and
        self._sizes: list[int] = []  # its rows
        self._texts = pa.array([], TEXT)
        self._pending: list[tuple[int, int, pa.Array]] = []  # codes that do not yet refer to _texts
        self._num_pending = 0
        self._last: tuple[Any, pa.Array, tuple[pa.Array, Any]] | None = None

    def parse(self, column: pa.Array) -> tuple[ParsedIds, list[Fault]]:
        """Read a chunk; this may run in several threads.

        Raises:
            MatineeError: If the column's type holds no ids.
        """
        column = plain(column)
        kind = column.type
        if pa.types.is_dictionary(kind) and not is_text(kind.value_type):
            column = column.dictionary_decode()
            kind = column.type
        if pa.types.is_decimal(kind):
            return self._parse_decimals(column)
        if pa.types.is_null(kind):
            column = column.cast(TEXT)
            kind = TEXT
        if pa.types.is_dictionary(kind) or is_text(kind):
            return self._parse_texts(column)
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            raise MatineeError(f"ids are of type {kind}; they must be integers or text")
        faults = []
        if column.null_count or pa.types.is_floating(kind):
            missing = to_mask(pc.is_null(column, nan_is_null=True))
            if missing.any():
                faults.append(Fault(missing, lambda _: "", lambda _: MISSING_PROBLEM))
                column = pc.if_else(pa.array(missing), pa.scalar(0, kind), column)
        values = column.to_numpy()
        if values.dtype.kind == "f":
            values = values.astype(np.float64)
            faults += _float_faults(values, column.type.bit_width)
            values = np.where(np.abs(values) < 2**53, values, 0)
        elif values.dtype == np.uint64 and values.max(initial=0) > 2**63 - 1:
            parsed, _ = self._parse_texts(column.cast(TEXT))
            return parsed, faults
        return ParsedIds(values.astype(np.int64, copy=False)), faults

    def _parse_decimals(self, column: pa.Array) -> tuple[ParsedIds, list[Fault]]:
        """Read decimals, which are ids if they are whole."""
        digits = pc.replace_substring_regex(column.cast(TEXT), r"\.0*$", "")
        parsed, faults = self._parse_texts(digits)
        fraction = matches(digits, r"\.")
        if fraction.any():
            problem = "the id {} is not an integer; store ids as integers or text"
            faults.append(Fault(fraction, cell(column), about(cell(column), problem)))
        return parsed, faults

    def _parse_texts(self, column: pa.Array) -> tuple[ParsedIds, list[Fault]]:
        if not pa.types.is_dictionary(column.type):
            column = as_text(column).dictionary_encode()
        texts, wrong = self._checked(column.dictionary)
        indices, faults = column.indices, []
        if indices.null_count:
            missing = to_mask(pc.is_null(indices))
            faults.append(Fault(missing, lambda _: "", lambda _: MISSING_PROBLEM))
            indices = pc.fill_null(indices, 0)
        codes = indices.to_numpy(zero_copy_only=False).astype(np.int32, copy=False)

        def text(row: int) -> str:
            found: str = texts[codes[row]].as_py()
            return found

        for mask, problem in wrong:
            faults.append(Fault(mask[codes], text, about(text, problem)))
        return ParsedIds(None, codes, texts), faults

    def _checked(
        self, dictionary: pa.Array
    ) -> tuple[pa.Array, list[tuple[NDArray[np.bool_], str]]]:
        """Return distinct texts and which of them are no ids; chunks often share them."""
        key = (len(dictionary), dictionary.offset, [b and b.address for b in dictionary.buffers()])
        last = self._last
        if last is not None and last[0] == key:
            return last[2]
        texts = as_text(dictionary) if len(dictionary) else pa.array([""], TEXT)
        bare = trimmed(texts)
        is_blank = to_mask(pc.fill_null(pc.equal(bare, ""), True))
        wrong = [(is_blank, MISSING_PROBLEM)]
        if self.id_type != "text":
            word = is_missing(bare) & ~is_blank
            if self.id_type == "auto":  # null is decided on when all ids are known
                word &= to_mask(pc.fill_null(pc.not_equal(bare, NULL), True))
            wrong.append((word, f"{{!r}} {_WORD_PROBLEM}"))
            if self.id_type == "integer":
                other = ~matches(bare, _ANY_INTEGER) & ~is_blank & ~word
                wrong.append((other, "{!r} is not an integer; correct it or set id_type=auto"))
        checked = (pc.fill_null(texts, ""), [(mask, told) for mask, told in wrong if mask.any()])
        # The dictionary is held, or its address could be used anew.
        self._last = (key, dictionary, checked)
        return checked

    def append(self, parsed: ParsedIds) -> None:
        """Add the next rows."""
        is_integer = parsed.integers is not None
        array = self._integers if is_integer else self._codes
        if len(array) == 0 and not self._sizes and self._capacity:
            array = GrowingArray(np.int64 if is_integer else np.int32, self._capacity)
            if is_integer:
                self._integers = array
            else:
                self._codes = array
        start = len(array)
        if parsed.integers is not None:
            array.append(parsed.integers)
        else:
            assert parsed.codes is not None
            array.append(parsed.codes)
            self._remember(start, len(array), parsed.texts)
        self._chunks.append(is_integer)
        self._sizes.append(len(array) - start)

    def _remember(self, start: int, stop: int, texts: Any) -> None:
        if self._pending:
            begun, end, last = self._pending[-1]
            if last is texts or (len(last) == len(texts) and last.equals(texts)):
                self._pending[-1] = (begun, stop, last)
                return
            del end
        self._pending.append((start, stop, texts))
        self._num_pending += len(texts)
        if self._num_pending > max(_FEW_ENTRIES, 2 * len(self._texts)):
            self._settle()

    def _settle(self) -> None:
        """Let all codes refer to one list of distinct texts."""
        if not self._pending:
            return
        joined = pa.concat_arrays([self._texts, *(texts for *_, texts in self._pending)])
        encoded = joined.dictionary_encode()
        mapping = encoded.indices.to_numpy()
        codes, offset = self._codes.values, len(self._texts)
        for start, stop, texts in self._pending:
            _translate(codes[start:stop], mapping[offset : offset + len(texts)].astype(np.int32))
            offset += len(texts)
        self._texts, self._pending, self._num_pending = encoded.dictionary, [], 0

    def finish(self, locations: Locations) -> tuple[NDArray[np.int32], RawIds]:
        """Return contiguous ids from 1, shape (rows,), and the sorted raw ids they stand for.

        Raises:
            MatineeError: If two ids differ only in how they are written, or an integer is too large.
        """
        if all(self._chunks) and self.id_type != "text":
            return _encode_integers(self._integers.release())
        self._only_texts()
        self._settle()
        codes, texts = self._codes.release(), self._texts
        self._texts = pa.array([], TEXT)
        is_used = np.zeros(len(texts), np.bool_)
        for part in _slices(codes):
            is_used[part] = True
        used = np.flatnonzero(is_used)
        texts = texts.take(pa.array(used))
        refuse = _Refusal(self.name, texts, used, codes, locations)
        ranks = np.zeros(len(is_used), np.int32)
        ranks[used], raw = _ranks(texts, self.id_type, refuse)
        if isinstance(raw, list) and self.id_type == "auto":
            self.notes = list(_notes(self.name, texts))
        _translate(codes, ranks)
        return codes, raw

    def _only_texts(self) -> None:
        """Write the integers of columns that also hold text, or shall be text, as text."""
        if not any(self._chunks):
            return
        integers, codes = self._integers.release(), self._codes.release()
        self._settle_released(codes)
        encoded = pa.array(integers).dictionary_encode()
        offset, added = len(self._texts), encoded.dictionary.cast(TEXT)
        joined = pa.concat_arrays([self._texts, added]).dictionary_encode()
        mapping = joined.indices.to_numpy().astype(np.int32)
        new = mapping[offset:][encoded.indices.to_numpy()]
        whole = GrowingArray(np.int32, len(integers) + len(codes))
        place = {True: 0, False: 0}
        for is_integer, size in zip(self._chunks, self._sizes, strict=True):
            source = new if is_integer else codes
            whole.append(source[place[is_integer] : place[is_integer] + size])
            place[is_integer] += size
        self._codes, self._texts = whole, joined.dictionary

    def _settle_released(self, codes: NDArray[np.int32]) -> None:
        self._codes.append(codes)
        self._settle()
        codes[:] = self._codes.release()


def _float_faults(values: NDArray[np.float64], bits: int) -> list[Fault]:
    limit = FLOAT_LIMITS[bits]
    too_large = ~(np.abs(values) < limit)
    fraction = ~too_large & (values != np.floor(values))
    remedy = "store ids as integers or text"
    faults = []
    for wrong, problem in (
        (
            too_large,
            f"is too large: from {limit} on, float{bits} cannot tell integers apart; {remedy}",
        ),
        (fraction, f"is not an integer; {remedy}"),
    ):
        if wrong.any():
            faults.append(Fault(wrong, values.item, about(values.item, f"the id {{!r}} {problem}")))
    return faults


class _Refusal(NamedTuple):
    """Builds the errors about distinct texts, with the places of their first rows."""

    name: str
    texts: pa.Array
    used: NDArray[np.int64]
    codes: NDArray[np.int32]
    locations: Locations

    def row(self, index: int) -> int:
        return int(np.argmax(self.codes == self.used[index]))

    def error(self, index: int, problem: str) -> MatineeError:
        return self.locations.error(self.name, self.row(index), problem)

    def pair(self, index: int, other: int, difference: str) -> MatineeError:
        index, other = sorted((index, other), key=self.row)
        one, two = self.texts[index].as_py(), self.texts[other].as_py()
        _, place = self.locations.place(self.row(index))
        return self.error(
            other,
            f"the ids {one!r} ({place}) and {two!r} differ only {difference}; write one id in one "
            "way, or set id_type=text to keep them apart",
        )


def _ranks(texts: pa.Array, id_type: IdType, refuse: _Refusal) -> tuple[NDArray[np.int32], RawIds]:
    """Return the rank from 1 of each distinct text, and the sorted ids that the ranks stand for."""
    if id_type == "text":
        return _sorted_texts(texts)
    bare = trimmed(texts)
    if id_type == "auto" and (pair := _equal_pair(bare)) is not None:
        raise refuse.pair(*pair, "in the blanks around them")
    is_integer = matches(bare, _INTEGER if id_type == "auto" else _ANY_INTEGER)
    is_null = to_mask(pc.equal(bare, NULL))
    if is_null.any() and (is_integer | is_null).all():
        raise refuse.error(int(np.argmax(is_null)), f"{NULL!r} among integers {_WORD_PROBLEM}")
    if is_integer.all():
        digits = pc.replace_substring_regex(bare, r"(^\+)|(\.0+$)", "")
        digits = pc.replace_substring_regex(digits, "^-(0+)$", r"\1")
        for kind in (pa.int64(), pa.uint64()):
            try:
                values = digits.cast(kind).to_numpy()
            except pa.ArrowInvalid:
                continue
            raw, inverse = np.unique(values, return_inverse=True)
            return (inverse + 1).astype(np.int32), raw
        if id_type == "integer":
            index = int(np.argmax(~_fits(digits)))
            raise refuse.error(
                index, f"the id {bare[index].as_py()} does not fit in 64 bits; set id_type=text"
            )
    if id_type == "auto" and (shortened := matches(bare, _SHORTENED)).any():
        index = int(np.argmax(shortened))
        raise refuse.error(
            index,
            f"the id {bare[index].as_py()!r} is a shortened number, for which several ids may have "
            "become one; store ids as integers or text, or set id_type=text if it is an id",
        )
    is_whole = matches(bare, _WHOLE_DECIMAL)
    if is_whole.any():
        shortened = pc.if_else(
            pa.array(is_whole), pc.replace_substring_regex(bare, r"\.0+$", ""), bare
        )
        if (pair := _equal_pair(shortened)) is not None:
            raise refuse.pair(*pair, "in zeros after the point")
    return _sorted_texts(bare)


def _notes(name: str, texts: pa.Array) -> Iterator[str]:
    """Tell what is unusual about distinct ids that are read as text."""
    bare = trimmed(texts)
    is_null = to_mask(pc.equal(bare, NULL))
    if is_null.any():
        yield f"{NULL!r} is read as the id of a {name}"
    other = ~matches(bare, _INTEGER) & ~is_null
    if 0 < np.count_nonzero(other) < len(bare):
        example = bare[int(np.argmax(other))].as_py()
        yield (
            f"{np.count_nonzero(other):,} of {len(bare):,} {name} ids are no integers, such as {example!r}, "
            "so all are read as text; set id_type=text if this is right"
        )
    quoted = matches(bare, '^".*"$')
    if quoted.any():
        example = bare[int(np.argmax(quoted))].as_py()
        yield (
            f"quotation marks are part of {name} ids, such as {example}; set quoting=quotes if they are not"
        )


def _fits(digits: pa.Array) -> NDArray[np.bool_]:
    negative = any(text.startswith("-") for text in digits.to_pylist())
    low, high = (-(2**63), 2**63 - 1) if negative else (0, 2**64 - 1)
    return np.array([low <= int(text) <= high for text in digits.to_pylist()])


def _sorted_texts(texts: pa.Array) -> tuple[NDArray[np.int32], list[str]]:
    order = pc.sort_indices(texts).to_numpy()
    ranks = np.empty(len(order), np.int32)
    ranks[order] = np.arange(1, len(order) + 1)
    return ranks, texts.take(pa.array(order)).to_pylist()


def _equal_pair(texts: pa.Array) -> tuple[int, int] | None:
    """Return the places of two equal texts, if there are any."""
    codes = texts.dictionary_encode().indices.to_numpy()
    if len(codes) == 0 or codes.max() == len(codes) - 1:
        return None
    first = np.full(len(codes), -1, np.int64)
    first[codes[::-1]] = np.arange(len(codes))[::-1]
    again = int(np.argmax(first[codes] != np.arange(len(codes))))
    return int(first[codes[again]]), again


def _encode_integers(values: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    low, high = int(values.min()), int(values.max())
    if high - low < 4 * len(values) + 2**20:
        # Dense ids, as nearly always: a look-up table takes O(rows) where sorting would not.
        ranks = np.zeros(high - low + 1, np.int32)
        for part in _slices(values):
            ranks[part - low] = 1
        raw = np.flatnonzero(ranks)
        ranks[raw] = np.arange(1, len(raw) + 1)
        ids = np.empty(len(values), np.int32)
        for start in range(0, len(values), _SLICE):
            ids[start : start + _SLICE] = ranks[values[start : start + _SLICE] - low]
        return ids, raw + low
    encoded = pa.array(values).dictionary_encode()
    distinct = encoded.dictionary.to_numpy()
    order = np.argsort(distinct)
    ranks = np.empty(len(order), np.int32)
    ranks[order] = np.arange(1, len(order) + 1)
    return ranks[encoded.indices.to_numpy()], distinct[order]


def _slices(values: NDArray[Any]) -> Any:
    return (values[start : start + _SLICE] for start in range(0, len(values), _SLICE))


def _translate(codes: NDArray[np.int32], mapping: NDArray[np.int32]) -> None:
    """Replace codes by what they are mapped to, in place and with little more memory."""
    for part in _slices(codes):
        part[:] = mapping[part]
