"""Last.fm 1K: what nearly 1,000 listeners played, and when, until May 2009 (Celma 2010).

O. Celma, Music Recommendation and Discovery, Springer 2010, https://doi.org/10.1007/978-3-642-13287-2;
http://ocelma.net/MusicRecommendationDataset/lastfm-1K.html. For non-commercial use.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import IO, Any, get_args

import pandas as pd

from matinee.data.interactions import Interactions
from matinee.data.sources.copies import with_copy
from matinee.data.sources.fetch import cache_dir, download
from matinee.data.sources.lastfm_events import EVENTS, Events, Items
from matinee.data.sources.streams import Bounded
from matinee.errors import MatineeError

_URL = "http://mtg.upf.edu/static/datasets/last.fm/lastfm-dataset-1K.tar.gz"
_FOLDER = "lastfm-dataset-1K"
_ARCHIVES = (".tar.gz", ".tgz", ".tar")
_PROFILES = "userid-profile.tsv"


def load(
    path: str | Path | None = None,
    items: Items = "track",
    min_item_count: int = 20,
    data_dir: str | Path | None = None,
) -> Interactions:
    """Read the listening events, and keep a fast copy of them.

    The first read of the whole file takes about a minute and, if every item stays, 2.5 GB.

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
        path /= EVENTS
    if not path.is_file():
        raise MatineeError(
            f"{path} does not exist; set dataset.path to {EVENTS}, its folder or its .tar.gz."
        )
    return path


def _members(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Open the files of the data set one after the other; of an archive nothing is written."""
    if not _is_archive(path):
        for name, file in ((EVENTS, path), (_PROFILES, path.with_name(_PROFILES))):
            if file.is_file():
                with file.open("rb") as stream:
                    yield name, stream
        return
    with path.open("rb") if path.suffix == ".tar" else gzip.open(path) as unpacked:
        bounded: Any = Bounded(unpacked, path)
        with tarfile.open(fileobj=bounded, mode="r|") as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                content = archive.extractfile(member) if member.isfile() else None
                if name in (EVENTS, _PROFILES) and content:
                    yield name, content
        while bounded.read(2**20):  # to the checksum at the end
            pass


def _build(path: Path, items: Items, min_item_count: int) -> Interactions:
    events, users = None, None
    try:
        for name, stream in _members(path):
            if name == EVENTS:
                if events is not None:
                    raise MatineeError(
                        f"{path} holds two {EVENTS}; set dataset.path to one of them."
                    )
                events = Events(stream, path, items)
            else:
                users = _read_profiles(stream, path)
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise MatineeError(f"{path} cannot be read ({error}); fetch it again.") from error
    if events is None:
        raise MatineeError(f"{path} holds no {EVENTS}; set dataset.path to one that does.")
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
