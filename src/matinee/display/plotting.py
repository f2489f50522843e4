"""Figures for reports, notebooks and TensorBoard, in one style and colour-blind safe.

Every function returns a :class:`matplotlib.figure.Figure` without a window or global state.
"""

import io
import re
import warnings
from collections.abc import Mapping
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from cycler import cycler
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter
from numpy.typing import NDArray

from matinee.files import write_whole
from matinee.metrics import FloatArray

# The palette of Okabe & Ito for all types of colour vision (https://jfly.uni-koeln.de/color/)
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLE: dict[Any, Any] = {  # notebooks apply it with plt.rcParams.update(STYLE)
    "axes.prop_cycle": cycler(color=COLOURS),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": "medium",
    "figure.constrained_layout.use": True,
    "figure.figsize": (7, 4.2),
    "legend.frameon": False,
}


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, atomically.

    Raises:
        MatineeError: If it cannot be written.
    """
    write_whole(path, lambda file: figure.savefig(file, format="png", dpi=150))


def as_svg(figure: Figure, name: str) -> str:
    """Convert a figure to an SVG element for an HTML page; black becomes the text colour of the page.

    Args:
        figure: The figure; its texts stay texts.
        name: Prefix of the ids in the element, unique in the page.
    """
    text = io.StringIO()
    with (
        mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", message="Glyph")  # the browser has other fonts
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()

    def adapted(tag: re.Match[str]) -> str:
        inside = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{name}-", tag[0])
        return inside.replace("#000000", "currentColor")

    return re.sub(r"<[^>]*>", adapted, svg[svg.index("<svg") :])


def rating_errors(ratings: FloatArray, predictions: FloatArray) -> Figure:
    """Draw the distribution of errors by true rating.

    Args:
        ratings: True ratings, (rows,).
        predictions: Predicted ratings, (rows,).
    """
    figure, axes = _axes("rating", "predicted minus true rating")
    levels = np.unique(ratings)
    errors = [predictions[ratings == level] - level for level in levels]
    places = np.arange(len(levels))
    axes.axhline(0, color="0.6", linewidth=1)
    axes.boxplot(
        errors,
        positions=places,
        widths=0.6,
        whis=(5, 95),
        showfliers=False,
        medianprops={"color": COLOURS[1]},
        boxprops={"color": COLOURS[0]},
        whiskerprops={"color": COLOURS[0]},
        capprops={"color": COLOURS[0]},
    )
    labels = [
        f"{level:g}\n{_short(len(error))}" for level, error in zip(levels, errors, strict=True)
    ]
    axes.set_xticks(places, labels)
    axes.set_xlabel("true rating; below it, the number of rows")
    axes.set_title("Median, quartiles, 5 % and 95 % of the errors")
    return figure


def rank_histogram(ranks: FloatArray, num_items: int) -> Figure:
    """Draw the histogram of target ranks on a logarithmic axis, beside random ranking.

    Args:
        ranks: Ranks from 1, (rankings,).
        num_items: Size of the catalogue.
    """
    figure, axes = _axes("rank of the true next item (1 is best)", "share of rankings (%)")
    edges = np.unique(np.geomspace(1, num_items + 1, 16).round())
    counts, _ = np.histogram(ranks, edges)
    axes.bar(
        edges[:-1],
        100 * counts / len(ranks),
        width=np.diff(edges),
        align="edge",
        color=COLOURS[0],
        edgecolor="white",
        label="this run",
    )
    axes.stairs(
        100 * np.diff(edges) / num_items,
        edges,
        color=COLOURS[1],
        linewidth=1.5,
        label="random ranking",
    )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_title(f"Ranks of {len(ranks):,} targets among {num_items:,} items")
    _legend_below(figure)
    return figure


def metric_by(
    counts: NDArray[np.integer], values: FloatArray, count_label: str, value_label: str
) -> Figure:
    """Draw the mean of a metric by a count, in bins that double in width, with 95 % intervals.

    A bin of one row has no interval. It is a hollow dot that no line joins.

    Args:
        counts: Counts, at least 0, (n,).
        values: The metric of each row, (n,).
        count_label: Name of what was counted.
        value_label: The metric's name and unit.
    """
    figure, axes = _axes(count_label, value_label)
    bins = np.where(counts > 0, np.floor(np.log2(np.maximum(counts, 1))) + 1, 0).astype(int)
    shown, sizes = np.unique(bins, return_counts=True)
    groups = [values[bins == number] for number in shown]
    means = np.array([group.mean() for group in groups])
    places, joined = np.arange(len(shown)), sizes > 1
    errors = [1.96 * group.std(ddof=1) / np.sqrt(len(group)) for group in groups if len(group) > 1]
    axes.axhline(values.mean(), color="0.6", linestyle="--", linewidth=1, label="mean of all")
    axes.errorbar(
        places[joined], means[joined], errors, fmt="o-", capsize=3, color=COLOURS[0], label="mean"
    )
    if not joined.all():
        hollow: Any = {"markerfacecolor": "none", "color": COLOURS[0], "label": "a single row"}
        axes.plot(places[~joined], means[~joined], "o", **hollow)
    least = [0, *(2**number for number in range(int(shown[-1]) + 1))]
    labels = [f"{_short(least[n])}\n{_short(size)}" for n, size in zip(shown, sizes, strict=True)]
    axes.set_xticks(places, labels, fontsize=9 if len(shown) <= 12 else 7)
    axes.set_xlabel(f"{count_label}, up to the next mark;\nbelow it, the number of rows")
    axes.set_title(f"{value_label[0].upper()}{value_label[1:]}: mean and 95 % interval")
    _legend_below(figure)
    return figure


def long_tail(counts: NDArray[np.int64], x_label: str) -> Figure:
    """Draw how many rows each user or item has, on logarithmic axes.

    Args:
        counts: Numbers of rows, the largest first, (n,).
        x_label: What the places are.
    """
    figure, axes = _axes(x_label, "rows")
    places = np.unique(np.geomspace(1, len(counts), 400).astype(np.int64))  # as dense as pixels
    axes.plot(
        places, counts[places - 1], color=COLOURS[0], marker="." if len(counts) < 50 else None
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    return figure


def histogram(values: FloatArray, x_label: str) -> Figure:
    """Draw how many rows have each value, or each range of values where there are many.

    Args:
        values: The values, (rows,).
        x_label: What they are.
    """
    figure, axes = _axes(x_label, "rows")
    levels, counts = np.unique(values, return_counts=True)
    if len(levels) <= 20:
        axes.bar(np.arange(len(levels)), counts, color=COLOURS[0])
        axes.set_xticks(np.arange(len(levels)), [f"{level:g}" for level in levels])
    else:
        axes.hist(values, bins=40, color=COLOURS[0])
    axes.yaxis.set_major_formatter("{x:,.0f}")
    return figure


def _short(number: int) -> str:
    """Write a number of rows with at most four characters, such as 938, 1.5k and 18k."""
    for power, unit in ((6, "M"), (3, "k")):
        if number >= 10**power:
            count = number / 10**power
            return f"{count:.{1 if count < 9.95 else 0}f}".removesuffix(".0") + unit
    return str(number)


def _legend_below(figure: Figure) -> None:
    """Explain the lines outside of the axes, where nothing is drawn."""
    entries = figure.axes[0].get_legend_handles_labels()
    figure.legend(*entries, loc="outside lower center", ncols=3, fontsize=9, frameon=False)


def _axes(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    """Create a figure that TensorBoard shows at two thirds of its size."""
    with rc_context(STYLE):
        figure = Figure(figsize=(5.2, 3.6))
        axes = figure.add_subplot()
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    return figure, axes


def learning_rate_curve(
    rates: NDArray[np.float64],
    losses: NDArray[np.float64],
    smoothed: NDArray[np.float64],
    suggested: int | None,
    configured: float,
) -> Figure:
    """Draw the loss of a learning-rate range test.

    Args:
        rates: Learning rate of every step, shape (steps,).
        losses: Loss of every step, shape (steps,).
        smoothed: The same, smoothed, shape (steps,).
        suggested: The step with the suggested rate, or None.
        configured: The learning rate in the config, marked for comparison.
    """
    figure, axes = _axes("learning rate", "training loss")
    axes.plot(rates, losses, ".", color="0.7", markersize=4, label="single steps")
    axes.plot(rates, smoothed, color=COLOURS[0], label="smoothed")
    if suggested is not None:
        place = (rates[suggested], smoothed[suggested])
        label = f"suggested: {place[0]:.3g}"
        axes.plot(*place, "o", color=COLOURS[1], markersize=8, label=label)
    axes.axvline(configured, color=COLOURS[2], linestyle="--", label=f"config: {configured:.3g}")
    axes.set_xscale("log")
    if len(smoothed):  # a divergence at the end must not flatten the rest
        lowest, highest = (
            smoothed.min(),
            max(smoothed.max(), np.quantile(losses[: len(losses) // 2 + 1], 0.98)),
        )
        margin = 0.15 * (highest - lowest) + 1e-9
        axes.set_ylim(lowest - 2 * margin, highest + margin)
    axes.grid(alpha=0.3)
    _legend_below(figure)
    return figure


def sweep_curve(name: str, lines: Mapping[str, pd.DataFrame], metric: str) -> Figure:
    """Draw a metric and the size of the model by the value of a config key.

    The axis of the metric spans at least 2 % of its value if the seeds do not show a difference, so that
    noise looks small; the title says what the seeds show.

    Args:
        name: The key, for the axis, which is logarithmic if the values span a factor of 4.
        lines: By label, empty for a single line: a table with the columns ``value``, ascending, ``mean``
            and ``deviation`` of the metric over seeds (NaN for one seed), and ``parameters``.
        metric: The metric's name, for the axis.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(6, 5))
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    for (label, line), colour, marker in zip(
        lines.items(), cycle(COLOURS), cycle("osD^vPX"), strict=False
    ):
        style: Any = {"color": colour, "marker": marker, "label": label}
        spread = line["deviation"].fillna(0)
        upper.errorbar(line["value"], line["mean"], spread, capsize=3 * spread.any(), **style)
        lower.plot(line["value"], line["parameters"], color=colour, marker=marker, markersize=4)
    points = pd.concat(lines.values())
    upper.set_title(_what_seeds_show(points), fontsize=10, loc="left")
    low, high = upper.get_ylim()
    room = max(0, 0.02 * abs(low + high) / 2 - (high - low)) if _may_be_noise(points) else 0
    upper.set_ylim(low - room / 2, high + room / 2)
    upper.yaxis.set_major_formatter(ScalarFormatter(useOffset=False))
    upper.set_ylabel(metric, parse_math=False)
    lower.set_yscale("log")
    ends = sorted({points["parameters"].min(), points["parameters"].max()})
    lower.set_yticks(ends, [f"{end:,}" for end in ends])
    lower.set_ylabel("parameters")
    lower.set_xlabel(name, parse_math=False)
    values = np.unique(points["value"])
    if values[0] > 0 and values[-1] >= 4 * values[0]:
        lower.set_xscale("log")
    if len(values) <= 10:
        lower.set_xticks(values, [f"{value:g}" for value in values])
    lower.minorticks_off()
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
    if len(lines) > 1:
        legend = figure.legend(
            *upper.get_legend_handles_labels(),
            loc="outside lower center",
            ncols=max(1, 60 // max(map(len, lines))),
            frameon=False,
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
    return figure


def _may_be_noise(points: pd.DataFrame) -> bool:
    """Whether the means lie within two standard deviations of the seeds, or these are unknown."""
    deviation = float(np.sqrt((points["deviation"] ** 2).mean()))  # NaN if unknown
    return not np.ptp(points["mean"]) > 2 * deviation


def _what_seeds_show(points: pd.DataFrame) -> str:
    if len(points) == 1 or points["deviation"].isna().all():
        return "One seed for each value: how much seeds differ is unknown"
    if _may_be_noise(points):
        return "All within two standard deviations of the seeds: no difference is shown"
    return "Mean and standard deviation over seeds"
