"""What there is to know of interactions before a model is trained on them, and what looks wrong."""

from __future__ import annotations

import datetime
import time
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from matinee.data.columns.time_cells import DIGITS
from matinee.data.duplicates import repeats
from matinee.data.interactions import Interactions
from matinee.data.splits import Split, warm_ids

MOST_VALUES = 20  # of ratings that are shown one by one

_LARGE_SHARE = 0.1  # of all rows, for one user or item
_FEW = 0.05  # of all ids
_QUANTILES = {"least": 0.0, "quarter": 0.25, "median": 0.5, "three quarters": 0.75, "most": 1.0}
_YEAR = 365.25 * 86_400


@dataclass(frozen=True)
class Description:
    """Facts about interactions, in tables of texts and numbers.

    Attributes:
        facts: The value of each fact by its name.
        counts: A row for users and one for items: how many rows they have.
        tail: How many of the items, most frequent first, have which share of the rows.
        ratings: How often each rating occurs, or each range of ratings; None where there are none.
        parts: Rows of train, validation and test, and what is unknown in train; None without a split.
        suspicions: Sentences about what looks wrong.
    """

    facts: dict[str, str]
    counts: pd.DataFrame
    tail: pd.DataFrame
    ratings: pd.DataFrame | None
    parts: pd.DataFrame | None
    suspicions: list[str]


def describe(
    interactions: Interactions, split: Split | None = None, now: float | None = None
) -> Description:
    """Describe interactions.

    Args:
        interactions: The data.
        split: How they are split, to tell what is unknown in train.
        now: Seconds since 1970, to find times in the future; None is the clock's.
    """
    user_counts = np.bincount(interactions.user_ids)[1:]
    item_counts = np.bincount(interactions.item_ids)[1:]
    return Description(
        facts=_facts(interactions),
        counts=_quantiles({"user": user_counts, "item": item_counts}),
        tail=_tail(item_counts),
        ratings=_rating_counts(interactions),
        parts=None if split is None else _parts(interactions, split),
        suspicions=[
            *_crowds(interactions.users, user_counts, "user"),
            *_crowds(interactions.items, item_counts, "item"),
            *_like_ids(interactions.users, "user"),
            *_like_ids(interactions.items, "item"),
            *_like_titles(interactions.items),
            *_odd_times(interactions, time.time() if now is None else now),
            *_odd_ratings(interactions),
        ],
    )


def iso_time(interactions: Interactions, count: int) -> str:
    """Write a timestamp of some interactions in ISO 8601, as finely as it is kept."""
    digits = DIGITS[interactions.time_unit]
    seconds, fraction = divmod(count, 10**digits)
    try:
        moment = datetime.datetime.fromtimestamp(0, datetime.UTC) + datetime.timedelta(
            seconds=seconds
        )
    except OverflowError:
        return f"{count} {interactions.time_unit}"
    text = moment.strftime("%Y-%m-%d %H:%M:%S")
    return f"{text}.{fraction:0{digits}d}" if digits else text


def _facts(log: Interactions) -> dict[str, str]:
    rows, cells = len(log), log.num_users * log.num_items
    found = repeats(log.user_ids, log.item_ids)
    repeated = 0 if found is None else rows - len(found[1])
    facts = {
        "rows": f"{rows:,}",
        "users": f"{log.num_users:,}",
        "items": f"{log.num_items:,}",
        "density": f"{_percent((rows - repeated) / cells)} of all pairs",
        "repeated pairs": f"{repeated:,} rows, {_percent(repeated / rows)}",
        "rows removed as duplicates": f"{log.duplicates_resolved:,}",
        **{name.replace("_", " "): str(value) for name, value in log.source.items()},
        "user ids": _kind(log.users),
        "item ids": _kind(log.items),
    }
    if log.timestamps is not None:
        first, last = int(log.timestamps[0]), int(log.timestamps[-1])
        facts |= {
            "times": f"{iso_time(log, first)} to {iso_time(log, last)} UTC",
            "resolution of times": log.time_unit,
            "rows that share user and time": _shared_times(log),
        }
    else:
        facts["times"] = "none; the order of the rows is that of time"
    if log.ratings is not None and log.rating_scale is not None:
        low, high = log.rating_scale
        facts["rating scale"] = f"{low:g} to {high:g}"
        facts["mean rating"] = f"{log.ratings.mean(dtype=np.float64):.4f}"
    facts["SHA-256"] = log.fingerprint
    return facts


def _kind(table: pd.DataFrame) -> str:
    return "integers" if pd.api.types.is_integer_dtype(table["raw_id"]) else "text"


def _shared_times(log: Interactions) -> str:
    assert log.timestamps is not None
    moments = np.unique(log.timestamps, return_inverse=True)[1]
    found = repeats(log.user_ids, (moments + 1).astype(np.int64))
    if found is None:
        return "0"
    rows, starts = found
    sizes = np.diff(np.r_[starts, len(rows)])
    shared = int(sizes[sizes > 1].sum())
    return f"{shared:,}, {_percent(shared / len(log))}; among them the order is that of the source"


def _quantiles(counts: dict[str, NDArray[np.int64]]) -> pd.DataFrame:
    rows = []
    for name, values in counts.items():
        places = np.quantile(values, list(_QUANTILES.values()), method="inverted_cdf")
        numbers = dict(zip(_QUANTILES, places.astype(np.int64).tolist(), strict=True))
        rows.append({"rows of a": name, **numbers, "mean": f"{values.mean():.1f}"})
    return pd.DataFrame(rows)


def _tail(counts: NDArray[np.int64]) -> pd.DataFrame:
    """Tell how few items have most rows."""
    shares = np.cumsum(np.sort(counts)[::-1]) / counts.sum()
    rows = []
    for share in (0.2, 0.5, 0.8, 0.95):
        number = int(np.searchsorted(shares, share) + 1)
        rows.append(
            {
                "share of rows": _percent(share),
                "items": number,
                "share of items": _percent(number / len(counts)),
            }
        )
    return pd.DataFrame(rows)


def _rating_counts(log: Interactions) -> pd.DataFrame | None:
    if log.ratings is None:
        return None
    values, counts = np.unique(log.ratings, return_counts=True)
    names = [f"{value:g}" for value in values.tolist()]
    if len(values) > MOST_VALUES:
        counts, edges = np.histogram(log.ratings, bins=10)
        ends = "[" * 9 + "]"
        names = [
            f"[{low:g}, {high:g}{end if end == ']' else ')'}"
            for low, high, end in zip(edges[:-1].tolist(), edges[1:].tolist(), ends, strict=True)
        ]
    shares = [_percent(count / len(log)) for count in counts.tolist()]
    return pd.DataFrame({"rating": names, "rows": counts, "share": shares})


def _parts(log: Interactions, split: Split) -> pd.DataFrame:
    warm_users, warm_items = warm_ids(log, split.train)
    rows = []
    for part in ("train", "validation", "test"):
        positions = getattr(split, part)
        users, items = log.user_ids[positions], log.item_ids[positions]
        row: dict[str, Any] = {
            "part": part,
            "rows": len(positions),
            "users": len(np.unique(users)),
            "items": len(np.unique(items)),
            "rows of unknown users": _percent(1 - warm_users[users].mean()),
            "rows of unknown items": _percent(1 - warm_items[items].mean()),
        }
        if log.timestamps is not None:
            times = log.timestamps[positions]
            row |= {
                "first": iso_time(log, int(times.min())),
                "last": iso_time(log, int(times.max())),
            }
        rows.append(row)
    return pd.DataFrame(rows)


def _crowds(table: pd.DataFrame, counts: NDArray[np.int64], name: str) -> Iterator[str]:
    most = int(counts.argmax())
    share = counts[most] / counts.sum()
    if share >= _LARGE_SHARE and len(counts) >= 2 / _LARGE_SHARE:
        (raw_id,) = table["raw_id"].iloc[[most]].tolist()
        yield f"{name} {raw_id!r} has {_percent(share)} of all rows."


def _like_ids(table: pd.DataFrame, name: str) -> Iterator[str]:
    raw = table["raw_id"]
    if pd.api.types.is_integer_dtype(raw):
        return
    texts = raw.astype(str)
    yield from _few_words(texts, name)
    for what, alike in (
        ("Unicode form or invisible characters", texts.map(_visible)),
        ("blanks", texts.str.split().str.join(" ")),
        ("upper and lower case", texts.str.casefold()),
        ("leading zeros", pd.Series([text.lstrip("0") for text in texts], texts.index)),
    ):
        again = alike.duplicated(keep=False) & ~texts.duplicated(keep=False)
        if again.any():
            first = alike[again].iloc[0]
            pair = " and ".join(repr(text) for text in texts[again & (alike == first)][:2])
            yield f"{int(again.sum()):,} {name} ids differ only by {what}, such as {pair}."


def _visible(text: str) -> str:
    """Return a text whose characters are written in one way, without those that cannot be seen."""
    composed = unicodedata.normalize("NFC", text)
    return "".join(c for c in composed if unicodedata.category(c) not in ("Cf", "Cc"))


def _few_words(texts: pd.Series, name: str) -> Iterator[str]:
    """Tell of few ids that are no integers among many that are."""
    other = ~texts.str.fullmatch("0|-?[1-9][0-9]*")
    number = int(other.sum())
    if 0 < number <= len(texts) * _FEW:
        yield f"{number:,} {name} ids are no integers, as the others are, such as {texts[other].iloc[0]!r}."


def _like_titles(items: pd.DataFrame) -> Iterator[str]:
    columns = [column for column in ("title", "year") if column in items]
    again = items.duplicated(columns, keep=False)
    if again.any():
        example = items["title"][again].iloc[0]
        yield f"{int(again.sum()):,} items share their title with another item, such as {example!r}."


def _odd_times(log: Interactions, now: float) -> Iterator[str]:
    times = log.timestamps
    if times is None:
        return
    scale = 10 ** DIGITS[log.time_unit]
    first, last = int(times[0]), int(times[-1])
    if first == last and len(log) > 1:
        yield f"all rows have the time {iso_time(log, first)}; the order is that of the source."
    later = int(np.count_nonzero(times > now * scale))
    if later:
        yield f"{later:,} rows are of the future; the last is of {iso_time(log, last)}."
    early = int(np.count_nonzero(np.abs(times / scale) < _YEAR))
    if early:
        yield (
            f"{early:,} rows are within a year of 1970, such as {iso_time(log, first)}; their times may "
            "count another unit, or no time at all."
        )


def _odd_ratings(log: Interactions) -> Iterator[str]:
    if log.ratings is not None and len(log) > 1 and log.ratings.min() == log.ratings.max():
        yield f"all ratings are {log.ratings[0]:g}."


def _percent(share: float) -> str:
    text = f"{100 * share:.2f}"
    return "< 0.01 %" if text == "0.00" and share > 0 else f"{text} %"
