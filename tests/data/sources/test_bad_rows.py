"""Bad rows: counted and named wherever they are, in error, or left out on request."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from matinee.data.interactions import Interactions
from matinee.data.sources import streams
from matinee.data.sources.table import load
from matinee.errors import MatineeError

COLUMNS = {"user": "u", "item": "i", "rating": "r", "timestamp": "t"}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATINEE_DATA", str(tmp_path / "cache"))


def text(bad: dict[int, str], num_rows: int = 1000) -> str:
    """Write a table whose given lines are bad."""
    lines = ["u,i,r,t", *(f"u{row % 50},i{row},{row % 5},{row}" for row in range(num_rows))]
    for number, line in bad.items():
        lines[number - 1] = line
    return "\n".join(lines) + "\n"


BAD = {
    7: "u,i,good,t",
    100: "u1,i,5",
    400: ",i,1,2",
    401: "u1,i,,2",
    500: "u1,i,1,noon",
    501: "u1,i,9,5",
    900: "NULL,NA,NULL,NULL",
}


@pytest.mark.parametrize("block", [100, 4096, 1 << 22])
def test_an_error_names_the_first_and_shows_five(tmp_path, monkeypatch, block):
    monkeypatch.setattr(streams, "_BLOCK", block)
    path = tmp_path / "log.csv"
    path.write_text(text(BAD))
    with pytest.raises(MatineeError) as caught:
        load(path, **COLUMNS, rating_scale=[0, 5])
    assert str(caught.value) == (
        f"{path}, line 7, column 'r': 'good' is not a number; correct it. "
        "6 more rows are bad; bad_rows=skip leaves such rows out."
    )
    (table,) = caught.value.__notes__
    lines = table.splitlines()
    assert [line.split()[:3] for line in lines[:2]] == [
        ["file", "place", "column"],
        ["log.csv", "line", "7"],
    ]
    assert [line.split()[2] for line in lines[1:6]] == ["7", "100", "400", "401", "500"]
    assert "instead of 4 fields" in lines[2]
    assert lines[6:] == ["and 2 more"]


@pytest.mark.parametrize("block", [100, 4096, 1 << 22])
def test_bad_rows_are_left_out_and_counted(tmp_path, monkeypatch, capsys, block):
    monkeypatch.setattr(streams, "_BLOCK", block)
    path = tmp_path / "log.csv"
    path.write_text(text(BAD))
    log = load(path, **COLUMNS, rating_scale=[0, 5], bad_rows="skip")
    assert len(log) == 993
    assert log.source == {"rows": 1000, "bad_rows_skipped": 7}
    kept = [row for row in range(1000) if row + 2 not in BAD]
    assert log.timestamps.tolist() == kept
    assert log.ratings.tolist() == [row % 5 for row in kept]
    assert log.items["raw_id"][log.item_ids].tolist() == [f"i{row}" for row in kept]
    told = capsys.readouterr().err.splitlines()
    assert told[0] == f"{path}: read 993 of 1,000 rows, refused 7."
    assert told[7] == "and 2 more"
    again = load(path, **COLUMNS, rating_scale=[0, 5], bad_rows="skip")
    assert again.source == log.source


def test_a_late_error_names_its_line_past_what_was_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "_BLOCK", 200)
    path = tmp_path / "log.csv"
    path.write_text(text({**BAD, 700: "u0,i0,1,5"}))
    with pytest.raises(
        MatineeError, match=r"line 700, column 'i': user u0 met item i0 before, in line 2"
    ):
        load(path, **COLUMNS, rating_scale=[0, 5], bad_rows="skip")


def test_no_good_row(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("u,i,r,t\n1,2,x,3\n")
    with pytest.raises(MatineeError, match=r"log\.csv has no usable row: .*line 2, column 'r'"):
        load(path, **COLUMNS, bad_rows="skip")


def test_a_single_bad_row_needs_no_table(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(text({9: "u1,i,x,2"}))
    with pytest.raises(MatineeError, match=r"correct it\.$") as caught:
        load(path, **COLUMNS)
    assert not hasattr(caught.value, "__notes__")


def test_rows_of_parquet_files(tmp_path):
    folder = tmp_path / "parts"
    folder.mkdir()
    for part in range(3):
        users = [f"u{part}", None if part == 1 else "x", "y"]
        table = pa.table({"u": users, "i": [1, 2, 3], "r": [1.0, np.nan if part == 2 else 2, 3]})
        parquet.write_table(table, folder / f"part-{part}.parquet", row_group_size=2)
    columns = {name: COLUMNS[name] for name in ("user", "item", "rating")}
    with pytest.raises(
        MatineeError,
        match=r"part-1\.parquet, row 2, column 'u': the value is missing.* 1 more row is",
    ):
        load(folder, **columns, duplicates="keep")
    log = load(folder, **columns, duplicates="keep", bad_rows="skip")
    assert (len(log), log.source) == (7, {"rows": 9, "bad_rows_skipped": 2})


def test_frames(capsys):
    table = {"user": ["a", "", "b"], "item": [1, 2, 3]}
    log = Interactions.from_table(table, bad_rows="skip")
    assert log.users["raw_id"].tolist() == ["a", "b"]
    assert log.source == {"rows": 3, "bad_rows_skipped": 1}
    assert not capsys.readouterr().out


def test_titles_are_those_of_the_first_good_row(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("u,i,n\n,7,Bad\n1,7,Good\n2,7,Late\n3,8,\n4,9,NULL\n")
    log = load(path, "u", "i", title="n", bad_rows="skip")
    assert log.items["title"].tolist() == ["Good", "", "NULL"]


def test_an_error_late_in_a_large_file_costs_one_reading(tmp_path, monkeypatch):
    """Every block is parsed as text at most once beside its quick parse, wherever the bad row is."""
    monkeypatch.setattr(streams, "_BLOCK", 4096)
    parses = []
    from matinee.data.sources import delimited

    real = delimited.arrow_csv.read_csv
    monkeypatch.setattr(
        delimited.arrow_csv, "read_csv", lambda *args: (parses.append(1), real(*args))[1]
    )
    path = tmp_path / "log.csv"
    path.write_text(text({}, 5000) + "u,i,1,noon\n")
    with pytest.raises(MatineeError, match="line 5002, column 't': 'noon' is no time"):
        load(path, **COLUMNS)
    blocks = -(-path.stat().st_size // 4096)
    assert len(parses) <= blocks + 2
