"""Agreement: do two protocols rank the models alike?"""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

from matinee.display.markdown import DECIMALS
from matinee.display.metrics import metric_title
from matinee.errors import MatineeError
from matinee.verbs.report.comparison import Comparison

FEWEST_MODELS = 3
EXPLANATION = """\
tau is Kendall's tau-b of the rankings of the models that both protocols measured, by the mean over seeds: 1
means the same order, 0 no relation, -1 the reverse order. Values that are equal as printed are tied. tau
does not say how certain the rankings are; for that see the differences from the best."""


def agreement_table(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """Compare the rankings of models under every two protocols with the same headline metric.

    Models are the same if they have the same label and overrides. They are ranked by the headline metric
    on test, rounded as in tables.

    Args:
        comparisons: One for each protocol.

    Returns:
        The table as text, a row for each two protocols with at least three models in common: how many
        models, Kendall's tau-b ("undefined" if a protocol ties all of them), how many pairs of models
        have the same order under both, opposite orders, or a tie under at least one; and the best model
        on validation and on test, first under the one protocol, then under the other.

    Raises:
        MatineeError: If no two protocols have three models in common.
    """
    rows = [
        _row(first, second)
        for first, second in combinations(comparisons, 2)
        if first.headline == second.headline
        and len(_test_values(first).keys() & _test_values(second)) >= FEWEST_MODELS
    ]
    if not rows:
        raise MatineeError(
            f"no two protocols have {FEWEST_MODELS} models in common; leave --agreement out or name more "
            "runs."
        )
    return pd.DataFrame(rows)


def _test_values(comparison: Comparison) -> dict[str, float]:
    """Return how good each model is on test, higher for better, from the worst on validation to the best."""
    headline = comparison.headline
    means = {
        " ".join([group.label, *comparison.shared]): group.mean(f"test/{headline.metric}")
        for group in comparison.groups
    }
    return {
        label: headline.goodness(round(mean, DECIMALS))
        for label, mean in means.items()
        if not np.isnan(mean)
    }


def _row(first: Comparison, second: Comparison) -> dict[str, str]:
    both = _test_values(first), _test_values(second)
    labels = [label for label in both[0] if label in both[1]]
    ours, theirs = (np.array([values[label] for label in labels]) for values in both)
    one, other = np.triu_indices(len(labels), k=1)
    signs = np.sign(ours[one] - ours[other]) * np.sign(theirs[one] - theirs[other])
    tau = float(stats.kendalltau(ours, theirs).statistic)
    return {
        "protocols": f"{first.heading}; {second.heading}",
        "ranked by": metric_title(f"test/{first.headline.metric}"),
        "models": str(len(labels)),
        "tau": "undefined" if np.isnan(tau) else f"{tau:.2f}",
        "pairs in the same order": str(np.count_nonzero(signs > 0)),
        "in opposite orders": str(np.count_nonzero(signs < 0)),
        "tied": str(np.count_nonzero(signs == 0)),
        "best on validation": "; ".join(
            [label for label in values if label in labels][-1] for values in both
        ),
        "best on test": "; ".join(_best(values, labels) for values in both),
    }


def _best(values: Mapping[str, float], labels: Sequence[str]) -> str:
    highest = max(values[label] for label in labels)
    return " = ".join(label for label in labels if values[label] == highest)
