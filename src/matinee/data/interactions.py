"""Validated user-item interactions: the one table that everything downstream reads."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from matinee.data.source_location import Origin
from matinee.errors import MatineeError

DuplicatePolicy = Literal["error", "first", "last", "mean", "keep"]


@dataclass(frozen=True, eq=False)
class Interactions:
    """Who met what, how it was rated, and when, in stable (timestamp, source row) order.

    Build one with `Interactions.from_table`, which validates. Ids are contiguous from 1 and follow
    the sorted raw ids (integers by value, text by code point), so they do not depend on the order
    of the rows; 0 is reserved for "padding / unknown". All arrays have shape (rows,).

    Attributes:
        user_ids: int32 in 1..num_users.
        item_ids: int32 in 1..num_items.
        ratings: float32, or None where there are none.
        timestamps: int64 in seconds since 1970-01-01 UTC, or None; without them rows keep the
            source's order.
        users: Index `user_id` 1..num_users, first column `raw_id`, then what is known.
        items: Index `item_id` 1..num_items, columns `raw_id`, `title`, then what is known.
        rating_scale: Lowest and highest possible rating, or None where there are no ratings.
        duplicates_resolved: Number of rows that the duplicate policy removed.
        source: What the reader tells of the files, in plain values for the record of a run.

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

    @classmethod
    def from_table(
        cls,
        table: pa.Table | pd.DataFrame | Mapping[str, Any],
        *,
        users: pd.DataFrame | None = None,
        items: pd.DataFrame | None = None,
        rating_scale: Sequence[float] | None = None,
        duplicates: DuplicatePolicy = "error",
        origin: Origin | None = None,
    ) -> Interactions:
        """Validate raw columns and encode them.

        Args:
            table: Columns `user`, `item` (integers, whole floats or text), and optionally `rating`
                (numbers) and `timestamp` (seconds, dates or times; fractions of a second are cut).
            users: What is known of the users, with a column `raw_id`.
            items: What is known of the items, with a column `raw_id`, and perhaps a `title`.
            rating_scale: Lowest and highest possible rating; None takes them from the data.
            duplicates: What to do with a repeated (user, item) pair: refuse it (`error`), keep its
                `first` or `last` row in time order, keep the last row with the `mean` rating, or
                `keep` every row (repeats are legal, as in listening histories).
            origin: Where the rows were read, for messages.

        Raises:
            MatineeError: If the table is empty or lacks a column, an id is missing, negative or not
                whole, a rating is missing, infinite or outside its scale, a timestamp is missing or
                no time, a pair is repeated under `error`, or an option is not one of those above.
        """
        origin = origin or Origin()
        if duplicates not in get_args(DuplicatePolicy):
            options = ", ".join(get_args(DuplicatePolicy))
            raise MatineeError(f"duplicates={duplicates!r} is unknown; choose one of {options}.")
        columns = _columns(table, origin)
        user_ids, raw_users = _encode("user", columns["user"], origin)
        item_ids, raw_items = _encode("item", columns["item"], origin)
        ratings = scale = timestamps = None
        if "rating" in columns:
            ratings, scale = _ratings(columns["rating"], rating_scale, origin)
        if "timestamp" in columns:
            timestamps = _seconds(columns["timestamp"], origin)
        interactions = cls(
            user_ids=user_ids,
            item_ids=item_ids,
            ratings=ratings,
            timestamps=timestamps,
            users=_catalogue("user_id", raw_users, users),
            items=_titled(_catalogue("item_id", raw_items, items)),
            rating_scale=scale,
        )
        if duplicates == "error":
            interactions._refuse_repeats(origin)
        if timestamps is not None and (timestamps[1:] < timestamps[:-1]).any():
            interactions = interactions._take(np.argsort(timestamps, kind="stable"))
        if duplicates in ("first", "last", "mean"):
            interactions = interactions._resolve_repeats(duplicates)
        return interactions

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
        return digest.hexdigest()

    def encode_users(self, raw: Sequence[Any] | NDArray[Any] | pd.Series) -> NDArray[np.int32]:
        """Map raw user ids (numbers, or text such as "42") to int32 user ids, 0 where unknown."""
        return _look_up(self.users["raw_id"], raw)

    def encode_items(self, raw: Sequence[Any] | NDArray[Any] | pd.Series) -> NDArray[np.int32]:
        """Map raw item ids (numbers, or text such as "42") to int32 item ids, 0 where unknown."""
        return _look_up(self.items["raw_id"], raw)

    def _take(self, rows: NDArray[np.int64]) -> Interactions:
        return replace(
            self,
            user_ids=self.user_ids[rows],
            item_ids=self.item_ids[rows],
            ratings=None if self.ratings is None else self.ratings[rows],
            timestamps=None if self.timestamps is None else self.timestamps[rows],
        )

    def _repeats(self) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        """Return rows grouped by pair, in order within a pair, and where each group starts."""
        pairs = self.user_ids.astype(np.int64) * (self.num_items + 1) + self.item_ids
        ordered = np.sort(pairs)  # far cheaper than argsort, and mostly all that is needed
        if not (ordered[1:] == ordered[:-1]).any():
            return None
        rows = np.argsort(pairs, kind="stable")
        ordered = pairs[rows]
        return rows, np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])

    def _refuse_repeats(self, origin: Origin) -> None:
        if (repeats := self._repeats()) is None:
            return
        rows, starts = repeats
        is_repeat = np.ones(len(self), np.bool_)
        is_repeat[rows[starts]] = False
        row = int(is_repeat.argmax())
        same = (self.user_ids == self.user_ids[row]) & (self.item_ids == self.item_ids[row])
        user = self.users["raw_id"].iloc[self.user_ids[row] - 1]
        item = self.items["raw_id"].iloc[self.item_ids[row] - 1]
        raise origin.fault(
            "item",
            row,
            f"user {user} met item {item} before, in {origin.place(int(same.argmax()))}; remove "
            "one of the rows or set duplicates to first, last, mean or keep",
        )

    def _resolve_repeats(self, policy: Literal["first", "last", "mean"]) -> Interactions:
        if (repeats := self._repeats()) is None:
            return self
        rows, starts = repeats
        ends = np.r_[starts[1:], len(rows)]
        kept = rows[starts] if policy == "first" else rows[ends - 1]
        ratings = self.ratings
        if policy == "mean" and ratings is not None:
            sums = np.add.reduceat(ratings[rows].astype(np.float64), starts)
            ratings = ratings.copy()
            ratings[kept] = sums / (ends - starts)
        resolved = replace(self, ratings=ratings, duplicates_resolved=len(rows) - len(kept))
        return resolved._take(np.sort(kept))


def _columns(
    table: pa.Table | pd.DataFrame | Mapping[str, Any], origin: Origin
) -> dict[str, pa.ChunkedArray]:
    try:
        if isinstance(table, pd.DataFrame):
            table = pa.Table.from_pandas(table, preserve_index=False)
        elif not isinstance(table, pa.Table):
            table = pa.table(dict(table))
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise MatineeError(
            f"{origin.source} has a column of mixed types or too large numbers ({error}); mend it."
        ) from error
    for column in ("user", "item"):
        if column not in table.column_names:
            raise MatineeError(f"{origin.source} has no column {origin.column(column)}; add it.")
    if table.num_rows == 0:
        raise MatineeError(f"{origin.source} has no rows; give it at least one interaction.")
    known = [c for c in ("user", "item", "rating", "timestamp") if c in table.column_names]
    columns = {}
    for name in known:
        column = table[name]
        if pa.types.is_dictionary(column.type) and not (
            name in ("user", "item") and _is_of_distinct_texts(column)
        ):
            column = column.cast(column.type.value_type)
        if column.null_count or pa.types.is_floating(column.type):
            missing = pc.is_null(column, nan_is_null=True).to_numpy()
            origin.refuse(name, missing, lambda _: "the value is missing; fill it or drop the row")
        columns[name] = column
    return columns


def _is_of_distinct_texts(column: pa.ChunkedArray) -> bool:
    dictionaries = [chunk.dictionary for chunk in column.chunks]
    return pa.types.is_string(column.type.value_type) and all(
        texts.null_count == 0 and len(texts.unique()) == len(texts) for texts in dictionaries
    )


def _encode(
    name: str, column: pa.ChunkedArray, origin: Origin
) -> tuple[NDArray[np.int32], NDArray[np.int64] | list[str]]:
    """Return contiguous ids from 1, int32, and the sorted raw ids they stand for."""
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        column = column.dictionary_encode()
    if pa.types.is_dictionary(column.type):
        chunks = column.unify_dictionaries().chunks
        texts = chunks[0].dictionary
        codes = np.concatenate([chunk.indices.to_numpy() for chunk in chunks])
        is_empty = pc.equal(texts, "").to_numpy(zero_copy_only=False)
        origin.refuse(name, is_empty[codes], lambda _: "the id is empty; fill it or drop the row")
        is_used = np.bincount(codes, minlength=len(texts)) > 0
        order = pc.sort_indices(texts).to_numpy()
        order = order[is_used[order]]
        ranks = np.zeros(len(texts), np.int32)
        ranks[order] = np.arange(1, len(order) + 1)
        return ranks[codes], texts.take(pa.array(order)).to_pylist()
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise MatineeError(
            f"{origin.source}, column {origin.column(name)}: ids are of type {kind}; "
            "they must be whole numbers or text."
        )
    values = column.to_numpy()
    # The largest whole number up to which a float64, or an int64, tells neighbours apart.
    limit = 2**53 if values.dtype.kind == "f" else 2**63 - 1
    origin.refuse(name, values < 0, lambda row: f"the id {values[row]} is negative; use 0 or above")
    origin.refuse(
        name, values > limit, lambda row: f"the id {values[row]} is too large; write ids as text"
    )
    if values.dtype.kind == "f":
        origin.refuse(
            name,
            values != np.floor(values),
            lambda row: f"the id {values[row]} is not a whole number; correct it",
        )
    if values.dtype.kind in "fu":
        values = values.astype(np.int64)
    if (highest := int(values.max())) < 4 * len(values) + 2**20:
        # Dense ids, as nearly always: a look-up table takes O(rows) where sorting would not.
        ids = np.zeros(highest + 1, np.int32)
        ids[values] = 1
        raw = np.flatnonzero(ids)
        ids[raw] = np.arange(1, len(raw) + 1)
        return ids[values], raw
    raw, inverse = np.unique(values, return_inverse=True)
    return (inverse + 1).astype(np.int32), raw.astype(np.int64)


def _ratings(
    column: pa.ChunkedArray, scale: Sequence[float] | None, origin: Origin
) -> tuple[NDArray[np.float32], tuple[float, float]]:
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise MatineeError(
            f"{origin.source}, column {origin.column('rating')}: ratings are of type {kind}; "
            "they must be numbers."
        )
    # Casting a single float32 chunk hands out the table's own, read-only memory.
    ratings: NDArray[np.float32] = np.require(
        column.cast(pa.float32(), safe=False).to_numpy(), requirements="W"
    )
    origin.refuse(
        "rating",
        ~np.isfinite(ratings),
        lambda row: f"the rating {column[row]} is not finite; correct it",
    )
    if scale is None:
        return ratings, (float(ratings.min()), float(ratings.max()))
    try:
        low, high = (float(bound) for bound in scale)
    except (TypeError, ValueError):
        low, high = 1.0, 0.0
    if not low <= high:
        raise MatineeError(f"rating_scale={scale} must be two numbers, [lowest, highest].")
    origin.refuse(
        "rating",
        (ratings < np.float32(low)) | (ratings > np.float32(high)),
        lambda row: (
            f"the rating {column[row]} is outside the scale {low:g} to {high:g}; "
            "correct it or set rating_scale"
        ),
    )
    return ratings, (low, high)


def _seconds(column: pa.ChunkedArray, origin: Origin) -> NDArray[np.int64]:
    kind = column.type
    if pa.types.is_integer(kind):
        column = column.cast(pa.int64())
    elif pa.types.is_floating(kind):
        values = column.to_numpy()
        origin.refuse(
            "timestamp",
            ~(np.abs(values) < 2**53),
            lambda row: f"the timestamp {values[row]} is not a time in seconds; correct it",
        )
        column = pc.floor(column).cast(pa.int64())
    elif pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        # Negative times must be cut towards the past as well, hence no plain cast.
        column = pc.floor_temporal(column.cast(pa.timestamp("us")), unit="second")
        column = column.cast(pa.timestamp("s")).cast(pa.int64())
    else:
        raise MatineeError(
            f"{origin.source}, column {origin.column('timestamp')}: timestamps are of type {kind}; "
            "they must be whole seconds, dates or times."
        )
    seconds: NDArray[np.int64] = np.require(column.to_numpy(), requirements="W")
    return seconds


def _catalogue(
    index_name: str, raw: NDArray[np.int64] | list[str], known: pd.DataFrame | None
) -> pd.DataFrame:
    """Lay what is known beside the sorted raw ids; ids without interactions are dropped."""
    index = pd.RangeIndex(1, len(raw) + 1, name=index_name)
    catalogue = pd.DataFrame({"raw_id": raw}, index=index)
    if known is None:
        return catalogue
    known = known.drop_duplicates("raw_id").set_index("raw_id").reindex(catalogue["raw_id"])
    return pd.concat([catalogue, known.set_axis(index)], axis=1)


def _titled(items: pd.DataFrame) -> pd.DataFrame:
    names = items["raw_id"].astype(str)
    titles = items.pop("title").fillna(names) if "title" in items else names
    items.insert(1, "title", titles)
    return items


def _look_up(
    known: pd.Series[Any], raw: Sequence[Any] | NDArray[Any] | pd.Series[Any]
) -> NDArray[np.int32]:
    if isinstance(raw, str | bytes):
        raise TypeError(f"expected a sequence of raw ids, not the text {raw!r}: wrap it in a list")
    if not pd.api.types.is_integer_dtype(known):
        wanted = pd.Index([str(value) for value in raw], dtype=known.dtype)
    elif isinstance(raw, np.ndarray) and raw.dtype.kind == "i":
        wanted = pd.Index(raw)
    else:
        wanted = pd.Index([_whole(value) for value in raw], dtype=np.int64)
    ids: NDArray[np.int32] = (pd.Index(known).get_indexer(wanted) + 1).astype(np.int32)
    return ids


def _whole(value: Any) -> int:
    """Read a raw id as an integer; -1, which no id is, where it is none."""
    if isinstance(value, bool) or (isinstance(value, str) and not re.fullmatch("[0-9]+", value)):
        return -1
    try:
        number = int(value)
        return number if number < 2**63 and (isinstance(value, str) or number == value) else -1
    except (TypeError, ValueError, OverflowError):
        return -1


def with_year(item: pd.Series) -> str:
    """Name a row of an item table, as "Toy Story (1995)", if it has a year."""
    year = item.get("year")
    return str(item["title"]) if year is None or pd.isna(year) else f"{item['title']} ({year})"
