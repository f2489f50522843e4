"""Every notebook is stripped, paired with its text, and runs from a clean kernel on the real data."""

import os
import time
from pathlib import Path

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NOTEBOOKS = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
MOST_SECONDS = {  # generous: together they take a minute of CPU time
    "exploratory_analysis": 100,
    "homework": 450,
    "interpreting_embeddings": 450,
}


def test_every_notebook_has_its_text() -> None:
    assert NOTEBOOKS
    assert sorted(path.stem for path in FOLDER.glob("*.py")) == NOTEBOOKS


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_is_stripped_and_in_step_with_its_text(name: str) -> None:
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    text = jupytext.read(FOLDER / f"{name}.py")
    nbformat.validate(notebook)
    assert notebook.metadata.jupytext.formats == "ipynb,py:percent"
    cells = [(cell.cell_type, cell.source) for cell in notebook.cells]
    remedy = f"run: jupytext --to ipynb notebooks/{name}.py"
    assert cells == [(cell.cell_type, cell.source) for cell in text.cells], remedy
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None, remedy
    assert cells[0][0] == "markdown" and "**Purpose.**" in cells[0][1]


@pytest.mark.network
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    folder = tmp_path / "work"
    folder.mkdir()
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    most = MOST_SECONDS.get(name, 300)
    client = NotebookClient(
        notebook, timeout=most, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    started = time.perf_counter()
    client.execute()
    seconds = time.perf_counter() - started
    assert seconds < most, f"{name} took {seconds:.0f} s"
    assert not os.listdir(folder), "runs belong in a temporary folder"
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    said = "".join(output.text for output in outputs if output.get("name") == "stderr")
    assert "Warning" not in said, said
