"""Which folder may import which: the layers of ARCHITECTURE.md, checked in the sources themselves."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "matinee"
SMALL = {"errors", "files", "texts"}
MODELS = {"networks", "objectives", "metrics"}
BELOW_TRAINING = {"data", "contracts", "batches", *MODELS, *SMALL}
BELOW_VERBS = {"training", "config", "experiment", "display", *BELOW_TRAINING}
READING = {"experiment.reading", "experiment.run_folder"}
ALLOWED = {  # layer -> the layers of matinee that it may import besides itself
    "errors": set(),
    "files": {"errors"},
    "texts": set(),
    "data": SMALL,
    "contracts": {"data", *SMALL},
    "networks": {"data", "contracts", *MODELS, *SMALL},
    "objectives": {"data", "contracts", *MODELS, *SMALL},
    "metrics": {"data", "contracts", *MODELS, *SMALL},
    "display": {"data", "contracts", "metrics", *SMALL},
    "batches": {"data", "contracts", *MODELS, *SMALL},
    "testing": {"data", "contracts", *MODELS, *SMALL},
    "training": {"display", *BELOW_TRAINING},
    "config": {"contracts", *SMALL},
    "experiment": {"training", "config", "display", *BELOW_TRAINING},
    "verbs": BELOW_VERBS,
    "verbs.report": {"config", "contracts", "display", *READING, "metrics", *SMALL},
    "verbs.search": BELOW_VERBS,
    "cli": {"verbs", "verbs.report", "verbs.search", "__version__", *BELOW_VERBS},
    "__main__": {"cli"},
}
LIBRARIES = {  # the layers that may import a library; any layer may import one that is not listed
    "lightning": {"training", "experiment", "verbs", "verbs.search"},
    "hydra": {"config", "cli"},
    "omegaconf": {"config", "experiment", "verbs", "verbs.report", "verbs.search"},
}


def layer_of(module: str) -> str:
    """Return the layer of a module of matinee, named without the leading ``matinee.``."""
    return max((name for name in ALLOWED if f"{module}.".startswith(f"{name}.")), key=len)


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and the full name of everything that a module imports, at any depth."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def violations(name: str, source: str) -> list[str]:
    """List the imports of a module that its layer may not have."""
    layer, found = layer_of(name), []
    for line, full_name in imported(ast.parse(source)):
        library, _, module = full_name.partition(".")
        where = f"src/matinee/{name.replace('.', '/')}.py, line {line}: {layer} imports"
        if library == "matinee":
            allowed = {layer, *ALLOWED[layer]}
            if not any(f"{module}.".startswith(f"{other}.") for other in allowed):
                found.append(f"{where} {full_name}; it may import {', '.join(sorted(allowed))}.")
        elif layer not in LIBRARIES.get(library, {layer}):
            found.append(
                f"{where} {library}; only {', '.join(sorted(LIBRARIES[library]))} may do that."
            )
    return found


def modules() -> dict[str, Path]:
    """Return every module by its name, without the package's own ``__init__``."""
    paths = (path.relative_to(SOURCE) for path in SOURCE.rglob("*.py"))
    named = {".".join(path.with_suffix("").parts).removesuffix(".__init__"): path for path in paths}
    return {name: SOURCE / path for name, path in named.items() if name != "__init__"}


def test_no_module_imports_what_its_layer_may_not() -> None:
    found = [
        line for name, path in modules().items() for line in violations(name, path.read_text())
    ]
    assert not found, "\n".join(["see the table at the top of tests/test_layers.py", *found])


def test_every_folder_has_a_rule_and_every_rule_a_folder() -> None:
    names = modules()
    assert {name.split(".")[0] for name in names} == {layer.split(".")[0] for layer in ALLOWED}
    assert set(ALLOWED) <= {*names, "verbs.report", "verbs.search"}


@pytest.mark.parametrize(
    ("module", "source", "wrong"),
    [
        ("networks.new", "from matinee.training.tasks import RatingTask", "networks imports matinee.t"),
        ("batches.new", "def f():\n    import lightning.pytorch as pl", "line 2: batches imports lig"),
        ("training.new", "from omegaconf import DictConfig", "training imports omegaconf; only"),
        ("data.new", "if x:\n    import matinee.contracts", "data imports matinee.contracts"),
        ("verbs.report.new", "from matinee.experiment import building", "it may import config"),
        ("verbs.report.new", "from matinee.verbs.search import records", "report imports matinee.v"),
        ("metrics.new", "from matinee.networks.rankers.popularity import Popularity", ""),
        ("verbs.report.new", "from matinee.experiment.run_folder import CONFIG", ""),
    ],
)  # fmt: skip
def test_a_forbidden_import_is_named(module: str, source: str, wrong: str) -> None:
    assert wrong in "".join(violations(module, source))
    assert bool(wrong) == bool(violations(module, source))
