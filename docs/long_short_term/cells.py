"""What the runs of the study have measured, with intervals over users.

A figure is a mean over test windows of the mean over seeds. Its interval holds 95 % of 2,000 bootstrap
resamples of whole users; a difference or a ratio of two runs is taken within each resample.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from omegaconf import OmegaConf

from matinee.run_folder import CONFIG, PER_USER
from matinee.significance import signed_rank

Floats = npt.NDArray[np.float64]
RESAMPLES = 2_000
MEASURES: dict[str, Callable[[Floats], Floats]] = {
    "Recall@1": lambda ranks: (ranks <= 1).astype(np.float64),
    "Recall@20": lambda ranks: (ranks <= 20).astype(np.float64),
    "MRR@20": lambda ranks: (ranks <= 20) / ranks,
}


@dataclass(frozen=True)
class Cell:
    """What one setting ranked: its windows' users and measures, means over its seeds."""

    users: npt.NDArray[np.str_]
    values: dict[str, Floats]  # by measure, (windows,)
    segments: dict[str, npt.NDArray[np.bool_]]
    seeds: int


@dataclass(frozen=True)
class Estimate:
    """A mean, a difference or a ratio, with the interval of its resamples."""

    value: float
    low: float
    high: float

    def __format__(self, sign: str) -> str:
        value, low, high = (f"{number:{sign}.4f}" for number in (self.value, self.low, self.high))
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
    """Average the windows of several seeds; they have the same windows."""
    arrays = []
    for folder in folders:
        with np.load(folder / PER_USER) as file:
            # windows lie by length, those of a user in time order, which this makes the same at any length
            order = np.argsort(file["user"], kind="stable")
            arrays.append({name: file[name][order] for name in file.files})
    first = arrays[0]
    for other in arrays[1:]:
        if not np.array_equal(other["user"], first["user"]):
            raise ValueError(f"{folders} were measured on different windows")
    values = {
        name: np.mean([measure(array["rank"].astype(float)) for array in arrays], axis=0)
        for name, measure in MEASURES.items()
    }
    masks = {name: array for name, array in first.items() if array.dtype == np.bool_}
    return Cell(first["user"], values, masks, len(arrays))


def pooled(cells: Sequence[Cell]) -> Cell:
    """Lay the windows of several cells one after the other."""
    return Cell(
        np.concatenate([cell.users for cell in cells]),
        {m: np.concatenate([cell.values[m] for cell in cells]) for m in MEASURES},
        {
            name: np.concatenate([cell.segments[name] for cell in cells])
            for name in cells[0].segments
        },
        min(cell.seeds for cell in cells),
    )


@cache
def resamples(num_users: int) -> Floats:
    """Return how often each user counts: once in the first row, as drawn in the others."""
    shares = np.full(num_users, 1 / num_users)
    drawn = np.random.default_rng(0).multinomial(num_users, shares, RESAMPLES)
    return np.vstack([np.ones(num_users), drawn])


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
        against: What is subtracted, or divided by.
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
    weights = resamples(len(names))
    ours = weights @ np.bincount(users, cell.values[measure][chosen])
    per = weights @ np.bincount(users)
    if against is not None:
        theirs = weights @ np.bincount(users, against.values[measure][chosen])
        figures = ours / theirs if ratio else (ours - theirs) / per
    else:
        figures = ours / per
    low, high = np.percentile(figures[1:], [2.5, 97.5])
    return Estimate(float(figures[0]), float(low), float(high))


def p_value(cell: Cell, against: Cell, measure: str = "MRR@20") -> float:
    """Wilcoxon's signed-rank test on the users' own means."""
    users = np.unique(cell.users, return_inverse=True)[1]
    gain = np.bincount(users, cell.values[measure] - against.values[measure]) / np.bincount(users)
    return signed_rank(gain.round(12))
