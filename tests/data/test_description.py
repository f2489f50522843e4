"""Descriptions of data: by hand-counted tables, and each thing that looks wrong."""

import numpy as np
import pytest

from matinee.data.description import describe
from matinee.data.interactions import Interactions
from matinee.data.splits import leave_last_out


def log(**columns) -> Interactions:
    return Interactions.from_table(columns, duplicates="keep")


def test_facts_counted_by_hand():
    data = log(
        user=["a", "a", "a", "b"],
        item=[1, 2, 2, 1],
        rating=[1, 2, 2, 5],
        timestamp=["2001-01-01", "2001-01-02T00:00:00.5", "2001-01-02T00:00:00.5", "2001-01-02"],
    )
    found = describe(data)
    assert found.facts == {
        "rows": "4",
        "users": "2",
        "items": "2",
        "density": "75.00 % of all pairs",
        "repeated pairs": "1 rows, 25.00 %",
        "rows removed as duplicates": "0",
        "user ids": "text",
        "item ids": "integers",
        "times": "2001-01-01 00:00:00.000 to 2001-01-02 00:00:00.500 UTC",
        "resolution of times": "ms",
        "rows that share user and time": "2, 50.00 %; among them the order is that of the source",
        "rating scale": "1 to 5",
        "mean rating": "2.5000",
        "SHA-256": data.fingerprint,
    }
    assert found.counts.to_dict("records") == [
        {
            "rows of a": "user",
            "least": 1,
            "quarter": 1,
            "median": 1,
            "three quarters": 3,
            "most": 3,
            "mean": "2.0",
        },
        {
            "rows of a": "item",
            "least": 2,
            "quarter": 2,
            "median": 2,
            "three quarters": 2,
            "most": 2,
            "mean": "2.0",
        },
    ]
    assert found.ratings.to_numpy().tolist() == [
        ["1", 1, "25.00 %"],
        ["2", 2, "50.00 %"],
        ["5", 1, "25.00 %"],
    ]
    assert found.tail["items"].tolist() == [1, 1, 2, 2]
    assert found.parts is None
    assert found.suspicions == []


def test_what_a_split_leaves_unknown():
    data = log(user=[1, 1, 1, 2], item=[7, 8, 9, 7], timestamp=[1, 2, 3, 4])
    parts = describe(data, leave_last_out(data), now=1e9).parts
    assert parts.set_index("part").loc["test"].to_dict() == {
        "rows": 1,
        "users": 1,
        "items": 1,
        "rows of unknown users": "0.00 %",
        "rows of unknown items": "100.00 %",
        "first": "1970-01-01 00:00:03",
        "last": "1970-01-01 00:00:03",
    }


def test_many_ratings_are_counted_by_range():
    ratings = np.linspace(-10, 10, 101)
    data = log(user=range(101), item=range(101), rating=ratings)
    table = describe(data).ratings
    assert table["rows"].sum() == 101
    assert table["rating"].iloc[[0, -1]].tolist() == ["[-10, -8)", "[8, 10]"]


def rows(**columns) -> dict:
    """Complete a table of 40 unsuspicious rows."""
    plain = {
        "user": [f"u{row}" for row in range(40)],
        "item": [f"i{row}" for row in range(40)],
        "rating": [1 + row % 5 for row in range(40)],
        "timestamp": [10**9 + row for row in range(40)],
    }
    return plain | columns


OTHERS = [f"x{row}" for row in range(38)]


@pytest.mark.parametrize(
    ("columns", "suspicion"),
    [
        ({}, None),
        ({"user": ["x"] * 5 + OTHERS[:35]}, "user 'x' has 12.50 % of all rows."),
        ({"item": [7] * 5 + list(range(100, 135))}, "item 7 has 12.50 % of all rows."),
        (
            {"user": ["Ann", "ann", *OTHERS]},
            "2 user ids differ only by upper and lower case, such as 'Ann' and 'ann'.",
        ),
        (
            {"item": ["a  b", "a b", *OTHERS]},
            "2 item ids differ only by blanks, such as 'a  b' and 'a b'.",
        ),
        (
            {"item": ["007", "7", *OTHERS]},
            "2 item ids differ only by leading zeros, such as '007' and '7'.",
        ),
        (
            {"item": ["\u00e1", "a\u0301", *OTHERS]},
            "2 item ids differ only by Unicode form or invisible characters, such as 'a\u0301' and '\u00e1'.",
        ),
        (
            {"item": ["x\u200b", "x", *OTHERS]},
            "2 item ids differ only by Unicode form or invisible characters, such as 'x' and 'x\\u200b'.",
        ),
        (
            {"item": ["movieId", *range(39)]},
            "1 item ids are no integers, as the others are, such as 'movieId'.",
        ),
        (
            {"title": ["Alien", "Alien", *OTHERS]},
            "2 items share their title with another item, such as 'Alien'.",
        ),
        (
            {"timestamp": [10**9] * 40},
            "all rows have the time 2001-09-09 01:46:40; the order is that of the source.",
        ),
        (
            {"timestamp": [*range(10**9, 10**9 + 39), 4 * 10**9]},
            "1 rows are of the future; the last is of 2096-10-02 07:06:40.",
        ),
        (
            {"timestamp": range(40)},
            "40 rows are within a year of 1970, such as 1970-01-01 00:00:00; their times may count another "
            "unit, or no time at all.",
        ),
        ({"rating": [3] * 40}, "all ratings are 3."),
    ],
)
def test_suspicions(columns, suspicion):
    found = describe(log(**rows(**columns)), now=2e9).suspicions
    assert found == ([] if suspicion is None else [suspicion])


def test_times_beyond_the_calendar_are_told_as_numbers():
    far = Interactions.from_table({"user": [1], "item": [1], "timestamp": [10**15]}, time_unit="s")
    assert describe(far, now=0).facts["times"].startswith("1000000000000000 s")
