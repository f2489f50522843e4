"""Parquet files: one, a folder or a pattern, in order, a piece at a time."""

from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from matinee.data.columns.rows import RowReader, Rules
from matinee.data.sources import parquet_files
from matinee.data.sources.table import load
from matinee.errors import MatineeError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATINEE_DATA", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write three parts of which the second stores its users as text, and what Spark leaves beside them."""
    path = tmp_path / "parts"
    path.mkdir()
    for number, users in ((9, [3, 1]), (10, ["2", "3"]), (11, [5, 5])):
        table = pa.table({"u": users, "i": [f"{number}a", f"{number}b"], "x": [0, 0]})
        parquet.write_table(table, path / f"part-{number}.parquet")
    (path / "_SUCCESS").touch()
    (path / ".part-9.parquet.crc").write_text("x")
    return path


def pairs(log) -> list[tuple]:
    users, items = log.users["raw_id"].tolist(), log.items["raw_id"].tolist()
    return [(users[u - 1], items[i - 1]) for u, i in zip(log.user_ids, log.item_ids, strict=True)]


EXPECTED = [(3, "9a"), (1, "9b"), (2, "10a"), (3, "10b"), (5, "11a"), (5, "11b")]


def test_a_folder_and_a_pattern(folder):
    assert pairs(load(folder, "u", "i")) == EXPECTED
    assert pairs(load(folder / "part-*.parquet", "u", "i")) == EXPECTED
    assert pairs(load(folder / "part-1?.parquet", "u", "i")) == EXPECTED[2:]
    assert pairs(load(folder.parent / "**" / "*.parquet", "u", "i")) == EXPECTED


def test_a_file_more_is_read(folder):
    load(folder, "u", "i")
    parquet.write_table(pa.table({"u": [7], "i": ["z"]}), folder / "part-12.parquet")
    assert pairs(load(folder, "u", "i")) == [*EXPECTED, (7, "z")]


def test_text_files_of_a_folder(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "2.csv").write_text("u,i\n1,a\n")
    (folder / "10.csv").write_text("i,u\nb,1\nc,x,\n")
    with pytest.raises(MatineeError, match=r"10\.csv, line 3: the row has 3 instead of 2"):
        load(folder, "u", "i")
    (folder / "10.csv").write_text("i,u\nb,1\n")
    assert pairs(load(folder, "u", "i")) == [(1, "a"), (1, "b")]
    (folder / "2.csv").write_text("u,i\n1,a\n1,c\n")
    (folder / "10.csv").write_text("i,u\nc,1\n")
    with pytest.raises(
        MatineeError, match=r"10\.csv, line 2, .*met item c before, in .*2\.csv, line 3"
    ):
        load(folder, "u", "i")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("empty", "holds no files"),
        ("nothing-*.csv", "does not exist"),
        ("nested", r"holds the folder inner; set path to a glob pattern"),
        ("mixed", "holds files of several kinds"),
        ("broken.parquet", "is no readable Parquet file"),
    ],
)
def test_paths_that_are_refused(tmp_path, path, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "nested" / "inner").mkdir(parents=True)
    (tmp_path / "mixed").mkdir()
    (tmp_path / "mixed" / "a.csv").write_text("u,i\n1,2\n")
    (tmp_path / "mixed" / "README.md").write_text("x")
    (tmp_path / "broken.parquet").write_text("PAR1")
    with pytest.raises(MatineeError, match=message):
        load(tmp_path / path, "u", "i")


def test_a_column_that_one_file_lacks(folder):
    parquet.write_table(pa.table({"u": [7], "j": ["z"]}), folder / "part-12.parquet")
    with pytest.raises(MatineeError, match=r"part-12\.parquet has no column 'i'; did you mean"):
        load(folder, "u", "i")


@pytest.mark.parametrize("kind", [pa.list_(pa.int64()), pa.bool_(), pa.duration("s"), pa.binary(4)])
def test_types_that_hold_no_ids_are_named_with_their_column(tmp_path, kind):
    path = tmp_path / "log.parquet"
    values = {"list": [[1]], "bool": [True], "duration[s]": [5], "fixed_size_binary[4]": [b"abcd"]}
    column = pa.array(values[str(kind).partition("<")[0]], kind)
    parquet.write_table(pa.table({"u": column, "i": [1]}), path)
    with pytest.raises(MatineeError, match=r"log\.parquet, column 'u': ids are of type"):
        load(path, "u", "i")


def test_no_more_than_some_rows_are_decoded_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_files, "_ROWS_AT_ONCE", 10)
    sizes = []
    parse = RowReader.parse
    monkeypatch.setattr(
        RowReader,
        "parse",
        lambda self, columns: (sizes.append(len(columns["user"])), parse(self, columns))[1],
    )
    path = tmp_path / "log.parquet"
    table = pa.table({"u": range(95), "i": [f"i{row % 7}" for row in range(95)]})
    parquet.write_table(table, path, row_group_size=50)
    assert len(load(path, "u", "i")) == 95
    assert max(sizes) <= 10
    assert sum(sizes) == 95


def test_more_rows_than_their_footers_say_are_no_harm(tmp_path):
    """The capacity is an expectation alone."""
    reader = RowReader({"user": "u", "item": "i"}, Rules(), capacity=1)
    path = tmp_path / "log.parquet"
    parquet.write_table(pa.table({"u": range(50), "i": range(50)}), path)
    parquet_files.read_parquet(path, reader)
    assert reader.num_rows == 50
    assert reader.finish().raw_users.tolist() == list(range(50))
