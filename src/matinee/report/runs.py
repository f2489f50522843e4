"""Finished runs, read back for comparison: nothing in them is built or called."""

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from matinee.configuration import flatten
from matinee.errors import MatineeError
from matinee.run_folder import CONFIG, OVERRIDES, RESULT, read_config, read_result

# overrides that a table tells by its heading, its label or its seeds
TOLD = re.compile(
    r"(experiment|model|seed|name|log_dir|run_folder|dataset|split|trainer|logger)=|(dataset|trainer|split)\.(?!seed=)"
    r"|callbacks\.(inspection|progress_bar)"
)
METRICS = "metrics.csv"
PLACES = {"name", "log_dir", "run_folder", "data_dir", "path"}
SEEDS = {"seed"}


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, what made it and what came of it."""

    folder: Path
    config: Mapping[str, Any]
    overrides: Sequence[str]
    result: Mapping[str, Any]

    @property
    def draw(self) -> str:
        """The fingerprint of the split: equal ones mean the very same test rows."""
        return str(self.result["protocol"]["split"]["fingerprint"])

    @property
    def label(self) -> str:
        """Its experiment or model, and what was changed on top of it."""
        changes = [entry for entry in self.overrides if not TOLD.match(entry)]
        return " ".join([Path(str(self.config["name"])).name, *changes])

    def curve(self, metric: str) -> list[float]:
        """Return a metric after each epoch, as ``metrics.csv`` has kept it; empty if it has not.

        Raises:
            MatineeError: If the file is broken.
        """
        path = self.folder / METRICS
        if not path.is_file():
            return []
        try:
            with path.open(newline="", encoding="utf-8") as file:
                return [float(row[metric]) for row in csv.DictReader(file) if row.get(metric)]
        except (OSError, ValueError, csv.Error) as error:
            raise MatineeError(f"{path} cannot be read ({error}); remove or restore it.") from error

    def key(self, without_seeds: bool) -> str:
        """Tell what was run, but for names and places: equal keys, equal work."""
        kept = without(self.config, PLACES | SEEDS if without_seeds else PLACES)
        return json.dumps(kept, sort_keys=True, default=str)


def find_runs(folders: Sequence[Path]) -> tuple[list[Run], list[str]]:
    """Read all finished runs below some folders.

    Args:
        folders: Where to look, at any depth; a run below two of them counts once.

    Returns:
        The runs, the earliest first; and a remark on those that have not finished.

    Raises:
        MatineeError: If a folder is missing, a run is broken or none is found.
    """
    paths: dict[Path, Path] = {}
    unfinished = set()
    for folder in folders:
        if not folder.is_dir():
            raise MatineeError(f"there is no folder {folder}; name folders that hold runs.")
        paths |= {path.parent.resolve(): path.parent for path in sorted(folder.rglob(RESULT))}
        unfinished |= {path.parent.resolve() for path in folder.rglob(CONFIG)}
    unfinished -= set(paths)
    if not paths:
        raise MatineeError(
            f"no finished run below {', '.join(map(str, folders))}; train one first."
        )
    runs = sorted(
        (_read(path) for path in paths.values()),
        key=lambda run: (str(run.result["environment"].get("finished", "")), run.folder.name),
    )
    count = len(unfinished)
    return runs, [f"{count} run{'s' * (count > 1)} not finished"] * bool(count)


def changed_keys(configs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Reduce configs to the dotted keys, seeds and places aside, whose values are not all equal."""
    flat = [flatten(without(config, PLACES | SEEDS | {"_partial_"})) for config in configs]
    keys = dict.fromkeys(key for entries in flat for key in entries)
    missing = object()
    differing = [
        key for key in keys if any(e.get(key, missing) != flat[0].get(key, missing) for e in flat)
    ]
    return [{key: entries[key] for key in differing if key in entries} for entries in flat]


def without(node: Any, keys: set[str]) -> Any:
    """Copy nested mappings without some keys, at whatever depth."""
    if isinstance(node, Mapping):
        return {key: without(value, keys) for key, value in node.items() if key not in keys}
    return node


def _read(folder: Path) -> Run:
    config: Any = OmegaConf.to_container(read_config(folder))
    result = read_result(folder)
    protocol, seconds = result["protocol"], result["environment"].get("seconds")
    parts = (
        (protocol.get("dataset"), {"sha256", "rows"}),
        (protocol.get("split"), {"name", "options", "fingerprint"}),
        (seconds, {"fit"}),
    )
    whole = all(isinstance(part, dict) and keys <= set(part) for part, keys in parts)
    if not whole or not all(isinstance(x, int | float) for x in result["metrics"].values()):
        raise MatineeError(
            f"{folder / RESULT} lacks part of a run's protocol or figures; restore it or train again."
        )
    if not {"dataset", "split", "name", "seed"} <= set(config):
        raise MatineeError(f"{folder / CONFIG} is no whole config; restore it or train again.")
    path = folder / OVERRIDES
    try:
        overrides: Any = OmegaConf.to_container(OmegaConf.load(path)) if path.is_file() else []
    except Exception as error:  # of many kinds, for YAML that is none
        raise MatineeError(f"{path} cannot be read; restore it or train again.") from error
    return Run(folder, config, [str(entry) for entry in overrides], result)
