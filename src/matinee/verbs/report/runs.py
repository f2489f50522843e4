"""Finished runs, read to be compared. Nothing in their configs is built or called."""

import csv
import io
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from matinee.config.trees import read_yaml
from matinee.contracts import Headline
from matinee.errors import MatineeError, Refitted
from matinee.experiment.run_folder import (
    CONFIG,
    METRICS,
    OVERRIDES,
    PROTOCOL,
    RESULT,
    headline_of,
    read_config,
    read_result,
)
from matinee.verbs.report.effective_config import IGNORED, effective_config
from matinee.verbs.report.run_files import RunFiles, find_run_files

NAMED = {"experiment", "model", "split", "trainer", "seed"}  # in a label, heading or column
PARTS_READ = {"dataset": dict, "split": dict, "name": str, "seed": int}  # of a config
DEFAULTS = {"trainer.devices=1", "trainer.num_nodes=1"}  # launchers always pass them


@dataclass(frozen=True)
class Run:
    """A finished run: its files, config, command-line overrides and result."""

    files: RunFiles
    config: Mapping[str, Any]
    overrides: Sequence[str]
    result: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.files.folder

    @property
    def draw(self) -> str:
        """The fingerprint of the split. Runs with equal ones have the same test rows."""
        return str(self.result["protocol"]["split"]["fingerprint"])

    @property
    def headline(self) -> Headline:
        """The metric by which the task of the run selects models."""
        return headline_of(self.result)

    @property
    def changes(self) -> list[str]:
        """The overrides on top of the experiment or model that no heading or column names."""
        return [entry for entry in self.overrides if not _is_named(entry)]

    @property
    def label(self) -> str:
        """The name of the experiment or model, and the overrides on top of it."""
        return self.label_without(())

    def label_without(self, known: Sequence[str]) -> str:
        """Return the label without overrides that are known from elsewhere."""
        changes = (entry for entry in self.changes if entry not in known)
        return " ".join([Path(str(self.config["name"])).name, *changes])

    def curve(self, metric: str) -> list[float]:
        """Return a metric after each epoch from ``metrics.csv``; empty if it is not there.

        Raises:
            MatineeError: If the file is broken or a value is not finite.
        """
        rows = csv.DictReader(io.StringIO(self.files.text(METRICS) or ""))
        try:
            values = [float(row[metric]) for row in rows if row.get(metric)]
            if not all(map(math.isfinite, values)):
                raise ValueError(f"{metric} is not finite")
            return values
        except (ValueError, csv.Error) as error:
            path = self.folder / METRICS
            raise MatineeError(f"{path} cannot be read ({error}); remove or restore it.") from error

    @cached_property
    def effective_config(self) -> Mapping[str, Any]:
        """See :func:`matinee.verbs.report.effective_config.effective_config`."""
        return effective_config(self.config)

    def key(self, of_all_seeds: bool) -> str:
        """Return the effective config as text, with or without its seeds."""
        kept = without_seeds(self.effective_config) if of_all_seeds else self.effective_config
        return json.dumps(kept, sort_keys=True, default=str)


def find_runs(folders: Sequence[Path]) -> tuple[list[Run], list[str]]:
    """Read all finished runs below some folders.

    Args:
        folders: Where to look, at any depth; a run below two of them counts once.

    Returns:
        The runs, the earliest first; and a remark if there are unfinished ones.

    Raises:
        MatineeError: If a folder is missing, a run is broken or none is found.
    """
    found = find_run_files(folders)
    if not found:
        raise MatineeError(
            f"no finished run below {', '.join(map(str, folders))}; train one first."
        )
    runs, refits = [], []
    for files in found:
        try:
            runs.append(_read(files))
        except Refitted as refit:
            refits.append(files.folder.resolve())
            print(f"left out: {refit}", file=sys.stderr)
    if not runs:
        raise MatineeError(
            f"only refitted runs are below {', '.join(map(str, folders))}; name the runs that they refit."
        )
    runs.sort(
        key=lambda run: (str(run.result["environment"].get("finished", "")), run.folder.name),
    )
    started = {path.parent.resolve() for folder in folders for path in folder.rglob(PROTOCOL)}
    count = len(started - {run.folder.resolve() for run in runs} - {*refits})
    return runs, [f"{count} run{'s' * (count > 1)} not finished"] * bool(count)


def changed_keys(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Reduce flat configs or protocols to the keys whose values differ between them."""
    keys = dict.fromkeys(key for entry in entries for key in entry)
    missing = object()
    differing = [
        key
        for key in keys
        if any(entry.get(key, missing) != entries[0].get(key, missing) for entry in entries)
    ]
    return [{key: entry[key] for key in differing if key in entry} for entry in entries]


def without_seeds(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Copy a flat config without its seeds, at any depth."""
    return {key: value for key, value in flat.items() if key.rsplit(".", 1)[-1] != "seed"}


def _is_named(override: str) -> bool:
    """Whether a table names an override elsewhere than in the label, or need not name it."""
    key = override.lstrip("+~").partition("=")[0]
    in_heading = key.startswith("split.") and key != "split.seed"
    return key in NAMED or in_heading or bool(IGNORED.match(key)) or override in DEFAULTS


def _read(files: RunFiles) -> Run:
    folder = files.folder
    config: Any = OmegaConf.to_container(read_config(folder, files.text(CONFIG)))
    result = read_result(folder, files.text(RESULT))
    for key, kind in PARTS_READ.items():
        if not isinstance(config.get(key), kind) or isinstance(config[key], bool):
            raise MatineeError(
                f"{folder / CONFIG} is no whole config ({key} is {config.get(key)!r}); restore it or train "
                "again."
            )
    text = files.text(OVERRIDES)
    overrides = read_yaml(folder / OVERRIDES, text) if text else []
    if not isinstance(overrides, list):
        raise MatineeError(f"{folder / OVERRIDES} is no list; restore it or remove it.")
    return Run(files, config, [str(entry) for entry in overrides], result)
