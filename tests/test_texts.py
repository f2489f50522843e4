"""Texts of others, such as titles and names of runs, wherever people open them."""

import csv
import io
import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import markdown
import numpy as np
import pandas as pd
import pytest
import yaml

from command_line import failed, matinee
from matinee.display.markdown import as_markdown, literal
from matinee.texts import table_cell, visible
from matinee.training.callbacks.projector import _labels
from matinee.verbs.report.comparison import compare
from matinee.verbs.report.output import as_csv

SCRIPTS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\\<script>alert(1)</script>",
    "\\\\<script>alert(1)</script>",
    '"><svg onload=alert(1)>',
    "--><script>alert(1)</script><!--",
    "![x](http://example.org/x.png)",
    "[x](javascript:alert(1))",
    "\\[x](javascript:alert(1))",
    "[x][y] [y]: http://example.org",
    "<http://example.org>",
]
FORMULAS = ["=1+1", "+1+1", "-1+1", "@SUM(1)", "\t=1", "\r=1", "=cmd|'/c calc'!A0", "-"]
CONTROLS = ["\x1b[2J", "\x1b]0;title\x07", "\x9b31m", "\r", "\x08", "\u202etxt", "\u2028", "\n"]


class Tags(HTMLParser):
    """Collects the tags of a page, and the attributes that load or run something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.found += [tag, *(name for name, _ in attributes)]


def actions(text: str) -> set[str]:
    return {n for n in Tags(text).found if n in ("script", "img", "a", "svg") or n.startswith("on")}


@pytest.mark.parametrize("text", CONTROLS)
def test_no_control_character_reaches_a_terminal(text: str) -> None:
    shown = visible(f"a{text}b")
    assert shown.isprintable() or shown.isascii()
    assert shown.startswith("a\\") and shown.endswith("b")
    assert visible("Amélie, 映画 👩‍🚀 (2001)") == "Amélie, 映画 👩‍🚀 (2001)"


@pytest.mark.parametrize("text", CONTROLS)
def test_an_error_shows_what_somebody_else_wrote_on_one_line(
    write_run: Callable[..., Path], text: str
) -> None:
    folder = write_run("theirs")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump(config | {f"a{text}": "x"}))
    sentence = failed(matinee("evaluate", f"run={folder}"))
    assert sentence.isprintable()


def test_a_long_error_is_shortened(write_run: Callable[..., Path]) -> None:
    folder = write_run("theirs", bait=["x" * 9000] * 9)
    assert len(failed(matinee("evaluate", f"run={folder}"))) < 2100


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_is_a_formula(write_run: Callable[..., Path], tmp_path: Path, text: str) -> None:
    assert table_cell(text) == (f"'{text}" if text[0] != "\r" else "\\r=1")
    folder = write_run("runs/theirs", name=text, dataset={"name": text})
    result = json.loads((folder / "result.json").read_text())
    result["metrics"][f"{text}/x"] = 1.0
    result["protocol"]["split"]["name"] = text
    (folder / "result.json").write_text(json.dumps(result))
    comparisons, _ = compare([tmp_path])
    rows = list(csv.reader(io.StringIO(as_csv(comparisons), newline="")))
    for cell in (cell for row in rows for cell in row):
        assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert len({len(row) for row in rows}) == 1


def test_numbers_stay_numbers() -> None:
    assert [table_cell(text) for text in ("-0.5", "+1e-3", "12", "Alien", "")] == [
        *("-0.5", "+1e-3", "12", "Alien", ""),
    ]


@pytest.mark.parametrize("text", [*FORMULAS, *CONTROLS])
def test_no_label_of_the_projector_is_a_formula(text: str) -> None:
    described = pd.DataFrame({"raw_id": [text, "b"], "title": [text, "b"], text: [1, 2]}, [1, 2])
    labels = _labels(described, np.array([1, 2]), np.array([0, 3, 4]))
    for cell in (*labels.columns, *labels.to_numpy().ravel()):
        assert cell.isprintable() and table_cell(cell) == cell


@pytest.mark.parametrize("text", SCRIPTS)
def test_markdown_shows_texts_as_they_are(text: str) -> None:
    table = as_markdown(pd.DataFrame({"title": [text, literal(text)], text: ["a", "b"]}))
    for shown in (table, literal(text), f"**After** {literal(text)}"):
        assert not actions(markdown.markdown(shown, extensions=["tables"])), shown


@pytest.mark.parametrize("text", [*SCRIPTS, "$\\frac", *CONTROLS])
def test_reports_and_pages_show_texts_as_they_are(
    write_run: Callable[..., Path], tmp_path: Path, text: str
) -> None:
    metric = text.replace("/", "|")
    for model in ("a", "b"):
        folder = write_run(f"runs/{model}", name=f"{model} {text}", overrides=(text,))
        result = json.loads((folder / "result.json").read_text())
        result["headline"]["metric"] = metric
        result["metrics"] = {f"val/{metric}": 1.0, f"test/{metric}": 1.0, "test/mae": 0.5}
        result["protocol"]["split"] |= {"name": text, "options": {text: text}}
        result["protocol"]["ties"] = text
        (folder / "result.json").write_text(json.dumps(result))
        (folder / "metrics.csv").write_text("epoch\n0\n")
    saved = tmp_path / "saved"
    done = matinee(
        "report", str(tmp_path / "runs"), "--html", str(saved / "x.html"), "--save", str(saved)
    )
    assert done.returncode == 0, done.stderr
    assert not {c for c in done.stdout if not c.isprintable()} - {"\n"}
    page = (saved / "x.html").read_text()
    tags = Tags(page).found
    assert not {name for name in tags if name.startswith("on")} and "img" not in tags
    assert tags.count("script") == 1
    report = markdown.markdown((saved / "report.md").read_text(), extensions=["tables"])
    assert not actions(report)


def test_a_config_cannot_leave_its_block_in_tensorboard() -> None:
    from textwrap import indent

    config = yaml.safe_dump({"name": "a\n```\n\n<script>alert(1)</script>\n"})
    shown = markdown.markdown(indent(config, "    "), extensions=["fenced_code", "tables"])
    assert not actions(shown)
