"""``matinee evaluate``: measure a finished run again, and store the metrics if asked to."""

import json
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matinee.config.trees import differences
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
            after measuring, if the metrics differ from the recorded ones: by a bit on the kind of device
            that recorded them, by more than the task's ``device_tolerance`` on another kind.
    """
    folder = asked_folder(config.run)
    result = read_result(folder)
    recorded = result["metrics"]
    histories = None if config.histories is None else str(config.histories)
    loaded = building.load_run(
        folder, config.checkpoint, config.segments, histories, config.dataset
    )
    asked = {key: str(config[key]) for key in QUESTION}
    output = None if config.output is None else claim_output(config.output, asked)
    loaded.config.trainer = config.trainer
    stages = loaded.datamodule.measured if histories is None else ("val", "test")
    trainer = make_trainer(loaded.config, None)
    measured = measuring.evaluate(loaded, trainer, stages)
    if output is not None:
        measuring.record_evaluation(loaded, output, asked, measured)
    here = type(trainer.accelerator).__name__
    there = result["environment"].get("accelerator", here)
    tolerance = (0.0, 0.0) if here == there else loaded.task.device_tolerance
    print_evaluation(measured.metrics, recorded, config.checkpoint, histories, (there, here))
    if output is not None:
        print(f"written: {output / EVALUATION} and {output / PER_USER}", file=sys.stderr)
    if histories is None and config.checkpoint == "best":
        check_agreement(folder, measured.metrics, recorded, *tolerance)


def check_agreement(
    folder: Path,
    metrics: Mapping[str, float],
    recorded: Mapping[str, float],
    relative: float,
    absolute: float,
) -> None:
    """Compare the metrics that an evaluation and a record share.

    Args:
        folder: The run folder.
        metrics: The new metrics.
        recorded: The recorded metrics.
        relative: Largest relative difference; 0 requires the same bits.
        absolute: Largest absolute difference of metrics that exceed ``relative``.

    Raises:
        MatineeError: If they share none, or one differs by more than both tolerances.
    """
    shared = metrics.keys() & recorded
    near = [
        math.isclose(metrics[name], recorded[name], rel_tol=relative, abs_tol=absolute)
        for name in shared
    ]
    if not shared or not all(near):
        allowed = f"{relative:g} of a value" + f" or {absolute:g}" * (absolute > 0)
        beyond = f" by more than another kind of device explains ({allowed})" if relative else ""
        raise MatineeError(
            f"the metrics of {folder} differ from those recorded in its result.json{beyond}."
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
        _check_question(folder, asked)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MatineeError(
            f"output={folder} cannot be created ({error}); name another folder."
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise MatineeError(f"output={folder} cannot be written; name another folder.")
    return folder


def _check_question(folder: Path, asked: Mapping[str, str]) -> None:
    path = folder / EVALUATION
    try:
        found = json.loads(path.read_text())
        known = {key: str(found.get(key)) for key in asked}
    except (OSError, ValueError, AttributeError) as error:
        raise MatineeError(f"{path} cannot be read; name another output.") from error
    for key, _, _ in differences(*({**q, "run": Path(q["run"]).resolve()} for q in (known, asked))):
        hint = f", such as 'output={folder}/${{{key}}}'" if key in VARIED else ""
        raise MatineeError(
            f"output={folder} holds the evaluation of {key}={known[key]}, not {asked[key]}; name "
            f"another folder{hint}."
        )
