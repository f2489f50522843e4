"""Sweeps: metrics, size and training time of a model by the values of config keys."""

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from matinee.config.trees import flatten
from matinee.display.markdown import as_markdown
from matinee.display.metrics import metric_title
from matinee.display.plotting import save_figure, sweep_curve
from matinee.errors import MatineeError
from matinee.experiment.run_folder import headline_of
from matinee.files import write_whole
from matinee.texts import table_cell
from matinee.verbs.report.runs import find_runs, without_seeds
from matinee.verbs.report.tables import columns


def sweep_table(folders: Sequence[Path], keys: Sequence[str]) -> pd.DataFrame:
    """Tabulate all finished runs below some folders by the values of keys of their configs.

    Args:
        folders: Where to look, at any depth.
        keys: Dotted keys, such as ``model.embedding_dim``; the values of the first are numbers.

    Returns:
        One row for each combination of values: of a single key in ascending order, of several the best
        on validation first. Columns: the keys with their values; each metric with its mean over runs,
        and ``METRIC sd`` with the standard deviation (NaN for one run); ``parameters``; ``fit_seconds``,
        the median; ``runs``.

    Raises:
        MatineeError: If a folder is missing, no run is found, a run has no such key, a value of the first
            key is not a number, or the runs differ in other keys than these and their seeds.
    """
    results: dict[tuple[Any, ...], dict[int, Any]] = defaultdict(dict)
    rest: dict[str, tuple[Path, Any]] = {}
    for run in find_runs(folders)[0]:
        config = flatten(run.config)
        for key in keys:
            value, first = config.get(key), key == keys[0]
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if value is None or (first and not number):
                what = "whose values are numbers" if first else "that all runs have"
                raise MatineeError(f"{key} of {run.folder} is {value!r}; name a key {what}.")
        others = without_seeds(run.effective_config)
        for key in keys:
            others.pop(key, None)
        others["data"] = run.result["protocol"]["dataset"]["sha256"]
        rest.setdefault(json.dumps(others, sort_keys=True), (run.folder, others))
        values = tuple(config[key] for key in keys)
        results[values][run.config["seed"]] = run.result  # of two runs of one seed, the later
    if len(rest) > 1:
        (one, first), (other, second), *_ = rest.values()
        differ = sorted(k for k in first | second if first.get(k) != second.get(k))
        raise MatineeError(
            f"{one} and {other} also differ in {', '.join(differ[:4])}; name runs that differ only in "
            f"{', '.join(keys)} and their seeds."
        )
    ordered = sorted(results, key=lambda values: [(isinstance(v, str), v) for v in values])
    table = pd.DataFrame(
        [_row(dict(zip(keys, v, strict=True)), list(results[v].values())) for v in ordered]
    )
    headline = headline_of(next(iter(results[ordered[0]].values())))
    if len(keys) > 1 and headline.monitor in table:
        table = table.sort_values(
            headline.monitor, ascending=not headline.higher_is_better, kind="stable"
        )
    return table.reset_index(drop=True)


def _row(row: dict[str, Any], results: Sequence[Any]) -> dict[str, Any]:
    for metric in columns(headline_of(results[0])):
        values = [run["metrics"][metric] for run in results if metric in run["metrics"]]
        if values:
            row[metric] = float(np.mean(values))
            row[f"{metric} sd"] = float(np.std(values, ddof=1)) if len(values) > 1 else np.nan
    seconds = [run["environment"]["seconds"]["fit"] for run in results]
    sizes = [run["fit"]["parameters"] for run in results if run.get("fit")]
    return {
        **row,
        "parameters": max(sizes, default=0),
        "fit_seconds": np.median(seconds),
        "runs": len(results),
    }


def sweep(folders: Sequence[Path], keys: Sequence[str]) -> str:
    """Write the table and the figure of a sweep to the first folder, as ``by_KEY.{csv,md,png}``.

    The figure shows the headline metric on validation, by which a value is chosen, with a line for each
    combination of the other keys.

    Args:
        folders: As in :func:`sweep_table`.
        keys: As there.

    Returns:
        The table in Markdown.

    Raises:
        MatineeError: As :func:`sweep_table`, or if a file cannot be written.
    """
    table = sweep_table(folders, keys)
    key, *others = keys
    shown = pd.DataFrame({key: table[key].map("{:g}".format)})
    for other in others:
        shown[other] = table[other]
    metrics = [str(name) for name in table if f"{name} sd" in table]
    if not metrics:
        raise MatineeError("the runs record no metric that a table shows; name other runs.")
    for metric in metrics:
        shown[metric_title(metric)] = [
            _mean_and_deviation(*pair)
            for pair in zip(table[metric], table[f"{metric} sd"], strict=True)
        ]
    shown["parameters"] = table["parameters"].map("{:,}".format)
    shown["fit s"] = table["fit_seconds"].map("{:.1f}".format)
    shown["runs"] = table["runs"]
    markdown = as_markdown(shown)
    drawn = metrics[0]
    points = table.rename(columns={key: "value", drawn: "mean", f"{drawn} sd": "deviation"})
    points = points.sort_values("value")
    if others:
        lines = {
            ", ".join(f"{_last(k)} {value}" for k, value in zip(others, values, strict=True)): line
            for values, line in points.groupby(others)
        }
    else:
        lines = {"": points}
    figure = sweep_curve(key, lines, metric_title(drawn))
    stem = folders[0] / "_".join(["by", *map(_last, keys)])
    cells = table.rename(columns=lambda name: table_cell(str(name)))
    write_whole(stem.with_suffix(".csv"), lambda file: cells.to_csv(file, index=False))
    write_whole(stem.with_suffix(".md"), lambda file: file.write(f"{markdown}\n".encode()))
    save_figure(figure, stem.with_suffix(".png"))
    return markdown


def _last(key: str) -> str:
    """Return the last word of a key, as a part of a file name."""
    return re.sub(r"[^a-z0-9_]+", "_", key.rsplit(".", 1)[-1].lower())


def _mean_and_deviation(mean: float, deviation: float) -> str:
    return f"{mean:.4f}" if np.isnan(deviation) else f"{mean:.4f} ± {deviation:.4f}"
