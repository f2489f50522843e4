"""What verbs print of one run."""

import re
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from matinee.markdown import decimal, print_table
from matinee.run_folder import read_result

REPEATED = re.compile(r"hit_rate@|(mrr|ndcg|recall)@1\b")  # with one relevant item they say no more


def print_run(folder: Path) -> None:
    """Print the figures of a finished run; the last line is its folder."""
    metrics = read_result(folder)["metrics"]
    stages = list(dict.fromkeys(name.split("/")[0] for name in metrics))
    told = dict.fromkeys(name.split("/", 1)[1] for name in metrics)
    names = [name for name in told if not REPEATED.match(name)]
    rows = [
        {"metric": name, **{stage: decimal(metrics.get(f"{stage}/{name}")) for stage in stages}}
        for name in names
    ]
    print_table(pd.DataFrame(rows))
    print(folder)


def print_evaluation(metrics: Mapping[str, float], recorded: Mapping[str, float]) -> bool:
    """Print figures beside the recorded ones.

    Returns:
        Whether they are the very same.
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
    same = all(metrics[name] == recorded[name] for name in metrics.keys() & recorded)
    if same:
        print("identical to the record, to the last bit")
    else:
        apart = {name: abs(metrics[name] - recorded[name]) for name in metrics.keys() & recorded}
        name = max(apart, key=apart.__getitem__)
        print(f"not the record of the best checkpoint; {name} differs most, by {apart[name]:.2g}")
    return same
