"""``matinee evaluate``: measure a finished run again, and store the metrics if asked to."""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matinee.errors import MatineeError
from matinee.experiment import building, measuring
from matinee.experiment.run_folder import (
    CONFIG,
    EVALUATION,
    PER_USER,
    RESULT,
    asked_folder,
    read_result,
)
from matinee.experiment.trainer import make_trainer
from matinee.verbs.printing import print_evaluation

QUESTION = ("run", "checkpoint", "histories", "segments")  # keys that define an evaluation
VARIED = ("checkpoint", "histories")  # those that can be part of a folder name


def evaluate_again(config: Any) -> None:
    """Measure the run of a composed ``evaluate`` config and print its metrics beside the recorded ones.

    Raises:
        MatineeError: Before measuring, if the run cannot be read or the output folder cannot be used;
            after measuring, if the metrics differ from the recorded ones.
    """
    folder = asked_folder(config.run)
    recorded = read_result(folder)["metrics"]
    histories = None if config.histories is None else str(config.histories)
    loaded = building.load_run(folder, config.checkpoint, config.segments, histories)
    asked = {key: str(config[key]) for key in QUESTION}
    output = None if config.output is None else claim_output(config.output, asked)
    loaded.config.trainer = config.trainer
    stages = ("train", "val", "test") if histories is None else ("val", "test")
    measured = measuring.evaluate(loaded, make_trainer(loaded.config, None), stages)
    if output is not None:
        measuring.record_evaluation(loaded, output, asked, measured)
    same = print_evaluation(measured.metrics, recorded, config.checkpoint, histories)
    if output is not None:
        print(f"written: {output / EVALUATION} and {output / PER_USER}", file=sys.stderr)
    if histories is None and config.checkpoint == "best" and not same:
        raise MatineeError(
            f"the metrics of {folder} differ from those recorded in its result.json."
        )


def claim_output(output: Any, asked: Mapping[str, str]) -> Path:
    """Create the output folder of an evaluation; it may hold an earlier result of the same evaluation.

    Args:
        output: Value of ``output``.
        asked: The evaluation, by the keys of :data:`QUESTION`.

    Raises:
        MatineeError: If it is not a usable folder, or holds a run or another evaluation.
    """
    if not isinstance(output, str | int) or isinstance(output, bool) or not str(output).strip():
        raise MatineeError(f"output is {output!r}; name a folder.")
    folder = Path(str(output))
    for name in (CONFIG, RESULT):
        if (folder / name).exists():
            raise MatineeError(
                f"output={folder} is a run folder, and its {PER_USER} would be overwritten; name "
                "another folder."
            )
    if (folder / EVALUATION).exists():
        _check_same(folder, asked)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MatineeError(
            f"output={folder} cannot be created ({error}); name another folder."
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise MatineeError(f"output={folder} cannot be written; name another folder.")
    return folder


def _check_same(folder: Path, asked: Mapping[str, str]) -> None:
    path = folder / EVALUATION
    try:
        found = json.loads(path.read_text())
        known = {key: str(found.get(key)) for key in asked}
    except (OSError, ValueError, AttributeError) as error:
        raise MatineeError(f"{path} cannot be read; name another output.") from error
    for key, value in asked.items():
        there, here = known[key], value
        if key == "run":
            there, here = str(Path(there).resolve()), str(Path(here).resolve())
        if there != here:
            hint = f", such as 'output={folder}/${{{key}}}'" if key in VARIED else ""
            raise MatineeError(
                f"output={folder} holds the evaluation of {key}={known[key]}, not {value}; name "
                f"another folder{hint}."
            )
