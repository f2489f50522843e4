"""Figures of a report: leaderboards, differences from the best, and validation curves."""

import re
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from matinee.display.metrics import metric_title
from matinee.display.plotting import COLOURS
from matinee.verbs.report.comparison import Comparison
from matinee.verbs.report.significance import Difference

WIDTH = 4.8  # inches; half of a page, or all of a phone's screen
LONGEST = 24  # characters in a line of a label
MOST_CURVES = len(COLOURS)
TALL = 15  # rows from which the axis is also drawn at the top


def leaderboard(comparison: Comparison) -> Figure:
    """Draw the headline metric of every group of runs, the best on top.

    Args:
        comparison: The groups of one protocol.

    Returns:
        One row for each group: a small dot for each run, a large dot for the mean, a bar of one
        standard deviation to each side, and a diamond for a published value.
    """
    metric = f"test/{comparison.headline.metric}"
    figure, axes = _rows([entry.label for entry in comparison.groups])
    for row, group in enumerate(comparison.groups):
        values = group.values(metric)
        if not values:
            continue
        if len(values) > 1:
            deviation = float(np.std(values, ddof=1))
            axes.errorbar(np.mean(values), row, xerr=deviation, color=COLOURS[0], capsize=3)
            axes.plot(values, [row - 0.25] * len(values), "o", color=COLOURS[5], markersize=3)
        axes.plot(np.mean(values), row, "o", color=COLOURS[0], markersize=6)
        reference = comparison.reference(group, metric)
        if reference is not None:
            axes.plot(reference, row, "D", color=COLOURS[1], markersize=6, fillstyle="none")
    figure.supxlabel(
        f"{metric_title(metric)} ({_better(comparison)})", fontsize=10, parse_math=False
    )
    return figure


def differences(comparison: Comparison, found: Mapping[str, Difference]) -> Figure:
    """Draw the differences from the best on validation with their intervals.

    Args:
        comparison: The groups of one protocol.
        found: Differences by label, at least one.

    Returns:
        One row for each model. The dot is hollow if the interval contains 0.
    """
    figure, axes = _rows(list(found))
    axes.axvline(0, color="#000000", linewidth=0.8)
    for row, entry in enumerate(found.values()):
        clear = entry.low > 0 or entry.high < 0
        worse = comparison.headline.goodness(entry.value) < 0
        colour = COLOURS[1] if clear and worse else COLOURS[2] if clear else "#808080"
        axes.plot([entry.low, entry.high], [row, row], color=colour, linewidth=2)
        face = colour if clear else "none"
        axes.plot(entry.value, row, "o", color=colour, markersize=5, markerfacecolor=face)
    title = metric_title(f"test/{comparison.headline.metric}")
    figure.supxlabel(
        f"difference of {title} ({_better(comparison)})", fontsize=10, parse_math=False
    )
    return figure


def curves(comparison: Comparison) -> Figure | None:
    """Draw the validation metric after each epoch: the mean over runs as a line, the range as a band.

    Args:
        comparison: The groups of one protocol. The best seven with at least two epochs are drawn.

    Returns:
        The figure, or None if there are no two epochs of any group.
    """
    metric = comparison.headline.monitor
    drawn: list[tuple[str, np.ndarray]] = []
    for group in reversed(comparison.groups):
        kept = [run.curve(metric) for run in group.runs]
        epochs = min(map(len, kept))  # that all runs reached
        if epochs > 1 and len(drawn) < MOST_CURVES:
            drawn.append((group.label, np.array([curve[:epochs] for curve in kept])))
    if not drawn:
        return None
    texts = [_short(label) for label, _ in drawn]
    columns = 3 if max(len(line) for text in texts for line in text.split("\n")) <= 14 else 2
    legend_lines = (max(text.count("\n") for text in texts) + 1) * -(-len(texts) // columns)
    figure = Figure(figsize=(WIDTH, 3.2 + 0.17 * legend_lines), layout="constrained")
    axes = figure.add_subplot()
    for text, (_, values), colour in zip(texts, drawn, COLOURS, strict=False):
        epochs_run = np.arange(1, values.shape[1] + 1)
        axes.plot(epochs_run, values.mean(0), color=colour, linewidth=1.6, label=text)
        axes.fill_between(epochs_run, values.min(0), values.max(0), color=colour, alpha=0.15, lw=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    axes.set_ylabel(f"{metric_title(metric)} ({_better(comparison)})", parse_math=False)
    _plain(axes)
    legend = figure.legend(loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
    for entry in legend.get_texts():
        entry.set_parse_math(False)
    return figure


def _rows(labels: Sequence[str]) -> tuple[Figure, Axes]:
    """Create a figure with one row for each label, the last on top."""
    texts = [_short(label) for label in labels]
    lines = max(text.count("\n") for text in texts) + 1
    figure = Figure(figsize=(WIDTH, 0.9 + (0.2 + 0.1 * lines) * len(labels)), layout="constrained")
    axes = figure.add_subplot()
    size = 10 if lines == 1 else 8
    axes.set_yticks(range(len(labels)), texts, parse_math=False, fontsize=size, linespacing=1.05)
    axes.set_ylim(-0.6, len(labels) - 0.4)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    _plain(axes)
    axes.tick_params(axis="y", length=0)
    if len(labels) >= TALL:
        axes.tick_params(axis="x", top=True, labeltop=True)
    axes.spines["left"].set_visible(False)
    return figure, axes


def _plain(axes: Axes) -> None:
    axes.grid(color="#808080", alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _better(comparison: Comparison) -> str:
    return f"{'higher' if comparison.headline.higher_is_better else 'lower'} is better"


def _short(label: str) -> str:
    """Shorten a label to two lines, keys to their last part, and drop unprintable characters."""
    printable = "".join(letter if letter.isprintable() else " " for letter in label)
    words = re.sub(r"(?:\w+\.)+(\w+=)", r"\1", printable)
    first, *rest = textwrap.wrap(words, LONGEST) or [""]
    if len(rest) > 1:
        rest = [f"{rest[0][: LONGEST - 2]} …"]
    return "\n".join([first, *rest])
