"""Importances: which hyperparameters decide the metric of a search, as shares and as figures."""

import json
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import optuna
from matplotlib import rc_context
from matplotlib.figure import Figure
from optuna.exceptions import ExperimentalWarning

from matinee.display.metrics import metric_title
from matinee.display.plotting import COLOURS, STYLE
from matinee.verbs.search.records import Row
from matinee.verbs.search.spaces import Range
from matinee.verbs.search.trials import Search

LEAST_TRIALS = 10
COLUMNS = 3
TAIL = 0.9  # share of the trials that the axis of the metric shows; worse ones are drawn at its end


def importances(prepared: Search, rows: Sequence[Row]) -> dict[str, float]:
    """Estimate how much of the metric each hyperparameter decides, by PED-ANOVA.

    It compares the distribution of a hyperparameter among the best tenth of the trials with that among all
    (Watanabe, Bansal & Hutter, PED-ANOVA, IJCAI 2023).

    Args:
        prepared: The search.
        rows: Trials with metrics, pruned ones among them.

    Returns:
        Shares that sum to 1 by hyperparameter, the largest first; empty if fewer than ten trials in the
        space are finished or only one value of each hyperparameter was tried.
    """
    inside = [row for row in rows if prepared.space.holds(row["hyperparameters"])]
    names = [
        name
        for name in prepared.space.over
        if len({json.dumps(row["hyperparameters"][name]) for row in inside}) > 1
    ]
    if len(inside) < LEAST_TRIALS or not names:
        return {}
    study = optuna.create_study(direction="maximize")
    distributions = {name: one.for_optuna() for name, one in prepared.space.over.items()}
    for row in inside:
        study.add_trial(
            optuna.trial.create_trial(
                params=prepared.space.to_optuna(row["hyperparameters"]),
                distributions=distributions,
                value=prepared.goodness(row),
            )
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        found = optuna.importance.get_param_importances(study, evaluator=evaluator, params=names)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def slices(prepared: Search, rows: Sequence[Row], shares: Mapping[str, float]) -> Figure:
    """Draw the metric of all trials by each hyperparameter, the most important first.

    Args:
        prepared: The search.
        rows: Trials with metrics, the best first, pruned ones last.
        shares: As :func:`importances` returns them.
    """
    metric = prepared.metric_names[-1]
    values = np.array([row[metric] for row in rows])
    ordered = np.array(sorted(values, key=lambda value: -prepared.headline.goodness(value)))
    tail = ordered[: max(int(TAIL * len(values)), 1)]
    margin = 0.05 * (tail.max() - tail.min()) or 0.05 * abs(tail[0]) or 1.0
    low, high = tail.min() - margin, tail.max() + margin
    shown = values.clip(low, high)
    lines = -(-len(shares) // COLUMNS)
    columns = min(COLUMNS, len(shares))
    with rc_context(STYLE):
        figure = Figure(figsize=(1 + 3.2 * columns, 0.9 + 2.8 * lines))
        every = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel()
    for axes, (name, share) in zip(every, shares.items(), strict=False):
        given = [row["hyperparameters"].get(name) for row in rows]
        one = prepared.space.over[name]
        if isinstance(one, Range):
            places = given
            if one.log:
                axes.set_xscale("log")
                ticks = [float(f"{tick:.1g}") for tick in np.geomspace(one.low, one.high, 4)]
                axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
                axes.minorticks_off()
        else:
            levels = list(dict.fromkeys(map(json.dumps, [*one.values, *given])))
            places = [levels.index(json.dumps(value)) for value in given]
            labels = [level.strip('"') for level in levels]
            axes.set_xticks(range(len(levels)), labels, parse_math=False)
            axes.set_xlim(-0.5, len(levels) - 0.5)
        for face, is_pruned in ((COLOURS[0], False), ("none", True)):
            kept = [n for n, row in enumerate(rows) if bool(row["failure"]) is is_pruned]
            axes.scatter(
                [places[n] for n in kept], shown[kept], s=16, facecolors=face, edgecolors=COLOURS[0],
                alpha=0.7, linewidths=0.8, label="pruned" if is_pruned and kept else None,
            )  # fmt: skip
        axes.scatter(places[:1], shown[:1], s=60, marker="*", color=COLOURS[1], label="best")
        for row, place, value in zip(rows, places, shown, strict=True):
            if row["hyperparameters"] == prepared.default:
                axes.scatter([place], [value], s=36, marker="D", color=COLOURS[2], label="default")
        axes.set_ylim(low - margin, high + margin)
        axes.set_xlabel(name, parse_math=False)
        axes.set_title(f"importance {share:.2f}", fontsize=10)
        axes.grid(alpha=0.3)
    for axes in every[len(shares) :]:
        axes.set_visible(False)
    for axes in every[::columns]:
        axes.set_ylabel(metric_title(prepared.stages[metric]), parse_math=False)
    entries = every[0].get_legend_handles_labels()
    figure.legend(*entries, loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    return figure
