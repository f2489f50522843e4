"""Write one artefact from a run: both programs, checked against the run, with ids and a manifest."""

import platform
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from matinee.errors import MatineeError
from matinee.experiment.building import Experiment, load_run
from matinee.experiment.reading import read_text
from matinee.experiment.run_folder import RESULT, asked_folder, environment, read_record, write_json
from matinee.verbs.export import parity
from matinee.verbs.export.artefact import (
    FORM,
    HISTORIES,
    ITEMS,
    MANIFEST,
    ONNX,
    TORCH,
    USERS,
    new_folder,
    sha256,
    write_catalogue,
    write_histories,
)
from matinee.verbs.export.programs import (
    FLOAT32,
    NextItemProgram,
    Port,
    Program,
    exported,
    onnx_program,
    program_of,
)
from matinee.verbs.export.weights import headline_values, with_int8_tables

INT8 = "int8"
NEEDED = ("onnx", "onnxscript", "onnxruntime")
MOST_IN_ONE_FILE = 2**31 - 2**24  # bytes of weights; larger files of ONNX keep them in a second one


def export(config: Any) -> dict[str, Any]:
    """Export the run that a composed ``export`` config names; return the manifest."""
    folder = asked_folder(config.run)
    check_installed("export", NEEDED)
    experiment = load_run(folder, config.checkpoint, dataset=config.dataset)
    if not (folder / RESULT).exists():
        print(f"{folder} has not finished; using its best epoch so far.", file=sys.stderr)
    return write_artefact(
        experiment,
        folder,
        Path(config.output),
        checks=config.checks,
        tolerance=config.tolerance,
        histories=config.user_histories,
        weights=config.weights,
    )


def check_installed(extra: str, packages: tuple[str, ...]) -> None:
    """Reject a verb whose packages are not installed.

    Raises:
        MatineeError: Naming the extra that installs them.
    """
    if missing := [name for name in packages if find_spec(name) is None]:
        raise MatineeError(
            f"{', '.join(missing)} must be installed; run: pip install 'matinee[{extra}]'."
        )


def write_artefact(
    experiment: Experiment,
    run: Path,
    output: Path,
    checks: int = 1000,
    tolerance: float = 1e-4,
    histories: bool = True,
    weights: str = FLOAT32,
) -> dict[str, Any]:
    """Write an artefact, atomically, after both programs have been compared with the run.

    Args:
        experiment: The loaded run.
        run: Its folder.
        output: The folder to make.
        checks: Number of random histories, or for a rating model of users, to compare; at least 1.
        tolerance: Largest difference of two scores, relative to the larger of 1 and the largest score.
        histories: Whether to include what each user met.
        weights: ``float32``, or ``int8`` for tables of items and users in a quarter of the space. The
            programs are then compared with the run of these weights, and the manifest says what they cost.

    Returns:
        The manifest.

    Raises:
        MatineeError: If the model cannot be exported, a program disagrees with the run, an option is out of
            range, or ``output`` is taken.
    """
    if checks < 1:
        raise MatineeError(f"checks is {checks}; give a whole number of at least 1.")
    if not 0 < tolerance < 1:
        raise MatineeError(f"tolerance is {tolerance}; give a number above 0 and below 1.")
    if weights not in (FLOAT32, INT8):
        raise MatineeError(f"weights is {weights!r}; choose {FLOAT32} or {INT8}.")
    interactions, task = experiment.datamodule.interactions, experiment.task
    program_of(task)  # refuse what cannot be exported in any form
    if weights == INT8:
        task = with_int8_tables(task)
    program = program_of(task)
    newest = _newest(experiment, program)
    with new_folder(output) as folder:
        traced = exported(program)
        torch.export.save(traced, folder / TORCH)
        translated = onnx_program(traced, task.network, program.output.name)
        size = sum(tensor.nbytes for tensor in program.state_dict().values())
        translated.save(folder / ONNX, external_data=size > MOST_IN_ONE_FILE)
        del translated, traced
        answers = {
            TORCH: parity.torch_answer(folder / TORCH),
            ONNX: parity.onnx_answer(folder / ONNX),
        }
        agreement = parity.compare(
            task, answers, _cases(experiment, program, newest, checks), tolerance
        )
        costs = headline_values(experiment, program, answers) if weights == INT8 else {}
        write_catalogue(folder / ITEMS, interactions.items, titles=True)
        write_catalogue(folder / USERS, interactions.users, titles=False)
        if histories:
            needs_times = isinstance(program, NextItemProgram) and program.needs_times
            write_histories(folder / HISTORIES, interactions, needs_times)
        manifest = {
            "form": FORM,
            "kind": "next item" if isinstance(program, NextItemProgram) else "rating",
            "inputs": [_port(port) for port in program.inputs],
            "output": _port(program.output),
            "max_length": program.max_length,
            "newest_items": newest,
            "rating_scale": getattr(program, "rating_scale", None),
            "users": interactions.num_users,
            "items": interactions.num_items,
            **_origin(experiment, run),
            "weights": {"stored": weights, **costs},
            "parity": {"tolerance": tolerance, **agreement},
            "files": {
                path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)}
                for path in sorted(folder.iterdir())
            },
        }
        write_json(folder / MANIFEST, manifest)
    return manifest


def parity_table(manifest: Mapping[str, Any]) -> pd.DataFrame:
    """Lay out how the programs of a manifest agreed with the run: a row for each program."""
    found = {name: part for name, part in manifest["parity"].items() if isinstance(part, Mapping)}
    costs = manifest["weights"]
    return pd.DataFrame(
        {
            "program": name,
            "size": f"{manifest['files'][name]['bytes'] / 1e6:.1f} MB",
            "compared": part["rows"],
            "largest difference": f"{part['largest_difference']:.1e}",
            f"equal top {parity.TOP}": f"{part[f'equal_top_{parity.TOP}']:.2%}",
            **(
                {costs["metric"]: f"{costs[name]:.4f} (run: {costs['run']:.4f})"}
                if name in costs
                else {}
            ),
        }
        for name, part in found.items()
    )


def _newest(experiment: Experiment, program: Program) -> int | None:
    """Return how many of a user's newest items the run reads; None for a model of pairs."""
    if not isinstance(program, NextItemProgram):
        return None
    longest: int = experiment.datamodule.eval_length - 1  # type: ignore[attr-defined]
    return longest if program.max_length is None else min(longest, program.max_length - 1)


def _cases(
    experiment: Experiment, program: Program, newest: int | None, checks: int
) -> Iterator[parity.Arrays]:
    interactions = experiment.datamodule.interactions
    num_items, num_users = interactions.num_items, interactions.num_users
    if isinstance(program, NextItemProgram):
        assert newest is not None
        return parity.histories(checks, newest, num_items, num_users, program.needs_times)
    return parity.pairs(checks, num_items, num_users)


def _port(port: Port) -> dict[str, Any]:
    return {
        "name": port.name,
        "dtype": port.dtype,
        "shape": list(port.shape),
        "meaning": port.meaning,
    }


def _origin(experiment: Experiment, run: Path) -> dict[str, Any]:
    """Say which run this is, how it was measured, and with which versions it is exported."""
    has_result = read_text(run, RESULT) is not None
    result: Mapping[str, Any] = read_record(run) if has_result else {}
    parent = result.get("parent")
    versions = environment(experiment.config)["versions"]
    return {
        "run": {
            "name": experiment.config.name,
            "folder": run.resolve().name,
            "model": str(experiment.config.model._target_),
            "seed": experiment.config.seed,
        },
        "protocol": {**experiment.datamodule.protocol, **experiment.task.protocol},
        "headline": result.get("headline"),
        "metrics": result.get("metrics"),
        "parent": parent and {**parent, "run": Path(parent["run"]).name},
        "versions": {
            **versions,
            **{name: version(name) for name in NEEDED},
            "platform": platform.platform(),
        },
    }
