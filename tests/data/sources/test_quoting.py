"""Quotation marks: no row is ever swallowed; each stray mark costs its own line at most."""

from pathlib import Path

import pytest

from matinee.data.sources import streams
from matinee.data.sources.table import load
from matinee.errors import MatineeError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATINEE_DATA", str(tmp_path / "cache"))


def items(folder: Path, *lines: str, name: str = "log.csv", **options) -> list:
    path = folder / name
    path.write_text(
        "user,item,note\n".replace(",", "\t" if name == "log.tsv" else ",")
        + "\n".join(lines)
        + "\n"
    )
    log = load(path, "user", "item", duplicates="keep", **options)
    raw = log.items["raw_id"].tolist()
    return [raw[item - 1] for item in log.item_ids]


def test_tabs_know_no_quoting_unless_asked(tmp_path):
    lines = ['u1\t"Heroes\t1', "u2\tStation\t2", 'u4\t"Low"\t4']
    assert items(tmp_path, *lines, name="log.tsv") == ['"Heroes', "Station", '"Low"']
    found = items(tmp_path, *lines[1:], name="log.tsv", quoting="quotes")
    assert found == ["Station", "Low"]
    with pytest.raises(MatineeError, match="line 2: a quoted field runs on"):
        items(tmp_path, *lines, name="log.tsv", quoting="quotes")


@pytest.mark.parametrize(
    ("line", "item"),
    [
        ('u,"a,b",n', "a,b"),
        ('u,"a ""b""",n', 'a "b"'),
        ('u,"",n', None),
        ('u,a"b,n', 'a"b'),
        ('u,12" vinyl,n', '12" vinyl'),
        ('u,a"",n', 'a""'),
        ('u, "a",n', '"a"'),
        ('u,x,"a\nb"', "x"),
        ('u,x,"a\n\n""b"""', "x"),
        ('"u",x,"n"', "x"),
        ('u,"""a""",""', '"a"'),
    ],
)
def test_what_marks_mean(tmp_path, line, item):
    if item is None:
        with pytest.raises(MatineeError, match="line 3, column 'item': the value is missing"):
            items(tmp_path, "v,w,x", line)
    else:
        assert items(tmp_path, "v,w,x", line, "y,z,") == ["w", item, "z"]


STRAY = [
    'u1,"Heroes,1',
    'u1,Heroes,"1',
    '"u1,Heroes,1',
    'u1,"Heroes"s,1',
    'u1,"Heroes,"1',
    'u1,"""Heroes,1',
    'u1,""Heroes,1',
]


@pytest.mark.parametrize("stray", STRAY)
@pytest.mark.parametrize("other", ["", 'u9,"Low,1', 'u9,Low",1', 'u9,x,"great"', 'u9,x,""'])
@pytest.mark.parametrize("block", [16, 4096])
def test_a_stray_mark_swallows_nothing(tmp_path, monkeypatch, stray, other, block):
    monkeypatch.setattr(streams, "_BLOCK", block)
    between = [f"v{row},i{row},ok" for row in range(20)]
    lines = [stray, *between, *([other] if other else []), "w,last,"]
    with pytest.raises(MatineeError, match="line 2: "):
        items(tmp_path, *lines)
    found = items(tmp_path, *lines, bad_rows="skip")
    assert [item for item in found if item.startswith(("i", "last"))] == [
        *(f"i{row}" for row in range(20)),
        "last",
    ]
    assert "Heroes" not in "".join(found)
    assert items(tmp_path, "a,b,", *lines, quoting="none")[0] == "b"


def test_a_field_that_holds_what_looks_like_a_row(tmp_path):
    lines = ['u,x,"a\n1,2,3\nb"', "v,y,"]
    with pytest.raises(
        MatineeError, match=r"line 2: .*quoting=multiline if fields do hold such lines"
    ):
        items(tmp_path, *lines)
    assert items(tmp_path, *lines, quoting="multiline") == ["x", "y"]
    with pytest.raises(MatineeError, match="line 2: a quoted field is never closed"):
        items(tmp_path, 'u,x,"a', "v,y,", quoting="multiline")


def test_lines_are_counted_past_fields_of_several_lines(tmp_path):
    with pytest.raises(MatineeError, match="line 7, column 'user': the value is missing"):
        items(tmp_path, 'u,x,"a\nb\n\nc"', "", ",y,")


def test_a_line_of_several_that_is_not_utf8_is_refused_with_its_row(tmp_path):
    path = tmp_path / "log.csv"
    path.write_bytes(b'user,item,note\nu,x,"a\nb\xff"\nv,y,\n')
    with pytest.raises(MatineeError, match="line 2: the line is not UTF-8"):
        load(path, "user", "item")
    log = load(path, "user", "item", bad_rows="skip")
    assert log.users["raw_id"].tolist() == ["v"]
    assert log.source == {"rows": 2, "bad_rows_skipped": 1}


def test_a_very_long_quoted_field(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "_BLOCK", 64)
    text = "\n".join(["long"] * 500)
    assert items(tmp_path, f'u,x,"{text}"', "v,y,") == ["x", "y"]
