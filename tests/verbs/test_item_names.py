"""Items by id or title: what is meant, and what is refused as ambiguous."""

import numpy as np
import pandas as pd
import pytest

from matinee.data.interactions import Interactions
from matinee.errors import MatineeError
from matinee.verbs.item_names import ItemNames

FILMS = {10: "300", 300: "Quiz Show", 42: "Jackie", 7: "42", 5: "Alien", 6: "Alien", 8: "id:5"}


@pytest.fixture
def names() -> ItemNames:
    items = pd.DataFrame({"raw_id": list(FILMS), "title": list(FILMS.values())})
    items["year"] = pd.array([2006, 1994, 2016, 2013, 1979, 2003, None], "Int16")
    log = Interactions.from_table({"user": [1] * len(FILMS), "item": list(FILMS)}, items=items)
    return ItemNames(log)


def raw(names: ItemNames, *words: object) -> list[int]:
    return names.interactions.items["raw_id"].loc[names.find(words)].tolist()


def test_ids_titles_and_titles_with_years(names):
    assert raw(names, "10", 10, np.int64(10), 10.0) == [10] * 4
    assert raw(names, "quiz show", "Jackie (2016)", "Alien (1979)", "alien (2003)") == [
        300,
        42,
        5,
        6,
    ]
    assert raw(names, "id:300", "title:300", "title:quiz show", "id:42", "title:42") == [
        300,
        10,
        300,
        42,
        7,
    ]
    assert raw(names, 300, 42) == [300, 42]
    assert raw(names) == []


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (
            "300",
            r"'300' may be item 10 \('300 \(2006\)'; write id:10\) or "
            r"item 300 \('Quiz Show \(1994\)'; write id:300\); say which",
        ),
        ("42", r"'42' may be item 7 \(.*write id:7\) or item 42"),
        ("Alien", r"may be item 5 \('Alien \(1979\)'; write id:5\) or item 6"),
        ("id:5", r"may be item 5 .* or item 8 \('id:5'; write id:8\)"),
        ("Aliens", r"item 'Aliens' is not in the data; did you mean 'Alien'\?"),
        ("9999", "item '9999' is not in the data"),
        (9999, "item 9999 is not in the data"),
        ("title:Nothing like it", "is not in the data"),
        (None, "item None is not in the data"),
    ],
)
def test_words_that_are_refused(names, word, message):
    with pytest.raises(MatineeError, match=message):
        names.find([word])


def test_an_item_named_after_its_id_is_one_item():
    names = ItemNames(Interactions.from_table({"user": [1, 1], "item": ["a", "b"]}))
    assert names.find(["a", "B", "id:b", "title:a"]).tolist() == [1, 2, 2, 1]
