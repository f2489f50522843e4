"""Sweeps: metrics, size and training time of a model by the value of one config key."""

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


def sweep_table(folders: Sequence[Path], key: str) -> pd.DataFrame:
    """Tabulate all finished runs below some folders by the value of one key of their configs.

    Args:
        folders: Where to look, at any depth.
        key: A dotted key with numbers for values, such as ``model.embedding_dim``.

    Returns:
        One row for each value, in ascending order. Columns: the key with its value; each metric with
        its mean over runs, and ``METRIC sd`` with the standard deviation (NaN for one run);
        ``parameters``; ``fit_seconds``, the median; ``runs``.

    Raises:
        MatineeError: If a folder is missing, no run is found, a run has no such key, its value is not a
            number, or the runs differ in other keys than this one and their seeds.
    """
    results: dict[float, dict[int, Any]] = defaultdict(dict)
    rest: dict[str, tuple[Path, Any]] = {}
    for run in find_runs(folders)[0]:
        value = flatten(run.config).get(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise MatineeError(
                f"{key} of {run.folder} is {value!r}; name a key whose values are numbers."
            )
        others = without_seeds(run.effective_config)
        others.pop(key, None)
        others["data"] = run.result["protocol"]["dataset"]["sha256"]
        rest.setdefault(json.dumps(others, sort_keys=True), (run.folder, others))
        results[value][run.config["seed"]] = run.result  # of two runs of one seed, the later
    if len(rest) > 1:
        (one, first), (other, second), *_ = rest.values()
        differ = sorted(k for k in first | second if first.get(k) != second.get(k))
        raise MatineeError(
            f"{one} and {other} also differ in {', '.join(differ[:4])}; name runs that differ only in "
            f"{key} and their seeds."
        )
    return pd.DataFrame(
        [_row(key, value, list(results[value].values())) for value in sorted(results)]
    )


def _row(key: str, value: float, results: Sequence[Any]) -> dict[str, Any]:
    row: dict[str, Any] = {key: value}
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


def sweep(folders: Sequence[Path], key: str) -> str:
    """Write the table and the figure of a sweep to the first folder, as ``by_KEY.{csv,md,png}``.

    Args:
        folders: As in :func:`sweep_table`.
        key: As there.

    Returns:
        The table in Markdown.

    Raises:
        MatineeError: As :func:`sweep_table`, or if a file cannot be written.
    """
    table = sweep_table(folders, key)
    shown = pd.DataFrame({key: table[key].map("{:g}".format)})
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
    drawn = metrics[:2]  # the headline metric on validation and test
    figure = sweep_curve(
        key,
        table[key].tolist(),
        {
            metric_title(m).split(" ", 1)[0]: (table[m].tolist(), table[f"{m} sd"].tolist())
            for m in drawn
        },
        metric_title(drawn[0]).split(" ", 1)[1],
        table["parameters"].tolist(),
    )
    stem = folders[0] / f"by_{re.sub(r'[^a-z0-9_]+', '_', key.rsplit('.', 1)[-1].lower())}"
    cells = table.rename(columns=lambda name: table_cell(str(name)))
    write_whole(stem.with_suffix(".csv"), lambda file: cells.to_csv(file, index=False))
    write_whole(stem.with_suffix(".md"), lambda file: file.write(f"{markdown}\n".encode()))
    save_figure(figure, stem.with_suffix(".png"))
    return markdown


def _mean_and_deviation(mean: float, deviation: float) -> str:
    return f"{mean:.4f}" if np.isnan(deviation) else f"{mean:.4f} ± {deviation:.4f}"
