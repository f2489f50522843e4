"""Files of ids that a question names: users, histories, pairs, and items to allow or deny.

A file is a table with a header: text (.csv, .tsv, .tab, also compressed) or Parquet, with the columns
``user``, ``item``, ``rating`` and ``timestamp``, as far as they are needed; others are ignored. Ids are
written as in the data; blanks around them do not count, unless an id of the data has them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import torch
from pyarrow import parquet

from matinee.batches.queries import Queries
from matinee.data.columns.rows import RowReader, Rules
from matinee.data.columns.texts import matches
from matinee.data.interactions import Interactions
from matinee.data.source_location import Locations
from matinee.data.sources.delimited import read_delimited
from matinee.data.sources.dialects import DELIMITERS, PARQUET, Dialect, settle, text_suffix
from matinee.data.sources.parquet_files import count_rows, read_parquet
from matinee.data.sources.streams import line_blocks
from matinee.errors import MatineeError

Ids = npt.NDArray[np.int64]
PLAIN_INTEGER = "^(0|-?[1-9][0-9]*)$"


class IdFile(NamedTuple):
    """The columns of a file, of n rows; a column that was not asked for is None.

    Attributes:
        path: The file.
        users: Raw ids of the distinct users, texts, known ones as the data write them; and the place of each
            row's user, from 0, (n,).
        items: The same of the items.
        ratings: float32, (n,).
        timestamps: int64, (n,), in ``time_unit``.
        time_unit: s, ms, us or ns.
        locations: The places of the rows, for messages.
    """

    path: Path
    users: tuple[list[str], Ids] | None
    items: tuple[list[str], Ids] | None
    ratings: npt.NDArray[np.float32] | None
    timestamps: npt.NDArray[np.int64] | None
    time_unit: str
    locations: Locations

    def user_ids(self, interactions: Interactions) -> Ids:
        """Return the user of each row, (n,); 0 where the data do not know the user."""
        assert self.users is not None
        raw, places = self.users
        return interactions.encode_users(raw).astype(np.int64)[places]

    def item_ids(self, interactions: Interactions) -> Ids:
        """Return the item of each row, (n,); 0 where the data do not know the item.

        The number of unknown items is reported on standard error.
        """
        assert self.items is not None
        raw, places = self.items
        ids = interactions.encode_items(raw).astype(np.int64)
        report_unknown(self.path, "items", int((ids == 0).sum()), len(ids))
        return ids[places]

    def some_item_ids(self, interactions: Interactions) -> Ids:
        """Return the item of each row, as :meth:`item_ids`.

        Raises:
            MatineeError: If the data know none of them.
        """
        ids = self.item_ids(interactions)
        if not ids.any():
            assert self.items is not None
            raw, places = self.items
            raise self.locations.error(
                "item", 0, f"the data know no item of this file, such as {raw[places[0]]!r}"
            )
        return ids

    @property
    def seconds(self) -> Ids | None:
        """The timestamps in seconds, rounded down, (n,)."""
        if self.timestamps is None:
            return None
        moments = self.timestamps.astype(f"datetime64[{self.time_unit}]")
        return moments.astype("datetime64[s]").astype(np.int64)


def read_id_file(
    path: str | Path,
    interactions: Interactions,
    columns: Sequence[str],
    optional: Sequence[str] = (),
) -> IdFile:
    """Read columns of ids, and perhaps of ratings and times.

    Args:
        path: The file.
        interactions: The data, which say how ids are written.
        columns: Those it must have: some of ``user``, ``item`` and ``rating``.
        optional: Those that are read if it has them.

    Raises:
        MatineeError: If the file is missing or of another kind, lacks a column, has no rows, or a cell is
            wrong; the message names file, line and column.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise MatineeError(f"{path} is no file; name a table of {' and '.join(columns)} columns.")
    if text_suffix(path) not in (*DELIMITERS, *PARQUET):
        raise MatineeError(
            f"{path} is of unknown kind; its name must end in one of .csv, .tsv, .tab or .parquet."
        )
    try:
        present = _present(path, optional)
        names = {name: name for name in (*columns, *present)}
        reader = RowReader(names, Rules(id_type="text"), str(path))
        if path.suffix.lower() in PARQUET:
            count_rows([path])
            read_parquet(path, reader)
        else:
            read_delimited(path, Dialect(), reader)
    except OSError as error:
        raise MatineeError(f"{path} cannot be read ({error}); name another file.") from error
    read = reader.finish_raw()
    found: dict[str, Any] = {}
    for name, encode in (("user", interactions.encode_users), ("item", interactions.encode_items)):
        found[name] = None
        if name in read.ids:
            codes, raw = read.ids[name]
            found[name] = _settled([str(text) for text in raw], codes.astype(np.int64) - 1, encode)
    return IdFile(
        path,
        found["user"],
        found["item"],
        read.ratings,
        read.timestamps,
        read.time_unit,
        reader.locations,
    )


def _settled(raw: list[str], places: Ids, encode: Any) -> tuple[list[str], Ids]:
    """Write each id in one way: as it is if the data know it so, else without blanks around it."""
    known = encode(raw) > 0
    names = [text if is_known else text.strip() for text, is_known in zip(raw, known, strict=True)]
    distinct = {name: place for place, name in enumerate(dict.fromkeys(names))}
    return list(distinct), np.array([distinct[name] for name in names], np.int64)[places]


def users_of_file(path: str | Path, interactions: Interactions) -> Ids:
    """Read users of the data, one a row, (n,).

    Raises:
        MatineeError: As :func:`read_id_file`, or if the data do not know a user.
    """
    table = read_id_file(path, interactions, ["user"])
    ids = table.user_ids(interactions)
    if not ids.all():
        assert table.users is not None
        row = int(np.argmin(ids != 0))
        raise table.locations.error(
            "user",
            row,
            f"user {table.users[0][table.users[1][row]]!r} is not in the data; remove the row, or give "
            "the user's items by histories=...",
        )
    _, firsts = np.unique(ids, return_index=True)
    if len(firsts) < len(ids):
        again = np.ones(len(ids), np.bool_)
        again[firsts] = False
        raise table.locations.error(
            "user", int(np.argmax(again)), "the user stands above, too; remove the row"
        )
    return ids


def histories_of_file(
    path: str | Path, interactions: Interactions, rated: bool
) -> tuple[list[str], Queries]:
    """Read histories: one row for each item of a user, oldest first, or ordered by ``timestamp``.

    A user of the data stays this user; only the items of the file count as met. An item that the data do
    not know is the unknown item 0, as in evaluation.

    Args:
        path: The file; rows of a user need not be next to each other.
        interactions: The data.
        rated: Whether the items are rated, in a column ``rating``.

    Returns:
        The raw ids of the users in the order of their first rows, and the queries in that order.

    Raises:
        MatineeError: As :func:`read_id_file`, or if the data know none of the items, a rating is outside
            the scale or an item is rated twice by a user.
    """
    columns = ["user", "item", "rating"] if rated else ["user", "item"]
    table = read_id_file(path, interactions, columns, optional=["timestamp"])
    assert table.users is not None
    item_ids = table.some_item_ids(interactions)
    raw, places = table.users
    first = np.full(len(raw), len(places))
    np.minimum.at(first, places, np.arange(len(places)))
    by_first = np.argsort(first)
    turns = np.argsort(by_first)[places]  # of the user of each row
    if table.timestamps is None:
        order = np.argsort(turns, kind="stable")
    else:
        order = np.lexsort((table.timestamps, turns))
    if rated:
        _check_ratings(table, interactions, turns)
    counts = np.bincount(turns, minlength=len(raw))
    names = [raw[place] for place in by_first]
    return names, Queries(
        torch.from_numpy(interactions.encode_users(names).astype(np.int64)),
        torch.from_numpy(np.concatenate(([0], np.cumsum(counts)))),
        torch.from_numpy(item_ids[order]),
        None if table.ratings is None else torch.from_numpy(table.ratings[order]),
        None if table.seconds is None else torch.from_numpy(table.seconds[order]),
    )


def _check_ratings(table: IdFile, interactions: Interactions, turns: Ids) -> None:
    assert table.ratings is not None
    assert table.items is not None
    assert interactions.rating_scale is not None
    low, high = interactions.rating_scale
    outside = (table.ratings < low) | (table.ratings > high)
    if outside.any():
        row = int(np.argmax(outside))
        problem = f"the rating {table.ratings[row]:g} is outside the scale {low:g} to {high:g}"
        raise table.locations.error("rating", row, problem)
    raw, places = table.items
    _, firsts = np.unique(turns * len(raw) + places, return_index=True)
    if len(firsts) < len(places):
        again = np.ones(len(places), np.bool_)
        again[firsts] = False
        raise table.locations.error(
            "item",
            int(np.argmax(again)),
            "the user has rated this item before; give one rating per item",
        )


def as_column(raw: Sequence[str], known: pd.Series[Any]) -> pa.Array:
    """Return raw ids of a file as a column of the data's type, or as text if one of them does not fit it."""
    texts = pa.array(raw, pa.string())
    if not pd.api.types.is_integer_dtype(known) or not matches(texts, PLAIN_INTEGER).all():
        return texts
    try:
        return texts.cast(pa.from_numpy_dtype(known.dtype))
    except pa.ArrowInvalid:  # too large
        return texts


def report_unknown(path: Path, what: str, unknown: int, total: int) -> None:
    """Say on standard error how many distinct ids of a file the data do not know, if any."""
    if unknown:
        print(f"{path}: the data do not know {unknown:,} of {total:,} {what}.", file=sys.stderr)


def _present(path: Path, optional: Sequence[str]) -> list[str]:
    """Return those of some columns that a file has."""
    if not optional:
        return []
    if path.suffix.lower() in PARQUET:
        count_rows([path])  # refuses what is no Parquet file
        return [name for name in optional if name in parquet.read_schema(path).names]
    start = next(line_blocks(path), b"")
    found = []
    for name in optional:
        try:
            settle(path, Dialect(), {name: name}, start)
        except MatineeError:  # the column is missing
            continue
        found.append(name)
    return found
