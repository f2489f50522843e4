"""Tables of what is known of users and items, and how raw ids are looked up in them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from matinee.errors import MatineeError


def catalogue(
    index_name: str, raw: NDArray[Any] | list[str], known: pd.DataFrame | None
) -> pd.DataFrame:
    """Lay what is known beside sorted raw ids; what is known of other ids is dropped.

    Args:
        index_name: ``user_id`` or ``item_id``.
        raw: The sorted raw ids.
        known: A table with a column ``raw_id``, whose first row of an id counts; None if nothing is known.

    Returns:
        A table with the index 1..n, the first column ``raw_id`` and the other columns of ``known``.
    """
    index = pd.RangeIndex(1, len(raw) + 1, name=index_name)
    found = pd.DataFrame({"raw_id": raw}, index=index)
    if known is None:
        return found
    if "raw_id" not in known:
        raise MatineeError(f"the table about {index_name[:4]}s has no column 'raw_id'; add it.")
    ids = look_up(found["raw_id"], known["raw_id"])
    is_first = (ids > 0) & ~pd.Series(ids).duplicated().to_numpy()
    facts = known.drop(columns="raw_id")[is_first].set_axis(ids[is_first]).reindex(index)
    return pd.concat([found, facts], axis=1)


def with_titles(items: pd.DataFrame, titles: pd.Series[Any] | None = None) -> pd.DataFrame:
    """Give each item a title, as second column: of ``titles`` by item id, its own, or its raw id."""
    names = items["raw_id"].astype(str)
    own = (
        items.pop("title") if "title" in items else pd.Series(index=items.index, dtype=names.dtype)
    )
    if titles is not None:
        own = titles.reindex(items.index).fillna(own)
    items.insert(1, "title", own.fillna(names))
    return items


def look_up(
    known: pd.Series[Any], raw: Sequence[Any] | NDArray[Any] | pd.Series[Any]
) -> NDArray[np.int32]:
    """Return the places, from 1, of raw ids in a catalogue's column, 0 where they are unknown.

    Among integers, ``7``, ``7.0``, ``"7"`` and ``"7.0"`` are one id; among texts, an id is found by its text.

    Raises:
        TypeError: If ``raw`` is a single text.
    """
    if isinstance(raw, str | bytes):
        raise TypeError(f"expected a sequence of raw ids, not the text {raw!r}: wrap it in a list")
    if not pd.api.types.is_integer_dtype(known):
        wanted = pd.Index([str(value) for value in raw], dtype=known.dtype)
    elif isinstance(raw, np.ndarray | pd.Series) and raw.dtype == known.dtype:
        wanted = pd.Index(raw)
    else:
        whole = [_whole(value) for value in raw]
        low, high = int(known.iloc[0]), int(known.iloc[-1])
        is_in = np.array([value is not None and low <= value <= high for value in whole], np.bool_)
        values = [value if inside else 0 for value, inside in zip(whole, is_in, strict=True)]
        places = pd.Index(known).get_indexer(pd.Index(values, dtype=known.dtype))
        return np.where(is_in, places + 1, 0).astype(np.int32)
    ids: NDArray[np.int32] = (pd.Index(known).get_indexer(wanted) + 1).astype(np.int32)
    return ids


def _whole(value: Any) -> int | None:
    """Read a raw id as an integer; None where it is none."""
    if isinstance(value, str):
        match = re.fullmatch(r"(0|-?[1-9][0-9]*)(\.0)?", value)
        return int(match[1]) if match else None
    if isinstance(value, bool | np.bool_):
        return None
    try:
        number = int(value)
        return number if number == value else None
    except (TypeError, ValueError, OverflowError):
        return None


def with_year(item: pd.Series) -> str:
    """Name a row of an item table, as "Toy Story (1995)", if it has a year."""
    year = item.get("year")
    return str(item["title"]) if year is None or pd.isna(year) else f"{item['title']} ({year})"
