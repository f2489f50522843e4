"""Random tables in random dialects and types: read back equal to an independent reading, or refused."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import re
import zipfile
from collections import Counter
from datetime import UTC, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import plain_reading
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from plain_reading import EPOCH, UNITS, Row
from pyarrow import parquet

from matinee.data.columns.texts import MISSING
from matinee.data.interactions import Interactions
from matinee.data.sources import streams
from matinee.data.sources.table import load
from matinee.errors import MatineeError

LETTERS = "abzAZ09._-#'\" \u00e9\u00df"
BEYOND_LATIN = "\u0416\u4e2d\U0001f3ac\u0301"
INTEGERS = st.one_of(
    st.integers(-3, 9), st.integers(-(2**63), 2**63 - 1), st.integers(2**63, 2**64 - 1)
)
ZONES = ["", "Z", "z", " UTC", "UTC", "+00:00", "+0530", "-11", " +02:00", "-23:59"]


@st.composite
def ids(draw: Any, alphabet: str, num_rows: int) -> list[str]:
    """Draw the ids of one column, as they are written."""
    kind = draw(st.sampled_from(["integers", "small", "whole decimals", "padded", "texts"]))
    if kind == "texts":
        one = st.text(alphabet, min_size=1, max_size=4).filter(
            lambda text: text == text.strip() and text not in MISSING
        )
    elif kind == "padded":
        one = st.integers(0, 30).map(lambda value: f"{value:03}")
    elif kind == "small":
        one = st.integers(-2, 5).map(str)
    else:
        one = INTEGERS.map(str)
    texts = draw(st.lists(one, min_size=num_rows, max_size=num_rows))
    if kind == "whole decimals":
        texts = [text + draw(st.sampled_from(["", ".0"])) for text in texts]
    return texts


@st.composite
def times(draw: Any, num_rows: int) -> tuple[list[str], str]:
    """Draw the times of one column, as they are written, and the `time_unit` to read them by."""
    unit = draw(st.sampled_from(list(UNITS)))
    counts = draw(
        st.lists(
            st.integers(10**9 * UNITS[unit], 2 * 10**9 * UNITS[unit])
            | st.integers(0, 5).map(lambda more: 1_588_888_888 * UNITS[unit] + more),
            min_size=num_rows,
            max_size=num_rows,
        )
    )
    form = draw(st.sampled_from(["counts", "decimals", "dates"]))
    if form == "counts":
        return [str(count) for count in counts], draw(st.sampled_from(["auto", unit]))
    exact = [Decimal(count) / UNITS[unit] for count in counts]
    if form == "decimals":
        return [f"{value:f}" for value in exact], "auto"
    return [draw(dates(value)) for value in exact], "auto"


@st.composite
def dates(draw: Any, moment: Decimal) -> str:
    """Write a moment in one of the ways of ISO 8601."""
    zone = draw(st.sampled_from(ZONES))
    shift = timedelta(0)
    if match := re.fullmatch(r" ?([+-])(\d\d):?(\d\d)?", zone):
        shift = timedelta(hours=int(match[2]), minutes=int(match[3] or 0)) * (
            -1 if match[1] == "-" else 1
        )
    local = (EPOCH + timedelta(seconds=int(moment)) + shift).astimezone(UTC)
    fraction = f"{moment % 1:.9f}"[2:].rstrip("0")
    text = local.strftime("%Y-%m-%d") + draw(st.sampled_from("T ")) + local.strftime("%H:%M")
    if local.second or fraction or draw(st.booleans()):
        text += local.strftime(":%S")
        text += f".{fraction}" if fraction else ""
    return text + zone


@st.composite
def columns(draw: Any, alphabet: str) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Draw columns of cells, and the options that they need."""
    num_rows = draw(st.integers(1, 9))
    cells = {"user": draw(ids(alphabet, num_rows)), "item": draw(ids(alphabet, num_rows))}
    options = {}
    if draw(st.booleans()):
        values = st.decimals(-99, 99, places=draw(st.integers(0, 3))).map(
            lambda value: f"{value:f}"
        )
        cells["rating"] = draw(st.lists(values, min_size=num_rows, max_size=num_rows))
    if draw(st.booleans()):
        cells["time"], options["time_unit"] = draw(times(num_rows))
    for name in ("user", "item"):
        shortened = Counter(re.sub(r"\.0+$", "", text) for text in set(cells[name]))
        is_integer = not isinstance(plain_reading.ids(cells[name])[0], str)
        assume(is_integer or max(shortened.values()) == 1)  # else refused, as told elsewhere
    return cells, options


@st.composite
def text_files(draw: Any) -> tuple[str, bytes, dict[str, Any]]:
    """Draw a file's name and content, and the options to read it by."""
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"]))
    delimiter = draw(st.sampled_from([",", ";", "\t", "|", "::"]))
    quotes = draw(st.sampled_from(["none", "minimal", "all"]))
    comment = draw(st.sampled_from([None, "%"]))
    cells, options = draw(columns(LETTERS + (BEYOND_LATIN if encoding != "latin-1" else "")))
    inside = LETTERS + ("" if quotes == "none" else "\n" + delimiter)
    num_rows = len(cells["user"])
    cells["note"] = draw(
        st.lists(st.text(inside, max_size=6), min_size=num_rows, max_size=num_rows)
    )
    decimal = draw(st.sampled_from([".", ","])) if delimiter != "," or quotes == "all" else "."
    for name in ("rating", "time"):
        if decimal == "," and name in cells and not re.match(r"\d{4}-", cells[name][0]):
            cells[name] = [text.replace(".", ",") for text in cells[name]]
    order = draw(st.permutations(list(cells)))
    header = draw(st.booleans())
    records = [list(record) for record in zip(*(cells[name] for name in order), strict=True)]
    lines = [written(record, delimiter, quotes) for record in ([order] if header else []) + records]
    newline = draw(st.sampled_from(["\n", "\r\n"]))
    fillers = ["", *([f'{comment} no row, {delimiter} "'] if comment else [])]
    text = ""
    for line in lines:
        if draw(st.integers(0, 5)) == 0:
            text += draw(st.sampled_from(fillers)) + newline
        text += line.replace("\n", newline) + newline
    if draw(st.booleans()):
        text = text.removesuffix(newline)
    options |= {
        "delimiter": delimiter,
        "encoding": encoding,
        "decimal": decimal,
        "comment": comment,
    }
    options["column_names"] = None if header else list(order)
    options["quoting"] = "none" if quotes == "none" else "multiline"
    ending = draw(st.sampled_from(["csv", "csv.gz", "csv.bz2", "csv.zst", "csv.zip", "txt"]))
    return f"log.{ending}", text.encode(encoding), options


def written(record: list[str], delimiter: str, quotes: str) -> str:
    """Write one record without a line end."""
    if quotes == "none":
        return delimiter.join(record)
    quoting = csv.QUOTE_ALL if quotes == "all" else csv.QUOTE_MINIMAL
    stream = io.StringIO(newline="")
    csv.writer(stream, delimiter=delimiter[0], quoting=quoting, lineterminator="\n").writerow(
        record
    )
    if len(delimiter) == 1:
        return stream.getvalue().removesuffix("\n")
    fields = [f'"{field.replace(chr(34), 2 * chr(34))}"' for field in record]
    return delimiter.join(fields)


def compress(path: Path, data: bytes) -> None:
    if path.suffix == ".gz":
        data = gzip.compress(data)
    elif path.suffix == ".bz2":
        data = bz2.compress(data)
    elif path.suffix == ".zst":
        data = pa.compress(data, "zstd", asbytes=True)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("log.csv", data)
    else:
        path.write_bytes(data)


def rows_of(log: Interactions) -> list[Row]:
    users, items = log.users["raw_id"].tolist(), log.items["raw_id"].tolist()
    ratings = [None] * len(log) if log.ratings is None else log.ratings
    times = [None] * len(log)
    if log.timestamps is not None:
        times = [Fraction(time, UNITS[log.time_unit]) for time in log.timestamps.tolist()]
    return [
        Row(users[user - 1], items[item - 1], rating, time)
        for user, item, rating, time in zip(log.user_ids, log.item_ids, ratings, times, strict=True)
    ]


def check(log: Interactions, expected: list[Row]) -> None:
    """Compare rows, their order, the catalogues and everybody's last item."""
    ordered = sorted(expected, key=lambda row: row.time or 0)
    assert rows_of(log) == ordered
    assert log.users["raw_id"].tolist() == sorted({row.user for row in expected})
    assert log.items["raw_id"].tolist() == sorted({row.item for row in expected})
    if log.timestamps is not None:
        finest = all(
            (time * UNITS[log.time_unit] // 1000 * 1000 == time * UNITS[log.time_unit])
            for time in (row.time for row in expected)
        )
        assert not finest or log.time_unit == "s"


def check_text(folder: Path, file: tuple[str, bytes, dict[str, Any]]) -> None:
    name, data, options = file
    path = folder / name
    compress(path, data)
    cells = plain_reading.read_cells(
        path,
        delimiter=options["delimiter"],
        encoding=options["encoding"],
        quotes=options["quoting"] != "none",
        comment=options["comment"],
        column_names=options["column_names"],
    )
    unit = options.get("time_unit", "auto")
    expected = plain_reading.typed(cells, decimal=options["decimal"], unit=unit)
    names = {name: name for name in ("rating",) if name in cells[0]}
    names |= {"timestamp": "time"} if "time" in cells[0] else {}
    log = load(
        path, "user", "item", **names, **options, duplicates="keep", data_dir=folder / "copies"
    )
    check(log, expected)


@st.composite
def parquet_tables(draw: Any) -> tuple[dict[str, list[str]], pa.Table, dict[str, Any]]:
    """Draw cells, and the same cells in columns of types that hold them."""
    cells, options = draw(columns(LETTERS + BEYOND_LATIN))
    arrays = {name: draw(array(name, texts)) for name, texts in cells.items()}
    if "time" in cells and pa.types.is_timestamp(arrays["time"].type):
        options.pop("time_unit", None)
    return cells, pa.table(arrays), options


TEXT_TYPES = [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary()]


@st.composite
def array(draw: Any, name: str, texts: list[str]) -> pa.Array:
    """Store cells in a type that holds all of them."""
    dictionary = pa.dictionary(draw(st.sampled_from([pa.int8(), pa.int32()])), pa.string())
    found = [pa.array(texts).cast(kind) for kind in TEXT_TYPES] + [pa.array(texts).cast(dictionary)]
    if name == "time":
        if re.match(r"\d{4}-", texts[0]):
            nanos = [int(plain_reading.iso(text) * 10**9) for text in texts]
            found += [
                pa.array(nanos, pa.timestamp("ns", zone)) for zone in (None, "UTC", "Asia/Tokyo")
            ]
            for unit, factor in (("us", 10**3), ("ms", 10**6), ("s", 10**9)):
                if not any(value % factor for value in nanos):
                    counts = [value // factor for value in nanos]
                    found.append(pa.array(counts, pa.timestamp(unit)))
        else:
            found.append(pa.array([Decimal(text) for text in texts]))
    elif name == "rating":
        found += [
            pa.array([float(text) for text in texts]),
            pa.array([Decimal(text) for text in texts]),
        ]
        found.append(pa.array([np.float32(text) for text in texts]))
    elif not isinstance((values := plain_reading.ids(texts))[0], str):
        if all(abs(value) < 2**53 for value in values):
            found.append(pa.array([float(value) for value in values]))
        kinds = [pa.int8(), pa.uint16(), pa.int32(), pa.int64(), pa.uint64(), pa.decimal128(38, 0)]
        for kind in kinds:
            try:
                found.append(pa.array(values, kind))
            except (pa.ArrowInvalid, OverflowError):
                continue
        found.append(found[-1].dictionary_encode())
    return draw(st.sampled_from(found))


def check_parquet(
    folder: Path, table: tuple[dict[str, list[str]], pa.Table, dict[str, Any]]
) -> None:
    cells, stored, options = table
    files = folder / "parts"
    files.mkdir()
    half = len(stored) // 2
    parquet.write_table(stored.slice(0, half), files / "part-9.parquet", row_group_size=2)
    parquet.write_table(stored.slice(half), files / "part-10.parquet")
    records = [
        dict(zip(cells, record, strict=True)) for record in zip(*cells.values(), strict=True)
    ]
    expected = plain_reading.typed(records, unit=options.get("time_unit", "auto"))
    names = {name: name for name in ("rating",) if name in cells}
    names |= {"timestamp": "time"} if "time" in cells else {}
    options |= {"duplicates": "keep"}
    log = load(files, "user", "item", **names, **options, data_dir=folder / "copies")
    check(log, expected)
    check(Interactions.from_frame(stored, "user", "item", **names, **options), expected)
    check(Interactions.from_frame(stored.to_pandas(), "user", "item", **names, **options), expected)


@given(file=text_files(), block=st.sampled_from([1, 7, 40, 4096]))
@settings(max_examples=40)
def test_text(tmp_path_factory, file, block):
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(streams, "_BLOCK", block)
        check_text(tmp_path_factory.mktemp("text"), file)


@given(table=parquet_tables())
@settings(max_examples=30)
def test_parquet_and_frames(tmp_path_factory, table):
    check_parquet(tmp_path_factory.mktemp("parquet"), table)


@pytest.mark.slow
@given(file=text_files(), block=st.sampled_from([1, 7, 40, 4096]))
@settings(max_examples=1200)
def test_many_texts(tmp_path_factory, file, block):
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(streams, "_BLOCK", block)
        check_text(tmp_path_factory.mktemp("text"), file)


@pytest.mark.slow
@given(table=parquet_tables())
@settings(max_examples=800)
def test_many_parquet_tables_and_frames(tmp_path_factory, table):
    check_parquet(tmp_path_factory.mktemp("parquet"), table)


DAMAGES = [
    b"",
    b'"',
    b'""',
    b"\n",
    b"\r",
    b",",
    b"NULL",
    b" ",
    b"\xff",
    b'"x',
    b',"',
    b'",',
    b"-1",
    b"x",
]


@st.composite
def damaged_files(draw: Any) -> tuple[bytes, str]:
    """Draw a file of ids and notes some of whose bytes were replaced, and its ending."""
    num_rows = draw(st.integers(1, 12))
    ending = draw(st.sampled_from(["csv", "tsv"]))
    delimiter = "," if ending == "csv" else "\t"
    lines = ["user\titem\trating\tnote"]
    for row in range(num_rows):
        note = draw(st.sampled_from(["", "ok", '"a b"', '"a\tb"', '"a ""b"""', '12" vinyl']))
        lines.append(f"u{row}\ti{row}\t{row % 5}\t{note}")
    data = ("\n".join(lines) + "\n").replace("\t", delimiter).encode()
    start = data.index(b"\n") + 1
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(start, len(data)))
        cut = draw(st.integers(0, 2))
        data = data[:place] + draw(st.sampled_from(DAMAGES)) + data[place + cut :]
    return data, ending


def load_or_none(path: Path, options: dict[str, Any]) -> Interactions | None:
    """Load a file, if any of its rows is good."""
    try:
        return load(path, "user", "item", **options, bad_rows="skip")
    except MatineeError as error:
        if "no usable row" in str(error):
            return None
        raise


def check_damaged(folder: Path, data: bytes, ending: str) -> None:
    """Every line is read as the one row that it is, or counted as refused; none swallows another."""
    path = folder / f"log.{ending}"
    path.write_bytes(data)
    lines = [line for line in re.split(rb"\r\n|\r|\n", data)[1:] if line]
    options = {"rating": "rating", "duplicates": "keep", "data_dir": folder / "copies"}
    if not lines or not load_or_none(path, options):
        return
    log = load(path, "user", "item", **options, bad_rows="skip")
    delimiter = b"," if ending == "csv" else b"\t"
    like_rows = [line for line in lines if line.count(delimiter) == 3]
    assert len(like_rows) <= log.source["rows"] <= len(lines)
    refused = log.source["bad_rows_skipped"]
    assert len(log) == log.source["rows"] - refused
    users = set(log.users["raw_id"])
    for line in like_rows:
        if match := re.fullmatch(rb"(u\d+)[,\t]i\d+[,\t]\d[,\t](ok)?", line):
            assert match[1].decode() in users
    if refused:
        with pytest.raises(MatineeError, match=r"line \d+"):
            load(path, "user", "item", **options)
    else:
        assert load(path, "user", "item", **options).fingerprint == log.fingerprint


@given(file=damaged_files(), block=st.sampled_from([7, 4096]))
@settings(max_examples=60)
def test_damage(tmp_path_factory, file, block):
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(streams, "_BLOCK", block)
        check_damaged(tmp_path_factory.mktemp("damage"), *file)


@pytest.mark.slow
@given(file=damaged_files(), block=st.sampled_from([7, 4096]))
@settings(max_examples=1500)
def test_much_damage(tmp_path_factory, file, block):
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(streams, "_BLOCK", block)
        check_damaged(tmp_path_factory.mktemp("damage"), *file)
