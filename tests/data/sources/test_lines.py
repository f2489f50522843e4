"""Histories one a line: rows, users and order, and what is refused."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from matinee.data.sources.lines import load
from matinee.data.splits import leave_last_out
from matinee.errors import MatineeError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATINEE_DATA", str(tmp_path / "cache"))


def written(folder: Path, text: str, name: str = "log.txt") -> Path:
    (folder / name).write_text(text)
    return folder / name


def pairs(log) -> list[tuple]:
    users, items = log.users["raw_id"].to_numpy(), log.items["raw_id"].to_numpy()
    return list(
        zip(users[log.user_ids - 1].tolist(), items[log.item_ids - 1].tolist(), strict=True)
    )


def test_the_order_of_a_line_is_that_of_time(tmp_path):
    log = load(written(tmp_path, "7 3 1 2\n\n5  1\t3 \n"))
    assert pairs(log) == [(7, 3), (7, 1), (7, 2), (5, 1), (5, 3)]
    assert log.ratings is None
    assert log.timestamps is None
    split = leave_last_out(load(written(tmp_path, "7 3 1 2\n")))
    assert (split.train.tolist(), split.validation.tolist(), split.test.tolist()) == ([0], [1], [2])


@pytest.mark.parametrize("text", ["9,b,a,b", "9,b,a,b\n", "9, b, a, b\n", "\ufeff9,b,a,b\r\n"])
def test_a_delimiter(tmp_path, text):
    log = load(written(tmp_path, text), delimiter="comma")
    assert pairs(log) == [(9, "b"), (9, "a"), (9, "b")]


def test_without_users_lines_are_numbered(tmp_path):
    log = load(written(tmp_path, "3 1\n\n1 1\n"), user_first=False)
    assert pairs(log) == [(1, 3), (1, 1), (2, 1), (2, 1)]
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("log-9.txt", "log-10.txt"):
        written(folder, f"{len(name)} 0\n", name)
    assert pairs(load(folder, user_first=False)) == [(1, 9), (1, 0), (2, 10), (2, 0)]


def test_compressed_text_ids_as_they_are_written(tmp_path):
    path = tmp_path / "log.gz"
    path.write_bytes(gzip.compress(b"u1 007 7 NA\n"))
    assert pairs(load(path, id_type="text")) == [("u1", "007"), ("u1", "7"), ("u1", "NA")]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("1 2 3\n4\n", {}, r"log\.txt, line 2: the line has a user and no items"),
        ("1 2 3\n4 NULL\n", {}, r"line 2, column 'item': 'NULL' stands for a missing value"),
        ("1,2,,3\n", {"delimiter": ","}, r"line 1, column 'item': the value is missing"),
        ("1 2\n2 2\n\n1 3\n", {}, r"line 4: user '1' has another line \(.*, line 1\)"),
        ("1 2 2\n", {"duplicates": "error"}, r"line 1, column 'item': user 1 met item 2 before"),
        ("1 x\n", {"id_type": "integer"}, r"line 1, column 'item': 'x' is not an integer"),
        ("\n \n", {}, "has no rows"),
        ("", {}, "is empty"),
    ],
)
def test_bad_lines(tmp_path, text, options, message):
    with pytest.raises(MatineeError, match=message):
        load(written(tmp_path, text), **options)


def test_lines_that_are_not_utf8(tmp_path):
    path = tmp_path / "log.txt"
    path.write_bytes(b"1 2\n2 \xe4\n3 2\n")
    with pytest.raises(MatineeError, match="line 2: the line is not UTF-8; set encoding"):
        load(path)
    assert pairs(load(path, encoding="latin-1")) == [(1, "2"), (2, "\xe4"), (3, "2")]


def test_skipped_rows_are_counted(tmp_path, capsys):
    log = load(written(tmp_path, "1 2 NA 3\n4\n"), bad_rows="skip")
    assert pairs(log) == [(1, 2), (1, 3)]
    assert log.source == {"rows": 4, "bad_rows_skipped": 2}
    assert "read 2 of 4 rows, refused 2." in capsys.readouterr().err


def test_many_lines_against_a_plain_loop(tmp_path):
    rng = np.random.default_rng(0)
    histories = [rng.integers(0, 50, rng.integers(1, 9)).tolist() for _ in range(3000)]
    text = "".join(f"{user} {' '.join(map(str, items))}\n" for user, items in enumerate(histories))
    expected = [(user, item) for user, items in enumerate(histories) for item in items]
    assert pairs(load(written(tmp_path, text))) == expected
