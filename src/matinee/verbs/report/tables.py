"""The tables of a report, as text, and what they mean."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from matinee.contracts import Headline
from matinee.display.markdown import DECIMALS, decimal
from matinee.display.metrics import metric_title, shown_metrics
from matinee.verbs.report.comparison import Comparison, Experiment
from matinee.verbs.report.significance import Difference

EXPLANATION = """\
Differences are of the figures above, over the draws of the split that both models ran on. The interval
is the middle 95 % of 10,000 resamples of the test users, each with all rows or windows of theirs: those
of one user are not independent. p is of Wilcoxon's signed-rank test on every user's own difference (of
the mean squared error or mean reciprocal rank; zeros by Pratt), times the number of comparisons by
Holm's rule. Neither says how much another seed would change."""


def columns(headline: Headline) -> list[str]:
    """List the metrics that a table shows, the headline metric first."""
    return [headline.monitor, *(f"test/{name}" for name in shown_metrics(headline))]


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
    title = metric_title(f"test/{comparison.headline.metric}")
    best = comparison.experiments[-1].label
    worse = "below" if comparison.headline.higher_is_better else "above"
    return f"Difference of {title} from {best}, the best on validation; {worse} 0 is worse"


def _row(comparison: Comparison, experiment: Experiment) -> dict[str, str]:
    row = {"model": experiment.label}
    for metric in columns(comparison.headline):
        title, values = metric_title(metric), experiment.values(metric)
        if values:
            row[title] = decimal(float(np.mean(values)))
            if len(values) > 1:
                row[title] += f" ± {np.std(values, ddof=1):.{DECIMALS}f}"
        reference = comparison.reference(experiment, metric)
        if reference is not None:
            row[f"published {title}"] = decimal(reference)
    seconds = [run.result["environment"]["seconds"]["fit"] for run in experiment.runs]
    return row | {"seeds": str(len(experiment.runs)), "fit s": f"{np.median(seconds):.1f}"}
