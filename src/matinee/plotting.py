"""Figures for reports, notebooks and TensorBoard: one style, labels with units, safe colours.

Every function returns a :class:`matplotlib.figure.Figure` that belongs to no window and no global state.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from matinee.run_folder import write_whole

# Okabe & Ito's palette, told apart with any colour vision (https://jfly.uni-koeln.de/color/)
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all.

    Raises:
        MatineeError: If it cannot be written.
    """
    write_whole(path, lambda file: figure.savefig(file, format="png", dpi=150))


def learning_rate_curve(
    rates: npt.NDArray[np.float64],
    losses: npt.NDArray[np.float64],
    smoothed: npt.NDArray[np.float64],
    suggested: int | None,
    configured: float,
) -> Figure:
    """Draw the loss of a range test over its learning rate.

    Args:
        rates: Learning rate of every step, shape (steps,).
        losses: Loss of every step, shape (steps,).
        smoothed: The same, smoothed, shape (steps,).
        suggested: The step whose rate is suggested, or None.
        configured: The rate that the config has, marked for comparison.
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(rates, losses, ".", color="0.7", markersize=4, label="single steps")
    axes.plot(rates, smoothed, color=COLOURS[0], label="smoothed")
    if suggested is not None:
        place = (rates[suggested], smoothed[suggested])
        label = f"suggested: {place[0]:.3g}"
        axes.plot(*place, "o", color=COLOURS[1], markersize=8, label=label)
    axes.axvline(configured, color=COLOURS[2], linestyle="--", label=f"config: {configured:.3g}")
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss")
    if len(smoothed):  # what diverges at the end must not flatten the rest
        lowest, highest = (
            smoothed.min(),
            max(smoothed.max(), np.quantile(losses[: len(losses) // 2 + 1], 0.98)),
        )
        margin = 0.15 * (highest - lowest) + 1e-9
        axes.set_ylim(lowest - 2 * margin, highest + margin)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def sweep_curve(
    name: str,
    values: Sequence[float],
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    metric: str,
    parameters: Sequence[int],
) -> Figure:
    """Draw a metric over a parameter that was swept, above the size of the model.

    Args:
        name: The parameter's name, for the axis.
        values: Its values, ascending; the axis is logarithmic if they span a factor of 10.
        series: By label: mean and standard deviation of the metric at each value; a deviation that is
            not finite is not drawn.
        metric: The metric's name, for the axis.
        parameters: Number of trained weights at each value.
    """
    figure = Figure(figsize=(6, 5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    for (label, (means, deviations)), colour, marker in zip(
        series.items(), COLOURS, "osD^vPX", strict=False
    ):
        spread = np.nan_to_num(deviations)
        upper.errorbar(
            values,
            means,
            spread,
            color=colour,
            marker=marker,
            capsize=3 * bool(spread.any()),
            label=label,
        )
    upper.set_ylabel(metric)
    upper.legend()
    lower.plot(values, parameters, color="0.3", marker=".")
    lower.set_yscale("log")
    ends = [min(parameters), max(parameters)]
    lower.set_yticks(ends, [f"{end:,}" for end in ends])
    lower.minorticks_off()
    lower.set_ylabel("weights")
    lower.set_xlabel(name)
    if min(values) > 0 and max(values) >= 10 * min(values):
        lower.set_xscale("log")
        lower.set_xticks(values, [f"{value:g}" for value in values])
        lower.minorticks_off()
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
    return figure
