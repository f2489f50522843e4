"""What answers a service's questions: a run, or an artefact without the run's code and data."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from matinee.batches.queries import Queries
from matinee.batches.windows import Histories, item_seconds
from matinee.config.trees import parse_json
from matinee.contracts import RecurrentEncoder
from matinee.data.catalogues import with_year
from matinee.errors import MatineeError
from matinee.experiment.building import Experiment, load_run
from matinee.experiment.run_folder import asked_folder
from matinee.files import plain_file
from matinee.networks.carried_states import CarriedStates
from matinee.training.tasks.live import LiveRatingTask
from matinee.verbs.export import parity
from matinee.verbs.export.artefact import FORM, HISTORIES, ITEMS, MANIFEST, ONNX, USERS, sha256
from matinee.verbs.similar import Comparison

Ids = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Asked:
    """One question: for whom items are scored.

    Attributes:
        user_id: The user; 0 for a newcomer.
        item_ids: What the user has met, oldest first, (n,).
        ratings: A newcomer's ratings of these items; None if there are none.
        times: When a user met them, seconds, (n,); None if that is not known.
    """

    user_id: int = 0
    item_ids: Ids = field(default_factory=lambda: np.zeros(0, np.int64))
    ratings: tuple[float, ...] | None = None
    times: Ids | None = None

    def keep(self, places: Ids) -> Self:
        """Ask with some of the items."""
        rated = self.ratings
        ratings = None if rated is None else tuple(rated[place] for place in places.tolist())
        times = None if self.times is None else self.times[places]
        return replace(self, item_ids=self.item_ids[places], ratings=ratings, times=times)


class Source(ABC):
    """What is known of users and items, and the scores of a model.

    Attributes:
        name: What the model is called.
        ranks: Whether the model ranks next items; otherwise it predicts ratings.
        reads: What it can use of a newcomer: ``history``, ``ratings`` or neither.
        rating_scale: Lowest and highest rating; None if the model knows no ratings.
        raw_items: Raw ids of the items; index 0 is item 1.
        titles: Their titles.
    """

    name: str
    ranks: bool
    reads: str | None
    rating_scale: tuple[float, float] | None
    raw_items: Sequence[Any]
    titles: Sequence[str]
    users: Mapping[str, int]
    offsets: Ids | None
    met_items: Ids
    met_times: Ids | None
    needs_times: bool

    def index(self, raw_users: Sequence[Any]) -> None:
        """Prepare to find ids by raw id, and titles by words."""
        self.users = {str(raw): place for place, raw in enumerate(raw_users, start=1)}
        self.items = {str(raw): place for place, raw in enumerate(self.raw_items, start=1)}
        self.folded = [title.casefold() for title in self.titles]
        popularity = np.zeros(len(self.raw_items) + 1, np.int64)
        if self.offsets is not None:
            popularity = np.bincount(self.met_items, minlength=len(popularity))
        self.by_popularity = np.argsort(-popularity[1:], kind="stable") + 1

    def find_items(self, query: str, most: int) -> list[int]:
        """Find items whose title holds some words, the most popular first."""
        words = query.casefold().split()
        found: list[int] = []
        for item in self.by_popularity.tolist():
            if all(word in self.folded[item - 1] for word in words):
                found.append(item)
                if len(found) == most:
                    break
        return found

    def of_user(self, user_id: int) -> Asked:
        """Ask for a user of the data, with all that the user has met."""
        if self.offsets is None:
            return Asked(user_id)
        mine = slice(self.offsets[user_id], self.offsets[user_id + 1])
        times = None if self.met_times is None else self.met_times[mine]
        return Asked(user_id, self.met_items[mine], times=times)

    def queries(self, asked: Sequence[Asked]) -> Queries:
        """Join questions; either all have ratings or none has."""
        ratings = [rating for one in asked for rating in one.ratings or ()]
        times = None
        if self.needs_times:
            columns = [
                np.zeros_like(one.item_ids) if one.times is None else one.times for one in asked
            ]
            times = torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *columns]))
        rated = bool(asked) and asked[0].ratings is not None
        joined = Queries.of_histories(
            [one.item_ids for one in asked],
            torch.tensor(ratings) if rated else None,
            [one.user_id for one in asked],
        )
        return Queries(joined.user_ids, joined.offsets, joined.item_ids, joined.ratings, times)

    def score(self, asked: Sequence[Asked]) -> Scores:
        """Score all items for each question, (n, num_items + 1); column 0 is minus infinity."""
        scores = np.empty((len(asked), len(self.raw_items) + 1), np.float32)
        for rated in (False, True):
            rows = [row for row, one in enumerate(asked) if (one.ratings is not None) == rated]
            if rows:
                scores[rows] = self.score_queries(self.queries([asked[row] for row in rows]))
        return scores

    @abstractmethod
    def score_queries(self, queries: Queries) -> Scores:
        """Score all items for queries of one kind."""

    @abstractmethod
    def rate(self, user_ids: Ids, item_ids: Ids) -> Scores:
        """Predict the ratings of pairs, (n,) each."""

    @abstractmethod
    def similarities(self, item_id: int) -> tuple[str, Scores]:
        """Compare an item with all items.

        Returns:
            The name of the measure; and the values, (num_items + 1,), which the caller may change, minus
            infinity for the item itself and for items that are not compared.

        Raises:
            MatineeError: If the model cannot compare items.
        """

    def shares(self, asked: Asked, item_id: int) -> Scores:
        """Say how much each item that was met contributes to a score, (n,), adding up to 1 or all 0.

        A ranking model answers once more without each item; its share is how far the score falls. A model
        of ratings compares the items themselves.

        Raises:
            MatineeError: If the model reads ratings and a user of the data asks, or it cannot compare items.
        """
        if self.ranks and self.reads == "ratings" and asked.ratings is None:
            raise MatineeError(
                "this model explains what it recommends after ratings; give ratings."
            )
        if self.ranks:
            every = np.arange(len(asked.item_ids))
            questions = [asked, *(asked.keep(np.delete(every, place)) for place in every)]
            scores = self.score(questions)[:, item_id]
            parts = scores[0] - scores[1:]
        else:
            parts = self.similarities(item_id)[1][asked.item_ids]
        parts = np.where(np.isfinite(parts), parts, 0).clip(min=0)
        total = parts.sum()
        return parts / total if total > 0 else parts


class RunSource(Source):
    """A run, answered by its own code.

    Args:
        experiment: The loaded run.

    Raises:
        MatineeError: If its model needs more of a user than a service takes.
    """

    def __init__(self, experiment: Experiment) -> None:
        network: Any = experiment.task.network
        needs_times = getattr(network, "needs_times", False)
        if isinstance(experiment.task, LiveRatingTask) and needs_times:
            raise MatineeError(
                "this run's model reads the times of a user's earlier ratings, which no question of the "
                "service holds; use recommend, or serve another model."
            )
        encoder = getattr(network, "encoder", None)
        continues = hasattr(network, "carried") and not needs_times
        if continues and isinstance(encoder, RecurrentEncoder):
            network.carried = CarriedStates(encoder)
        self.experiment = experiment
        interactions, task = experiment.datamodule.interactions, experiment.task
        self.name = str(experiment.config.name)
        self.ranks = task.score_name == "score"
        self.reads = task.newcomer_inputs[0]
        self.rating_scale = interactions.rating_scale if self.reads == "ratings" else None
        self.raw_items = interactions.items["raw_id"].tolist()
        self.titles = [with_year(row) for _, row in interactions.items.iterrows()]
        histories = Histories.from_rows(interactions, np.arange(len(interactions)))
        self.offsets = histories.offsets.astype(np.int64)
        self.met_items = histories.item_ids.astype(np.int64)
        self.needs_times = needs_times
        self.met_times = None
        if self.needs_times:
            self.met_times = item_seconds(interactions, histories.rows).numpy()
        self.index(interactions.users["raw_id"].tolist())

    @torch.no_grad()
    def score_queries(self, queries: Queries) -> Scores:
        """Score by the task, as evaluation does."""
        scores: Scores = self.experiment.task.score_items(
            self.experiment.datamodule, queries
        ).numpy()
        return scores

    @torch.no_grad()
    def rate(self, user_ids: Ids, item_ids: Ids) -> Scores:
        """Predict by the task."""
        ratings: Scores = self.experiment.task.rate(
            self.experiment.datamodule, torch.from_numpy(user_ids), torch.from_numpy(item_ids)
        ).numpy()
        return ratings

    @torch.no_grad()
    def similarities(self, item_id: int) -> tuple[str, Scores]:
        """Compare as ``matinee similar`` does."""
        if not self.experiment.task.warm_items[item_id]:
            raise MatineeError("this item is not in train, so nothing is known of what it is like.")
        values: Scores = self.comparison.values(torch.tensor([item_id]))[0].numpy()
        return self.comparison.by, values

    @cached_property
    def comparison(self) -> Comparison:
        """How items are compared; made when it is first needed, as some models cannot."""
        return Comparison(self.experiment)


class ArtefactSource(Source):
    """An artefact, answered by ONNX Runtime.

    Args:
        folder: What ``matinee export`` wrote.

    Raises:
        MatineeError: If a file is missing, or differs from the manifest.
    """

    def __init__(self, folder: Path) -> None:
        self.manifest = _checked(folder)
        self.name = f"{self.manifest['run']['name']} ({folder.resolve().name})"
        self.ranks = self.manifest["kind"] == "next item"
        self.reads = "history" if self.ranks else None
        bounds = self.manifest.get("rating_scale")
        self.rating_scale = (bounds[0], bounds[1]) if bounds else None
        items = _lines(folder / ITEMS)
        self.raw_items = [item["raw_id"] for item in items]
        self.titles = [str(item["title"]) for item in items]
        self.offsets, self.met_items, self.met_times = None, np.zeros(0, np.int64), None
        self.needs_times = len(self.manifest["inputs"]) == 4
        if HISTORIES in self.manifest["files"]:
            with np.load(folder / HISTORIES, allow_pickle=False) as stored:
                self.offsets = stored["offsets"]
                self.met_items = stored["item_ids"].astype(np.int64)
                self.met_times = stored.get("times")
        self.answer = parity.onnx_answer(folder / ONNX)
        self.index([user["raw_id"] for user in _lines(folder / USERS)])

    def score_queries(self, queries: Queries) -> Scores:
        """Score by the program."""
        if not self.ranks:
            if queries.ratings is not None:
                raise MatineeError(
                    "the program of a rating model cannot fold in ratings; serve the run itself."
                )
            every = np.arange(len(self.raw_items) + 1)
            rows = [self.rate(np.full_like(every, int(user)), every) for user in queries.user_ids]
            scores = np.stack(rows)
            scores[:, 0] = -np.inf
            return scores
        histories, lengths, times = queries.histories(self.manifest["newest_items"])
        inputs = {"histories": histories, "lengths": lengths, "user_ids": queries.user_ids}
        if self.needs_times:
            inputs["times"] = torch.zeros_like(histories) if times is None else times
        return self.answer({name: tensor.long().numpy() for name, tensor in inputs.items()})

    def rate(self, user_ids: Ids, item_ids: Ids) -> Scores:
        """Predict by the program."""
        if self.ranks:
            raise MatineeError("this model ranks items and rates none; use /recommend.")
        return self.answer({"user_ids": user_ids, "item_ids": item_ids})

    def similarities(self, item_id: int) -> tuple[str, Scores]:
        """Compare scores after the item alone."""
        if not self.ranks:
            raise MatineeError("the program of a rating model compares no items.")
        scores = self.score([Asked(0, np.array([item_id]))])[0]
        scores[item_id] = -np.inf
        return "score", scores


def open_source(config: Any) -> Source:
    """Open what a composed ``serve`` config names: ``run`` or ``artefact``.

    Raises:
        MatineeError: If both or neither are named, or it cannot be opened.
    """
    if (config.run is None) == (config.artefact is None):
        raise MatineeError("give run=FOLDER or artefact=FOLDER, one of them.")
    if config.artefact is not None:
        return ArtefactSource(Path(config.artefact))
    folder = asked_folder(config.run)
    return RunSource(load_run(folder, config.checkpoint, dataset=config.dataset))


def _checked(folder: Path) -> dict[str, Any]:
    """Read the manifest of an artefact, and compare its files with it."""
    path = plain_file(folder, MANIFEST)
    try:
        manifest: dict[str, Any] = parse_json(path.read_text(encoding="utf-8"))
        form, files = manifest["form"], dict(manifest["files"])
    except FileNotFoundError as error:
        raise MatineeError(
            f"{folder} is no artefact: {path} is missing; name a folder that export made."
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MatineeError(f"{path} cannot be read ({error}); export the run again.") from error
    if form != FORM:
        raise MatineeError(f"{path} has form {form}, not {FORM}; export the run again.")
    for name, recorded in files.items():
        file = plain_file(folder, name)
        if not file.is_file() or sha256(file) != recorded["sha256"]:
            raise MatineeError(f"{file} is not what the manifest records; copy the artefact again.")
    return manifest


def _lines(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]
