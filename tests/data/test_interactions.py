"""Interactions: validation, order, encoding, duplicates, fingerprint."""

import hashlib

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matinee.data.interactions import Interactions
from matinee.errors import MatineeError

RAW_IDS = st.one_of(
    st.lists(st.integers(0, 9), min_size=1, max_size=30),
    st.lists(st.integers(0, 2**62), min_size=1, max_size=30),
    st.lists(st.text("abÀ7\U0001f3ac", min_size=1, max_size=3), min_size=1, max_size=30).filter(
        lambda texts: not all(text.isdigit() for text in texts)  # which would be integers
    ),
)


def build(**columns):
    options = {
        name: columns.pop(name) for name in ("duplicates", "rating_scale") if name in columns
    }
    return Interactions.from_table(columns, **options)


@pytest.mark.parametrize("texts", [["z", "b", "unused", "a"], ["a", "b", "a", "z"]])
def test_dictionaries_of_texts_are_read_as_texts(texts):
    chunks = [
        pa.DictionaryArray.from_arrays(pa.array(codes, pa.int8()), texts)
        for codes in ([0, 1, 3], [3, 0])
    ]
    item = pa.chunked_array(chunks)
    plain, coded = (build(user=[1] * 5, item=column, duplicates="keep") for column in
                    (item.cast(pa.string()), item))  # fmt: skip
    assert coded.item_ids.tolist() == plain.item_ids.tolist()
    assert coded.items["raw_id"].tolist() == plain.items["raw_id"].tolist()


@pytest.mark.parametrize("texts", [["a", ""], ["a", None]])
def test_dictionaries_without_an_id_are_refused(texts):
    item = pa.DictionaryArray.from_arrays(pa.array([0, 1]), texts)
    with pytest.raises(MatineeError, match=r"row 2, column 'item': the value is missing"):
        build(user=[1, 1], item=item)


def test_columns_dtypes_and_time_order():
    log = build(
        user=[10, 20, 10, 5], item=["b", "a", "c", "a"], rating=[1, 2, 3, 4], timestamp=[7, 3, 7, 1]
    )
    assert log.user_ids.tolist() == [1, 3, 2, 2]
    assert log.item_ids.tolist() == [1, 1, 2, 3]
    assert log.ratings.tolist() == [4, 2, 1, 3]
    assert log.timestamps.tolist() == [1, 3, 7, 7]
    dtypes = [array.dtype for array in (log.user_ids, log.item_ids, log.ratings, log.timestamps)]
    assert dtypes == [np.int32, np.int32, np.float32, np.int64]
    assert (len(log), log.num_users, log.num_items) == (4, 3, 3)
    assert log.rating_scale == (1.0, 4.0)
    assert np.unique(log.ratings).tolist() == [1, 2, 3, 4]
    assert all(array.flags.writeable for array in (log.user_ids, log.ratings, log.timestamps))


def test_catalogues():
    users = pd.DataFrame({"raw_id": [20, 10, 99], "age": [30, 40, 50]})
    items = pd.DataFrame({"raw_id": ["a"], "year": [1999], "title": ["A"]})
    table = {"user": [20, 10], "item": ["a", "b"]}
    log = Interactions.from_table(table, users=users, items=items)
    assert (log.users.index.name, log.items.index.name) == ("user_id", "item_id")
    assert log.users.reset_index().to_numpy().tolist() == [[1, 10, 40], [2, 20, 30]]
    assert log.items.columns.tolist() == ["raw_id", "title", "year"]
    assert log.items.index.tolist() == [1, 2]
    assert log.items["title"].tolist() == ["A", "b"]


@given(raw=RAW_IDS, times=st.data())
def test_order_and_encoding_against_plain_loops(raw, times):
    stamps = times.draw(st.lists(st.integers(0, 3), min_size=len(raw), max_size=len(raw)))
    log = build(user=raw, item=raw[::-1], timestamp=stamps, duplicates="keep")
    order = sorted(range(len(raw)), key=lambda row: stamps[row])
    ranks = {value: rank for rank, value in enumerate(sorted(set(raw)), start=1)}
    assert log.user_ids.tolist() == [ranks[raw[row]] for row in order]
    assert log.item_ids.tolist() == [ranks[raw[::-1][row]] for row in order]
    assert log.users["raw_id"].tolist() == sorted(set(raw))
    assert log.encode_users(raw).tolist() == [ranks[value] for value in raw]
    assert log.encode_users([str(value) for value in raw]).tolist() == [ranks[v] for v in raw]


@given(
    rows=st.lists(
        st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 5), st.integers(0, 4)),
        min_size=1,
        max_size=25,
    ),
    policy=st.sampled_from(["first", "last", "mean", "keep"]),
)
def test_duplicate_policies_against_plain_loops(rows, policy):
    user, item, rating, timestamp = (list(column) for column in zip(*rows, strict=True))
    log = build(user=user, item=item, rating=rating, timestamp=timestamp, duplicates=policy)
    ordered = sorted(rows, key=lambda row: row[3])
    expected = []
    for position, (user, item, rating, timestamp) in enumerate(ordered):
        pair = [row for row in ordered if row[:2] == (user, item)]
        before = [row for row in ordered[:position] if row[:2] == (user, item)]
        after = [row for row in ordered[position + 1 :] if row[:2] == (user, item)]
        if policy == "mean":
            rating = np.float32(sum(row[2] for row in pair) / len(pair))
        if policy == "keep" or not (before if policy == "first" else after):
            expected.append((user, item, rating, timestamp))
    raw_users = log.users["raw_id"].to_numpy()[log.user_ids - 1]
    raw_items = log.items["raw_id"].to_numpy()[log.item_ids - 1]
    found = zip(raw_users, raw_items, log.ratings, log.timestamps, strict=True)
    assert list(found) == expected
    assert log.duplicates_resolved == len(rows) - len(expected)


def test_ids_do_not_depend_on_the_order_of_rows():
    forth = build(user=[3, 1, 2], item=[1, 1, 1])
    back = build(user=[2, 1, 3], item=[1, 1, 1])
    assert forth.encode_users([1, 2, 3]).tolist() == back.encode_users([1, 2, 3]).tolist()


@pytest.mark.parametrize("column", [[1.0, 2.0], np.array([1, 2], np.uint64), ["1", "2"]])
def test_kinds_of_ids(column):
    log = build(user=column, item=column)
    assert log.encode_users(["2", "9", 1, "1.0", np.float32(2), np.bool_(True)]).tolist() == [
        2,
        0,
        1,
        1,
        2,
        0,
    ]


def test_encode_knows_text_numbers_and_strangers():
    log = build(user=[42, 7], item=["x", "42"])
    wanted = [
        "42",
        " 42",
        "4_2",
        "٤٢",
        True,
        42.0,
        42.5,
        "x",
        None,
        -1,
        2**70,
        float("nan"),
        np.int64(7),
    ]
    assert log.encode_users(wanted).tolist() == [2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 1]
    assert log.encode_users(np.array([7, 8])).tolist() == [1, 0]
    assert log.encode_users(pd.Series([7, 42])).tolist() == [1, 2]
    assert log.encode_items(["42", 42, "y"]).tolist() == [1, 1, 0]
    assert log.encode_items([]).tolist() == []
    assert log.encode_users([]).dtype == np.int32
    with pytest.raises(TypeError, match="wrap it in a list"):
        log.encode_items("42")


def test_single_row():
    log = build(user=[7], item=["x"], rating=[3.5], timestamp=[0])
    assert (len(log), log.num_users, log.num_items) == (1, 1, 1)
    assert log.rating_scale == (3.5, 3.5)


def test_single_user_and_single_item():
    assert build(user=[7, 7, 7], item=[3, 2, 1]).user_ids.tolist() == [1, 1, 1]
    assert build(user=[3, 2, 1], item=[7, 7, 7]).item_ids.tolist() == [1, 1, 1]


def test_without_ratings_and_times_the_source_order_stays():
    log = build(user=[2, 1, 2], item=[3, 2, 1])
    assert log.user_ids.tolist() == [2, 1, 2]
    assert log.ratings is None
    assert log.timestamps is None
    assert log.rating_scale is None


@pytest.mark.parametrize(
    ("times", "seconds"),
    [
        ([1.0, -1.0], [-1, 1]),
        (pa.array([1_000, -2_000], pa.timestamp("ms")), [-2, 1]),
        (pa.array([1, 0], pa.date32()), [0, 86_400]),
        (pa.array([3, 2], pa.timestamp("s", "Europe/Zurich")), [2, 3]),
    ],
)
def test_kinds_of_times(times, seconds):
    assert build(user=[1, 2], item=[1, 2], timestamp=times).timestamps.tolist() == seconds


GOOD = {"user": [1, 1, 2], "item": [1, 2, 1], "rating": [1.0, 2.0, 3.0], "timestamp": [1, 2, 3]}
NAN = float("nan")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"user": [1, None, 2]}, r"the table, row 2, column 'user': the value is missing"),
        ({"user": ["a", "", "b"]}, r"row 2, column 'user': the value is missing"),
        ({"item": [1.0, NAN, 2.0]}, r"row 2, column 'item': the value is missing"),
        ({"user": [1.0, 2.0, 1.5]}, r"row 3, column 'user': the id 1\.5 is not an integer"),
        ({"user": [1.0, 2.0, 1e300]}, r"row 3, column 'user': the id 1e\+300 is too large"),
        ({"user": [1.0, 2.0, np.inf]}, r"row 3, column 'user': the id inf is too large"),
        ({"user": [True, False, True]}, r"column 'user': ids are of type bool"),
        ({"user": [1, b"\xff", 2]}, r"row 2, column 'user': b'\\xff' is neither"),
        ({"user": [1, "a", 1.5]}, r"row 3, column 'user': 1.5 is neither an integer nor text"),
        ({"rating": [1.0, NAN, 2.0]}, r"row 2, column 'rating': the value is missing"),
        ({"rating": [1.0, np.inf, 2.0]}, r"row 2, column 'rating': the rating inf is not finite"),
        ({"rating": [1.0, 2.0, 6.0]}, r"row 3, column 'rating': the rating 6\.0 is outside"),
        ({"rating": ["1", "2", "x"]}, r"row 3, column 'rating': 'x' is not a number"),
        ({"rating": [True, False, True]}, r"column 'rating': ratings are of type bool"),
        ({"timestamp": [1, None, 2]}, r"row 2, column 'timestamp': the value is missing"),
        ({"timestamp": [1.0, NAN, 2.0]}, r"row 2, column 'timestamp': the value is missing"),
        (
            {"timestamp": [1.0, np.inf, 2.0]},
            r"row 2, column 'timestamp': the time inf is not exact",
        ),
        ({"timestamp": ["a", "b", "c"]}, r"row 1, column 'timestamp': 'a' is no time"),
        ({"timestamp": [True, False, True]}, r"column 'timestamp': timestamps are of type bool"),
        (
            {"item": [1, 2, 1], "user": [4, 5, 4]},
            r"row 3, .*: user 4 met item 1 before, in row 1",
        ),
    ],
)
def test_bad_rows_are_named(bad, message):
    with pytest.raises(MatineeError, match=message):
        Interactions.from_table(GOOD | bad, rating_scale=(1, 5))


def test_the_first_repeat_in_the_file_is_named():
    table = {"user": [2, 1, 2, 1], "item": [3, 3, 3, 3], "timestamp": [9, 1, 8, 0]}
    with pytest.raises(MatineeError, match=r"row 3, .*user 2 met item 3 before, in row 1"):
        Interactions.from_table(table)


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        ({"user": [], "item": []}, {}, "the table has no rows"),
        ({"user": [1]}, {}, "the table has no column 'item'"),
        (GOOD, {"duplicates": "drop"}, "choose one of error, first, last, mean, keep"),
        (GOOD, {"rating_scale": [5, 1]}, r"rating_scale=\[5, 1\] must be"),
        (GOOD, {"rating_scale": [5]}, r"rating_scale=\[5\] must be"),
        (GOOD, {"rating_scale": "1 to 5"}, r"rating_scale=1 to 5 must be"),
        (GOOD, {"rating_scale": 5}, r"rating_scale=5 must be"),
    ],
)
def test_bad_tables_and_options(table, options, message):
    with pytest.raises(MatineeError, match=message):
        Interactions.from_table(table, **options)


def test_a_scale_that_float32_cannot_hold_exactly():
    assert build(user=[1], item=[1], rating=[4.1], rating_scale=[0.1, 4.1]).rating_scale[1] == 4.1


def test_fingerprint_is_of_the_data_alone():
    titles = pd.DataFrame({"raw_id": [1], "title": ["One"]})
    plain = Interactions.from_table(GOOD)
    frame = pd.DataFrame(GOOD).astype({"user": "float64", "rating": "int8"})
    assert plain.fingerprint == Interactions.from_table(frame, items=titles).fingerprint
    assert len(plain.fingerprint) == len(hashlib.sha256().hexdigest())
    others = [
        GOOD | {"user": [1, 1, 3]},
        GOOD | {"user": ["1", "1", "x"]},
        GOOD | {"item": [1, 2, 2]},
        GOOD | {"rating": [1.0, 2.0, 4.0]},
        GOOD | {"timestamp": [1, 2, 4]},
        GOOD | {"timestamp": [0.001, 0.002, 0.003]},
        {name: GOOD[name] for name in ("user", "item", "rating")},
    ]
    prints = {Interactions.from_table(other).fingerprint for other in others}
    assert len(prints | {plain.fingerprint}) == len(others) + 1
