"""Comparisons: runs become experiments of several seeds, and those stand side by side.

They do so only where data, split and the meaning of the figures are the same.
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
class Experiment:
    """Runs that differ in nothing but their seeds, in the order of the seeds."""

    label: str
    runs: Sequence[Run]

    @property
    def work(self) -> dict[str, Any]:
        """What was asked for, seeds aside."""
        return without_seeds(self.runs[0].work)

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
    """All experiments of one protocol.

    Attributes:
        heading: Dataset and split; where that is ambiguous, what else tells it apart.
        dataset: The name of the data.
        protocol: What is the same for all figures, the draw of the split left out.
        experiments: The experiments, from the worst on validation to the best.
        published: Figures of others on the same data and split, by model and metric.
    """

    heading: str
    dataset: str
    protocol: Mapping[str, Any]
    experiments: Sequence[Experiment]
    published: Mapping[str, Mapping[str, float]]

    @property
    def headline(self) -> Headline:
        """The metric by which models are selected, the same in all runs."""
        return self.experiments[0].runs[0].headline

    def reference(self, experiment: Experiment, metric: str) -> float | None:
        """Return what others have published of a model as its experiment is, changed by no override."""
        return self.published.get(experiment.runs[0].label, {}).get(metric)

    @property
    def remark(self) -> str:
        """Say which figures are means over other draws of the split than those of the best."""
        draws = [{run.draw for run in experiment.runs} for experiment in self.experiments]
        other = [
            experiment.label
            for experiment, drawn in zip(self.experiments, draws, strict=True)
            if drawn != draws[-1]
        ]
        if not other:
            return ""
        best = self.experiments[-1].label
        return f"Not measured on the same draws of the split as {best}: {', '.join(other)}."


def compare(folders: Sequence[Path]) -> tuple[list[Comparison], list[str]]:
    """Gather all finished runs below some folders.

    Args:
        folders: Where to look, at any depth.

    Returns:
        One comparison a protocol, in the order of their first runs; and remarks on runs that are
        left out.

    Raises:
        MatineeError: If a folder is missing, a run is broken or none is found.
    """
    runs, remarks = find_runs(folders)
    tables: dict[str, dict[str, dict[str, Run]]] = defaultdict(lambda: defaultdict(dict))
    for run in runs:
        experiments = tables[_protocol_key(run)]
        experiments[run.label + run.key(of_all_seeds=True)][run.key(of_all_seeds=False)] = run
    kept = sum(len(runs) for experiments in tables.values() for runs in experiments.values())
    if kept < len(runs):
        replaced = len(runs) - kept
        remarks.insert(
            0, f"{replaced} run{'s' * (replaced > 1)} that a later one of the same seed replaces"
        )
    named = [json.loads(key)[:2] for key in tables]
    comparisons = [
        _comparison(heading, dataset, protocol, experiments.values())
        for heading, (dataset, protocol), experiments in zip(
            _headings(named), named, tables.values(), strict=True
        )
    ]
    return comparisons, remarks


def _protocol_key(run: Run) -> str:
    parts = [_name(run.config["dataset"]), _without_draw(run), asdict(run.headline)]
    return json.dumps(parts, sort_keys=True)


def _name(dataset: Mapping[str, Any]) -> str:
    reader = str(dataset.get("_target_")).removeprefix("matinee.data.sources.")
    if reader.startswith("subset."):
        return _part(dataset)
    if reader.startswith("lastfm."):
        return "lastfm-1k"
    if reader.startswith("synthetic."):
        return reader.removeprefix("synthetic.")
    return str(dataset.get("name") or Path(dataset.get("path") or "made up").name)


def _part(dataset: Mapping[str, Any]) -> str:
    """Name a part of another data set as a person counts: the oldest is part 1."""
    folds, least = dataset.get("folds", 1), dataset.get("min_item_count", 1)
    name = _name(dataset["source"])
    words = name if folds == 1 else f"part {dataset.get('fold', 0) + 1} of {folds} of {name}"
    return words if least == 1 else f"{words}, items of {least} rows and more"


def _without_draw(run: Run) -> dict[str, Any]:
    """Drop what differs from one draw of a split to the next."""
    protocol = run.result["protocol"]
    same = ["name", "options"]
    if "seed" not in run.config["split"]:  # nothing is drawn, so other rows mean another split
        same.append("fingerprint")
    kept = {key: value for key, value in protocol.items() if key != "evaluated_windows"}
    return {**kept, "split": {key: protocol["split"][key] for key in same}}


def _comparison(
    heading: str, dataset: str, protocol: Mapping[str, Any], groups: Iterable[Mapping[str, Run]]
) -> Comparison:
    experiments = [
        Experiment(runs[0].label, runs)
        for group in groups
        for runs in [sorted(group.values(), key=lambda run: run.config["seed"])]
    ]
    experiments = _told_apart(experiments)
    comparison = Comparison(heading, dataset, protocol, experiments, published(dataset, protocol))
    headline = comparison.headline

    def goodness(experiment: Experiment) -> float:
        mean = headline.goodness(round(experiment.mean(headline.monitor), DECIMALS))
        return -np.inf if np.isnan(mean) else mean  # what reads the same stays as it was run

    return replace(comparison, experiments=sorted(experiments, key=goodness))


def _told_apart(experiments: Sequence[Experiment]) -> list[Experiment]:
    """Add to labels that are not unique what differs in the configs behind them."""
    twins: dict[str, list[int]] = defaultdict(list)
    for index, experiment in enumerate(experiments):
        twins[experiment.label].append(index)
    labelled = list(experiments)
    for indices in twins.values():
        changes = changed_keys([experiments[index].work for index in indices])
        for index, change in zip(indices, changes, strict=True):
            words = [experiments[index].label, *(f"{key}={value}" for key, value in change.items())]
            labelled[index] = replace(experiments[index], label=" ".join(words))
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
        if "dataset.sha256" in changes:  # its size follows; where all data differ, so do all rows
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


def facts(comparison: Comparison) -> dict[str, str]:
    """Say in words what data, split and rules the figures of a comparison rest on.

    Returns:
        Sentences by what they are about, such as ``data`` and ``test``.
    """
    protocol = comparison.protocol
    data, split = protocol["dataset"], protocol["split"]
    runs = [run.result["protocol"] for entry in comparison.experiments for run in entry.runs]
    options = [f"{key} {value}" for key, value in split["options"].items()]
    draws = len({run["split"]["fingerprint"] for run in runs})
    told = {
        "data": f"{comparison.dataset}, {data['rows']:,} rows of {data.get('users', 0):,} users and "
        f"{data.get('items', 0):,} items, SHA-256 {data['sha256'][:12]}",
        "split": f"{', '.join([split['name'], *options])}; {draws} draw{'s' * (draws > 1)}",
    }
    for part, stage in (("validation", "val"), ("test", "test")):
        counts = [_counts(run, part, stage) for run in runs]
        words = [f"{_span(c[name] for c in counts if name in c)} {name}" for name in counts[0]]
        if words:
            told[part] = ", ".join(words)
    if cut := protocol.get("windows"):
        told["windows"] = f"at most {cut['length']} items, targets {cut['stride']} apart"
    told["seen items"] = "no candidates" if protocol.get("filter_seen") else "candidates too"
    for key, value in protocol.items():
        if key not in ("dataset", "split", "windows", "filter_seen"):
            told[key] = str(value)
    if protocol.get("candidates", "").startswith("the rated pairs"):
        del told["seen items"]
    return told


def _counts(protocol: Mapping[str, Any], part: str, stage: str) -> dict[str, int]:
    """Name the sizes of a part of a split, and of what train has never seen in it."""
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
    """Return published figures by model and metric, if data and split are those of the source."""
    every: Any = OmegaConf.to_container(OmegaConf.load(config_dir() / "published.yaml"))
    known = every.get(dataset, {})
    split = known.get(protocol["split"]["name"], {})
    same_data = known.get("sha256") == protocol["dataset"]["sha256"]
    if not same_data or split.get("options") != protocol["split"]["options"]:
        return {}
    figures: dict[str, dict[str, float]] = split["figures"]
    return figures
