"""Data frames of any library are inputs: the same rows give the same interactions."""

from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from matinee.data.interactions import Interactions
from matinee.errors import MatineeError

ROWS = {
    "who": ["ann", "bob", "ann", "cid"],
    "what": [7, 11, 11, 7],
    "stars": [4.5, 2, 3, 1],
    "when": [20, 10, 30, 10],
}
NAMES = {"user": "who", "item": "what", "rating": "stars", "timestamp": "when"}


class Streams:
    """A data frame of another library, as polars and DuckDB offer theirs."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


class Interchanges:
    """A data frame with the older protocol."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self._frame = frame

    def __dataframe__(self, nan_as_null: bool = False, allow_copy: bool = True) -> object:
        return pa.Table.from_pandas(self._frame).__dataframe__(nan_as_null, allow_copy)


def arrow() -> pa.Table:
    return pa.table(ROWS)


FRAMES = {
    "mapping": lambda: ROWS,
    "numpy": lambda: {name: np.array(values) for name, values in ROWS.items()},
    "pandas": lambda: pd.DataFrame(ROWS, index=[9, 9, 3, 1]),
    "nullable pandas": lambda: pd.DataFrame(ROWS).convert_dtypes(),
    "arrow-backed pandas": lambda: pd.DataFrame(ROWS).convert_dtypes(dtype_backend="pyarrow"),
    "categories": lambda: pd.DataFrame(ROWS).astype({"who": "category", "what": "category"}),
    "objects": lambda: pd.DataFrame(ROWS).astype(object),
    "arrow": arrow,
    "chunks": lambda: pa.concat_tables([arrow().slice(0, 1), arrow().slice(1)]),
    "batch": lambda: arrow().to_batches()[0],
    "reader": lambda: pa.RecordBatchReader.from_batches(arrow().schema, arrow().to_batches()),
    "capsule": lambda: Streams(arrow()),
    "interchange": lambda: Interchanges(pd.DataFrame(ROWS)),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_kinds_of_frames(kind):
    log = Interactions.from_frame(FRAMES[kind](), **NAMES)
    assert log.users["raw_id"].tolist() == ["ann", "bob", "cid"]
    assert log.items["raw_id"].tolist() == [7, 11]
    assert log.user_ids.tolist() == [2, 3, 1, 1]
    assert log.item_ids.tolist() == [2, 1, 1, 2]
    assert log.ratings.tolist() == [2, 1, 4.5, 3]
    assert log.timestamps.tolist() == [10, 10, 20, 30]
    assert log.fingerprint == Interactions.from_frame(ROWS, **NAMES).fingerprint


def test_only_what_is_asked_for_is_read():
    frame = pd.DataFrame(ROWS).assign(other=[object()] * 4)
    log = Interactions.from_frame(frame, "who", "what")
    assert log.ratings is None
    assert log.timestamps is None


def test_catalogues_and_titles():
    items = pd.DataFrame(
        {"what": ["11", "7", "99"], "year": [1999, 2000, 2001], "title": ["XI", "Seven", "-"]}
    )
    users = pa.table({"who": ["bob"], "age": [33]})
    log = Interactions.from_frame(ROWS, **NAMES, items=items, users=users)
    assert log.items["title"].tolist() == ["Seven", "XI"]
    assert log.items["year"].tolist() == [2000, 1999]
    assert log.users["age"].fillna(-1).tolist() == [-1, 33, -1]
    titled = Interactions.from_frame({**ROWS, "name": ["a", "b", "c", "d"]}, **NAMES, title="name")
    assert titled.items["title"].tolist() == ["a", "b"]
    shared = Interactions.from_frame(pd.DataFrame(ROWS), **NAMES, title="what")
    assert shared.items["title"].tolist() == ["7", "11"]
    with pytest.raises(MatineeError, match="has no column 'what'"):
        Interactions.from_frame(ROWS, **NAMES, items=items.rename(columns={"what": "item"}))


def test_columns_named_by_numbers():
    frame = pd.DataFrame({0: ROWS["who"], 1: ROWS["what"], 2: ROWS["stars"], 3: ROWS["when"]})
    items = pd.DataFrame({1: [7, 11], "title": ["Seven", "XI"]})
    log = Interactions.from_frame(frame, 0, 1, 2, 3, items=items)
    assert log.fingerprint == Interactions.from_frame(ROWS, **NAMES).fingerprint
    assert log.items["title"].tolist() == ["Seven", "XI"]


def test_options_reach_the_reader():
    frame = pd.DataFrame({"user": ["007", "7", "NA"], "item": [1, 2, 3], "r": [1, 2, 9]})
    log = Interactions.from_frame(frame, rating="r", id_type="text", rating_scale=[0, 10])
    assert log.users["raw_id"].tolist() == ["007", "7", "NA"]
    assert log.rating_scale == (0.0, 10.0)
    skipped = Interactions.from_frame(frame, rating="r", rating_scale=[0, 5], bad_rows="skip")
    assert skipped.users["raw_id"].tolist() == ["007", "7"]


@pytest.mark.parametrize(
    ("frame", "names", "message"),
    [
        (
            ROWS,
            {"user": "whom", "item": "what"},
            "the data frame has no column 'whom'; did you mean 'who'",
        ),
        (ROWS, {"user": "who", "item": "who"}, "the column 'who' is named twice"),
        (
            pd.DataFrame([[1, 2, 3]], columns=["u", "i", "u"]),
            {"user": "u", "item": "i"},
            "several columns 'u'",
        ),
        ([1, 2], {}, "a list is no data frame"),
        (pd.DataFrame({"user": [], "item": []}), {}, "has no rows"),
        (
            pd.DataFrame({"user": [1], "item": pd.PeriodIndex(["2020"], freq="Y")}),
            {},
            "column 'item': ids are of type",
        ),
        (
            pd.DataFrame({"user": [1, None], "item": [1, 2]}),
            {},
            "row 2, column 'user': the value is missing",
        ),
        ({"user": [1, 2], "item": [1]}, {}, "cannot be read"),
    ],
)
def test_frames_that_are_refused(frame, names, message):
    with pytest.raises(MatineeError, match=message):
        Interactions.from_frame(frame, **names)


def test_arrays_are_never_those_of_the_frame():
    ratings = np.array([1, 2], np.float32)
    times = np.array([1, 2], np.int64)
    log = Interactions.from_frame(
        {"user": [1, 2], "item": [1, 2], "r": ratings, "t": times}, rating="r", timestamp="t"
    )
    log.ratings[0], log.timestamps[0] = 9, 9
    assert (ratings[0], times[0]) == (1, 1)


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("kind", [list, pd.Series])
def test_times_with_and_without_a_zone_are_refused(kind, order: int) -> None:
    zoned, bare = datetime(2020, 1, 1, 12, tzinfo=UTC), datetime(2020, 1, 1, 13)
    log = {"user": [1, 1, 1], "item": [1, 2, 3]}
    times = {
        "time": kind([zoned, None, bare][::order], **({} if kind is list else {"dtype": object}))
    }
    with pytest.raises(MatineeError, match="row 3, column 'time': some times have a zone"):
        Interactions.from_frame(log | times, "user", "item", timestamp="time")
    for same in ([zoned, zoned, zoned], [bare, bare, bare]):
        read = Interactions.from_frame(log | {"time": kind(same)}, "user", "item", timestamp="time")
        assert len(read) == 3
