"""CONTRIBUTING.md shows code of the sample package, which other tests run; the rest runs here."""

import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "tests" / "sample_package"
BLOCK = re.compile(r'^```(\w+)(?: title="(.+?)")?\n(.*?)^```', re.MULTILINE | re.DOTALL)
BLOCKS = [match.groups() for match in BLOCK.finditer((ROOT / "CONTRIBUTING.md").read_text())]


def test_code_is_that_of_the_sample_package() -> None:
    shown = [(title, code) for _, title, code in BLOCKS if title and not title.startswith("src/")]
    assert len(shown) > 20
    for title, code in shown:
        assert code in (SAMPLE / title).read_text(), f"{title}\n{code}"


def test_every_other_block_is_a_command_or_the_verb() -> None:
    others = [block for block in BLOCKS if not block[1] or block[1].startswith("src/")]
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for language, title, code in others:
        if title:
            assert title == "src/matinee/verbs/sizes.py"
            continue
        assert language == "bash"
        for line in code.splitlines():
            words = line.split()
            assert words[0] == "MATINEE_PACKAGES=sample_parts" or (
                words[0] == "make" and words[1] in targets
            ), line


def test_verb_runs(capsys: pytest.CaptureFixture[str], table_overrides: list[str]) -> None:
    (code,) = (code for _, title, code in BLOCKS if title and title.endswith("verbs/sizes.py"))
    namespace: dict[str, Any] = {"__name__": "sizes"}
    exec(code, namespace)
    namespace["run"]([*table_overrides, "split=random"])
    sizes = eval(capsys.readouterr().out)
    assert set(sizes) == {"train", "validation", "test"}
    assert min(sizes.values()) > 0
