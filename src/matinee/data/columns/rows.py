"""Chunks of raw columns to typed columns, with the rows that are refused on the way."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from matinee.data.columns.growing import GrowingArray
from matinee.data.columns.ids import Ids, IdType, ParsedIds, RawIds
from matinee.data.columns.ratings import Ratings
from matinee.data.columns.texts import TEXT, as_text, cell, is_text, plain, to_mask, trimmed
from matinee.data.columns.time_cells import ParsedTimes, TimeUnit
from matinee.data.columns.times import Times
from matinee.data.source_location import BadRow, BadRows, Fault, Locations, Stretch
from matinee.errors import MatineeError

BadRowPolicy = Literal["error", "skip"]

COLUMNS = ("user", "item", "rating", "timestamp", "part", "title")
PARTS = ("train", "validation", "test")

_PART_NAMES = {"train": 0, "validation": 1, "valid": 1, "val": 1, "test": 2}


@dataclass(frozen=True)
class Rules:
    """How cells are read, see `matinee.data.columns`.

    Attributes:
        id_type: Whether ids are integers, text, or what is written (``auto``).
        time_unit: What times that are numbers count; ``auto`` tells it by their magnitude.
        rating_scale: Lowest and highest possible rating; None takes them from the data.
        decimal: The decimal sign of numbers that are written as text.
        bad_rows: Whether a bad row is an error or is left out and counted (``skip``).
    """

    id_type: IdType = "auto"
    time_unit: TimeUnit | Literal["auto"] = "auto"
    rating_scale: Sequence[float] | None = None
    decimal: str = "."
    bad_rows: BadRowPolicy = "error"

    def __post_init__(self) -> None:
        for name, kind, extra in (
            ("id_type", IdType, ()),
            ("time_unit", TimeUnit, ("auto",)),
            ("bad_rows", BadRowPolicy, ()),
        ):
            options = (*extra, *get_args(kind))
            if getattr(self, name) not in options:
                raise MatineeError(
                    f"{name}={getattr(self, name)!r} is unknown; choose one of {', '.join(options)}."
                )
        if self.decimal not in (".", ","):
            raise MatineeError(f"decimal={self.decimal!r} is unknown; choose '.' or ','.")


class Parsed(NamedTuple):
    """A chunk whose cells are typed, and what is wrong with them."""

    columns: dict[str, Any]
    titles: tuple[NDArray[np.int64], pa.Array] | None  # rows that show an item first, their titles
    wrong: NDArray[np.bool_] | None
    bad: list[tuple[int, str, str, str]]  # the first ones: row, column, value, problem


class TypedColumns(NamedTuple):
    """The columns of a whole source; arrays have shape (rows,)."""

    user_ids: NDArray[np.int32]
    raw_users: RawIds
    item_ids: NDArray[np.int32]
    raw_items: RawIds
    ratings: NDArray[np.float32] | None
    rating_scale: tuple[float, float] | None
    timestamps: NDArray[np.int64] | None
    time_unit: TimeUnit
    parts: NDArray[np.int8] | None
    titles: pd.Series[Any] | None  # by item id


class RawColumns(NamedTuple):
    """Columns of a source whose ids belong to a catalogue that is already known."""

    ids: dict[
        str, tuple[NDArray[np.int32], RawIds]
    ]  # of users or items: codes (rows,) from 1, raw ids
    ratings: NDArray[np.float32] | None  # (rows,)
    timestamps: NDArray[np.int64] | None  # (rows,)
    time_unit: TimeUnit


class RowReader:
    """Collects the rows of a source chunk by chunk.

    Args:
        names: The source's own names of the columns ``user``, ``item`` and perhaps ``rating``, ``timestamp``,
            ``part`` and ``title``.
        rules: How cells are read.
        source: Name of the source, for messages about all of it.
        capacity: Number of rows to expect.

    Attributes:
        bad: The rows refused so far.
        locations: The places of the rows kept so far.
        num_rows: Number of rows kept so far.
    """

    def __init__(
        self, names: Mapping[str, str], rules: Rules, source: str = "the table", capacity: int = 0
    ) -> None:
        self.names, self.rules, self.source = names, rules, source
        self.bad = BadRows()
        self.locations = Locations(names)
        self.num_rows = 0
        self._readers: dict[str, Any] = {
            name: Ids(name, rules.id_type, capacity) for name in ("user", "item") if name in names
        }
        if "rating" in names:
            self._readers["rating"] = Ratings(rules.rating_scale, rules.decimal, capacity)
        if "timestamp" in names:
            self._readers["timestamp"] = Times(rules.time_unit, rules.decimal, capacity)
        if "part" in names:
            self._readers["part"] = _Parts()
        self._titles: list[tuple[NDArray[np.int64], pa.Array]] = []

    def parse(self, columns: Mapping[str, pa.Array]) -> Parsed:
        """Type the cells of a chunk; this may run in several threads at once.

        Args:
            columns: Arrow arrays of one length by canonical name.

        Raises:
            MatineeError: If a column's type holds no such values.
        """
        parsed, wrong, faults = {}, None, []
        for name, reader in self._readers.items():
            try:
                parsed[name], found = reader.parse(columns[name])
            except (MatineeError, pa.ArrowException) as error:
                raise MatineeError(
                    f"{self.source}, column {self.locations.column(name)}: {error}."
                ) from error
            for fault in found:
                faults.append((name, fault))
                wrong = fault.wrong if wrong is None else wrong | fault.wrong
        bad = [] if wrong is None else self._describe(wrong, faults)
        if wrong is not None:
            parsed = {name: _take(values, ~wrong) for name, values in parsed.items()}
        titles = None
        if "title" in self.names:
            column = (
                columns["title"] if wrong is None else columns["title"].filter(pa.array(~wrong))
            )
            titles = _first_titles(parsed["item"], column)
        return Parsed(parsed, titles, wrong, bad)

    def _describe(
        self, wrong: NDArray[np.bool_], faults: list[tuple[str, Fault]]
    ) -> list[tuple[int, str, str, str]]:
        described = []
        for row in np.flatnonzero(wrong)[:5].tolist():
            name, fault = next((name, fault) for name, fault in faults if fault.wrong[row])
            value = fault.value(row)
            column = self.names.get(name, name)
            described.append((row, column, "" if value is None else str(value), fault.problem(row)))
        return described

    def append(
        self, parsed: Parsed, stretch: Stretch, refused: Sequence[tuple[int, str]] = ()
    ) -> None:
        """Add the rows of a chunk, in the order of the source.

        Args:
            parsed: The chunk.
            stretch: Where its rows were read.
            refused: Rows among them that could not be taken apart: their numbers, and what is wrong.
        """
        if parsed.wrong is not None or refused:
            bad = [(number, "", "", problem) for number, problem in refused]
            bad += [(int(stretch.numbers[cell[0]]), *cell[1:]) for cell in parsed.bad]
            found = [
                BadRow((stretch.source, f"{stretch.unit} {number}"), column, value, problem)
                for number, column, value, problem in sorted(bad)
            ]
            self.bad.extend(
                found, len(refused) + (0 if parsed.wrong is None else int(parsed.wrong.sum()))
            )
        if parsed.wrong is not None:
            stretch = stretch.take(~parsed.wrong)
        if self.bad.count and self.rules.bad_rows == "error":
            return  # the rows to come are only counted
        self.locations.append(stretch)
        for name, values in parsed.columns.items():
            self._readers[name].append(values)
        if parsed.titles is not None:
            rows, titles = parsed.titles
            self._titles.append((rows + self.num_rows, titles))
        self.num_rows += len(stretch.numbers)

    @property
    def counts(self) -> dict[str, int]:
        """Numbers of rows for the record of a run, if bad ones are left out."""
        if self.rules.bad_rows == "error":
            return {}
        return {"rows": self.num_rows + self.bad.count, "bad_rows_skipped": self.bad.count}

    def report(self) -> None:
        """Say on standard error how many rows of the source were read and how many were refused."""
        if self.bad.count and self.rules.bad_rows == "error":
            return  # an error follows
        total = self.num_rows + self.bad.count
        print(
            f"{self.source}: read {self.num_rows:,} of {total:,} rows, refused {self.bad.count:,}.",
            file=sys.stderr,
        )
        if self.bad.count:
            print(self.bad.table(), file=sys.stderr)

    def finish(self) -> TypedColumns:
        """Return the typed columns, in the order of the source.

        Raises:
            MatineeError: If a row is bad and that is an error, no row is left, or a column as a whole cannot
                be read.
        """
        if self.bad.count and self.rules.bad_rows == "error":
            raise self.bad.error()
        if self.num_rows == 0:
            if self.bad.count:
                error = self.bad.error()
                raise MatineeError(f"{self.source} has no usable row: {error}") from error
            raise MatineeError(f"{self.source} has no rows; give it at least one interaction.")
        readers = self._readers
        user_ids, raw_users = readers["user"].finish(self.locations)
        item_ids, raw_items = readers["item"].finish(self.locations)
        ratings = scale = timestamps = None
        unit: TimeUnit = "s"
        if "rating" in readers:
            ratings, scale = readers["rating"].finish()
        if "timestamp" in readers:
            timestamps, unit = readers["timestamp"].finish(self.locations)
        parts = readers["part"].finish() if "part" in readers else None
        for name in ("user", "item", "timestamp"):
            for note in readers[name].notes if name in readers else ():
                print(f"{self.source}: {note}.", file=sys.stderr)
        return TypedColumns(
            *(user_ids, raw_users, item_ids, raw_items, ratings, scale, timestamps, unit, parts),
            titles=self._joined_titles(item_ids),
        )

    def finish_raw(self) -> RawColumns:
        """Return the columns as they are written, in the order of the source.

        Raises:
            MatineeError: If a row is bad, there is none, or a column as a whole cannot be read.
        """
        if self.bad.count:
            raise self.bad.error(advice="")
        if self.num_rows == 0:
            raise MatineeError(f"{self.source} has no rows; give it at least one.")
        ids = {
            name: reader.finish(self.locations)
            for name, reader in self._readers.items()
            if isinstance(reader, Ids)
        }
        ratings, _ = self._readers["rating"].finish() if "rating" in self._readers else (None, None)
        times = self._readers.get("timestamp")
        unit: TimeUnit = "s"
        timestamps = None
        if times is not None:
            timestamps, unit = times.finish(self.locations)
        return RawColumns(ids, ratings, timestamps, unit)

    def _joined_titles(self, item_ids: NDArray[np.int32]) -> pd.Series[Any] | None:
        if not self._titles:
            return None
        rows = np.concatenate([rows for rows, _ in self._titles])
        titles = pa.chunked_array([titles for _, titles in self._titles]).to_pandas()
        self._titles.clear()
        frame = titles.set_axis(item_ids[rows])
        first: pd.Series[Any] = frame[~frame.index.duplicated()]
        return first


class _Parts:
    """A column that names the part of each row."""

    def __init__(self) -> None:
        self._values = GrowingArray(np.int8)

    def parse(self, column: pa.Array) -> tuple[NDArray[np.int8], list[Fault]]:
        column = plain(column)
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if not (is_text(column.type) or pa.types.is_null(column.type)):
            raise MatineeError(f"parts are of type {column.type}; they must be text")
        texts = as_text(column)
        places = pc.index_in(
            pc.utf8_lower(trimmed(texts)), value_set=pa.array(list(_PART_NAMES), TEXT)
        )
        wrong = to_mask(pc.is_null(places))
        values = np.array([*_PART_NAMES.values()], np.int8)[pc.fill_null(places, 0).to_numpy()]
        fault = Fault(
            wrong,
            cell(texts),
            lambda row: f"{texts[row].as_py()!r} is no part; write train, validation or test",
        )
        return values, [fault] if wrong.any() else []

    def append(self, values: NDArray[np.int8]) -> None:
        self._values.append(values)

    def finish(self) -> NDArray[np.int8]:
        return self._values.release()


def _take(values: Any, kept: NDArray[np.bool_]) -> Any:
    return values.take(kept) if isinstance(values, ParsedIds | ParsedTimes) else values[kept]


def _first_titles(items: ParsedIds, titles: pa.Array) -> tuple[NDArray[np.int64], pa.Array]:
    rows = items.first_rows()
    titles = plain(titles)
    if pa.types.is_dictionary(titles.type):
        titles = titles.dictionary_decode()
    return rows, titles.take(pa.array(rows)).cast(TEXT)
