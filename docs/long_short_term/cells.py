"""What the runs of the study have measured, with intervals over users.

A figure is a mean over test windows and seeds. Its interval holds 95 % of 2,000 bootstrap resamples, each of
whole users and of seeds; a difference or a ratio of two cells is taken within each resample.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
from omegaconf import OmegaConf

from matinee.errors import MatineeError
from matinee.experiment.run_folder import CONFIG, EVALUATION, PER_USER, RESULT
from matinee.verbs.report.significance import signed_rank

Floats = npt.NDArray[np.float64]
RESAMPLES = 2_000
MEASURES: dict[str, Callable[[Floats], Floats]] = {
    "Recall@1": lambda ranks: (ranks <= 1).astype(np.float64),
    "Recall@20": lambda ranks: (ranks <= 20).astype(np.float64),
    "MRR@20": lambda ranks: (ranks <= 20) / ranks,
}


@dataclass(frozen=True)
class Cell:
    """What one setting ranked."""

    users: npt.NDArray[np.str_]  # whose windows they are, (windows,)
    values: dict[str, Floats]  # by measure, (seeds, windows)
    segments: dict[str, npt.NDArray[np.bool_]]

    @property
    def seeds(self) -> int:
        """How many trainings are behind it."""
        return len(next(iter(self.values.values())))


@dataclass(frozen=True)
class Estimate:
    """A mean, a difference or a ratio, with the interval of its resamples."""

    value: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        value, low, high = (f"{number:{spec}}" for number in (self.value, self.low, self.high))
        return f"{value} ({low} to {high})"


class Study:
    """All cells of a folder, found by their settings.

    Args:
        folder: Where the launcher put its runs.
    """

    def __init__(self, folder: Path) -> None:
        found: dict[tuple[Any, ...], list[Path]] = {}
        for path in sorted(folder.glob("*/*/*/result.json")):
            config: Any = OmegaConf.load(path.parent / CONFIG)
            model = path.parent.parent.name
            if path.parents[2].name == "folds":
                part = config.dataset
                key: tuple[Any, ...] = ("fold", model, part.min_item_count, part.fold)
            else:
                data = config.data
                key = ("run", model, config.model.embedding_dim, data.length, data.drop_oldest)
            found.setdefault(key, []).append(path.parent)
            for kept in path.parent.glob("order/*/evaluation.json"):
                found.setdefault(("order", model, kept.parent.name), []).append(kept.parent)
        self.cells = {key: read(folders) for key, folders in found.items()}

    def run(self, model: str, dim: int = 64, length: int = 20, drop: float = 0.0) -> Cell | None:
        """Return the cell of a run on the whole data, or None if it was not trained."""
        return self.cells.get(("run", model, dim, length, drop))

    def swept(self, setting: str) -> list[Any]:
        """List the values that ``dim``, ``length`` or ``drop`` takes."""
        place = ("dim", "length", "drop").index(setting) + 2
        return sorted({key[place] for key in self.cells if key[0] == "run"})

    def order(self, model: str, histories: str) -> Cell | None:
        """Return the cell of a model that was read changed histories, or whole ones."""
        return (
            self.run(model) if histories == "whole" else self.cells.get(("order", model, histories))
        )

    def folds(self, model: str, least: int, fold: int | None = None) -> Cell | None:
        """Return the cell of one tenth, or of all of them together."""
        every = [
            cell
            for key, cell in self.cells.items()
            if key[:3] == ("fold", model, least) and fold in (None, key[3])
        ]
        return pooled(every) if every else None


def read(folders: Sequence[Path]) -> Cell:
    """Read the windows of several seeds, which have the same ones."""
    arrays = [read_windows(folder) for folder in folders]
    first = arrays[0]
    for other in arrays[1:]:
        if not np.array_equal(other["user"], first["user"]):
            raise MatineeError(f"{folders[0]} and its other seeds have different windows.")
    values = {
        name: np.stack([measure(array["rank"].astype(float)) for array in arrays])
        for name, measure in MEASURES.items()
    }
    masks = {name: array for name, array in first.items() if array.dtype == np.bool_}
    return Cell(first["user"], values, masks)


def read_windows(folder: Path) -> dict[str, npt.NDArray[Any]]:
    """Read what a run or an evaluation ranked, user by user, in time order.

    Raises:
        MatineeError: If it cannot be read or is not what made the recorded figures.
    """
    recorded = folder / (RESULT if (folder / RESULT).exists() else EVALUATION)
    try:
        with np.load(folder / PER_USER) as file:
            # windows lie by length, those of a user in time order, which this makes the same at any length
            order = np.argsort(file["user"], kind="stable")
            arrays = {name: file[name][order] for name in file.files}
        figure = json.loads(recorded.read_text())["metrics"]["test/mrr"]
        found = np.mean(1 / arrays["rank"].astype(np.float64))
    except (OSError, ValueError, KeyError, TypeError, BadZipFile) as error:
        raise MatineeError(
            f"{recorded} or {PER_USER} beside it cannot be read ({error})."
        ) from error
    if not np.isclose(found, figure, rtol=1e-5):
        raise MatineeError(f"{folder / PER_USER} makes an MRR of {found:.6f}, not {figure:.6f}.")
    return arrays


def pooled(cells: Sequence[Cell]) -> Cell:
    """Lay the windows of several cells one after the other, of as many seeds as all have."""
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
    """Return how often each of some counts: once in the first row, as drawn in the others."""
    shares = np.full(count, 1 / count)
    drawn = np.random.default_rng(seed).multinomial(count, shares, RESAMPLES)
    return np.vstack([np.ones(count), drawn])


def estimate(
    cell: Cell,
    against: Cell | None = None,
    measure: str = "MRR@20",
    segment: str | None = None,
    ratio: bool = False,
) -> Estimate:
    """Estimate a mean, or how far it is from another cell's on the same windows.

    Args:
        cell: What is measured.
        against: What is subtracted, or divided by. Its seeds are drawn as those of ``cell``, which
            is right for models of their own and needed for one model that read two kinds of histories.
        measure: One of :data:`MEASURES`.
        segment: Windows to look at; None takes all.
        ratio: Divide instead of subtracting.
    """
    if against is not None and not np.array_equal(cell.users, against.users):
        raise ValueError("only what was measured on the same windows can be compared")
    chosen = cell.segments[segment] if segment else np.ones(len(cell.users), bool)
    names, users = np.unique(cell.users[chosen], return_inverse=True)
    if len(names) == 0:
        return Estimate(np.nan, np.nan, np.nan)
    weights = resamples(len(names), seed=0)

    def means(cell: Cell) -> Floats:
        """Average over windows and seeds, in each resample."""
        totals = [np.bincount(users, values[chosen]) for values in cell.values[measure]]
        by_seed = weights @ np.stack(totals, 1) / (weights @ np.bincount(users))[:, None]
        mean: Floats = (by_seed * resamples(cell.seeds, seed=1)).mean(1)
        return mean

    figures = means(cell)
    if against is not None:
        figures = figures / means(against) if ratio else figures - means(against)
    low, high = np.percentile(figures[1:], [2.5, 97.5])
    return Estimate(float(figures[0]), float(low), float(high))


def p_value(cell: Cell, against: Cell, measure: str = "MRR@20") -> float:
    """Wilcoxon's signed-rank test on the users' own means over windows and seeds."""
    users = np.unique(cell.users, return_inverse=True)[1]
    gain = cell.values[measure].mean(0) - against.values[measure].mean(0)
    return signed_rank((np.bincount(users, gain) / np.bincount(users)).round(12))
