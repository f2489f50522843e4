"""The split that a data set comes with: files, a column, frames; what is refused and reported."""

from pathlib import Path

import pandas as pd
import pytest

from matinee.data.interactions import Interactions
from matinee.data.sources.table import load
from matinee.data.splits import given
from matinee.errors import MatineeError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATINEE_DATA", str(tmp_path / "cache"))


def frame(parts: list[str], times: list[int] | None = None, **options) -> Interactions:
    rows = len(parts)
    table = pd.DataFrame({"u": [1, 2] * rows, "i": range(2 * rows)}).iloc[:rows].assign(part=parts)
    if times:
        table["t"] = times
    timestamp = "t" if times else None
    return Interactions.from_frame(table, "u", "i", timestamp=timestamp, part="part", **options)


def rows(split) -> tuple[list[int], ...]:
    return split.train.tolist(), split.validation.tolist(), split.test.tolist()


def test_a_column_names_the_parts():
    log = frame(["test", "train", " Train ", "VAL", "validation", "valid", "test"])
    assert rows(given(log)) == ([1, 2], [3, 4, 5], [0, 6])
    assert given(log).options == {"validation": "given"}


def test_parts_follow_the_rows_into_the_order_of_time():
    log = frame(["train", "validation", "test", "train"], times=[9, 8, 7, 6])
    assert rows(given(log)) == ([0, 3], [2], [1])


def test_files_are_parts(tmp_path):
    # The files of MovieLens 100K: no header, tabs, and no validation.
    (tmp_path / "u1.base").write_text(
        "".join(f"{u}\t{i}\t{1 + u % 5}\t{u}\n" for u in range(20) for i in range(5))
    )
    (tmp_path / "u1.test").write_text("1\t7\t5\t100\n33\t1\t4\t100\n")
    options = {"delimiter": "tab", "column_names": ["user", "item", "rating", "time"]}
    columns = {"user": "user", "item": "item", "rating": "rating", "timestamp": "time"}
    log = load(tmp_path / "u1.base", **columns, **options, test_path=tmp_path / "u1.test")
    again = load(tmp_path / "u1.base", **columns, **options, test_path=tmp_path / "u1.test")
    assert log.parts.tolist() == again.parts.tolist() == [0] * 100 + [2] * 2
    split = given(log, seed=3)
    assert split.sizes == {"train": 90, "validation": 10, "test": 2}
    assert split.options == {"validation": "random", "validation_share": 0.1}
    assert given(again, seed=3).fingerprint == split.fingerprint != given(log, seed=4).fingerprint
    swapped = load(tmp_path / "u1.base", **columns, **options, validation_path=tmp_path / "u1.test")
    assert set(swapped.parts.tolist()) == {0, 1}


def test_validation_may_be_the_last_row_of_each_user():
    log = frame(["train", "train", "train", "test", "train", "test"])  # users 1, 2, 1, 2, 1, 2
    assert rows(given(log, validation="last")) == ([0, 1, 2], [4], [3, 5])


def test_unknown_ids_and_leaks_are_reported(capsys):
    log = frame(["train", "validation", "train", "test"], times=[1, 2, 3, 4])
    capsys.readouterr()
    given(log)
    assert capsys.readouterr().err.splitlines() == [
        "split=given: of 1 rows of validation, 1 are of users and 1 of items that train does not know; "
        "1 rows of train are later than the first of them.",
        "split=given: of 1 rows of test, 1 are of users and 1 of items that train does not know; "
        "0 rows of train are later than the first of them.",
    ]


@pytest.mark.parametrize("policy", ["error", "first", "last", "mean"])
def test_a_pair_in_two_parts_is_refused(tmp_path, policy):
    (tmp_path / "a.csv").write_text("u,i\n1,2\n1,3\n")
    (tmp_path / "b.csv").write_text("u,i\n1,4\n1,3\n")
    with pytest.raises(
        MatineeError, match=r"b\.csv, line 3, column 'i': user 1 .* item 3 .*a\.csv, line 3"
    ):
        load(tmp_path / "a.csv", "u", "i", test_path=tmp_path / "b.csv", duplicates=policy)


def test_legal_repeats_overlap_only_at_one_time():
    table = {"user": [1, 1, 1], "item": [2, 2, 2], "part": ["train", "test", "test"]}
    assert len(Interactions.from_table(table | {"timestamp": [1, 2, 2]}, duplicates="keep")) == 3
    assert len(Interactions.from_table(table, duplicates="keep")) == 3
    with pytest.raises(
        MatineeError, match="row 2, column 'item': user 1 and item 2 stand in test and, in row 1"
    ):
        Interactions.from_table(table | {"timestamp": [2, 2, 3]}, duplicates="keep")


@pytest.mark.parametrize(
    ("parts", "options", "message"),
    [
        (
            ["train", "test"],
            {"validation": "first"},
            "validation is 'first'; choose random or last",
        ),
        (["train", "test"], {"validation_share": 1}, "validation_share is 1; give a share"),
        (["train", "train"], {"validation_share": 0.5}, "leaves no rows for test"),
        (["test", "test"], {}, "leaves no rows for train"),
    ],
)
def test_impossible_splits(parts, options, message):
    with pytest.raises(MatineeError, match=message):
        given(frame(parts), **options)


def test_data_without_parts_and_parts_that_are_none():
    with pytest.raises(MatineeError, match="set part to the column"):
        given(Interactions.from_table({"user": [1], "item": [1]}))
    with pytest.raises(MatineeError, match="row 2, column 'part': 'dev' is no part"):
        frame(["train", "dev"])


def test_repeated_pairs_are_reported(capsys):
    table = {"user": [1, 1, 2, 1], "item": [2, 3, 2, 2], "part": ["train", "train", "test", "test"]}
    given(Interactions.from_table(table, duplicates="keep"), validation_share=0.5)
    told = capsys.readouterr().err.splitlines()
    assert "repeat" not in told[0]
    log = Interactions.from_table(
        {**table, "part": ["train", "val", "test", "test"]}, duplicates="keep"
    )
    given(log)
    told = capsys.readouterr().err.splitlines()
    assert told[-1].startswith("split=given: of 2 rows of test, 1 are of users and 0 of items")
    assert told[-1].endswith("; 1 rows repeat a pair of user and item of train.")


def test_a_file_belongs_to_one_part(tmp_path):
    for name, row in (("a.csv", "1,2"), ("b.csv", "1,3")):
        (tmp_path / name).write_text(f"u,i\n{row}\n")
    for path in (tmp_path, tmp_path / "*.csv", tmp_path / "b.csv"):
        with pytest.raises(MatineeError, match=r"b\.csv belongs to path and to test_path"):
            load(path, "u", "i", test_path=tmp_path / "b.csv", duplicates="keep")


def test_a_column_and_files_exclude_each_other(tmp_path):
    (tmp_path / "a.csv").write_text("u,i,p\n1,2,train\n")
    with pytest.raises(MatineeError, match="exclude each other"):
        load(tmp_path / "a.csv", "u", "i", part="p", test_path=tmp_path / "a.csv")
