"""The MovieLens data sets (Harper & Konstan 2015, https://doi.org/10.1145/2827872).

Their licence forbids redistribution, so they are fetched from GroupLens; MovieLens 100K, where
GroupLens cannot be reached, from a copy inside a wheel in the Python package index.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from matinee.data.columns.rows import RowReader, Rules
from matinee.data.duplicates import DuplicatePolicy
from matinee.data.interactions import Interactions
from matinee.data.sources.copies import with_copy
from matinee.data.sources.delimited import read_delimited
from matinee.data.sources.dialects import Dialect
from matinee.data.sources.fetch import cache_dir, download, extract, files_from_wheel, verify
from matinee.errors import MatineeError

# fmt: off
_GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary",
    "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi",
    "Thriller", "War", "Western",
)
_OCCUPATIONS = (  # of MovieLens 1M, by code
    "other", "academic/educator", "artist", "clerical/admin", "college/grad student",
    "customer service", "doctor/health care", "executive/managerial", "farmer", "homemaker",
    "K-12 student", "lawyer", "programmer", "retired", "sales/marketing", "scientist",
    "self-employed", "technician/engineer", "tradesman/craftsman", "unemployed", "writer",
)
# fmt: on

# The year, or the first of a range of years, in the last parentheses but for a "(V)" for video.
_TITLE = re.compile(r"(.*\S)\s*\((\d{4})(?:[-\u2013]\d{0,4})?\)(?:\s*\(V\))?", re.DOTALL)

_COLUMNS = ("user", "item", "rating", "timestamp")

_Rows = Iterable[Sequence[str]]


def _users_100k(folder: Path) -> pd.DataFrame:
    return _users(_lines(folder / "u.user", "|", 5, "latin-1"))


def _items_100k(folder: Path) -> pd.DataFrame:
    rows = _lines(folder / "u.item", "|", 24, "latin-1")
    return _items((row[0], row[1], _flagged(row[5:])) for row in rows)


def _flagged(flags: Sequence[str]) -> str:
    return "|".join(genre for genre, flag in zip(_GENRES, flags, strict=True) if flag == "1")


def _users_mirror(folder: Path) -> pd.DataFrame:
    return _users(_lines(folder / "ml-100k.user", "\t", 5, "utf-8", header=True))


def _items_mirror(folder: Path) -> pd.DataFrame:
    # The mirror took the last parentheses off the title: put back, one rule reads both.
    rows = _lines(folder / "ml-100k.item", "\t", 4, "utf-8", header=True)
    return _items(
        (item, "unknown" if year == "unkonwn" else f"{title} ({year})", genres.replace(" ", "|"))
        for item, title, year, genres in rows
    )


def _users_1m(folder: Path) -> pd.DataFrame:
    rows = _lines(folder / "users.dat", "::", 5, "latin-1")
    return _users(
        (user, age, gender, _OCCUPATIONS[int(code)], zip_code)
        for user, gender, age, code, zip_code in rows
    )


def _items_1m(folder: Path) -> pd.DataFrame:
    return _items(_lines(folder / "movies.dat", "::", 3, "latin-1"))


def _items_10m(folder: Path) -> pd.DataFrame:
    return _items(_lines(folder / "movies.dat", "::", 3, "utf-8"))


def _items_csv(folder: Path) -> pd.DataFrame:
    path = folder / "movies.csv"
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = [row for row in csv.reader(file, strict=True) if row]
    if any(len(row) != 3 for row in rows):
        raise ValueError(f"a row of {path} has not three fields")
    return _items(rows[1:])


def _lines(
    path: Path, separator: str, num_fields: int, encoding: str, header: bool = False
) -> _Rows:
    with path.open(encoding=encoding, newline="\n") as file:
        for number, line in enumerate(file, start=1):
            if (header and number == 1) or not line.strip():
                continue
            fields = line.rstrip("\r\n").split(separator)
            if len(fields) != num_fields:
                raise MatineeError(
                    f"{path}, line {number}: the row has {len(fields)} instead of {num_fields} "
                    "fields; delete the folder and fetch it again."
                )
            yield fields


def _users(rows: _Rows) -> pd.DataFrame:
    names = ["raw_id", "age", "gender", "occupation", "zip_code"]
    return pd.DataFrame(rows, columns=names).astype({"raw_id": "int64", "age": "Int16"})


def _items(rows: _Rows) -> pd.DataFrame:
    """Take (id, "title (year)", genres joined by "|") apart."""
    items = pd.DataFrame(rows, columns=["raw_id", "title", "genres"]).astype({"raw_id": "int64"})
    matches = [_TITLE.fullmatch(title.strip()) for title in items["title"]]
    items["title"] = [
        match[1] if match else title.strip()
        for match, title in zip(matches, items["title"], strict=True)
    ]
    years = [int(match[2]) if match else None for match in matches]
    items.insert(2, "year", pd.Series(years, dtype="Int16"))
    items["genres"] = items["genres"].replace("(no genres listed)", "")
    return items


@dataclass(frozen=True)
class _Layout:
    """The files of one format."""

    ratings: str
    items: str
    read_items: Callable[[Path], pd.DataFrame]
    users: str | None = None
    read_users: Callable[[Path], pd.DataFrame] | None = None
    delimiter: str = ","
    column_names: tuple[str, ...] | None = None  # of a file without a header
    names: tuple[str, ...] = _COLUMNS

    @property
    def files(self) -> list[str]:
        return [name for name in (self.ratings, self.items, self.users) if name]

    def read_ratings(self, folder: Path, lowest: float) -> RowReader:
        path = folder / self.ratings
        rules = Rules(id_type="integer", time_unit="s", rating_scale=(lowest, 5.0))
        reader = RowReader(dict(zip(_COLUMNS, self.names, strict=True)), rules, str(path))
        dialect = Dialect(self.delimiter, column_names=self.column_names)
        read_delimited(path, dialect, reader)
        return reader


_100K = _Layout("u.data", "u.item", _items_100k, "u.user", _users_100k, "\t", _COLUMNS)
_MIRROR = _Layout(
    *("ml-100k.inter", "ml-100k.item", _items_mirror, "ml-100k.user", _users_mirror, "\t"),
    names=("user_id", "item_id", "rating", "timestamp"),
)
_1M = _Layout("ratings.dat", "movies.dat", _items_1m, "users.dat", _users_1m, "::", _COLUMNS)
_10M = _Layout("ratings.dat", "movies.dat", _items_10m, delimiter="::", column_names=_COLUMNS)
_CSV = _Layout(
    "ratings.csv", "movies.csv", _items_csv, names=("userId", "movieId", "rating", "timestamp")
)


@dataclass(frozen=True)
class _Edition:
    """One published data set: its formats, its lowest rating, its archive's checksum."""

    layouts: tuple[_Layout, ...]
    lowest: float
    checksum: str | None = None
    folders: tuple[str, ...] = ()


_EDITIONS = {
    "ml-100k": _Edition(
        (_100K, _MIRROR),
        1.0,
        "sha256:50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
    ),
    "ml-1m": _Edition((_1M,), 1.0, "md5:c4d9eecfca2ab87c1945afe126590906"),
    "ml-10m": _Edition((_10M,), 0.5, "md5:ce571fd55effeba0271552578f2648bd", ("ml-10M100K",)),
    "ml-20m": _Edition((_CSV,), 0.5, "md5:cd245b17a1ae2cc31bb14903e1204af3"),
    "ml-25m": _Edition((_CSV,), 0.5, "md5:6b51fb2759a8657d3bfcbfc42b592ada"),
    "ml-32m": _Edition((_CSV,), 0.5, "md5:d472be332d4daa821edc399621853b57"),
    "ml-latest-small": _Edition((_CSV,), 0.5),  # "latest" changes: no checksum can be pinned
}
_URL = "https://files.grouplens.org/datasets/movielens"
_WHEEL = "recbole==1.2.1"
_WHEEL_CHECKSUM = "sha256:9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"


def load(
    name: str,
    data_dir: str | Path | None = None,
    merge_duplicate_titles: bool = False,
    duplicates: DuplicatePolicy = "last",
) -> Interactions:
    """Load a MovieLens data set, fetching it first if need be.

    Titles come without their year and keep their article at the end ("Godfather, The"); genres are
    joined by "|"; ML-100K and ML-1M also know their users' age, gender, occupation and zip code.

    Args:
        name: ml-100k, ml-latest-small, ml-1m, ml-10m, ml-20m, ml-25m or ml-32m.
        data_dir: Folder of the data sets; None is `cache_dir()`. A data set placed there by hand,
            as `NAME.zip` with the published checksum or unpacked (`NAME/`, or the folder itself), is used.
        merge_duplicate_titles: Join items of the same title and year under the lowest raw id
            (18 pairs in ML-100K: 1,682 items become 1,664).
        duplicates: What to do with repeated (user, item) pairs, see `Interactions.from_table`.

    Raises:
        MatineeError: If the name is unknown, the data set cannot be fetched, or a file of it is
            missing or malformed.
    """
    if name not in _EDITIONS:
        raise MatineeError(f"name={name!r} is unknown; choose one of {', '.join(_EDITIONS)}.")
    edition = _EDITIONS[name]
    folder, layout = _prepare(name, Path(data_dir).expanduser() if data_dir else cache_dir())

    def build() -> Interactions:
        try:
            items = layout.read_items(folder)
            users = layout.read_users(folder) if layout.read_users else None
        except (ValueError, IndexError, csv.Error) as error:
            raise MatineeError(
                f"{folder} holds a malformed items or users file ({error}); delete the folder "
                "and fetch it again."
            ) from error
        reader = layout.read_ratings(folder, edition.lowest)
        if not merge_duplicate_titles:
            return Interactions.from_rows(reader, users=users, items=items, duplicates=duplicates)
        log = Interactions.from_rows(reader, users=users, items=items, duplicates="keep")
        return _with_merged_titles(log).resolve(duplicates)

    merged = "merged" if merge_duplicate_titles else "plain"
    copy = folder / f".{name}-{merged}-{duplicates}.arrow"
    return with_copy(copy, [folder / file for file in layout.files], build)


def _with_merged_titles(log: Interactions) -> Interactions:
    """Join items of one title and year under the lowest raw id."""
    known = log.items["year"].notna()
    lowest = (
        log.items.index.to_series()
        .groupby([log.items["title"], log.items["year"]])
        .transform("min")
    )
    aliases = np.r_[0, lowest.where(known, log.items.index.to_series()).astype("int32")]
    return replace(log, item_ids=aliases.astype(np.int32)[log.item_ids]).select(np.arange(len(log)))


def _prepare(name: str, root: Path) -> tuple[Path, _Layout]:
    """Return the unpacked data set and its format, after fetching it where it is not there."""
    if found := _find(name, root):
        return found
    archive, folder = root / f"{name}.zip", root / name
    checksum = _EDITIONS[name].checksum
    try:
        if not archive.exists():
            download(f"{_URL}/{name}.zip", archive, checksum=checksum)
        elif checksum:
            verify(archive, checksum)
    except MatineeError as error:
        if archive.exists() or name != "ml-100k":
            raise
        _prepare_mirror(folder, error)
    else:
        extract(archive, folder)
    if found := _find(name, root):
        return found
    raise MatineeError(f"{folder} holds no {name}; move it away and run this again.")


def _prepare_mirror(folder: Path, reason: MatineeError) -> None:
    try:
        files_from_wheel(
            _WHEEL, _WHEEL_CHECKSUM, "recbole/dataset_example/ml-100k", _MIRROR.files, folder
        )
    except MatineeError as error:
        raise MatineeError(f"{reason} The mirror failed as well: {error}") from error


def _find(name: str, root: Path) -> tuple[Path, _Layout] | None:
    edition = _EDITIONS[name]
    for folder in (root / name, *(root / other for other in edition.folders), root):
        for layout in edition.layouts:
            if (folder / layout.ratings).is_file():
                for file in layout.files:
                    if not (folder / file).is_file():
                        raise MatineeError(f"{folder} lacks {file}; put it there or fetch anew.")
                return folder, layout
    return None
