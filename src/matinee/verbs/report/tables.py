"""The tables of a report, as text, and their explanation."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from matinee.contracts import Headline
from matinee.display.markdown import DECIMALS, decimal
from matinee.display.metrics import metric_title, shown_metrics
from matinee.verbs.report.comparison import Comparison, RunGroup
from matinee.verbs.report.significance import Difference

EXPLANATION = """\
A difference is the model's metric minus that of the best, averaged over the draws of the split that both
ran on. The interval holds 95 % of 10,000 bootstrap resamples of the test users, each with all rows or
windows, because those of one user are not independent. p is the p-value of Wilcoxon's signed-rank test on
each user's difference (of the mean squared error or the mean reciprocal rank; zeros by Pratt's method),
with Holm's correction for the number of comparisons. Neither covers the choice of seeds."""


def columns(headline: Headline) -> list[str]:
    """List the metrics that a table shows, the headline metric first."""
    return [headline.monitor, *(f"test/{name}" for name in shown_metrics(headline))]


def metrics_table(comparison: Comparison) -> pd.DataFrame:
    """Return the table of metrics of one protocol, as text."""
    rows = pd.DataFrame([_row(comparison, entry) for entry in comparison.groups])
    last = [*(name for name in rows.columns if name.startswith("published")), "seeds", "fit s"]
    if "peak GB" in rows and rows["peak GB"].isna().any():
        rows = rows.drop(columns="peak GB")  # only the first run of a process can tell its own
    last += [name for name in rows.columns if name == "peak GB"]
    return rows[[*(name for name in rows.columns if name not in last), *last]].fillna("")


def differences_table(found: Mapping[str, Difference]) -> pd.DataFrame:
    """Return the table of differences from the best, as text."""
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


def differences_title(comparison: Comparison) -> str:
    """Say which metric is compared with which model, and which sign is worse."""
    title = metric_title(f"test/{comparison.headline.metric}")
    best = comparison.groups[-1].label
    worse = "below" if comparison.headline.higher_is_better else "above"
    return f"Difference of {title} from {best}, the best on validation; {worse} 0 is worse"


def _row(comparison: Comparison, group: RunGroup) -> dict[str, str]:
    row = {"model": group.label}
    for metric in columns(comparison.headline):
        title, values = metric_title(metric), group.values(metric)
        if values:
            row[title] = decimal(float(np.mean(values)))
            if len(values) > 1:
                row[title] += f" ± {np.std(values, ddof=1):.{DECIMALS}f}"
        reference = comparison.reference(group, metric)
        if reference is not None:
            row[f"published {title}"] = decimal(reference)
    environments = [run.result["environment"] for run in group.runs]
    seconds = [environment["seconds"]["fit"] for environment in environments]
    row |= {"seeds": str(len(group.runs)), "fit s": f"{np.median(seconds):.1f}"}
    peaks = [peak for made_in in environments if (peak := made_in.get("peak_memory_bytes"))]
    return row | ({"peak GB": f"{max(peaks) / 1e9:.1f}"} if peaks else {})
