"""The tables of a report, as text, and what they mean."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from matinee.display.markdown import DECIMALS, decimal
from matinee.verbs.report.comparison import HEADLINES, Comparison, Experiment
from matinee.verbs.report.significance import Difference

COLUMNS = {
    "val/rmse": "validation RMSE",
    "test/rmse": "test RMSE",
    "test/mae": "test MAE",
    "val/mrr": "validation MRR",
    "test/mrr": "test MRR",
    "test/recall@10": "test Recall@10",
    "test/ndcg@10": "test NDCG@10",
}
EXPLANATION = """\
Differences are of the figures above, over the draws of the split that both models ran on. The interval
is the middle 95 % of 10,000 resamples of the test users, each with all rows or windows of theirs: those
of one user are not independent. p is of Wilcoxon's signed-rank test on every user's own difference (of
the mean squared error or mean reciprocal rank; zeros by Pratt), times the number of comparisons by
Holm's rule. Neither says how much another seed would change."""


def figures_table(comparison: Comparison) -> pd.DataFrame:
    """Make the table of figures of one protocol, as text."""
    rows = pd.DataFrame([_row(comparison, entry) for entry in comparison.experiments])
    last = [*(name for name in rows.columns if name.startswith("published")), "seeds", "fit s"]
    return rows[[*(name for name in rows.columns if name not in last), *last]].fillna("")


def differences_table(found: Mapping[str, Difference]) -> pd.DataFrame:
    """Make the table of differences from the best, as text."""
    return pd.DataFrame(
        {
            "model": label,
            "difference": f"{entry.value:+.{DECIMALS}f}",
            "95 % interval": f"{entry.low:+.{DECIMALS}f} to {entry.high:+.{DECIMALS}f}",
            "p (Holm)": f"{entry.p:.{DECIMALS}f}" if entry.p >= 0.0001 else "< 0.0001",
            "users": str(entry.users),
            "draws": str(entry.draws),
        }
        for label, entry in found.items()
    )


def against(comparison: Comparison) -> str:
    """Say what the differences of a comparison are."""
    metric = HEADLINES[str(comparison.headline)]
    best = comparison.experiments[-1].label
    worse = "above" if comparison.headline == "rmse" else "below"
    return f"Difference of test {metric} from {best}, the best on validation; {worse} 0 is worse"


def _row(comparison: Comparison, experiment: Experiment) -> dict[str, str]:
    row = {"model": experiment.label}
    for metric, title in COLUMNS.items():
        values = experiment.values(metric)
        if values:
            row[title] = decimal(float(np.mean(values)))
            if len(values) > 1:
                row[title] += f" ± {np.std(values, ddof=1):.{DECIMALS}f}"
        reference = comparison.reference(experiment, metric)
        if reference is not None:
            row[f"published {title}"] = decimal(reference)
    seconds = [run.result["environment"]["seconds"]["fit"] for run in experiment.runs]
    return row | {"seeds": str(len(experiment.runs)), "fit s": f"{np.median(seconds):.1f}"}
