"""Last.fm 1K: what nearly 1,000 listeners played, and when, until May 2009 (Celma 2010).

O. Celma, Music Recommendation and Discovery, Springer 2010, https://doi.org/10.1007/978-3-642-13287-2;
http://ocelma.net/MusicRecommendationDataset/lastfm-1K.html. For non-commercial use.
"""

from __future__ import annotations

import csv
import hashlib
import sys
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal, get_args

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv as arrow_csv

from matinee.errors import MatineeError
from matinee.interactions import Interactions, Origin
from matinee.sources.fetch import cache_dir, download, with_copy

Items = Literal["track", "artist"]

_URL = "http://mtg.upf.edu/static/datasets/last.fm/lastfm-dataset-1K.tar.gz"
_FOLDER = "lastfm-dataset-1K"
_ARCHIVES = (".tar.gz", ".tgz", ".tar")
_EVENTS = "userid-timestamp-artid-artname-traid-traname.tsv"
_EVENTS_MD5 = "64747b21563e3d2aa95751e0ddc46b68"  # as its README says; the archive has no checksum
_PROFILES = "userid-profile.tsv"
_FIELDS = ("user", "time", "artist_id", "artist", "track_id", "track")
_TIME = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$"
_BLOCK = 1 << 24  # bytes read at once; longer than any line
_MOST_MALFORMED = 0.05  # share of lines; the published file has 9 of 19,150,868
_LINES_NAMED = 10


def load(
    path: str | Path | None = None,
    items: Items = "track",
    min_item_count: int = 20,
    data_dir: str | Path | None = None,
) -> Interactions:
    """Read the listening events, and keep a fast copy of them.

    Every event stays, repeats of one track in a row included. An item is a MusicBrainz id; events
    without one go by name: an artist by the artist's, a track by "ARTIST<tab>TRACK". Nothing is
    matched between the two, so one song may be an item by id and another by name. The file gives
    every user's newest event first, hence of a user's events in one second the later line is the
    earlier one.

    A line is malformed if it has not six fields, no user, no time, or neither id nor name of the
    item; such lines are left out, told of on standard error and recorded. Quotes are text like any
    other; a stray carriage return within a line reads as a space, and bytes that are not UTF-8 as
    U+FFFD.

    Args:
        path: The file of events, a .tar.gz that holds it, or the unpacked folder; None takes
            ``lastfm-dataset-1K``, a folder or .tar.gz, in ``data_dir``, and fetches the archive
            where neither is there.
        items: What is recommended, tracks or artists.
        min_item_count: Events of rarer items are left out, counted once over all events; users
            without any other event go with them. At least 1, which keeps everything.
        data_dir: Folder of the data set and of the fast copies; None is `cache_dir()`.

    Returns:
        Interactions without ratings. Titles are "ARTIST - TRACK" or "ARTIST", as in the item's
        first line; tracks also know their ``artist``, and users their ``gender``, ``age``,
        ``country`` and ``registered``, where the file of profiles lies beside the events. Their
        ``source`` holds the SHA-256 of the events, whether they are `as_published`, and the numbers
        of lines and of malformed ones.

    Raises:
        MatineeError: If an option is out of range, the file is missing, damaged or another one (more
            than 5 % of its lines are malformed), or no item is frequent enough.
    """
    if items not in get_args(Items):
        raise MatineeError(f"dataset.items={items!r} is unknown; choose track or artist.")
    if min_item_count < 1:
        raise MatineeError(f"dataset.min_item_count is {min_item_count}; give at least 1.")
    root = Path(data_dir).expanduser() if data_dir else cache_dir()
    path = _find(Path(path).expanduser().absolute() if path else None, root)
    profiles = path.with_name(_PROFILES)
    sources = [path, profiles] if profiles.is_file() and not _is_archive(path) else [path]
    options = hashlib.sha256(str(path).encode()).hexdigest()[:16]
    copy = root / "tables" / f"{path.name}.{options}-{items}-{min_item_count}.arrow"
    return with_copy(copy, sources, lambda: _build(path, items, min_item_count))


def _is_archive(path: Path) -> bool:
    return path.name.endswith(_ARCHIVES)


def _find(path: Path | None, root: Path) -> Path:
    """Return the file of events, or the archive that holds it."""
    if path is None:
        archive = root / f"{_FOLDER}.tar.gz"
        path = root / _FOLDER if (root / _FOLDER).is_dir() else archive
        if not path.exists():
            return download(_URL, archive)
    if path.is_dir():
        path /= _EVENTS
    if not path.is_file():
        raise MatineeError(
            f"{path} does not exist; set dataset.path to {_EVENTS}, its folder or its .tar.gz."
        )
    return path


def _members(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Open the files of the data set one after the other; of an archive nothing is written."""
    if not _is_archive(path):
        for name, file in ((_EVENTS, path), (_PROFILES, path.with_name(_PROFILES))):
            if file.is_file():
                with file.open("rb") as stream:
                    yield name, stream
        return
    with tarfile.open(path, "r|*") as archive:
        for member in archive:
            name = PurePosixPath(member.name).name
            content = archive.extractfile(member) if member.isfile() else None
            if name in (_EVENTS, _PROFILES) and content:
                yield name, content


def _build(path: Path, items: Items, min_item_count: int) -> Interactions:
    events, users = None, None
    try:
        for name, stream in _members(path):
            if name == _EVENTS:
                events = _Events(path, items)
                events.read(stream)
            else:
                users = _read_profiles(stream, path)
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise MatineeError(f"{path} cannot be read ({error}); fetch it again.") from error
    if events is None:
        raise MatineeError(f"{path} holds no {_EVENTS}; set dataset.path to one that does.")
    return replace(events.interactions(min_item_count, users), source=events.source)


def _read_profiles(stream: IO[bytes], path: Path) -> pd.DataFrame:
    try:
        users = pd.read_csv(
            stream,
            sep="\t",
            header=None,
            names=["raw_id", "gender", "age", "country", "registered"],
            dtype=str,
            quoting=csv.QUOTE_NONE,
            na_values=[""],
            keep_default_na=False,  # NA is Namibia
        )
        users = users[~users["raw_id"].str.startswith("#", na=True)]  # "#id", the header
        return users.assign(age=pd.to_numeric(users["age"]).astype("Int16"))
    except (ValueError, TypeError) as error:
        raise MatineeError(
            f"the {_PROFILES} that belongs to {path} is malformed ({error}); mend or remove it."
        ) from error


class _Vocabulary:
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

    def texts(self) -> pa.Array:
        return pa.array(list(self._codes), pa.string())


@dataclass
class _Events:
    """The events read so far, in columns of numbers, and the texts that these stand for."""

    path: Path
    items: Items
    num_lines: int = 0
    malformed: int = 0
    first_malformed: list[int] = field(default_factory=list)
    source: dict[str, Any] = field(default_factory=dict)

    def read(self, stream: IO[bytes]) -> None:
        self._users, self._items = _Vocabulary(), _Vocabulary()
        self._columns: list[tuple[NDArray[Any], ...]] = []
        self._names: list[pa.Table] = []
        sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        for block in _blocks(stream):
            sha256.update(block)
            md5.update(block)
            self._add(*_parse(block))
        if not self.num_lines:
            raise MatineeError(f"{self.path} has no lines; set dataset.path to {_EVENTS}.")
        self.source = {
            "sha256": sha256.hexdigest(),
            "as_published": md5.hexdigest() == _EVENTS_MD5,
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
                f"{self.path} is not the {_EVENTS} of Last.fm 1K: {self.malformed:,} of its first "
                f"{self.num_lines:,} lines are malformed ({self._malformed_lines()}); set "
                "dataset.path to that file."
            )
        if malformed.size:
            columns = {name: column.filter(usable) for name, column in columns.items()}
            times, keys = times.filter(usable), keys.filter(usable)
        user_codes, _ = self._users.encode(columns["user"])
        item_codes, new_rows = self._items.encode(keys)
        self._columns.append((user_codes, item_codes, times.to_numpy()))
        self._names.append(self._titles({n: c.take(new_rows) for n, c in columns.items()}))

    def _keys(self, columns: dict[str, pa.Array]) -> pa.Array:
        if self.items == "artist":
            return pc.coalesce(columns["artist_id"], columns["artist"])
        # A tab, which no name holds, keeps "A - B" by C and "B" by "A - C" apart.
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
        """Encode the events of items that are frequent enough, oldest line first."""
        user_codes, item_codes, times = (
            np.concatenate(parts)[::-1] for parts in zip(*self._columns, strict=True)
        )
        is_frequent = np.bincount(item_codes) >= min_item_count
        if not is_frequent.any():
            raise MatineeError(
                f"no {self.items} of {self.path} has {min_item_count} events; "
                "lower dataset.min_item_count."
            )
        rows = is_frequent[item_codes]
        texts = self._items.texts()
        table = {
            "user": pa.DictionaryArray.from_arrays(user_codes[rows], self._users.texts()),
            "item": pa.DictionaryArray.from_arrays(item_codes[rows], texts),
            "timestamp": times[rows],
        }
        known = pa.concat_tables(self._names).add_column(0, "raw_id", texts)
        return Interactions.from_table(
            table,
            users=users,
            items=known.filter(is_frequent).to_pandas(),
            duplicates="keep",
            origin=Origin(str(self.path)),
        )


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
