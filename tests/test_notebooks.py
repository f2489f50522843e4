"""Every notebook is stripped, paired with its text, and runs from a clean kernel on the real data."""

import ast
import os
from pathlib import Path

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NOTEBOOKS = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
QUICK = {"exploratory_analysis"}  # the others train for half a minute or more


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


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_what_a_notebook_imports_is_there(name: str) -> None:
    text = jupytext.read(FOLDER / f"{name}.py")
    code = "\n".join(cell.source for cell in text.cells if cell.cell_type == "code")
    lines = [line for line in code.splitlines() if not line.lstrip().startswith("%")]
    imports = [
        node
        for node in ast.walk(ast.parse("\n".join(lines)))
        if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith("matinee.")
    ]
    assert imports
    exec(compile(ast.Module(imports, type_ignores=[]), f"{name}.py", "exec"), {})


@pytest.mark.network
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in NOTEBOOKS]
)
def test_notebook_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    folder = tmp_path / "work"
    folder.mkdir()
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    client = NotebookClient(
        notebook, timeout=None, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    assert not os.listdir(folder), "runs belong in a temporary folder"
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    said = "".join(output.text for output in outputs if output.output_type == "stream")
    assert "Warning" not in said, said
