"""Compare finished runs: group them by their seeds, and compare groups only under one protocol.

A protocol is the data, the split and the rules of evaluation.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from matinee.config.folders import config_dir
from matinee.config.trees import flatten
from matinee.contracts import Headline
from matinee.display.markdown import DECIMALS
from matinee.verbs.report.runs import Run, changed_keys, find_runs, without_seeds


@dataclass(frozen=True)
class RunGroup:
    """Runs that differ only in their seeds, in the order of the seeds."""

    label: str
    runs: Sequence[Run]

    @property
    def effective_config(self) -> dict[str, Any]:
        """The config keys that can change a result, without the seeds."""
        return without_seeds(self.runs[0].effective_config)

    def values(self, metric: str) -> list[float]:
        """Return a metric such as ``test/rmse`` of every run that has it."""
        return [
            run.result["metrics"][metric] for run in self.runs if metric in run.result["metrics"]
        ]

    def mean(self, metric: str) -> float:
        """Average a metric over the runs; NaN if none has it."""
        values = self.values(metric)
        return float(np.mean(values)) if values else float("nan")


@dataclass(frozen=True)
class Comparison:
    """All groups of one protocol, side by side.

    Attributes:
        heading: Dataset and split. If two protocols share them, also what differs.
        dataset: The name of the data.
        protocol: What is the same in all runs, without the draw of the split.
        groups: The groups, from the worst on validation to the best.
        published: Published metrics on the same data and split, by model and metric.
        shared: The overrides of all runs, which labels leave out; empty for a single group.
    """

    heading: str
    dataset: str
    protocol: Mapping[str, Any]
    groups: Sequence[RunGroup]
    published: Mapping[str, Mapping[str, float]]
    shared: Sequence[str]

    @property
    def headline(self) -> Headline:
        """The metric by which models are selected, the same in all runs."""
        return self.groups[0].runs[0].headline

    def reference(self, group: RunGroup, metric: str) -> float | None:
        """Return the published value of a metric for the model of a group, or None."""
        return self.published.get(group.runs[0].label, {}).get(metric)

    @property
    def remark(self) -> str:
        """A sentence that names groups with other draws of the split than the best; maybe empty."""
        draws = [{run.draw for run in group.runs} for group in self.groups]
        other = [
            group.label
            for group, drawn in zip(self.groups, draws, strict=True)
            if drawn != draws[-1]
        ]
        if not other:
            return ""
        best = self.groups[-1].label
        return f"Not measured on the same draws of the split as {best}: {', '.join(other)}."


def compare(folders: Sequence[Path]) -> tuple[list[Comparison], list[str]]:
    """Compare all finished runs below some folders.

    Args:
        folders: Where to look, at any depth.

    Returns:
        One comparison for each protocol, in the order of their first runs; and remarks on runs that
        are left out.

    Raises:
        MatineeError: If a folder is missing, a run is broken or none is found.
    """
    runs, remarks = find_runs(folders)
    tables: dict[str, dict[str, dict[str, Run]]] = defaultdict(lambda: defaultdict(dict))
    for run in runs:
        of_protocol = tables[_protocol_key(run)]
        of_protocol[run.label + run.key(of_all_seeds=True)][run.key(of_all_seeds=False)] = run
    kept = sum(len(runs) for groups in tables.values() for runs in groups.values())
    if kept < len(runs):
        replaced = len(runs) - kept
        remarks.insert(
            0, f"{replaced} run{'s' * (replaced > 1)} that a later one of the same seed replaces"
        )
    named = [json.loads(key)[:2] for key in tables]
    comparisons = [
        _comparison(heading, dataset, protocol, groups.values())
        for heading, (dataset, protocol), groups in zip(
            _headings(named), named, tables.values(), strict=True
        )
    ]
    return comparisons, remarks


def _protocol_key(run: Run) -> str:
    parts = [_name(run.config["dataset"]), _without_draw(run), asdict(run.headline)]
    return json.dumps(parts, sort_keys=True)


def _name(dataset: Any) -> str:
    if not isinstance(dataset, Mapping):
        return "made up"
    reader = str(dataset.get("_target_")).removeprefix("matinee.data.sources.")
    if reader.startswith("subset."):
        return _part(dataset)
    if reader.startswith("lastfm."):
        return "lastfm-1k"
    if reader.startswith("synthetic."):
        return reader.removeprefix("synthetic.")
    return str(dataset.get("name") or Path(str(dataset.get("path") or "made up")).name)


def _part(dataset: Mapping[str, Any]) -> str:
    """Name a part of another data set; the oldest is part 1."""
    folds, least = dataset.get("folds", 1), dataset.get("min_item_count", 1)
    name, fold = _name(dataset.get("source")), dataset.get("fold", 0)
    number = fold + 1 if isinstance(fold, int) else fold
    words = name if folds == 1 else f"part {number} of {folds} of {name}"
    return words if least == 1 else f"{words}, items of {least} rows and more"


def _without_draw(run: Run) -> dict[str, Any]:
    """Return the protocol without what differs between draws of one split."""
    protocol = run.result["protocol"]
    same = ["name", "options"]
    if "seed" not in run.config["split"]:  # without random draws, other rows are another split
        same.append("fingerprint")
    kept = {key: value for key, value in protocol.items() if key != "evaluated_windows"}
    return {**kept, "split": {key: protocol["split"][key] for key in same}}


def _comparison(
    heading: str, dataset: str, protocol: Mapping[str, Any], by_seed: Iterable[Mapping[str, Run]]
) -> Comparison:
    sorted_runs = [sorted(runs.values(), key=lambda run: run.config["seed"]) for runs in by_seed]
    every = [run.changes for runs in sorted_runs for run in runs]
    shared = [entry for entry in every[0] if all(entry in changes for changes in every)]
    shared = shared if len(sorted_runs) > 1 else []
    groups = _with_unique_labels(
        [RunGroup(runs[0].label_without(shared), runs) for runs in sorted_runs]
    )
    known = published(dataset, protocol)
    comparison = Comparison(heading, dataset, protocol, groups, known, shared)
    headline = comparison.headline

    def goodness(group: RunGroup) -> float:
        mean = headline.goodness(round(group.mean(headline.monitor), DECIMALS))
        return -np.inf if np.isnan(mean) else mean  # equal as printed: in the order they ran

    return replace(comparison, groups=sorted(groups, key=goodness))


def _with_unique_labels(groups: Sequence[RunGroup]) -> list[RunGroup]:
    """Extend labels that several groups share by the config keys that differ between them."""
    twins: dict[str, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        twins[group.label].append(index)
    labelled = list(groups)
    for indices in twins.values():
        changes = changed_keys([groups[index].effective_config for index in indices])
        for index, change in zip(indices, changes, strict=True):
            words = [groups[index].label, *(f"{key}={value}" for key, value in change.items())]
            labelled[index] = replace(groups[index], label=" ".join(words))
    return labelled


def _headings(named_protocols: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    short = [
        f"{dataset}, {protocol['split']['name']} split" for dataset, protocol in named_protocols
    ]
    headings: list[str] = []
    for heading in short:
        index = len(headings)
        twins = [i for i, other in enumerate(short) if other == heading]
        every = changed_keys([flatten(named_protocols[twin][1]) for twin in twins])
        changes = every[twins.index(index)]
        if "dataset.sha256" in changes:  # other data have other sizes, and other rows in a split
            others = [change for change in every if change is not changes]
            alone = all(change["dataset.sha256"] != changes["dataset.sha256"] for change in others)
            follows = ("dataset.", "split.fingerprint") if alone else ("dataset.",)
            changes = {
                key: value
                for key, value in changes.items()
                if key == "dataset.sha256" or not key.startswith(follows)
            }
        words = [
            f"{key.removeprefix('split.options.')}={str(value)[:12] if _is_hash(key) else value}"
            for key, value in changes.items()
        ]
        headings.append(f"{heading} ({', '.join(words)})" if words else heading)
    return headings


def _is_hash(key: str) -> bool:
    return key.endswith(("sha256", "fingerprint"))


def protocol_facts(comparison: Comparison) -> dict[str, str]:
    """Describe the protocol of a comparison: its data, its split and its rules of evaluation.

    Returns:
        Phrases by what they describe, such as ``data`` and ``test``.
    """
    protocol = comparison.protocol
    data, split = protocol["dataset"], protocol["split"]
    runs = [run.result["protocol"] for entry in comparison.groups for run in entry.runs]
    options = [f"{key} {value}" for key, value in split["options"].items()]
    draws = len({run["split"]["fingerprint"] for run in runs})
    facts = {
        "data": f"{comparison.dataset}, {data['rows']:,} rows of {data.get('users', 0):,} users and "
        f"{data.get('items', 0):,} items, SHA-256 {data['sha256'][:12]}",
        "split": f"{', '.join([split['name'], *options])}; {draws} draw{'s' * (draws > 1)}",
    }
    for part, stage in (("validation", "val"), ("test", "test")):
        counts = [_counts(run, part, stage) for run in runs]
        words = [f"{_span(c[name] for c in counts if name in c)} {name}" for name in counts[0]]
        if words:
            facts[part] = ", ".join(words)
    if cut := protocol.get("windows"):
        targets = f"targets {cut['stride']} apart" if cut.get("stride") else _targets(cut)
        facts["windows"] = f"at most {cut['length']} items, {targets}"
    facts["seen items"] = "no candidates" if protocol.get("filter_seen") else "candidates too"
    for key, value in protocol.items():
        if key not in ("dataset", "split", "windows", "filter_seen"):
            facts[key] = str(value)
    if protocol.get("candidates", "").startswith("the rated pairs"):
        del facts["seen items"]
    if comparison.shared:
        facts["all runs"] = " ".join(comparison.shared)
    return facts


def _targets(windows: Mapping[str, Any]) -> str:
    """Name the targets of windows that have no stride."""
    chosen = windows.get("targets", "unknown")
    return "all rows are targets" if chosen == "all" else f"one target of each user ({chosen})"


def _counts(protocol: Mapping[str, Any], part: str, stage: str) -> dict[str, int]:
    """Return the sizes of a part of a split by name: rows, windows, and what is not in train."""
    split = protocol["split"]
    cold = split.get("cold", {}).get(part, {})
    counts = {
        "rows": split.get("rows", {}).get(part),
        "windows": protocol.get("evaluated_windows", {}).get(stage),
        "users not in train": cold.get("users"),
        "items not in train": cold.get("items"),
        "rows of either": cold.get("rows"),
    }
    return {name: count for name, count in counts.items() if count is not None}


def _span(counts: Iterable[int]) -> str:
    known = sorted(set(counts))
    return f"{known[0]:,}" if len(known) == 1 else f"{known[0]:,} to {known[-1]:,}"


def published(dataset: str, protocol: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return published metrics by model and metric, if they are for the same data, split and rules."""
    every: Any = OmegaConf.to_container(OmegaConf.load(config_dir() / "published.yaml"))
    known = every.get(dataset, {})
    split = known.get(protocol["split"]["name"], {})
    same_data = known.get("sha256") == protocol["dataset"]["sha256"]
    same_rules = all(protocol.get(rule) == kept for rule, kept in split.get("rules", {}).items())
    if not same_data or split.get("options") != protocol["split"]["options"] or not same_rules:
        return {}
    metrics: dict[str, dict[str, float]] = split["figures"]
    return metrics
