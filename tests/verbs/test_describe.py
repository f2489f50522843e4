"""The verb that describes a dataset: its text, its page, and what it refuses."""

import re
from pathlib import Path

import pytest

from command_line import failed, matinee


@pytest.fixture
def dataset(table_overrides: list[str]) -> list[str]:
    return [entry for entry in table_overrides if entry.startswith("dataset")]


def test_text(dataset, tmp_path):
    done = matinee("describe", *dataset, "split=chronological", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("# table\n")
    for heading in (
        "Rows of users and items",
        "The most frequent items",
        "Ratings",
        "Parts of the split",
    ):
        assert f"## {heading}\n" in done.stdout
    assert re.search(r"\| users +\| 60 +\|", done.stdout)
    assert "within a year of 1970" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", [["--html", "out/data.html"], ["html=out/data.html"]])
def test_page(dataset, tmp_path, option):
    done = matinee("describe", *dataset, *option, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "out" / "data.html").read_text()
    assert page.count("<svg") == 4
    assert "<h2>What looks wrong</h2>" in page
    assert not re.search(r"(src|href)=\"(?!data:|#)", page), "the page asks for nothing"


def test_odd_texts_are_shown_as_text(tmp_path):
    path = tmp_path / "log.csv"
    rows = [f"<script>{row % 2},{row},<b>Film</b>" for row in range(30)]
    path.write_text("\n".join(["user,item,title", *rows]) + "\n")
    columns = ["dataset.user=user", "dataset.item=item", "dataset.title=title"]
    done = matinee(
        "describe", "dataset=table", f"dataset.path={path}", *columns, "html=d.html", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "d.html").read_text()
    assert "<script" not in page
    assert "&lt;b&gt;Film" in page


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["html=data.txt"], "html is 'data.txt'; name a file that ends in .html"),
        (["html=3"], "html is 3; name a file"),
        (["split=last"], "there is no split=last"),
        (["split=given"], "split=given needs the part of each row"),
        (["model=mf"], "unknown key 'model'"),
        (["dataset.path=none.csv"], "none.csv does not exist"),
    ],
)
def test_refusals(dataset: list[str], tmp_path: Path, arguments: list[str], sentence: str):
    assert sentence in failed(matinee("describe", *dataset, *arguments, cwd=tmp_path))
