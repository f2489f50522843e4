"""Figures for reports, notebooks and TensorBoard: one style, labels with units, safe colours.

Every function returns a :class:`matplotlib.figure.Figure` that belongs to no window and no global state.
"""

from pathlib import Path
from typing import Any

import numpy as np
from cycler import cycler
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from matinee.metrics import FloatArray
from matinee.run_folder import write_whole

# Okabe & Ito's palette, told apart with any colour vision (https://jfly.uni-koeln.de/color/)
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLE: dict[Any, Any] = {  # of all figures; a notebook takes it by plt.rcParams.update(STYLE)
    "axes.prop_cycle": cycler(color=COLOURS),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "figure.figsize": (7, 4.2),
    "legend.frameon": False,
}


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all.

    Raises:
        MatineeError: If it cannot be written.
    """
    write_whole(path, lambda file: figure.savefig(file, format="png", dpi=150))


def rating_errors(ratings: FloatArray, predictions: FloatArray) -> Figure:
    """Show how far predictions are off, for each true rating.

    Args:
        ratings: True ratings, (rows,).
        predictions: Predicted ratings, (rows,).
    """
    figure, axes = _axes("rating", "predicted less true rating")
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
    labels = [f"{level:g}\n{len(error):,}" for level, error in zip(levels, errors, strict=True)]
    axes.set_xticks(places, labels)
    axes.set_xlabel("true rating, and how many rows have it")
    axes.set_title("Error by true rating: median, quartiles, 5 % and 95 %")
    return figure


def rank_histogram(ranks: FloatArray, num_items: int) -> Figure:
    """Show where the targets rank, on a logarithmic axis, beside a blind guess.

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
        label="a blind guess",
    )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_title(f"Ranks of {len(ranks):,} targets among {num_items:,} items")
    axes.legend(frameon=False)
    return figure


def metric_by(
    counts: NDArray[np.integer], values: FloatArray, count_label: str, value_label: str
) -> Figure:
    """Show the mean of a metric by how often something was seen, in bins that double.

    Args:
        counts: How often, at least 0, (n,).
        values: The metric of each row, (n,).
        count_label: What was counted.
        value_label: The metric's name and unit.
    """
    figure, axes = _axes(count_label, value_label)
    bins = np.where(counts > 0, np.floor(np.log2(np.maximum(counts, 1))) + 1, 0).astype(int)
    shown = np.unique(bins)
    means = np.array([values[bins == b].mean() for b in shown])
    errors = np.array([1.96 * values[bins == b].std() / np.sqrt((bins == b).sum()) for b in shown])
    places = np.arange(len(shown))
    axes.errorbar(places, means, errors, fmt="o-", capsize=3, color=COLOURS[0])
    axes.axhline(values.mean(), color="0.6", linestyle="--", linewidth=1, label="mean of all")
    labels = [_doubling(b) + f"\n{(bins == b).sum():,}" for b in shown.tolist()]
    axes.set_xticks(places, labels, fontsize=8)
    axes.set_xlabel(f"{count_label}, and how many rows are so")
    title = f"{value_label} by {count_label}, with 95 % intervals"
    axes.set_title(title[0].upper() + title[1:])
    axes.legend(frameon=False)
    return figure


def _doubling(number: int) -> str:
    if number < 2:
        return str(number)
    return f"{2 ** (number - 1)}-{2**number - 1}"


def _axes(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    with rc_context(STYLE):
        figure = Figure()
        axes = figure.add_subplot()
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    return figure, axes
