"""Parents: the run that another one was made from, as its folder records it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matinee.config.trees import parse_json
from matinee.errors import MatineeError
from matinee.experiment.reading import read_text
from matinee.experiment.result_form import parent_misfit
from matinee.experiment.run_folder import CONFIG, read_record, read_result

PARENT = "parent.json"


def record_of(folder: Path, kind: str) -> dict[str, Any]:
    """Describe a finished run as the parent of another one.

    Args:
        folder: The run folder of the parent.
        kind: What the child does: ``refit``, or ``start`` from its weights.

    Returns:
        Its folder, the SHA-256 of its ``config.yaml``, its data and split, its best epoch and its metrics.

    Raises:
        Refitted: If it is to be refitted and was refitted itself.
        MatineeError: If the run has not finished.
    """
    result = read_result(folder) if kind == "refit" else read_record(folder)
    text = read_text(folder, CONFIG) or ""
    protocol = result["protocol"]
    return {
        "kind": kind,
        "run": str(folder.absolute()),
        "config_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "dataset_sha256": protocol["dataset"]["sha256"],
        "split_fingerprint": protocol["split"]["fingerprint"],
        "best_epoch": result.get("fit", {}).get("best_epoch"),
        "metrics": result["metrics"],
    }


def read_parent(folder: Path) -> dict[str, Any] | None:
    """Read what a run folder records of its parent; None if the run has none.

    Raises:
        MatineeError: If the record is broken.
    """
    text = read_text(folder, PARENT)
    if text is None:
        return None
    try:
        parent: dict[str, Any] = parse_json(text)
    except ValueError as error:
        raise MatineeError(f"{folder / PARENT} is no JSON ({error}); restore it.") from error
    if found := parent_misfit(parent):
        raise MatineeError(f"{folder / PARENT} is no record of a run ({found}); restore it.")
    return parent


def check_refit(parent: Mapping[str, Any], protocol: Mapping[str, Any]) -> None:
    """Reject data or a split that are not those of the parent.

    Args:
        parent: The record of the parent.
        protocol: The protocol of the data to train on.

    Raises:
        MatineeError: For what differs.
    """
    found = protocol["dataset"]["sha256"], protocol["split"]["options"]["fingerprint"]
    recorded = parent["dataset_sha256"], parent["split_fingerprint"]
    for what, here, there in zip(("data", "split"), found, recorded, strict=True):
        if here != there:
            raise MatineeError(
                f"the {what} of {parent['run']} have changed since it was trained (SHA-256 {there[:12]}... "
                f"then, {here[:12]}... now); restore them, or train again."
            )
