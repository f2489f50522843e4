"""What the README and the docs say can be done: their commands compose, and the files they name exist."""

import re
import subprocess
from pathlib import Path

import pytest

from matinee import cli
from matinee.config import composing

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FOLDERS = "benchmarks|configs|docs|launchers|lightning_logs|notebooks|requirements|src|tests"


def commands(page: Path) -> list[list[str]]:
    """Return the arguments of every matinee command of a page, as the shell splits them."""
    blocks = re.findall(r"^```bash\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    ours = [line for line in lines if re.match(r"matinee |\w+=\S+$", line)]
    script = "matinee() { printf '%s\\0' \"$@\"; printf '\\n'; }\n" + "\n".join(ours)
    done = subprocess.run(["bash", "-uc", script], capture_output=True, text=True, check=True)
    return [line.split("\0")[:-1] for line in done.stdout.splitlines()]


def composes(argv: list[str]) -> bool:
    """Tell whether a command composes a config here: reports and resumed runs read no new one."""
    words = " ".join(argv)
    other = re.search(r"^report|resume=lightning_logs|hydra/launcher=|--(help|cfg|version)", words)
    return other is None


def runs(argv: list[str]) -> list[list[str]]:
    """Return runs of a command that together have every choice of a sweep, instead of all of them."""
    if "-m" not in argv:
        return [argv]
    words = [choices(word) for word in argv if word != "-m"]
    return [[word[i % len(word)] for word in words] for i in range(max(map(len, words)))]


def choices(word: str) -> list[str]:
    """Split ``key=a,b`` of a sweep; of numbers the first is enough.

    >>> choices("loss=bpr,hinge"), choices("seed=0,1")
    (['loss=bpr', 'loss=hinge'], ['seed=0'])
    """
    key, equals, values = word.partition("=")
    if not equals or values[:1] in ("{", "["):
        return [word]
    listed = values.split(",")
    return [f"{key}={value}" for value in (listed[:1] if listed[0].isdigit() else listed)]


def test_commands_compose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    compose = composing.with_config
    composed = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        composing, "with_config", lambda verb, argv, task: compose(verb, argv, composed.append)
    )
    pages = {
        tuple(run): page.name
        for page in PAGES
        for argv in commands(page)
        if composes(argv)
        for run in runs(argv)
    }
    for run, page in pages.items():
        try:
            cli.main(run)
        except SystemExit:
            pytest.fail(f"{page}: matinee {' '.join(run)}\n{capsys.readouterr().err}")
    assert len(composed) == len(pages)


def test_commands_are_found() -> None:
    found = [argv for page in PAGES for argv in commands(page)]
    assert ["train", "model=ncf", "loss=huber", "optimizer.lr=0.002", "seed=1"] in found
    assert ["recommend", "run=lightning_logs/...", 'history=[50, "Toy Story"]'] in found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_named_files_exist(page: Path) -> None:
    if page.name == "CONTRIBUTING.md":
        pytest.skip("its recipes name files to be written")
    named = re.findall(rf"`((?:{FOLDERS})/[\w./-]*\w)[` ]", page.read_text())
    named = [path for path in named if not re.search(r"/[A-Z_-]+(/|$|\.(?!md))", path)]  # NAME.yaml
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_tables_list_the_choices_of_groups() -> None:
    listed: dict[str, set[str]] = {}
    for page in ("README.md", "docs/guide/data.md", "docs/guide/experiments.md"):
        rows = re.findall(r"^\| (`[^|]*) \| (.*) \|$", (ROOT / page).read_text(), re.MULTILINE)
        for groups, choices in rows:
            words = re.findall(r"`([\w-]+)`", choices)
            for group in re.findall(r"`(\w+)`", groups):
                listed.setdefault(group, set()).update(words)
    for group in (
        "dataset",
        "split",
        "data",
        "model",
        "loss",
        "sampler",
        "task",
        "callbacks",
        "logger",
    ):
        files = {path.stem for path in (ROOT / "configs" / group).glob("*.yaml")}
        assert listed[group] == files, group
