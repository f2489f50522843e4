"""Print the metrics of one run."""

import re
import sys
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from matinee.display.markdown import decimal, print_table
from matinee.errors import Refitted
from matinee.experiment.parents import read_parent
from matinee.experiment.run_folder import read_result

REPEATED = re.compile(r"hit_rate@|(mrr|ndcg|recall)@1\b")  # with one relevant item, equal to others


def print_run(folder: Path) -> None:
    """Print the metrics of a finished run, or of the run that it refits; the last line is its folder."""
    try:
        metrics = read_result(folder)["metrics"]
    except Refitted:
        parent = read_parent(folder)
        if parent is None:
            raise
        metrics = parent["metrics"]
        print(f"the metrics to report are those of {parent['run']}:", file=sys.stderr)
    stages = list(dict.fromkeys(name.split("/")[0] for name in metrics))
    every = dict.fromkeys(name.split("/", 1)[1] for name in metrics)
    names = [name for name in every if not REPEATED.match(name)]
    rows = [
        {"metric": name, **{stage: decimal(metrics.get(f"{stage}/{name}")) for stage in stages}}
        for name in names
    ]
    print_table(pd.DataFrame(rows))
    print(folder)


def print_evaluation(
    metrics: Mapping[str, float],
    recorded: Mapping[str, float],
    checkpoint: str = "best",
    histories: str | None = None,
    accelerators: tuple[str, str] = ("", ""),
) -> None:
    """Print metrics beside the recorded ones, and how they differ.

    Args:
        metrics: The metrics measured now.
        recorded: The metrics in ``result.json``, of the best checkpoint.
        checkpoint: The checkpoint measured now, ``best`` or ``last``.
        histories: How the histories were changed; None if they were not.
        accelerators: Names of the accelerators of the record and of this evaluation.
    """
    rows = [
        {
            "metric": name,
            "now": f"{value:.6f}",
            "recorded": f"{recorded[name]:.6f}" if name in recorded else "",
        }
        for name, value in metrics.items()
    ]
    print_table(pd.DataFrame(rows))
    shared = [name for name in metrics if name in recorded]
    distance = {name: metrics[name] - recorded[name] for name in shared}
    words = [f"the histories were changed ({histories})"] * (histories is not None)
    words += ["this is the last checkpoint, not the best"] * (checkpoint != "best")
    there, here = (name.removesuffix("Accelerator") for name in accelerators)
    words += [f"recorded on {there}, measured on {here}"] * (there != here)
    if shared and not any(distance.values()):
        of = "all" if len(shared) == len(recorded) else f"{len(shared)} of"
        words.append(
            f"identical to the record, to the last bit, in {of} its {len(recorded)} metrics"
        )
    elif shared:
        name = max(distance, key=lambda name: abs(distance[name]))
        words.append(f"{name} differs most from the record, by {distance[name]:+.2g}")
    else:
        words.append("the record has none of these metrics")
    print("; ".join(words))
