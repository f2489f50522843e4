"""What a time is: every form exactly, the unit of numbers, and what is refused."""

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from matinee.data.interactions import Interactions
from matinee.data.splits import chronological, leave_last_out
from matinee.errors import MatineeError

PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
DAY = 86_400


def log_of(column, **options) -> Interactions:
    """Let one user meet a new item at each of some times."""
    table = {"user": [1] * len(column), "item": list(range(len(column))), "timestamp": column}
    return Interactions.from_table(table, **options)


def times(column, **options) -> tuple[list[Fraction], str]:
    """Return times as seconds, in the order of the source, and the unit that they are kept in."""
    log = log_of(column, **options)
    seconds = [Fraction(time, PER_SECOND[log.time_unit]) for time in log.timestamps.tolist()]
    return [time for _, time in sorted(zip(log.item_ids, seconds, strict=True))], log.time_unit


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-02", DAY),
        ("1969-12-31", -DAY),
        ("0001-01-01", -62_135_596_800),
        ("9999-12-31T23:59:59", 253_402_300_799),
        ("2000-02-29", 951_782_400),
        ("1970-01-01T00:01", 60),
        ("1970-01-01 00:01:05", 65),
        ("1970-01-01T00:00:00.5", Fraction(1, 2)),
        ("1970-01-01T00:00:00,5", Fraction(1, 2)),
        ("1970-01-01T00:00:00.123456789", Fraction(123456789, 10**9)),
        ("1970-01-01T00:00:00.1234567890000", Fraction(123456789, 10**9)),
        ("1969-12-31T23:59:59.999999999", Fraction(-1, 10**9)),
        ("1970-01-01T01:00:00Z", 3600),
        ("1970-01-01T01:00:00z", 3600),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1970-01-01T01:00:00+0100", 0),
        ("1970-01-01T01:00:00+01", 0),
        ("1970-01-01T01:00:00-00:30", 5400),
        ("1970-01-01 01:00:00 UTC", 3600),
        ("1970-01-01 01:00:00.25 UTC", Fraction(14401, 4)),
        ("1970-01-01 01:00:00UTC", 3600),
        ("1970-01-01 01:00:00 GMT", 3600),
        ("1970-01-01 01:00:00 +01:00", 0),
        ("  1970-01-02  ", DAY),
    ],
)
def test_dates(text, seconds):
    """Alone, which is a quick way, and beside another form, which is not."""
    assert times([text])[0] == [seconds]
    if not isinstance(seconds, int) or abs(seconds) < 10**9:
        other = "1970-01-01T00:00:09.000000001+00:00"
        assert times([text, other])[0] == [seconds, Fraction(9 * 10**9 + 1, 10**9)]
    assert times([text, "1970-01-01 00:00:03 UTC", "1970-01-01 00:00"])[0] == [seconds, 3, 0]


@pytest.mark.parametrize(
    "text",
    [
        "2001-02-29",
        "2001-13-01",
        "2001-00-01",
        "2001-01-00",
        "2001-01-01T24:00:00",
        "2001-01-01T00:60:00",
        "2001-01-01T23:59:60",
        "2001-01-01T00:00:00+24:00",
        "2001-01-01T00:00:00+00:60",
        "2001-1-1",
        "01/02/2001",
        "2001-01-01T00:00:00.",
        "2001-01-01T00:00:00 CET",
        "2001-01-01Z",
        "20010101T000000",
        "12:00",
        "noon",
        "1_000",
        "0x10",
        "1e",
        "inf",
    ],
)
def test_texts_that_are_no_times(text):
    for column in (["1970-01-02", text], ["5", text]):
        with pytest.raises(
            MatineeError, match=r"row 2, column 'timestamp': .*(is no time|several ways)"
        ):
            times(column)
    with pytest.raises(MatineeError, match=r"row 1, column 'timestamp': .* is no time"):
        times([text])


@pytest.mark.parametrize(
    ("column", "seconds", "unit"),
    [
        ([5, 1], [5, 1], "s"),
        (["5", "1"], [5, 1], "s"),
        (["1396864800.123", "-1.5"], [Fraction("1396864800.123"), Fraction(-3, 2)], "ms"),
        (["1396864800.100", "5"], [Fraction("1396864800.1"), 5], "ms"),
        (["1396864800.000", "5."], [1396864800, 5], "s"),
        (["1.396864800123E9", "+.5"], [Fraction("1396864800.123"), Fraction(1, 2)], "ms"),
        (["1396864800.123456789"], [Fraction("1396864800.123456789")], "ns"),
        (["1396864800.1234567890"], [Fraction("1396864800.123456789")], "ns"),
        (
            [1_588_888_888_900, 1_588_888_888_100],
            [Fraction("1588888888.9"), Fraction("1588888888.1")],
            "ms",
        ),
        ([1_588_888_888_000], [1_588_888_888], "s"),
        (["1588888888900.25"], [Fraction("1588888888.90025")], "us"),
        ([1_588_888_888_900_001], [Fraction("1588888888.900001")], "us"),
        ([1_588_888_888_900_000_001], [Fraction("1588888888.900000001")], "ns"),
        ([-1_588_888_888_900], [Fraction("-1588888888.9")], "ms"),
        (
            [1_588_888_888_900, -1_588_888_888_900],
            [Fraction("1588888888.9"), Fraction("-1588888888.9")],
            "ms",
        ),
        (np.array([3, 1], np.uint64), [3, 1], "s"),
        ([1.0, 3.0], [1, 3], "s"),
        (
            [1396864800.123, 1396864800.124],
            [Fraction("1396864800.123"), Fraction("1396864800.124")],
            "ms",
        ),
        ([1396864800.123456], [Fraction("1396864800.123456")], "us"),
        ([1.5e12 + 0.5], [Fraction("1500000000.0005")], "us"),
        (np.array([0.5, 3], np.float32), [Fraction(1, 2), 3], "ms"),
        (pa.array([Decimal("1396864800.123"), Decimal(1)]), [Fraction("1396864800.123"), 1], "ms"),
        (pa.array([1500, -1], pa.timestamp("ms")), [Fraction(3, 2), Fraction(-1, 1000)], "ms"),
        (pa.array([10**18 + 1], pa.timestamp("ns")), [10**9 + Fraction(1, 10**9)], "ns"),
        (pa.array([3, 2], pa.timestamp("s", "Europe/Zurich")), [3, 2], "s"),
        (pa.array([1, 0], pa.date32()), [DAY, 0], "s"),
        (pa.array([DAY * 1000], pa.date64()), [DAY], "s"),
        (pa.array(["1970-01-02"]).dictionary_encode(), [DAY], "s"),
        (pa.array(["1970-01-02"], pa.string_view()), [DAY], "s"),
        (
            pd.Series(pd.to_datetime(["1970-01-02T00:00:00.000001Z"])),
            [DAY + Fraction(1, 10**6)],
            "us",
        ),
    ],
)
def test_numbers_and_types(column, seconds, unit):
    assert times(column) == (seconds, unit)


@pytest.mark.parametrize(("unit", "factor"), PER_SECOND.items())
def test_a_unit_that_is_stated(unit, factor):
    assert times([0, 20_140_407], time_unit=unit)[0] == [0, Fraction(20_140_407, factor)]


def test_decimals_of_any_stated_unit():
    assert times(["5.5"], time_unit="us") == ([Fraction(5500, 10**9)], "ns")
    with pytest.raises(MatineeError, match=r"row 2, .*the time 0\.250 is finer than a nanosecond"):
        times(["1.0", "0.25"], time_unit="ns")


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (
            [5, 1_588_888_888_900],
            r"row 1, .*the time 5 and 1588888888900 \(row 2\) .* set time_unit",
        ),
        (
            [1_588_888_888_900, 1_588_888_888],
            r"row 2, .*the time 1588888888 and 1588888888900 \(row 1\)",
        ),
        ([1_588_888_888_900_000_000, 0], r"row 2, .*the time 0 and"),
        (
            ["-1588888888900.5", "7.25"],
            r"row 2, .*the time 7\.250 and -1588888888900\.500 \(row 1\)",
        ),
        ([20_140_407, 20_140_408], r"row 1, .*20140407, like all others, looks like a date"),
        ([20_140_407_235_959], r"looks like a date without separators"),
        ([201_404_072_359], r"looks like a date without separators"),
        ([2_014_040_723], r"looks like a date without separators"),
        ([20_140_407_235_959_123], r"looks like a date without separators"),
        (["5", "1970-01-02"], "row 2, .*several ways"),
        (["1970-01-02", "5"], "row 2, .*several ways"),
        (["1.0000000001"], "finer than a nanosecond"),
        (["1.0000000001E0"], "finer than a nanosecond"),
        (["1970-01-01T00:00:00.0000000001"], "finer than a nanosecond"),
        ([0.1234567891234], "finer than a nanosecond"),
        ([1e12 + 1 / 3], "has a fraction that cannot be kept"),
        (
            ["1970-01-01T00:00:00.000000001", "9999-12-31"],
            r"row 2, .*'9999-12-31' .*too far from 1970",
        ),
        (["99999999999999999999"], "too far from 1970"),
        (["1e30"], "too far from 1970"),
        (np.array([1, 2**63], np.uint64), "row 2, .*does not fit in 64 bits"),
        (
            [1.0, 2.0**53],
            r"row 2, .*9007199254740992\.0 is not exact: from 9007199254740992 on, float64",
        ),
        (np.array([1, 2**24], np.float32), r"row 2, .*16777216\.0 is not exact: .* float32"),
        (np.array([1, 2**11], np.float16), r"row 2, .*float16"),
        ([1.0, np.inf], "row 2, .*is not exact"),
        ([1.0, np.nan], "row 2, .*the value is missing"),
        ([1, None], "row 2, .*the value is missing"),
        (pa.array([1, None], pa.timestamp("s")), "row 2, .*the value is missing"),
        (["1970-01-02", " "], "row 2, .*the value is missing"),
        (["1", "\\N"], "row 2, .*the value is missing"),
        (["1970-01-02", "NaT"], "row 2, .*the value is missing"),
        (pa.array([1], pa.time32("s")), "timestamps are of type time32"),
        (pa.array([1], pa.duration("s")), "timestamps are of type duration"),
    ],
)
def test_times_that_are_refused(column, message):
    with pytest.raises(MatineeError, match=f"column 'timestamp': .*{message}|{message}"):
        times(column)


@pytest.mark.parametrize(
    ("written", "note"),
    [
        (["2020-10-25T02:30:00", "2020-10-25T02:10:00Z"], "some times have a zone and others none"),
        (["2020-10-25", "2020-10-25T02:10:00+01:00"], "some times have a zone and others none"),
        (["2020-10-25", "2020-10-25T02:10"], None),
        (["2020-10-25T02:30:00Z", "2020-10-25T02:10:00 UTC"], None),
        ([2019, 2020], "all times are within a year of 1970, read as seconds"),
        (["43831.5", "43832.25"], "all times are within a year of 1970"),
        (["1.5e9", "1.6E+09"], "all times are multiples of 10,000 seconds"),
        (["1.5889e12", "1.5890e12"], "all times are multiples of 10,000 seconds"),
        ([1_588_888_888_900] * 2, "all times are equal"),
        ([86_400 * 15_000, 86_400 * 15_001], None),
        ([1_500_000_001, 5], None),
        ([1_500_000_000], None),
    ],
)
def test_what_is_unusual_is_told(capsys, written, note):
    times(written)
    told = capsys.readouterr().err
    assert f"the table: {note}" in told if note else told == ""


def test_a_date_without_separators_needs_all_of_them():
    assert times([2_014_040_724, 2_014_040_701])[1] == "s"
    assert times([20_140_407, 20_149_999])[1] == "s"
    assert times([20_140_407, 5])[1] == "s"


def test_times_of_several_chunks_share_the_finest_unit(monkeypatch):
    monkeypatch.setattr("matinee.data.interactions.CHUNK", 2)
    column = [
        "1970-01-01",
        "1970-01-02",
        "1970-01-01T00:00:00.5",
        "1970-01-03",
        "1970-01-01T00:00:00.000001",
    ]
    assert times(column) == ([0, DAY, Fraction(1, 2), 2 * DAY, Fraction(1, 10**6)], "us")
    assert times([1, 2, 3, 4])[1] == "s"
    with pytest.raises(MatineeError, match=r"row 3, .*several ways"):
        times(["1970-01-01", "1970-01-02", "5", "6"])
    with pytest.raises(MatineeError, match=r"row 1, .*the time 5 and 1588888888900 \(row 3\)"):
        times([5, 6, 1_588_888_888_900, 1_588_888_888_900])
    with pytest.raises(
        MatineeError, match=r"row 1, .*does not fit in 64 bits beside times as fine"
    ):
        times(["9999-12-31", "9999-12-31", "1970-01-01T00:00:00.000000001"])


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_order_last_items_and_cuts_at_full_resolution(unit):
    """Many users act within one second each; only its fractions tell the order."""
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(200), 8)
    fractions = np.concatenate([rng.choice(1000, 8, replace=False) for _ in range(200)])
    moments = (1_400_000_000 + users * 60) * PER_SECOND[unit] + fractions
    shuffled = rng.permutation(len(users))
    table = {"user": users[shuffled], "item": np.arange(len(users)), "timestamp": moments[shuffled]}
    log = Interactions.from_table(table)
    last = {}
    for user, item, _ in sorted(zip(*table.values(), strict=True), key=lambda row: row[2]):
        last[user] = item
    split = leave_last_out(log)
    raw_users, raw_items = log.users["raw_id"].to_numpy(), log.items["raw_id"].to_numpy()
    tested = dict(
        zip(
            raw_users[log.user_ids[split.test] - 1],
            raw_items[log.item_ids[split.test] - 1],
            strict=True,
        )
    )
    assert tested == last


def test_duplicates_follow_the_full_resolution():
    table = {
        "user": [1, 1, 1],
        "item": [1, 1, 1],
        "rating": [1, 2, 3],
        "timestamp": ["5.3", "5.9", "5.1"],
    }
    assert Interactions.from_table(table, duplicates="last").ratings.tolist() == [2]
    assert Interactions.from_table(table, duplicates="first").ratings.tolist() == [3]


def test_a_cut_between_two_nanoseconds():
    start = 1_588_888_888_000_000_000
    log = log_of([start + nanos for nanos in (5, 3, 1, 2, 4, 4)])
    split = chronological(log, quantile=0.6)
    moments = [
        (log.timestamps[rows] - start).tolist()
        for rows in (split.train, split.validation, split.test)
    ]
    assert moments == [[1, 2, 3], [4, 4], [5]]  # the 0.6 quantile of six rows lies at place 3


def test_a_cut_where_its_place_is_a_whole_number():
    """0.29 of 101 rows ends at place 29 exactly, where floating point says 28.999."""
    log = log_of(list(range(101)))
    assert len(chronological(log, quantile=0.29).test) == 101 - 30
