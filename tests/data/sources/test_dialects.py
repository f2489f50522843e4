"""Dialects of text files: each option, what is found out without it, and what is refused."""

import bz2
import gzip
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest

from matinee.data.interactions import Interactions
from matinee.data.sources import streams
from matinee.data.sources.table import load
from matinee.errors import MatineeError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATINEE_DATA", str(tmp_path / "cache"))


def read(folder: Path, content: str | bytes, name: str = "log.csv", **options) -> list[tuple]:
    """Write a file and return its rows: raw user, raw item, and the rating if it is asked for."""
    data = content.encode() if isinstance(content, str) else content
    path = folder / name
    if name.endswith(".gz"):
        data = gzip.compress(data)
    elif name.endswith(".bz2"):
        data = bz2.compress(data)
    elif name.endswith(".zst"):
        data = pa.compress(data, "zstd", asbytes=True)
    path.write_bytes(data)
    return rows(load(path, **{"user": "user", "item": "item", **options}))


def rows(log: Interactions) -> list[tuple]:
    users, items = log.users["raw_id"].tolist(), log.items["raw_id"].tolist()
    columns = [[users[i - 1] for i in log.user_ids], [items[i - 1] for i in log.item_ids]]
    if log.ratings is not None:
        columns.append(log.ratings.tolist())
    return list(zip(*columns, strict=True))


@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz", "log.CSV.bz2", "log.csv.zst"])
def test_compression_by_ending(tmp_path, name):
    assert read(tmp_path, "user,item\n1,b\n", name) == [(1, "b")]


@pytest.mark.parametrize(("name", "member"), [("log.csv.zip", "x"), ("log.zip", "folder/log.csv")])
def test_a_zip_of_one_file(tmp_path, name, member):
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        archive.writestr("__MACOSX/._log.csv", "rubbish")
        archive.writestr(member, "user,item\n1,b\n")
    assert rows(load(tmp_path / name, "user", "item")) == [(1, "b")]
    with zipfile.ZipFile(tmp_path / name, "a") as archive:
        archive.writestr("more.csv", "user,item\n1,b\n")
    with pytest.raises(MatineeError, match=r"holds 2 files \(.*more\.csv\) instead of one"):
        load(tmp_path / name, "user", "item")


@pytest.mark.parametrize("name", ["log.csv.gz", "log.csv.bz2", "log.csv.zst"])
def test_a_cut_file_is_refused(tmp_path, name):
    read(tmp_path, "user,item\n" + "".join(f"{row},{row * row}\n" for row in range(5000)), name)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) - 9])
    with pytest.raises(MatineeError, match="cannot be read"):
        load(tmp_path / name, "user", "item")


@pytest.mark.parametrize(
    "encoding", ["latin-1", "cp1252", "utf-16", "utf-16-le", "utf-8-sig", "utf-32"]
)
def test_encodings(tmp_path, encoding):
    text = "user,item\nj\xf6rg,\xe9t\xe9\n" * 1
    assert read(tmp_path, text.encode(encoding), encoding=encoding) == [("j\xf6rg", "\xe9t\xe9")]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("block", [1, 2, 3, 5, 4096])
def test_line_ends(tmp_path, monkeypatch, newline, block):
    monkeypatch.setattr(streams, "_BLOCK", block)
    text = newline.join(["user,item", "1,a", "", "2,b", "3,c"])
    assert read(tmp_path, text) == [(1, "a"), (2, "b"), (3, "c")]
    with pytest.raises(MatineeError, match=r"line 4: the row has 1 instead of 2 fields"):
        read(tmp_path, text.replace("2,b", "2b"))


@pytest.mark.parametrize(
    "delimiter", [";", "|", " ", "\t", ",", "::", "~", "semicolon", "pipe", "space", "tab", "\\t"]
)
def test_delimiters(tmp_path, delimiter):
    mark = {"semicolon": ";", "pipe": "|", "space": " ", "tab": "\t", "\\t": "\t"}.get(
        delimiter, delimiter
    )
    text = "user,item,rating\n1,2,3.5\n".replace(",", mark)
    for name in ("log.csv", "log.txt", "u1.base"):
        assert read(tmp_path, text, name, delimiter=delimiter, rating="rating") == [(1, 2, 3.5)]


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_a_delimiter_that_gives_the_columns_is_found(tmp_path, mark):
    assert read(tmp_path, f"user{mark}item\n1{mark}2,3\n") == [(1, "2,3")]
    assert read(tmp_path, f"1{mark}2\n", column_names=["user", "item"]) == [(1, 2)]


def test_book_crossing(tmp_path):
    text = '"User-ID";"ISBN";"Book-Rating"\r\n"276725";"034545104X";"0"\r\n"276726";"0155061224";"5"\r\n'
    found = read(
        tmp_path,
        text.encode("latin-1"),
        user="User-ID",
        item="ISBN",
        rating="Book-Rating",
        encoding="latin-1",
    )
    assert found == [(276725, "034545104X", 0), (276726, "0155061224", 5)]


def test_recbole(tmp_path):
    text = 'user_id:token\titem_id:token\trating:float\n1\t"2\t3.5\n'
    expected = [(1, '"2', 3.5)]
    assert (
        read(tmp_path, text, "r.inter", user="user_id", item="item_id", rating="rating") == expected
    )
    typed = {"user": "user_id:token", "item": "item_id:token", "rating": "rating:float"}
    assert read(tmp_path, text, "r.inter", **typed) == expected


def test_names_of_files_without_a_header(tmp_path):
    names = {"column_names": ["user", "item", "rating"], "rating": "rating"}
    assert read(tmp_path, "A1,B1,5.0\nA2,B2,3.0\n", **names) == [("A1", "B1", 5), ("A2", "B2", 3)]
    assert read(tmp_path, "a,b,c\nA2,B2,3.0\n", **names, header=True) == [("A2", "B2", 3)]
    with pytest.raises(MatineeError, match="if it has no header, set column_names"):
        read(tmp_path, "A1,B1,5.0\n")
    with pytest.raises(
        MatineeError, match=r"line 1: the row has 2 fields .* column_names has 3 names"
    ):
        read(tmp_path, "A1,B1\nA2,B2\n", **names)
    with pytest.raises(MatineeError, match="line 2: the row has 2 instead of 3 fields"):
        read(tmp_path, "A1,B1,1\nA2,B2\n", **names)
    with pytest.raises(MatineeError, match="header=false needs column_names"):
        read(tmp_path, "A1,B1\n", header=False)


def test_a_quoted_header_of_several_lines(tmp_path):
    found = read(tmp_path, '"user","it\nem"\n1,2\n', item="it\nem")
    assert found == [(1, 2)]
    with pytest.raises(MatineeError, match="line 4, column 'user': the value is missing"):
        read(tmp_path, '"user","it\nem"\n1,2\n,3\n', item="it\nem")


def test_decimal_commas(tmp_path):
    text = "user;item;rating;time\n1;2;4,5;5,25\n2;3;3,0;5,5\n"
    log = {"rating": "rating", "decimal": ",", "timestamp": "time"}
    assert read(tmp_path, text, **log) == [(1, 2, 4.5), (2, 3, 3.0)]
    with pytest.raises(
        MatineeError, match=r"line 2, .*'4,5' is not a number; set decimal=',' if that"
    ):
        read(tmp_path, text, rating="rating")
    with pytest.raises(
        MatineeError, match=r"line 2, .*'4\.5' is not a number; set decimal='\.' if that"
    ):
        read(tmp_path, text.replace("4,5", "4.5"), rating="rating", decimal=",")
    with pytest.raises(MatineeError, match=r"line 2, .*'5,25' is not a number; set decimal=','"):
        read(tmp_path, text, timestamp="time")
    with pytest.raises(MatineeError, match=r"'1\.234,5' is not a number"):
        read(tmp_path, text.replace("4,5", "1.234,5"), rating="rating", decimal=",")


def test_comments(tmp_path):
    text = "# written by hand\nuser,item\n# one\n1,2\n#2,3\n3,#4\n"
    assert read(tmp_path, text, comment="#") == [(1, "2"), (3, "#4")]
    with pytest.raises(MatineeError, match="line 7, column 'user'"):
        read(tmp_path, text + ",5\n", comment="#")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"quoting": "always"},
            "quoting='always' is unknown; choose one of none, quotes, multiline",
        ),
        ({"delimiter": '"'}, "delimiter='\"' cannot be used"),
        ({"delimiter": ""}, "delimiter='' cannot be used"),
        ({"comment": "//"}, "comment='//' must be one ASCII character"),
        ({"encoding": "latin1000"}, "encoding='latin1000' is unknown"),
        ({"encoding": "hex"}, "encoding='hex' is unknown"),
        ({"encoding": "utf-16"}, "is not utf-16 text"),
        ({"decimal": "'"}, 'decimal="\'" is unknown'),
        ({"bad_rows": "drop"}, "bad_rows='drop' is unknown; choose one of error, skip"),
        ({"time_unit": "m"}, "time_unit='m' is unknown; choose one of auto, s, ms, us, ns"),
        ({"item": "user"}, "the column 'user' is named twice"),
        ({"delimiter": ";"}, "has no column 'user'"),
    ],
)
def test_options_that_are_refused(tmp_path, options, message):
    with pytest.raises(MatineeError, match=message):
        read(tmp_path, "user,item\n1,2\n", **options)


def test_a_control_character_beside_a_long_delimiter(tmp_path):
    with pytest.raises(MatineeError, match="0x1f"):
        read(tmp_path, "user::item\n1::2\x1f\n", delimiter="::")


@pytest.mark.parametrize("block", [8, 4096])
@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("\ufeffu,i\n1,2\n\ufeff3,4\n", 3, "byte order mark, as where files were joined"),
        ("\ufeffu,i\n1,2\n\ufeffu,i\n3,4\n", 3, "byte order mark"),
        ('u,i\n1,2\n3,"a\nb"\n\ufeff3,4\n', 5, "byte order mark"),
        ("u,i\n1,2\nu,i\n3,4\n", 3, "the row repeats the header; remove it"),
        ('"u","i"\n1,2\n"u","i"\n3,4\n', 3, "the row repeats the header"),
        ("u,i\n1,2\n3\0,4\n", 3, "the line holds a NUL byte"),
        ("u,i\n1,2\n3,4\n\0\0\0", 4, "the line holds a NUL byte"),
    ],
)
def test_lines_that_are_no_rows(tmp_path, monkeypatch, block, text, line, problem):
    monkeypatch.setattr(streams, "_BLOCK", block)
    options = {"user": "u", "item": "i"}
    with pytest.raises(MatineeError, match=rf"line {line}: .*{problem}"):
        read(tmp_path, text, **options)
    kept = read(tmp_path, text, **options, bad_rows="skip")
    wrong = text.split("\n")[line - 1]
    assert kept == read(tmp_path, text.replace(f"\n{wrong}", "", 1), "other.csv", **options)


def test_a_header_beside_column_names(tmp_path):
    text = "user,item\na,b\n"
    with pytest.raises(MatineeError, match=r"line 1: the row repeats the header.*set header=true"):
        read(tmp_path, text, column_names=["user", "item"])
    assert read(tmp_path, text, column_names=["user", "item"], header=True) == [("a", "b")]


def test_what_looks_like_a_header_inside_a_field_is_text(tmp_path):
    text = 'user,item\n1,"a\nuser,item\nb"\n'
    assert read(tmp_path, text, quoting="multiline") == [(1, "a\nuser,item\nb")]


def test_quoted_names_between_tabs(tmp_path):
    text = '"user"\t"item"\n"a"\t"b"\n'
    with pytest.raises(MatineeError, match=r"has no column 'user'; .*set quoting=quotes"):
        read(tmp_path, text, "log.tsv")
    assert read(tmp_path, text, "log.tsv", quoting="quotes") == [("a", "b")]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_marks_of_other_encodings(tmp_path, encoding):
    data = "user,item\n1,2\n".encode(encoding)
    with pytest.raises(MatineeError, match=f"set encoding={encoding}"):
        read(tmp_path, data)
    assert read(tmp_path, data, encoding=encoding) == [(1, 2)]
