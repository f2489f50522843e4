"""One's own tables: what is read, and what is refused with a line and a column."""

import gzip
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from matinee.data.interactions import Interactions
from matinee.data.sources import table
from matinee.data.sources.table import load
from matinee.errors import MatineeError

ROWS = "who,what,stars,when,name\nann,7,4.5,20,Seven\nbob,11,2,10,Eleven\nann,11,3,30,XI\n"
COLUMNS = {"user": "who", "item": "what", "rating": "stars", "timestamp": "when", "title": "name"}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATINEE_DATA", str(tmp_path / "cache"))


def written(folder: Path, text: str, name: str = "log.csv") -> Path:
    path = folder / name
    data = text.encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def check(log: Interactions) -> None:
    assert log.users["raw_id"].tolist() == ["ann", "bob"]
    assert log.items["raw_id"].tolist() == [7, 11]
    assert log.items["title"].tolist() == ["Seven", "Eleven"]
    assert log.user_ids.tolist() == [2, 1, 1]
    assert log.item_ids.tolist() == [2, 1, 2]
    assert log.ratings.tolist() == [2, 4.5, 3]
    assert log.timestamps.tolist() == [10, 20, 30]
    assert log.rating_scale == (2.0, 4.5)


@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz", "log.tsv", "log.tsv.gz"])
def test_text(tmp_path, name):
    text = ROWS.replace(",", "\t") if ".tsv" in name else ROWS
    check(load(written(tmp_path, text, name), **COLUMNS))


def test_parquet(tmp_path):
    path = written(tmp_path, ROWS)
    pd.read_csv(path).to_parquet(tmp_path / "log.parquet")
    check(load(tmp_path / "log.parquet", **COLUMNS))


def test_byte_order_mark_quotes_and_blank_lines(tmp_path):
    text = "\ufeff" + ROWS.replace("Seven", '"Se,\nven"').replace("\nbob", "\n\nbob") + "\n\n"
    log = load(written(tmp_path, text), **COLUMNS)
    assert log.items["title"].tolist() == ["Se,\nven", "Eleven"]


def test_only_the_ids(tmp_path):
    log = load(written(tmp_path, "u,i\n9,b\n3,a\n"), "u", "i")
    assert log.users["raw_id"].tolist() == [3, 9]
    assert log.user_ids.tolist() == [2, 1]
    assert log.items["title"].tolist() == ["a", "b"]
    assert log.ratings is None
    assert log.timestamps is None


def test_single_row(tmp_path):
    assert len(load(written(tmp_path, "u,i\n1,1"), "u", "i")) == 1


@pytest.mark.parametrize(
    ("ids", "raw"),
    [
        (["3", "20", "100"], [3, 20, 100]),
        (["3.0", "20.0", "100.0"], [3, 20, 100]),
        (["3", "20", "x"], ["20", "3", "x"]),
        (["true", "2020-01-01", "1.10"], ["1.10", "2020-01-01", "true"]),
    ],
)
def test_kinds_of_ids(tmp_path, ids, raw):
    path = written(tmp_path, "u,i\n" + "".join(f"{value},{value}\n" for value in ids))
    log = load(path, "u", "i")
    assert log.users["raw_id"].tolist() == raw
    assert log.encode_items(raw).tolist() == [1, 2, 3]


def test_text_ids_far_behind_numbers(tmp_path):
    rows = "".join(f"{row},1\n" for row in range(300_000))
    log = load(written(tmp_path, f"u,i\n{rows}last,1\n"), "u", "i")
    assert log.num_users == 300_001
    assert log.encode_users([299_999, "last", "no"]).tolist() != [0, 0, 0]


@pytest.mark.parametrize(
    ("times", "unit", "sorted_times"),
    [
        (["100", "50"], "s", [50, 100]),
        (["100.5", "50"], "ms", [50_000, 100_500]),
        (["1970-01-02", "1970-01-01T00:01:00"], "s", [60, 86_400]),
        (["1970-01-01 00:00:02.75", "1970-01-01T00:00"], "ms", [0, 2750]),
        (["1970-01-01T00:00:09Z", "1970-01-01T02:00:00+02:00"], "s", [0, 9]),
    ],
)
def test_kinds_of_times(tmp_path, times, unit, sorted_times):
    path = written(tmp_path, f"u,i,t\n1,1,{times[0]}\n2,2,{times[1]}\n")
    log = load(path, "u", "i", timestamp="t")
    assert (log.time_unit, log.timestamps.tolist()) == (unit, sorted_times)
    columns = {"u": [1, 2], "i": [1, 2], "t": times}
    parquet.write_table(pa.table(columns), tmp_path / "log.parquet")
    parsed = load(tmp_path / "log.parquet", "u", "i", timestamp="t")
    assert (parsed.time_unit, parsed.timestamps.tolist()) == (unit, sorted_times)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("bob,11,2,10,Eleven", "bob,11,2,10", r"line 3: the row has 4 instead of 5 fields"),
        ("bob,11,2,10,Eleven", "bob,11,2,10,E,F", r"line 3: the row has 6 instead of 5 fields"),
        ("bob,11,2,", "bob,11,two,", r"line 3, column 'stars': 'two' is not a number"),
        ("bob,11,2,", "bob,11,,", r"line 3, column 'stars': the value is missing"),
        ("bob,11,2,", "bob,11,inf,", r"line 3, column 'stars': the rating inf is not finite"),
        ("bob,11,2,", "bob,11,9,", r"line 3, column 'stars': the rating 9\.0 is outside the scale"),
        ("bob,11,2,", 'bob,11,"2,', r"line 3: a quoted field runs on into a line that looks like"),
        ("bob,11,2,", 'bob,11,"2"x,', r"line 3: text follows the closing quotation mark"),
        ("bob,11", "bob,", r"line 3, column 'what': the value is missing"),
        ("bob,", ",", r"line 3, column 'who': the value is missing"),
        ("bob,", "  ,", r"line 3, column 'who': the value is missing"),
        ("bob,", "NULL,", r"line 3, column 'who': 'NULL' stands for a missing value"),
        (",10,", ",noon,", r"line 3, column 'when': 'noon' is no time"),
        (",10,", ",,", r"line 3, column 'when': the value is missing"),
        (",10,", ",2001-01-01,", r"line 3, column 'when': times are written in several ways"),
        ("ann,11", "bob,11", r"line 4, .*: user bob met item 11 before, in line 3"),
    ],
)
def test_bad_rows_are_named(tmp_path, old, new, message):
    path = written(tmp_path, ROWS.replace(old, new))
    with pytest.raises(MatineeError, match=message) as caught:
        load(path, **COLUMNS, rating_scale=(1, 5))
    assert str(path) in str(caught.value)
    assert not (tmp_path / "cache").exists()


def test_lines_are_counted_past_blank_lines_and_quoted_breaks(tmp_path):
    text = ROWS.replace("Seven", '"Se\nven"').replace("\nbob,11,2", "\n\nbob,11,9")
    with pytest.raises(MatineeError, match="line 5, column 'stars'"):
        load(written(tmp_path, text), **COLUMNS, rating_scale=(1, 5))


def test_missing_column_names_the_nearest(tmp_path):
    path = written(tmp_path, ROWS)
    message = (
        r"no column 'whom'; did you mean 'who'\? Its columns are: who, what, stars, when, name"
    )
    with pytest.raises(MatineeError, match=message):
        load(path, **COLUMNS | {"user": "whom"})
    pd.read_csv(path).to_parquet(tmp_path / "log.parquet")
    with pytest.raises(MatineeError, match=message):
        load(tmp_path / "log.parquet", **COLUMNS | {"user": "whom"})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("log.csv", b"", "is empty"),
        ("log.csv", b"who,what,stars,when,name\n", "has no rows"),
        ("log.csv", b"\n\n", "is empty"),
        ("log.csv", b"who,what,stars,when,name\n\xff\xfe,1,1,1,\xff\n", "UTF-8"),
        ("log.csv.gz", b"not gzip", "cannot be read"),
        ("log.parquet", b"not parquet", "is no readable Parquet file"),
        ("log.xlsx", b"x", r"must end in one of \.csv, "),
        (
            "log.csv",
            "who,what,stars,when,name\n".encode("utf-16"),
            "UTF-16 text; set encoding=utf-16",
        ),
    ],
)
def test_bad_files(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MatineeError, match=message):
        load(tmp_path / name, **COLUMNS)


def test_missing_file(tmp_path):
    with pytest.raises(MatineeError, match="does not exist"):
        load(tmp_path / "log.csv", "u", "i")


def test_duplicates_and_scale_are_options(tmp_path):
    path = written(tmp_path, "u,i,r\n1,1,2\n1,1,4\n")
    log = load(path, "u", "i", "r", rating_scale=[1, 5], duplicates="mean")
    assert log.ratings.tolist() == [3]
    assert log.rating_scale == (1.0, 5.0)
    assert load(path, "u", "i", "r", duplicates="keep").ratings.tolist() == [2, 4]


def test_the_second_load_reads_the_copy(tmp_path, monkeypatch):
    path = written(tmp_path, ROWS)
    expected = load(path, **COLUMNS).fingerprint
    monkeypatch.setattr(table, "_build", None)
    assert load(path, **COLUMNS).fingerprint == expected
    monkeypatch.undo()
    path.write_text(ROWS + "bob,7,1,5,Seven\n")
    assert len(load(path, **COLUMNS, data_dir=tmp_path / "cache")) == 4
