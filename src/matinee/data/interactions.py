"""Validated user-item interactions: the one table that everything downstream reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from matinee.data.catalogues import catalogue, look_up, with_titles
from matinee.data.columns.rows import COLUMNS, PARTS, RowReader, Rules, TypedColumns
from matinee.data.columns.time_cells import TimeUnit
from matinee.data.duplicates import (
    DuplicatePolicy,
    check_policy,
    first_repeat,
    overlapping_parts,
    resolved,
)
from matinee.data.frames import select_columns, to_arrow
from matinee.data.source_location import Locations, Stretch
from matinee.errors import MatineeError

CHUNK = 2**20  # rows that are typed at once
ARRAYS = ("user_ids", "item_ids", "ratings", "timestamps", "parts")


@dataclass(frozen=True, eq=False)
class Interactions:
    """Who met what, how it was rated, and when, in stable (timestamp, source row) order.

    Build one with `Interactions.from_frame`, which validates. Ids are contiguous from 1 and follow the
    sorted raw ids (integers by value, text by code point), so they do not depend on the order of the
    rows; 0 is reserved for "padding / unknown". All arrays have shape (rows,).

    Attributes:
        user_ids: int32 in 1..num_users.
        item_ids: int32 in 1..num_items.
        ratings: float32, or None where there are none.
        timestamps: int64, counts of `time_unit` since 1970-01-01 UTC, or None; without them rows keep
            the source's order.
        users: Index `user_id` 1..num_users, first column `raw_id`, then what is known.
        items: Index `item_id` 1..num_items, columns `raw_id`, `title`, then what is known.
        rating_scale: Lowest and highest possible rating, or None where there are no ratings.
        duplicates_resolved: Number of rows that the duplicate policy removed.
        source: What the reader tells of the files, in plain values for the record of a run.
        time_unit: The coarsest unit that holds the source's times without rounding.
        parts: int8, the part that the source assigns a row to: 0 train, 1 validation, 2 test; None where it
            assigns none.

    Example:
        >>> table = {"user": ["b", "a"], "item": [7, 30], "timestamp": [2, 1]}
        >>> log = Interactions.from_table(table)
        >>> log.user_ids.tolist(), log.item_ids.tolist(), log.encode_items(["30", 8]).tolist()
        ([1, 2], [2, 1], [2, 0])
    """

    user_ids: NDArray[np.int32]
    item_ids: NDArray[np.int32]
    ratings: NDArray[np.float32] | None
    timestamps: NDArray[np.int64] | None
    users: pd.DataFrame
    items: pd.DataFrame
    rating_scale: tuple[float, float] | None = None
    duplicates_resolved: int = 0
    source: Mapping[str, Any] = field(default_factory=dict)
    time_unit: TimeUnit = "s"
    parts: NDArray[np.int8] | None = None

    @classmethod
    def from_table(
        cls,
        table: Any,
        *,
        users: pd.DataFrame | None = None,
        items: pd.DataFrame | None = None,
        duplicates: DuplicatePolicy = "error",
        **rules: Any,
    ) -> Interactions:
        """Validate raw columns that have their canonical names, and encode them.

        Args:
            table: Columns `user`, `item`, and optionally `rating`, `timestamp`, `part` and `title`; what
                their cells may be, `matinee.data.columns` says.
            users: What is known of the users, with a column `raw_id`.
            items: What is known of the items, with a column `raw_id`, and perhaps a `title`.
            duplicates: What to do with a repeated (user, item) pair: refuse it (`error`), keep its
                `first` or `last` row in time order, keep the last row with the `mean` rating, or
                `keep` every row (repeats are legal, as in listening histories).
            rules: How cells are read: `rating_scale`, `id_type`, `time_unit`, `bad_rows`, see
                `matinee.data.columns.rows.Rules`.

        Raises:
            MatineeError: If the table is empty or lacks a column, a cell breaks a rule, a pair is repeated
                under `error`, or an option is not one of those above.
        """
        arrow = to_arrow(table)
        for column in ("user", "item"):
            if column not in arrow.column_names:
                raise MatineeError(f"the table has no column {column!r}; add it.")
        names = {name: name for name in COLUMNS if name in arrow.column_names}
        reader = RowReader(names, Rules(**rules), capacity=arrow.num_rows)
        start = 1
        for batch in arrow.to_batches(max_chunksize=CHUNK):
            columns = {name: batch.column(batch.schema.get_field_index(name)) for name in names}
            stretch = Stretch("the table", "row", range(start, start + batch.num_rows))
            reader.append(reader.parse(columns), stretch)
            start += batch.num_rows
        return cls.from_rows(reader, users=users, items=items, duplicates=duplicates)

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        user: str | int = "user",
        item: str | int = "item",
        rating: str | int | None = None,
        timestamp: str | int | None = None,
        *,
        title: str | int | None = None,
        part: str | int | None = None,
        users: Any = None,
        items: Any = None,
        duplicates: DuplicatePolicy = "error",
        **rules: Any,
    ) -> Interactions:
        """Make interactions of a data frame.

        Args:
            frame: A data frame of pandas, a table or a stream of record batches of pyarrow, a mapping of
                names to columns, or any object with the Arrow PyCapsule or the dataframe interchange
                protocol, such as a data frame of polars.
            user: Name of the column of user ids.
            item: Name of the column of item ids.
            rating: Name of the column of ratings; None where there are none.
            timestamp: Name of the column of times; None keeps the order of the rows.
            title: Name of the column of the items' titles; an item's first row decides.
            part: Name of the column with each row's part (train, validation or test), for `split=given`.
            users: A data frame of what is known of the users; the column of their ids is named as in `frame`.
            items: The same of the items; a column `title` has their titles.
            duplicates: What to do with repeated (user, item) pairs, see `from_table`.
            rules: How cells are read: `rating_scale`, `id_type`, `time_unit`, `bad_rows`, see
                `matinee.data.columns.rows.Rules`.

        Raises:
            MatineeError: As `from_table`.
        """
        names: dict[str, Any] = {
            "user": user,
            "item": item,
            "rating": rating,
            "timestamp": timestamp,
        }
        names |= {"part": part, "title": title}
        table = select_columns(frame, {k: name for k, name in names.items() if name is not None})
        return cls.from_table(
            table,
            users=None if users is None else _known(users, user),
            items=None if items is None else _known(items, item),
            duplicates=duplicates,
            **rules,
        )

    @classmethod
    def from_rows(
        cls,
        reader: RowReader,
        *,
        users: pd.DataFrame | None = None,
        items: pd.DataFrame | None = None,
        duplicates: DuplicatePolicy = "error",
        parts: NDArray[np.int8] | None = None,
    ) -> Interactions:
        """Encode the rows that a reader collected, order them, and resolve repeated pairs.

        Args:
            reader: Holds the rows.
            users: See `from_table`.
            items: See `from_table`.
            duplicates: See `from_table`.
            parts: The part of each row, shape (rows,), if no column names it.

        Raises:
            MatineeError: As `from_table`.
        """
        check_policy(duplicates)
        interactions = cls._in_source_order(reader.finish(), users, items, reader.counts)
        if parts is not None:
            interactions = replace(interactions, parts=parts)
        return interactions.resolve(duplicates, reader.locations)

    @classmethod
    def _in_source_order(
        cls,
        typed: TypedColumns,
        users: pd.DataFrame | None,
        items: pd.DataFrame | None,
        source: Mapping[str, Any],
    ) -> Interactions:
        return cls(
            user_ids=typed.user_ids,
            item_ids=typed.item_ids,
            ratings=typed.ratings,
            timestamps=typed.timestamps,
            users=catalogue("user_id", typed.raw_users, users),
            items=with_titles(catalogue("item_id", typed.raw_items, items), typed.titles),
            rating_scale=typed.rating_scale,
            source=source,
            time_unit=typed.time_unit,
            parts=typed.parts,
        )

    def __len__(self) -> int:
        return len(self.user_ids)

    @property
    def num_users(self) -> int:
        """Number of distinct users; the largest user id."""
        return len(self.users)

    @property
    def num_items(self) -> int:
        """Number of distinct items; the largest item id."""
        return len(self.items)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over the columns and raw ids: equal data, whatever its mirror or titles."""
        digest = hashlib.sha256()
        for raw in (self.users["raw_id"], self.items["raw_id"]):
            digest.update(json.dumps(raw.tolist()).encode())
        for column in (self.user_ids, self.item_ids, self.ratings, self.timestamps):
            digest.update(b"none" if column is None else f"{column.dtype} {len(column)}".encode())
            if column is not None:
                digest.update(np.ascontiguousarray(column, column.dtype.newbyteorder("<")).data)
        if self.time_unit != "s":
            digest.update(self.time_unit.encode())
        return digest.hexdigest()

    def encode_users(self, raw: Sequence[Any] | NDArray[Any] | pd.Series) -> NDArray[np.int32]:
        """Map raw user ids (numbers, or text such as "42") to int32 user ids, 0 where unknown."""
        return look_up(self.users["raw_id"], raw)

    def encode_items(self, raw: Sequence[Any] | NDArray[Any] | pd.Series) -> NDArray[np.int32]:
        """Map raw item ids (numbers, or text such as "42") to int32 item ids, 0 where unknown."""
        return look_up(self.items["raw_id"], raw)

    def resolve(
        self, duplicates: DuplicatePolicy, locations: Locations | None = None
    ) -> Interactions:
        """Order the rows by time, stably, and resolve repeated pairs.

        Args:
            duplicates: See `from_table`.
            locations: Where the rows were read, for messages.

        Raises:
            MatineeError: If a pair is repeated under ``error``, or stands in two parts.
        """
        if locations is None:
            locations = Locations()
            locations.append(Stretch("the table", "row", range(1, len(self) + 1)))
        ordered = self
        if duplicates == "error":
            self._refuse_repeats(locations)
        elif self.parts is not None:
            self._refuse_overlap(duplicates == "keep", locations)
        times = self.timestamps
        if times is not None and (times[1:] < times[:-1]).any():
            ordered = self._take(np.argsort(times, kind="stable"))
        if duplicates in ("first", "last", "mean"):
            ordered = ordered._resolve_repeats(duplicates)
        return ordered

    def select(self, rows: NDArray[np.int64]) -> Interactions:
        """Keep some rows, and only the users and items that occur in them, whose ids are contiguous anew.

        Args:
            rows: Positions, ascending; at least one.
        """
        part = self._take(rows)
        columns, tables = {}, {}
        for ids, table in (("user_ids", "users"), ("item_ids", "items")):
            known: pd.DataFrame = getattr(self, table)
            column: NDArray[np.int32] = getattr(part, ids)
            is_used = np.zeros(len(known) + 1, np.bool_)
            is_used[column] = True
            columns[ids] = np.cumsum(is_used, dtype=np.int32)[column]
            index = pd.RangeIndex(1, int(is_used.sum()) + 1, name=known.index.name)
            tables[table] = known[is_used[1:]].set_axis(index)
        return replace(
            part,
            user_ids=columns["user_ids"],
            item_ids=columns["item_ids"],
            users=tables["users"],
            items=tables["items"],
        )

    def _take(self, rows: NDArray[np.int64]) -> Interactions:
        columns = {name: getattr(self, name) for name in ARRAYS}
        taken: dict[str, Any] = {
            name: None if array is None else array[rows] for name, array in columns.items()
        }
        return replace(self, **taken)

    def _refuse_repeats(self, locations: Locations) -> None:
        if (found := first_repeat(self.user_ids, self.item_ids)) is None:
            return
        row, before = found
        raise locations.error(
            "item",
            row,
            f"user {self._raw_user(row)} met item {self._raw_item(row)} before, in "
            f"{_place(locations, before, row)}; remove one of the rows or set duplicates to first, last, "
            "mean or keep",
        )

    def _refuse_overlap(self, repeats_are_legal: bool, locations: Locations) -> None:
        """Refuse rows that stand in two parts; legal repeats are the same only at one time."""
        assert self.parts is not None
        times = self.timestamps if repeats_are_legal else None
        if repeats_are_legal and times is None:
            return
        found = overlapping_parts(self.user_ids, self.item_ids, self.parts, times)
        if found is None:
            return
        before, row = found
        one, other = (PARTS[self.parts[place]] for place in (before, row))
        raise locations.error(
            "item",
            row,
            f"user {self._raw_user(row)} and item {self._raw_item(row)} stand in {other} and, in "
            f"{_place(locations, before, row)}, in {one}; remove one of the rows",
        )

    def _resolve_repeats(self, policy: Literal["first", "last", "mean"]) -> Interactions:
        found = resolved(self.user_ids, self.item_ids, self.ratings, policy)
        if found is None:
            return self
        kept, ratings = found
        whole = replace(self, ratings=ratings, duplicates_resolved=len(self) - len(kept))
        return whole._take(kept)

    def _raw_user(self, row: int) -> Any:
        return self.users["raw_id"].iloc[self.user_ids[row] - 1]

    def _raw_item(self, row: int) -> Any:
        return self.items["raw_id"].iloc[self.item_ids[row] - 1]


def _place(locations: Locations, row: int, seen_from: int) -> str:
    """Name the place of a row, with its file if another row stands in another one."""
    (file, place), (other, _) = locations.place(row), locations.place(seen_from)
    return place if file == other else f"{file}, {place}"


def _known(frame: Any, raw_id: str | int) -> pd.DataFrame:
    """Return what a data frame tells of users or items, with their ids as ``raw_id``."""
    known = frame if isinstance(frame, pd.DataFrame) else to_arrow(frame).to_pandas()
    if raw_id not in known:
        raise MatineeError(
            f"the data frame of what is known has no column {raw_id!r}, the name of the ids; rename one."
        )
    return known.rename(columns={raw_id: "raw_id"})
