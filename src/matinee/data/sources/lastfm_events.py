"""The file of listening events of Last.fm 1K: many million lines to columns, in bounded memory."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv as arrow_csv
from tqdm import tqdm

from matinee.data.interactions import Interactions
from matinee.errors import MatineeError

Items = Literal["track", "artist"]

EVENTS = "userid-timestamp-artid-artname-traid-traname.tsv"
MD5 = "64747b21563e3d2aa95751e0ddc46b68"  # as the data set's README gives it
_FIELDS = ("user", "time", "artist_id", "artist", "track_id", "track")
_TIME = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$"
_BLOCK = 1 << 24  # bytes read at once; longer than any line
_MOST_MALFORMED = 0.05  # share of lines; others report 9 of the published 19,150,868
_LINES_NAMED = 10


class Vocabulary:
    """Numbers texts from 0 in the order in which they first occur.

    Only the distinct texts of a block pass through Python and only those of the file are kept.
    """

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}

    def encode(self, texts: pa.Array) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Return the numbers of texts, (rows,), and the rows of those never met before."""
        encoded = texts.dictionary_encode()
        places = encoded.indices.to_numpy()
        num_known, codes = len(self._codes), self._codes
        numbers = np.array(
            [codes.setdefault(text, len(codes)) for text in encoded.dictionary.to_pylist()],
            np.int32,
        )
        first_rows = np.empty(len(numbers), np.int64)
        first_rows[places[::-1]] = np.arange(len(places))[::-1]
        return numbers[places], first_rows[numbers >= num_known]

    def release(self) -> pa.Array:
        """Return the texts in the order of their numbers, and forget them."""
        texts = pa.array(list(self._codes), pa.string())
        self._codes.clear()
        return texts


class Events:
    """A file of events in columns of numbers, and the texts that these stand for.

    Args:
        stream: The file.
        path: Where it is, or the archive that holds it, for messages.
        items: What is an item, a track or an artist.

    Attributes:
        source: What there is to record of the file, in plain values.

    Raises:
        MatineeError: If it is empty or more than 5 % of its lines are malformed.
    """

    def __init__(self, stream: IO[bytes], path: Path, items: Items) -> None:
        self.path, self.items = path, items
        self.num_lines = self.malformed = 0
        self.first_malformed: list[int] = []
        self._users, self._items = Vocabulary(), Vocabulary()
        self._columns: tuple[list[NDArray[Any]], ...] = ([], [], [])
        self._names: list[pa.Table] = []
        sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        for block in tqdm(_blocks(stream), path.name, unit="block", disable=None):
            sha256.update(block)
            md5.update(block)
            self._add(*_parse(block))
        if not self.num_lines:
            raise MatineeError(f"{path} has no lines; set dataset.path to {EVENTS}.")
        self.source: dict[str, Any] = {
            "sha256": sha256.hexdigest(),
            "as_published": md5.hexdigest() == MD5,
            "lines": self.num_lines,
            "malformed_lines": self.malformed,
            "first_malformed_lines": self.first_malformed,
        }
        if self.malformed:
            print(
                f"{self.path}: left out {self.malformed:,} malformed of {self.num_lines:,} lines "
                f"({self._malformed_lines()}).",
                file=sys.stderr,
            )

    def _add(self, table: pa.Table, lines: NDArray[np.int64], num_lines: int) -> None:
        columns = {name: table[name].combine_chunks() for name in table.column_names}
        times, keys = _seconds(columns["time"]), self._keys(columns)
        usable = pc.and_(columns["user"].is_valid(), pc.and_(times.is_valid(), keys.is_valid()))
        is_usable = usable.to_numpy(zero_copy_only=False)
        malformed = np.setdiff1d(np.arange(num_lines), lines[is_usable]) + self.num_lines + 1
        self.num_lines += num_lines
        self.malformed += len(malformed)
        room = _LINES_NAMED - len(self.first_malformed)
        self.first_malformed += malformed[:room].tolist()
        if self.malformed > _MOST_MALFORMED * self.num_lines:
            raise MatineeError(
                f"{self.path} is not the {EVENTS} of Last.fm 1K: {self.malformed:,} of its first "
                f"{self.num_lines:,} lines are malformed ({self._malformed_lines()}); set "
                "dataset.path to that file."
            )
        if malformed.size:
            columns = {name: column.filter(usable) for name, column in columns.items()}
            times, keys = times.filter(usable), keys.filter(usable)
        user_codes, _ = self._users.encode(columns["user"])
        item_codes, new_rows = self._items.encode(keys)
        for column, part in zip(
            self._columns, (user_codes, item_codes, times.to_numpy()), strict=True
        ):
            column.append(part)
        self._names.append(self._titles({n: c.take(new_rows) for n, c in columns.items()}))

    def _keys(self, columns: dict[str, pa.Array]) -> pa.Array:
        if self.items == "artist":
            return pc.coalesce(columns["artist_id"], columns["artist"])
        # A tab, which no name holds, keeps A's "B - C" and "A - B"'s "C" apart.
        names = pc.binary_join_element_wise(columns["artist"], columns["track"], "\t")
        return pc.coalesce(columns["track_id"], names)

    def _titles(self, columns: dict[str, pa.Array]) -> pa.Table:
        if self.items == "artist":
            return pa.table({"title": columns["artist"]})
        artist, track = columns["artist"], columns["track"]
        titles = pc.coalesce(pc.binary_join_element_wise(artist, track, " - "), artist, track)
        return pa.table({"title": titles, "artist": artist})

    def _malformed_lines(self) -> str:
        more = ", ..." if self.malformed > len(self.first_malformed) else ""
        return f"line {', '.join(map(str, self.first_malformed))}{more}"

    def interactions(self, min_item_count: int, users: pd.DataFrame | None) -> Interactions:
        """Encode the events of items that are frequent enough; this can be done once.

        Args:
            min_item_count: Least number of events of an item that stays.
            users: What is known of the users, with a column `raw_id`.

        Raises:
            MatineeError: If no item is frequent enough.
        """
        user_parts, item_parts, time_parts = self._columns
        item_codes = _joined_backwards(item_parts)
        is_frequent = np.bincount(item_codes) >= min_item_count
        if not is_frequent.any():
            raise MatineeError(
                f"no {self.items} of {self.path} has {min_item_count} events; "
                "lower dataset.min_item_count."
            )
        rows = is_frequent[item_codes]
        texts = self._items.release()
        item_codes = item_codes[rows]
        user_codes = _joined_backwards(user_parts)[rows]
        table = {
            "user": pa.DictionaryArray.from_arrays(user_codes, self._users.release()),
            "item": pa.DictionaryArray.from_arrays(item_codes, texts),
            "timestamp": _joined_backwards(time_parts)[rows],
        }
        known = pa.concat_tables(self._names).add_column(0, "raw_id", texts)
        return Interactions.from_table(
            table,
            users=users,
            items=known.filter(is_frequent).to_pandas(),
            duplicates="keep",
            id_type="text",
            time_unit="s",
        )


def _joined_backwards(parts: list[NDArray[Any]]) -> NDArray[Any]:
    """Join parts, last row first, and let go of them: these are most of the memory."""
    whole = np.concatenate(parts)[::-1]
    parts.clear()
    return whole


def _blocks(stream: IO[bytes]) -> Iterator[bytes]:
    """Cut a file into pieces of whole lines."""
    rest = b""
    while chunk := stream.read(_BLOCK):
        head, newline, rest = (rest + chunk).rpartition(b"\n")
        if not newline:  # the last line, or one too long to be any of this file's
            head, rest = rest, b""
        yield head + newline
    if rest:
        yield rest


def _parse(block: bytes) -> tuple[pa.Table, NDArray[np.int64], int]:
    """Take lines apart: text columns with null for "", the lines of the rows, the number of lines.

    Lines count from 0; those that have not six fields are no rows.
    """
    if b"\r" in block:
        block = block.replace(b"\r\n", b"\n").replace(b"\r", b" ")
    try:
        block.decode()
    except UnicodeDecodeError:
        block = block.decode(errors="replace").encode()
    skipped = []

    def skip(row: Any) -> str:
        skipped.append(row.number - 1)
        return "skip"

    table = arrow_csv.read_csv(
        pa.BufferReader(block),
        arrow_csv.ReadOptions(
            column_names=_FIELDS,
            use_threads=False,  # or else rows have no numbers
            block_size=len(block) + 1,
        ),
        arrow_csv.ParseOptions(
            delimiter="\t",
            quote_char=False,
            ignore_empty_lines=False,
            invalid_row_handler=skip,
        ),
        arrow_csv.ConvertOptions(
            column_types=dict.fromkeys(_FIELDS, pa.string()),
            check_utf8=False,
            null_values=[""],
            strings_can_be_null=True,
        ),
    )
    num_lines = table.num_rows + len(skipped)
    return table, np.delete(np.arange(num_lines), skipped), num_lines


def _seconds(texts: pa.Array) -> pa.Array:
    """Read times as seconds since 1970, null where there is none."""
    texts = pc.if_else(pc.match_substring_regex(texts, _TIME), texts, None)
    try:
        return texts.cast(pa.timestamp("s", "UTC")).cast(pa.int64())
    except pa.ArrowInvalid:  # a time that no calendar has, such as the 30th of February
        return pa.array([_second(text) for text in texts.to_pylist()], pa.int64())


def _second(text: str | None) -> int | None:
    try:
        return int(datetime.fromisoformat(text).timestamp()) if text else None
    except ValueError:
        return None
