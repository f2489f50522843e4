"""Files read by the standard library alone, a cell at a time, to compare the reader with."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


@dataclass
class Row:
    """One interaction, exactly as the source has it."""

    user: int | str
    item: int | str
    rating: np.float32 | None
    time: Fraction | None  # seconds since 1970


def read_bytes(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix == ".gz":
        return gzip.decompress(data)
    if path.suffix == ".bz2":
        return bz2.decompress(data)
    if path.suffix == ".zst":
        with pa.input_stream(io.BytesIO(data), compression="zstd") as stream:
            return stream.read()
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            return archive.read(archive.namelist()[0])
    return data


def read_cells(
    path: Path,
    *,
    delimiter: str,
    encoding: str,
    quotes: bool,
    comment: str | None,
    column_names: Sequence[str] | None,
) -> list[dict[str, str]]:
    """Read all cells of a text file as text, by the csv module or by splitting lines."""
    text = read_bytes(path).decode(encoding).removeprefix("\ufeff")
    text = text.replace("\r\n", "\n")
    if comment:
        text = re.sub(rf"(?m)^{re.escape(comment)}.*\n", "", text)
    if quotes:
        if len(delimiter) > 1:
            text, delimiter = text.replace(delimiter, "\x1f"), "\x1f"
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        records = [record for record in reader if record]
    else:
        records = [line.split(delimiter) for line in text.split("\n") if line]
    names = list(column_names or records.pop(0))
    return [dict(zip(names, record, strict=True)) for record in records]


def typed(rows: Sequence[dict[str, str]], *, decimal: str = ".", unit: str = "auto") -> list[Row]:
    """Give the cells of `user`, `item` and perhaps `rating` and `time` their types."""
    users, items = (ids([row[name] for row in rows]) for name in ("user", "item"))
    ratings: list[np.float32 | None] = [None] * len(rows)
    times: list[Fraction | None] = [None] * len(rows)
    if "rating" in rows[0]:
        ratings = [np.float32(float(row["rating"].replace(decimal, "."))) for row in rows]
    if "time" in rows[0]:
        times = list(seconds([row["time"].strip() for row in rows], decimal, unit))
    return [Row(*row) for row in zip(users, items, ratings, times, strict=True)]


def ids(texts: Sequence[str]) -> list[int] | list[str]:
    """Read ids as integers if all of them are."""
    bare = [text.strip() for text in texts]
    if all(re.fullmatch(r"(0|-?[1-9]\d*)(\.0)?", text, re.ASCII) for text in bare):
        values = [int(Decimal(text)) for text in bare]
        for low, high in ((-(2**63), 2**63), (0, 2**64)):
            if all(low <= value < high for value in values):
                return values
    return bare


def seconds(texts: Sequence[str], decimal: str, unit: str) -> list[Fraction]:
    """Read times exactly."""
    if re.match(r"\d{4}-", texts[0]):
        return [iso(text) for text in texts]
    numbers = [Fraction(Decimal(text.replace(decimal, "."))) for text in texts]
    if unit == "auto":
        largest = max(abs(number) for number in numbers)
        unit = next(
            (name for name, bound in (("s", 1e11), ("ms", 1e14), ("us", 1e17)) if largest < bound),
            "ns",
        )
    return [number / UNITS[unit] for number in numbers]


def iso(text: str) -> Fraction:
    """Read one time of ISO 8601."""
    text = re.sub(r" ?([Zz]|UTC)$", "+00:00", text)
    text = re.sub(r" ([+-]\d\d:?\d*)$", r"\1", text)
    fraction = Fraction(0)
    if match := re.search(r"[.,](\d+)", text):
        fraction = Fraction(int(match[1]), 10 ** len(match[1]))
        text = text.replace(match[0], "")
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return Fraction((moment - EPOCH) // timedelta(seconds=1)) + fraction
