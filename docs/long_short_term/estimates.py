"""Estimates of what the study's runs measured, with intervals over users and seeds.

An estimate is a mean over test windows and seeds. Its interval holds 95 % of 2,000 bootstrap resamples of
users (each with all windows) and of seeds. Each resample gives one difference or ratio of two cells.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ranks import Row, read_ranks

from matinee.errors import MatineeError
from matinee.verbs.report.significance import bootstrap, signed_rank

Floats = npt.NDArray[np.float64]
RESAMPLES = 2_000
MEASURES: dict[str, Callable[[Floats], Floats]] = {
    "Recall@1": lambda ranks: (ranks <= 1).astype(np.float64),
    "Recall@20": lambda ranks: (ranks <= 20).astype(np.float64),
    "MRR@20": lambda ranks: (ranks <= 20) / ranks,
}


@dataclass(frozen=True)
class Cell:
    """The test windows of one setting, measured for each of its seeds."""

    users: npt.NDArray[np.str_]  # the user of each window, (windows,)
    values: dict[str, Floats]  # by measure, (seeds, windows)
    segments: dict[str, npt.NDArray[np.bool_]]

    @property
    def seeds(self) -> int:
        """Number of seeds."""
        return len(next(iter(self.values.values())))

    @classmethod
    def of_seeds(cls, rows: Sequence[Row]) -> "Cell":
        """Combine the rows of one setting, one for each seed.

        Raises:
            MatineeError: If they have different windows.
        """
        first = rows[0]
        for other in rows[1:]:
            if not np.array_equal(other["user"], first["user"]):
                raise MatineeError(
                    f"{first['folder']} and {other['folder']} have different test windows; train "
                    "one of them again."
                )
        values = {
            name: np.stack([measure(row["rank"].astype(float)) for row in rows])
            for name, measure in MEASURES.items()
        }
        return cls(first["user"], values, {name: first[name] for name in first if "=" in name})


@dataclass(frozen=True)
class Estimate:
    """A mean, a difference or a ratio, with its 95 % interval."""

    value: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        value, low, high = (f"{number:{spec}}" for number in (self.value, self.low, self.high))
        return f"{value} ({low} to {high})"


class Study:
    """All cells of a study, found by their settings.

    Args:
        folder: The folder of the study, see :func:`ranks.read_ranks`.
    """

    def __init__(self, folder: Path) -> None:
        found: dict[tuple[Any, ...], list[Row]] = {}
        for row in read_ranks(folder):
            found.setdefault(_key(row), []).append(row)
        self.cells = {key: Cell.of_seeds(rows) for key, rows in found.items()}

    def run(self, model: str, dim: int = 64, length: int = 20, drop: float = 0.0) -> Cell | None:
        """Return the cell of a run on the whole data, or None if it was not trained."""
        return self.cells.get(("run", model, dim, length, drop))

    def swept(self, setting: str) -> list[Any]:
        """List the values that ``dim``, ``length`` or ``drop`` takes."""
        place = ("dim", "length", "drop").index(setting) + 2
        return sorted({key[place] for key in self.cells if key[0] == "run"})

    def order(self, model: str, histories: str) -> Cell | None:
        """Return the cell of a model with changed histories, or with ``whole`` ones."""
        return (
            self.run(model) if histories == "whole" else self.cells.get(("order", model, histories))
        )

    def folds(self, model: str, least: int, fold: int | None = None) -> Cell | None:
        """Return the cell of one tenth, or of all tenths together."""
        every = [
            cell
            for key, cell in self.cells.items()
            if key[:3] == ("fold", model, least) and fold in (None, key[3])
        ]
        return pooled(every) if every else None


def _key(row: Row) -> tuple[Any, ...]:
    """Return the key of the cell that a run or an evaluation belongs to."""
    if row["fold"] is not None:
        return "fold", row["model"], row["min_item_count"], row["fold"]
    if row["histories"] is not None:
        return "order", row["model"], row["histories"]
    if row["embedding_dim"] is None:
        return "popularity", row["model"]
    return "run", row["model"], row["embedding_dim"], row["length"], row["drop_oldest"]


def pooled(cells: Sequence[Cell]) -> Cell:
    """Concatenate the windows of several cells, for the seeds that all of them have."""
    seeds = min(cell.seeds for cell in cells)
    return Cell(
        np.concatenate([cell.users for cell in cells]),
        {m: np.concatenate([cell.values[m][:seeds] for cell in cells], 1) for m in MEASURES},
        {
            name: np.concatenate([cell.segments[name] for cell in cells])
            for name in cells[0].segments
        },
    )


@cache
def resamples(count: int, seed: int) -> Floats:
    """Return how often each of ``count`` users or seeds is drawn in each resample."""
    shares = np.full(count, 1 / count)
    drawn = np.random.default_rng(seed).multinomial(count, shares, RESAMPLES)
    return drawn.astype(np.float64)


def estimate(
    cell: Cell,
    against: Cell | None = None,
    measure: str = "MRR@20",
    segment: str | None = None,
    ratio: bool = False,
) -> Estimate:
    """Estimate a mean, or its difference from that of another cell on the same windows.

    Args:
        cell: The cell to measure.
        against: The cell to subtract, or to divide by. Its seeds are drawn like those of ``cell``. This
            is valid for separately trained models, and necessary for one model with two kinds of
            histories.
        measure: One of :data:`MEASURES`.
        segment: The segment to measure; None measures all windows.
        ratio: Divide instead of subtracting.
    """
    if against is not None and not np.array_equal(cell.users, against.users):
        raise ValueError("only what was measured on the same windows can be compared")
    chosen = cell.segments[segment] if segment else np.ones(len(cell.users), bool)
    names, users = np.unique(cell.users[chosen], return_inverse=True)
    if len(names) == 0:
        return Estimate(np.nan, np.nan, np.nan)
    cells = [cell] if against is None else [cell, against]
    totals = [
        np.stack([np.bincount(users, values[chosen]) for values in entry.values[measure]], axis=1)
        for entry in cells
    ]
    seeds = np.hstack([resamples(entry.seeds, seed=1) for entry in cells])

    def statistic(totals: Floats, counts: Floats, weights: Floats) -> Floats:
        """Average over windows and seeds, then compare."""
        means = totals / counts * weights
        mean = means[:, : cell.seeds].mean(1, keepdims=True)
        if against is None:
            return mean
        other = means[:, cell.seeds :].mean(1, keepdims=True)
        return mean / other if ratio else mean - other

    drawn = (resamples(len(names), seed=0), seeds)
    (estimate,) = bootstrap(statistic, totals, np.bincount(users)[:, None], [drawn]).T
    return Estimate(*estimate.tolist())


def p_value(cell: Cell, against: Cell, measure: str = "MRR@20") -> float:
    """Return the p-value of Wilcoxon's signed-rank test on each user's mean over windows and seeds."""
    users = np.unique(cell.users, return_inverse=True)[1]
    gain = cell.values[measure].mean(0) - against.values[measure].mean(0)
    return signed_rank((np.bincount(users, gain) / np.bincount(users)).round(12))
