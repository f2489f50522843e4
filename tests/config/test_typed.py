"""Values of the command line arrive as they are typed."""

import pytest

from matinee.config.typed import ratings, take_typed, word, words
from matinee.errors import MatineeError

ODD = [
    "1_000",
    "1.10",
    "true",
    "null",
    "1e3",
    "0x1F",
    "007",
    "-5",
    "~",
    "None",
    "a=b",
    "${seed}",
    "u 1",
    "@x",
    "é",
]


@pytest.mark.parametrize("text", ODD)
def test_odd_ids_stay_what_they_are(text):
    assert word(text) == text
    assert words(f"[{text}, {text}]") == [text, text]
    assert ratings(f"{{{text}: 4.5}}") == {text: 4.5}


def test_nobody_has_an_empty_name():
    assert word("") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[]", []),
        ("[ ]", []),
        ("[50]", ["50"]),
        ("[50,Toy Story , x]", ["50", "Toy Story", "x"]),
        ('["Crouching Tiger, Hidden Dragon",50]', ["Crouching Tiger, Hidden Dragon", "50"]),
        ("['[REC]', [REC], {x}]", ["[REC]", "[REC]", "{x}"]),
        (r'["say \"hi\"", "back\\slash", " blank "]', ['say "hi"', "back\\slash", " blank "]),
        ("[12\" vinyl, 'it''s']", ['12" vinyl', "'it''s'"]),
        ("[id:300, title:300]", ["id:300", "title:300"]),
    ],
)
def test_lists(text, expected):
    assert words(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", {}),
        ("{50: 5, 172:4}", {"50": 5, "172": 4}),
        ("{Mission: Impossible: 4}", {"Mission: Impossible": 4}),
        ('{"a, b": 1e0, id:7: -2.5}', {"a, b": 1, "id:7": -2.5}),
    ],
)
def test_mappings(text, expected):
    assert ratings(text) == expected


@pytest.mark.parametrize("text", ["", "50", "[50", "50]", "[1,,2]", "[1,]", "[,]"])
def test_texts_that_are_no_lists(text):
    with pytest.raises(ValueError, match=r"entry|brackets"):
        words(text)


@pytest.mark.parametrize("text", ["", "{50}", "{50: x}", "{: 5}", "{1: 2,}", "[1: 2]", "{1: 2 3}"])
def test_texts_that_are_no_ratings(text):
    with pytest.raises(ValueError, match=r"entry|brackets|float"):
        ratings(text)


def test_the_other_arguments_stay():
    parsers = {"user": (word, "ID"), "history": (words, "[ITEM, ...]")}
    argv = ["run=x", "user=1", "top_k=3", "--help", "user=null", "history=[a=b]", "+top_k=4"]
    assert take_typed(argv, parsers) == (
        ["run=x", "top_k=3", "--help", "+top_k=4"],
        {"user": "null", "history": ["a=b"]},
    )
    assert take_typed(["+user=1_0", "++history=[1_0]"], parsers) == (
        [],
        {"user": "1_0", "history": ["1_0"]},
    )
    with pytest.raises(MatineeError, match=r"history is '5'; write 'history=\[ITEM, \.\.\.\]'"):
        take_typed(["history=5"], parsers)
