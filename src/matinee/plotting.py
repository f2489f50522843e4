"""Figures for reports, notebooks and TensorBoard: one style, labels with units, safe colours.

Every function returns a :class:`matplotlib.figure.Figure` that belongs to no window and no global state.
"""

from pathlib import Path

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
