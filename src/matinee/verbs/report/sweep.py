"""Sweeps: what a parameter's values do to the metrics, the size and the time of a model."""

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import OmegaConf

from matinee.contracts import Headline
from matinee.display.markdown import as_markdown
from matinee.display.metrics import metric_title
from matinee.display.plotting import save_figure, sweep_curve
from matinee.errors import MatineeError
from matinee.experiment.run_folder import RESULT, load_config, read_result
from matinee.files import write_whole
from matinee.verbs.report.effective_config import work
from matinee.verbs.report.runs import without_seeds
from matinee.verbs.report.tables import columns


def sweep_table(folders: Sequence[Path], key: str) -> pd.DataFrame:
    """Tabulate all finished runs below some folders by the value of one key of their configs.

    Args:
        folders: Where to look, at any depth.
        key: A dotted key with numbers for values, such as ``model.embedding_dim``.

    Returns:
        A row for each value, ascending: the value under the key's name; of each metric the mean and,
        under ``NAME sd``, the standard deviation over runs (NaN of one run); ``parameters``; the
        median ``fit_seconds``; ``runs``.

    Raises:
        MatineeError: If a folder is missing, no run is found, a run lacks the key, its value is no
            number, or the runs differ in more than the key and their seeds.
    """
    results: dict[float, dict[int, Any]] = defaultdict(dict)
    rest: dict[str, tuple[Path, Any]] = {}
    for folder in folders:
        if not folder.is_dir():
            raise MatineeError(f"there is no folder {folder}; name folders that hold runs.")
        for path in sorted(folder.rglob(RESULT), key=lambda path: path.parent.name):
            result, config = read_result(path.parent), load_config(path.parent)
            value = OmegaConf.select(config, key)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise MatineeError(
                    f"{key} of {path.parent} is {value!r}; name a key whose values are numbers."
                )
            plain: Any = OmegaConf.to_container(config)
            others = without_seeds(work(plain))
            others.pop(key, None)
            others["data"] = result["protocol"]["dataset"]["sha256"]
            rest.setdefault(json.dumps(others, sort_keys=True), (path.parent, others))
            results[value][config.seed] = result  # of two runs of one seed the later one counts
    if not results:
        raise MatineeError(
            f"no finished run below {', '.join(map(str, folders))}; train one first."
        )
    if len(rest) > 1:
        (one, first), (other, second), *_ = rest.values()
        differ = sorted(k for k in first | second if first.get(k) != second.get(k))
        raise MatineeError(
            f"{one} and {other} differ in {', '.join(differ[:4])} too; name runs that differ in {key} "
            "and their seeds alone."
        )
    return pd.DataFrame(
        [_row(key, value, list(results[value].values())) for value in sorted(results)]
    )


def _row(key: str, value: float, results: Sequence[Any]) -> dict[str, Any]:
    row: dict[str, Any] = {key: value}
    for metric in columns(Headline(**results[0]["headline"])):
        figures = [run["metrics"][metric] for run in results if metric in run["metrics"]]
        if figures:
            row[metric] = float(np.mean(figures))
            row[f"{metric} sd"] = float(np.std(figures, ddof=1)) if len(figures) > 1 else np.nan
    seconds = [run["environment"]["seconds"]["fit"] for run in results]
    sizes = {run["fit"]["parameters"] for run in results}
    return {
        **row,
        "parameters": max(sizes),
        "fit_seconds": np.median(seconds),
        "runs": len(results),
    }


def sweep(folders: Sequence[Path], key: str) -> str:
    """Write table and figure of a sweep into the first folder, ``by_KEY.{csv,md,png}``.

    Args:
        folders: See :func:`sweep_table`.
        key: See there.

    Returns:
        The table in Markdown.

    Raises:
        MatineeError: As :func:`sweep_table`, or if a file cannot be written.
    """
    table = sweep_table(folders, key)
    shown = pd.DataFrame({key: table[key].map("{:g}".format)})
    metrics = [str(name) for name in table if f"{name} sd" in table]
    for metric in metrics:
        shown[metric_title(metric)] = [
            _figure(*pair) for pair in zip(table[metric], table[f"{metric} sd"], strict=True)
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
    write_whole(stem.with_suffix(".csv"), lambda file: table.to_csv(file, index=False))
    write_whole(stem.with_suffix(".md"), lambda file: file.write(f"{markdown}\n".encode()))
    save_figure(figure, stem.with_suffix(".png"))
    return markdown


def _figure(mean: float, deviation: float) -> str:
    return f"{mean:.4f}" if np.isnan(deviation) else f"{mean:.4f} ± {deviation:.4f}"
