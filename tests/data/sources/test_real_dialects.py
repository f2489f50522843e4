"""Files as they are published and exported, compared with what pandas reads of them as text."""

from __future__ import annotations

import bz2
import gzip
import io
import random
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pytest

from matinee.data.sources.table import load
from matinee.errors import MatineeError

SECOND = 10**9


class Event(NamedTuple):
    user: int
    item: int
    stars: float
    ns: int  # since 1970


Cell = Callable[[Event], object]


def events(step: int = SECOND, num_rows: int = 60) -> list[Event]:
    """Draw events in no order, with times that differ by multiples of `step` ns."""
    draw = random.Random(7)
    pairs = draw.sample([(user, item) for user in range(1, 9) for item in range(1, 26)], num_rows)
    times = draw.sample(range(999), num_rows)
    return [
        Event(*pair, draw.randint(1, 10) / 2, 1_396_864_800 * SECOND + step * time)
        for pair, time in zip(pairs, times, strict=True)
    ]


def text(
    columns: dict[str, Cell],
    *,
    step: int = SECOND,
    sep: str = ",",
    header: bool = True,
    end: str = "\n",
    quote: str = "",
) -> str:
    """Write a file whose columns are given by name."""
    lines = [list(columns)] if header else []
    lines += [[str(cell(event)) for cell in columns.values()] for event in events(step)]
    return "".join(sep.join(f"{quote}{cell}{quote}" for cell in line) + end for line in lines)


def user(event: Event) -> int:
    return event.user


def item(event: Event) -> int:
    return event.item


def stars(event: Event) -> float:
    return event.stars


def seconds(event: Event) -> int:
    return event.ns // SECOND


def clock(form: str, digits: int = 0, zone: str = "") -> Cell:
    """Write times in a form of `strftime`, with decimals and a zone."""

    def write(event: Event) -> str:
        whole = pd.Timestamp(event.ns // SECOND, unit="s").strftime(form)
        fraction = f".{event.ns % SECOND:09d}"[: digits + 1] if digits else ""
        return f"{whole}{fraction}{zone}"

    return write


def in_zone(event: Event) -> str:
    """Write a time in one of several zones."""
    hours = event.item % 5 - 2
    moment = pd.Timestamp(event.ns + hours * 3600 * SECOND, unit="ns")
    return f"{moment.isoformat()}{hours:+03d}:00"


ISO = clock("%Y-%m-%dT%H:%M:%S")
BASIC: dict[str, Cell] = {"user": user, "item": item, "rating": stars, "time": seconds}


@dataclass
class File:
    """A file: its bytes, how matinee is asked to read it, and how pandas is."""

    name: str
    data: str | bytes
    options: dict[str, Any] = field(default_factory=dict)
    pandas: dict[str, Any] = field(default_factory=dict)
    rating: str | None = "rating"
    time: str | None = "time"


def headerless(name: str, sep: str, columns: dict[str, Cell], delimiter: str, **more: Any) -> File:
    names = list(columns)
    data = text(columns, sep=sep, header=False, step=more.pop("step", SECOND))
    options = {"column_names": names, "delimiter": delimiter}
    pandas = {"names": names, "header": None, "sep": sep, "engine": "python"}
    return File(name, data, options, pandas, **more)


def zipped(data: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("events.csv", data)
    return file.getvalue()


TITLES = ['Crouching Tiger, Hidden Dragon"', 'Say ""Hi""', "two\nlines", "\u00c9t\u00e9", ""]
PLAIN = text(BASIC)
COMMA = text(BASIC | {"rating": lambda e: str(e.stars).replace(".", ",")}, sep=";")
TAB = {"pandas": {"sep": "\t", "quoting": 3}}
SEMICOLON = {"pandas": {"sep": ";"}}
FILES = {
    "MovieLens 100K": headerless("u.data", "\t", BASIC, "tab"),
    "MovieLens 1M": headerless("ratings.dat", "::", BASIC, "::"),
    "MovieLens 25M": File("ratings.csv", PLAIN),
    "Amazon": headerless(
        "ratings.csv",
        ",",
        {
            "user": lambda e: f"A{e.user}",
            "item": lambda e: f"{e.item:010d}",
            "rating": stars,
            "time": seconds,
        },
        "comma",
    ),
    "ISBN with X": File(
        "a.csv", text(BASIC | {"item": lambda e: f"{e.item:09d}{'X' if e.item % 11 == 10 else 5}"})
    ),
    "Book-Crossing": File(
        "b.csv",
        text(BASIC | {"note": lambda _: "\u00e9"}, sep=";", quote='"').encode("latin-1"),
        {"encoding": "latin-1"},
        {"sep": ";", "encoding": "latin-1"},
    ),
    "Yelp": File(
        "y.csv",
        text(
            BASIC
            | {
                "user": lambda e: f"_{e.user}-xQ{e.user % 3}",
                "time": clock("%Y-%m-%d %H:%M:%S"),
            }
        ),
    ),
    "Goodreads": File("g.csv", text(BASIC | {"user": lambda e: f"{e.user * 7919:032x}"})),
    "Last.fm": headerless(
        "l.tsv",
        "\t",
        {
            "user": lambda e: f"user_{e.user:06d}",
            "time": clock("%Y-%m-%dT%H:%M:%S", zone="Z"),
            "item": lambda e: f"track {e.item}",
        },
        "tab",
        rating=None,
    ),
    "Retailrocket": File(
        "r.csv",
        text(
            {
                "time": lambda e: e.ns // 10**6,
                "user": user,
                "event": lambda _: "view",
                "item": item,
            },
            step=10**6,
        ),
        rating=None,
    ),
    "YooChoose": headerless(
        "y.dat",
        ",",
        {"user": user, "time": clock("%Y-%m-%dT%H:%M:%S", 3, "Z"), "item": item},
        "comma",
        rating=None,
        step=10**6,
    ),
    "Diginetica": File(
        "d.csv",
        text(
            {"user": user, "item": item, "time": clock("%Y-%m-%d")}, sep=";", step=86_400 * SECOND
        ),
        rating=None,
        **SEMICOLON,
    ),
    "Netflix": File("n.csv", text(BASIC | {"time": clock("%Y-%m-%d")}, step=86_400 * SECOND)),
    "many rows of a day": File("m.csv", text(BASIC | {"time": clock("%Y-%m-%d")})),
    "Foursquare": File(
        "f.tsv",
        text(BASIC | {"place": lambda e: f"{e.item / 7:.6f} \u00b0"}, sep="\t").encode("cp1252"),
        {"encoding": "cp1252"},
        {"sep": "\t", "encoding": "cp1252"},
    ),
    "Gowalla": headerless(
        "g.txt",
        "\t",
        {"user": user, "time": clock("%Y-%m-%dT%H:%M:%S", zone="Z"), "item": item},
        "tab",
        rating=None,
    ),
    "H&M": File(
        "h.csv",
        text(
            {
                "time": clock("%Y-%m-%d"),
                "user": lambda e: f"{e.user:064x}",
                "item": lambda e: f"0{e.item:09d}",
                "rating": lambda e: e.stars / 59,
            },
            step=86_400 * SECOND,
        ),
    ),
    "RecBole": File("r.inter", text(BASIC, sep="\t"), **TAB),
    "Steam": headerless(
        "s.csv", ",", {"user": user, "item": item}, "comma", rating=None, time=None
    ),
    "BigQuery": File("b.csv", text(BASIC | {"time": clock("%Y-%m-%d %H:%M:%S", zone=" UTC")})),
    "BigQuery, microseconds": File(
        "b.csv", text(BASIC | {"time": clock("%Y-%m-%d %H:%M:%S", 6, " UTC")}, step=1000)
    ),
    "Snowflake": File(
        "s.csv",
        text(BASIC | {"time": clock("%Y-%m-%d %H:%M:%S", 9)}, step=1, quote='"'),
    ),
    "PostgreSQL": File(
        "p.csv", text(BASIC | {"time": clock("%Y-%m-%d %H:%M:%S", 6, "+00")}, step=1000)
    ),
    "several zones": File("z.csv", text(BASIC | {"time": in_zone})),
    "ISO with T": File("i.csv", text(BASIC | {"time": ISO})),
    "pipes": File("p.csv", text(BASIC, sep="|"), pandas={"sep": "|"}),
    "German Excel": File(
        "g.csv",
        COMMA.replace("\n", "\r\n").encode("cp1252"),
        {"decimal": ",", "encoding": "cp1252"},
        {"sep": ";"},
    ),
    "Excel, Unicode text": File(
        "e.txt",
        text(BASIC, sep="\t", end="\r\n").encode("utf-16"),
        {"encoding": "utf-16", "delimiter": "tab"},
        {"sep": "\t", "encoding": "utf-16"},
    ),
    "Excel, CSV UTF-8": File("e.csv", text(BASIC, end="\r\n").encode("utf-8-sig")),
    "old Macintosh": File("m.csv", text(BASIC, end="\r")),
    "no line end at the end": File("n.csv", PLAIN.rstrip("\n")),
    "blank lines": File("b.csv", PLAIN.replace("\n", "\n\n")),
    "gzip": File("g.csv.gz", gzip.compress(PLAIN.encode())),
    "bzip2": File("b.csv.bz2", bz2.compress(PLAIN.encode())),
    "Zstandard": File("z.csv.zst", pa.compress(PLAIN.encode(), "zstd", asbytes=True)),
    "zip": File("z.zip", zipped(PLAIN)),
    "spaces": File("s.txt", text(BASIC, sep=" "), {"delimiter": "space"}, {"sep": " "}),
    "comments": File(
        "c.csv", "# exported\n" + PLAIN + "# end\n", {"comment": "#"}, {"comment": "#"}
    ),
    "quoted titles": File(
        "t.csv",
        text(BASIC | {"title": lambda e: f'"{TITLES[e.item % 5].strip(chr(34))}"'}),
    ),
    "stray quotes between tabs": File(
        "s.tsv", text(BASIC | {"title": lambda e: TITLES[e.item % 2]}, sep="\t"), **TAB
    ),
    "inches": File("i.csv", text(BASIC | {"note": lambda e: f'{e.item}" vinyl'})),
    "negative ids": File(
        "n.csv", text(BASIC | {"user": lambda e: e.user * -1_541_654_101_129_638_711})
    ),
    "unsigned ids": File("u.csv", text(BASIC | {"user": lambda e: 2**64 - e.user})),
    "ids of 19 digits": File("d.csv", text(BASIC | {"item": lambda e: 10**18 + e.item})),
    "ids of 30 digits": File("d.csv", text(BASIC | {"item": lambda e: 10**29 + e.item})),
    "ids with .0": File("p.csv", text(BASIC | {"user": lambda e: f"{e.user}.0"})),
    "versions": File("v.csv", text(BASIC | {"item": lambda e: f"{e.item // 10}.{e.item % 10}0"})),
    "zeros in front": File("z.csv", text(BASIC | {"user": lambda e: f"{e.user:03d}"})),
    "Cyrillic and emoji": File(
        "c.csv", text(BASIC | {"user": lambda e: f"\u0416{e.user}\U0001f600"})
    ),
    "padded columns": File("p.csv", text(BASIC | {"item": lambda e: f"{e.item:>8}  "})),
    "microseconds": File("m.csv", text(BASIC | {"time": lambda e: e.ns // 1000}, step=1000)),
    "nanoseconds": File("n.csv", text(BASIC | {"time": lambda e: e.ns}, step=1)),
    "decimal seconds": File(
        "d.csv",
        text(BASIC | {"time": lambda e: f"{e.ns // SECOND}.{e.ns % SECOND:09d}"}, step=1),
    ),
    "exponents": File(
        "e.csv",
        text(
            BASIC
            | {"rating": lambda e: f"{e.stars:.3e}", "time": lambda e: f"{e.ns // 10**6:.12E}"},
            step=10**6,
        ),
    ),
    "a delimiter at every end": File(
        "d.csv", PLAIN.replace("\n", ",\n"), pandas={"index_col": False}
    ),
    "before 1970": File("b.csv", text(BASIC | {"time": lambda e: -(e.ns // SECOND)})),
}


def normal(ids: pd.Series[str]) -> pd.Series[str]:
    """Write integers in one way and leave texts as they are."""
    bare = ids.str.strip()
    if bare.str.fullmatch(r"(0|-?[1-9]\d*)(\.0)?").all():
        return bare.str.removesuffix(".0")
    return bare


def moments(times: pd.Series[str]) -> list[Any]:
    """Return what sorts as times do, exactly."""
    if times.str.contains(":|-\\d\\d-").any():
        return [pd.Timestamp(re.sub(" UTC$", "Z", time)) for time in times]
    return [Decimal(time) for time in times]


def plain_reading(path: Path, file: File) -> pd.DataFrame:
    """Read users and items as text by pandas, in the order of time."""
    options = {"dtype": str, "keep_default_na": False, **file.pandas}
    if path.suffix == ".zst":
        with pa.input_stream(str(path), compression="zstd") as stream:
            frame = pd.read_csv(io.BytesIO(stream.read()), **options)
    else:
        frame = pd.read_csv(path, **options)
    rows = pd.DataFrame({"user": normal(frame["user"]), "item": normal(frame["item"])})
    if file.time is not None:
        keys = moments(frame[file.time])
        rows = rows.iloc[sorted(range(len(rows)), key=keys.__getitem__)]
    return rows


@pytest.mark.parametrize("kind", FILES)
def test_files_are_read_as_pandas_reads_their_text(tmp_path, kind):
    file = FILES[kind]
    path = tmp_path / file.name
    path.write_bytes(file.data.encode() if isinstance(file.data, str) else file.data)
    expected = plain_reading(path, file)
    assert len(expected) == 60
    options = {"rating": file.rating, "timestamp": file.time, **file.options}
    log = load(path, "user", "item", **options, data_dir=tmp_path / "copies")
    assert len(log) == len(expected)
    users = log.users["raw_id"].astype(str).to_numpy()[log.user_ids - 1]
    items = log.items["raw_id"].astype(str).to_numpy()[log.item_ids - 1]
    found = pd.DataFrame({"user": users, "item": items})
    assert set(found["user"]) == set(expected["user"])
    assert set(found["item"]) == set(expected["item"])
    assert log.num_users == expected["user"].nunique()
    assert log.num_items == expected["item"].nunique()
    last = expected.groupby("user")["item"].last()
    assert found.groupby("user")["item"].last().to_dict() == last.to_dict()


REFUSED = {
    "times of C": (BASIC | {"time": clock("%a %b %d %H:%M:%S %Y")}, "is no time"),
    "days first": (BASIC | {"time": clock("%d/%m/%Y")}, "is no time"),
    "two digits of the year": (BASIC | {"time": clock("%y-%m-%d")}, "is no time"),
    "dates without separators": (BASIC | {"time": clock("%Y%m%d")}, "without separators"),
    "minutes without separators": (BASIC | {"time": clock("%Y%m%d%H%M")}, "without separators"),
    "seconds and milliseconds": (
        BASIC | {"time": lambda e: e.ns // (SECOND if e.user > 2 else 10**6)},
        "may count different units",
    ),
    "dates and numbers": (
        BASIC | {"time": lambda e: ISO(e) if e.user > 2 else seconds(e)},
        "several ways",
    ),
    "NULL among ids": (BASIC | {"user": lambda e: e.user if e.user > 2 else "NULL"}, "missing"),
    "a rating that is absent": (
        BASIC | {"rating": lambda e: e.stars if e.user > 2 else ""},
        "missing",
    ),
    "ids that a spreadsheet shortened": (
        BASIC | {"item": lambda e: f"{1.2345e17 + e.item:.5E}"},
        "shortened number",
    ),
    "rows of several lengths": (
        BASIC | {"time": lambda e: f"{seconds(e)},x" if e.user == 3 else seconds(e)},
        "5 instead of 4 fields",
    ),
    "decimal commas": (
        BASIC | {"rating": lambda e: f'"{str(e.stars).replace(".", ",")}"'},
        "set decimal=','",
    ),
    "thousands": (BASIC | {"rating": lambda e: f'"{e.item * 1000:,}"'}, "is not a number"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_files_that_are_refused(tmp_path, kind):
    columns, message = REFUSED[kind]
    path = tmp_path / "log.csv"
    path.write_text(text(columns))
    with pytest.raises(MatineeError, match=rf"log\.csv, line \d+.*{message}"):
        load(path, "user", "item", "rating", "time", data_dir=tmp_path / "copies")
