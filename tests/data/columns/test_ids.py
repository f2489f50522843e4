"""What an id is: integers, text, and the two together; what is refused, and where."""

from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from matinee.data.columns.ids import Ids
from matinee.data.interactions import Interactions
from matinee.errors import MatineeError


def users(column, **rules) -> tuple[list, list]:
    """Return the raw ids of all rows, and those of the catalogue."""
    rows = column.num_rows if isinstance(column, pa.Table) else len(column)
    log = Interactions.from_table(
        {"user": column, "item": list(range(rows))}, duplicates="keep", **rules
    )
    raw = log.users["raw_id"].tolist()
    return [raw[user - 1] for user in log.user_ids], raw


@pytest.mark.parametrize(
    ("written", "ids"),
    [
        (["10", "9", "-3"], [10, 9, -3]),
        (["-9223372036854775808", "9223372036854775807"], [-(2**63), 2**63 - 1]),
        (["18446744073709551615", "0"], [2**64 - 1, 0]),
        (["18446744073709551615", "-1"], ["18446744073709551615", "-1"]),
        (["18446744073709551616", "1"], ["18446744073709551616", "1"]),
        (["9007199254740993", "9007199254740992"], [2**53 + 1, 2**53]),
        (["1", "1.0", "2.0", "2"], [1, 1, 2, 2]),
        (["1.10", "1.1", "2.0"], ["1.10", "1.1", "2.0"]),
        (["007", "7"], ["007", "7"]),
        (["+7", "8"], ["+7", "8"]),
        (["-0", "8"], ["-0", "8"]),
        (["0x10", "16"], ["0x10", "16"]),
        (["1_000", "1000"], ["1_000", "1000"]),
        (["1e3", "1000"], ["1e3", "1000"]),
        (["٤٢", "42"], ["٤٢", "42"]),
        (["true", "True"], ["true", "True"]),
        ([" 7", "8 ", "\u00a09"], [7, 8, 9]),
        ([" ann", "bob\t"], ["ann", "bob"]),
        (["Ann", "ann", "a\u0301", "\u00e1"], ["Ann", "ann", "a\u0301", "\u00e1"]),
    ],
)
def test_what_is_written_is_the_id(written, ids):
    found, catalogue = users(written)
    assert found == ids
    assert catalogue == sorted(set(ids))


@pytest.mark.parametrize(
    ("written", "ids"),
    [
        (["10", "9", "-3"], ["10", "9", "-3"]),
        (["1", "1.0", " 1", "NULL", "NA"], ["1", "1.0", " 1", "NULL", "NA"]),
    ],
)
def test_ids_that_shall_be_text(written, ids):
    found, catalogue = users(written, id_type="text")
    assert found == ids
    assert catalogue == sorted(set(ids))


def test_ids_that_shall_be_integers():
    assert users(["007", "7", "+7", "7.00", " 7", "-0"][:5], id_type="integer")[0] == [7] * 5
    assert users(["-0", "18446744073709551615"], id_type="integer")[0] == [0, 2**64 - 1]


@pytest.mark.parametrize(
    ("column", "ids"),
    [
        (pa.array([3, 1], pa.int8()), [3, 1]),
        (pa.array([3, 2**63], pa.uint64()), [3, 2**63]),
        (pa.array([3.0, 1.0], pa.float64()), [3, 1]),
        (pa.array([3.0, 1.0], pa.float32()), [3, 1]),
        (pa.array([Decimal(3), Decimal(1)], pa.decimal128(38, 0)), [3, 1]),
        (pa.array([Decimal(3), Decimal(1)], pa.decimal256(76, 0)), [3, 1]),
        (pa.array([Decimal("3.00"), Decimal("1.00")], pa.decimal128(10, 2)), [3, 1]),
        (pa.array(["3", "1"], pa.string_view()), [3, 1]),
        (pa.array(["b", "a"], pa.string_view()), ["b", "a"]),
        (pa.array([b"b", b"a"], pa.large_binary()), ["b", "a"]),
        (pa.array(["b", "a"]).dictionary_encode(), ["b", "a"]),
        (pa.array([3, 1]).dictionary_encode(), [3, 1]),
        (
            pa.chunked_array(
                [pa.array(["b"]).dictionary_encode(), pa.array(["a"]).dictionary_encode()]
            ),
            ["b", "a"],
        ),
        (
            pa.RunEndEncodedArray.from_arrays(pa.array([1, 2], pa.int32()), pa.array(["b", "a"])),
            ["b", "a"],
        ),
        (np.array([3, 1], np.uint16), [3, 1]),
        ([3, "x"], ["3", "x"]),
        ([3, "4"], [3, 4]),
    ],
)
def test_types_that_hold_ids(column, ids):
    assert users(column)[0] == ids


def test_uuids_are_text():
    raw = [bytes(range(16)), bytes(16)]
    column = pa.ExtensionArray.from_storage(pa.uuid(), pa.array(raw, pa.binary(16)))
    assert users(column)[0] == [
        "00010203-0405-0607-0809-0a0b0c0d0e0f",
        "00000000-0000-0000-0000-000000000000",
    ]


@pytest.mark.parametrize(
    ("column", "row", "value"),
    [
        (np.array([2**24 - 1, 2**24], np.float32), 2, "16777216"),
        (np.array([2.0**53 - 1, 2.0**53]), 2, "9007199254740992"),
        (np.array([1, 2**11], np.float16), 2, "2048"),
        (np.array([-(2.0**53)]), 1, "-9007199254740992"),
    ],
)
def test_floats_that_may_have_merged_ids_are_refused(column, row, value):
    with pytest.raises(
        MatineeError, match=rf"row {row}, column 'user': the id {value}\.0 is too large"
    ):
        users(column)


@pytest.mark.parametrize(
    "word", ["", " ", "NULL", "\\N", "NA", "N/A", "NaN", "nan", "None", "<NA>", " NULL "]
)
def test_missing_ids_are_refused(word):
    with pytest.raises(MatineeError, match=r"row 2, column 'user': .*missing"):
        users(["7", word, "8"])
    with pytest.raises(MatineeError, match=r"row 2, column 'user': .*missing"):
        users(["x", word, "8"])


def test_null_is_an_id_among_texts_alone(capsys):
    assert users(["x", "null"])[0] == ["x", "null"]
    assert "'null' is read as the id of a user." in capsys.readouterr().err
    for column in (["7", "null", "8"], ["null", "8"], ["null"], [7, "null"]):
        with pytest.raises(MatineeError, match=r"'null' among integers stands for a missing value"):
            users(column)
    with pytest.raises(MatineeError, match=r"row 2, .*'null' stands for a missing value"):
        users(["7", "null"], id_type="integer")
    assert users(["7", "null"], id_type="text")[0] == ["7", "null"]


@pytest.mark.parametrize(
    ("written", "note"),
    [
        (["7", "x", "8"], "1 of 3 user ids are no integers, such as 'x', so all are read as text"),
        (["7", str(2**64)], None),
        (["x", "y"], None),
        (['"7"', '"8"'], 'quotation marks are part of user ids, such as "7"; set quoting=quotes'),
        (["7", "8"], None),
    ],
)
def test_what_is_unusual_is_told(capsys, written, note):
    users(written)
    told = capsys.readouterr().err
    assert f"the table: {note}" in told if note else told == ""
    users(written, id_type="text")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "column", [[1, None], ["a", None], pa.array([None, None]), ["a", float("nan")]]
)
def test_nulls_are_refused_whatever_ids_are(column):
    for id_type in ("auto", "text", "integer"):
        with pytest.raises(MatineeError, match="column 'user'"):
            users(column, id_type=id_type)


@pytest.mark.parametrize(
    ("written", "rules", "message"),
    [
        (
            ["a", "b", "a "],
            {},
            r"row 3, column 'user': the ids 'a' \(row 1\) and 'a ' differ only in the blanks",
        ),
        (["7", " 7"], {}, r"row 2, .* differ only in the blanks around them; .* id_type=text"),
        (
            ["x", "1", "1.0"],
            {},
            r"row 3, .*'1' \(row 2\) and '1\.0' differ only in zeros after the point",
        ),
        (["2.00", "x", "2.0"], {}, r"row 3, .*differ only in zeros after the point"),
        (["7", "x"], {"id_type": "integer"}, r"row 2, .*'x' is not an integer"),
        (["7", "1.5"], {"id_type": "integer"}, r"row 2, .*'1.5' is not an integer"),
        (["7", str(2**64)], {"id_type": "integer"}, r"row 2, .*does not fit in 64 bits"),
        (["-7", str(2**63)], {"id_type": "integer"}, r"row 2, .*does not fit in 64 bits"),
        ([1.5], {}, r"row 1, .*1\.5 is not an integer"),
        ([Decimal("1.00"), Decimal("1.50")], {}, r"row 2, .*1\.50 is not an integer"),
        (["7", "1.23457E+15"], {}, r"row 2, .*'1\.23457E\+15' is a shortened number"),
        (["1.2345678901234568e+18"], {}, r"row 1, .*is a shortened number, .*id_type=text"),
        (pa.array([[1]]), {}, "column 'user': ids are of type list"),
        (pa.array([b"\xff"]), {}, "column 'user': .*UTF"),
        (pa.array([1], pa.timestamp("s")), {}, "column 'user': ids are of type timestamp"),
        (["7"], {"id_type": "int"}, "id_type='int' is unknown; choose one of auto, text, integer"),
    ],
)
def test_ids_that_are_refused(written, rules, message):
    with pytest.raises(MatineeError, match=message):
        users(written, **rules)


def test_integers_and_texts_of_several_chunks_follow_one_rule():
    """As in a folder of files one of which stores numbers and another one text."""
    for other, expected in ((["3", "4"], [1, 2, 3, 4]), (["3", "x"], ["1", "2", "3", "x"])):
        ids = Ids("user", "auto")
        for column in (pa.array([1, 2]), pa.array(other), pa.array([2, 1]), pa.array(other)):
            parsed, faults = ids.parse(column)
            assert not faults
            ids.append(parsed)
        codes, raw = ids.finish(None)
        assert list(raw) == expected
        assert codes.tolist() == [1, 2, 3, 4, 2, 1, 3, 4]


def test_many_chunks_of_many_texts(monkeypatch):
    monkeypatch.setattr("matinee.data.columns.ids._FEW_ENTRIES", 10)
    rng = np.random.default_rng(0)
    ids, every = Ids("user", "auto"), []
    for _ in range(50):
        texts = [f"u{number}" for number in rng.integers(0, 200, rng.integers(0, 30))]
        every += texts
        ids.append(ids.parse(pa.array(texts, pa.string()))[0])
    codes, raw = ids.finish(None)
    assert raw == sorted(set(every))
    assert [raw[code - 1] for code in codes] == every


@pytest.mark.parametrize("spread", [1, 10**12])
def test_dense_and_sparse_integers(spread):
    values = (np.random.default_rng(0).integers(-500, 500, 3000) * spread).tolist()
    found, catalogue = users(values)
    assert found == values
    assert catalogue == sorted(set(values))
