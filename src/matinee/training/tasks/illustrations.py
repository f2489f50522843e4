"""Figures and sample recommendations of a trained task, for TensorBoard."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from matinee.batches import LiveDataModule, RatingDataModule, SequenceDataModule
from matinee.batches.loading import to_device
from matinee.contracts import DataModule
from matinee.data.catalogues import with_year
from matinee.display.markdown import as_markdown, literal
from matinee.metrics import FloatArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from matinee.training.tasks.live import LiveRatingTask
    from matinee.training.tasks.next_item import NextItemTask
    from matinee.training.tasks.rating import RatingTask

SHOWN = 10  # recommendations to one user or after one history


def breakdown(
    datamodule: DataModule, values: FloatArray, label: str, history_label: str
) -> "dict[str, Figure]":
    """Draw values of the rows of test by the length of the history and by popularity in train.

    Args:
        datamodule: Where the rows come from.
        values: One value per row of test, (rows,).
        label: What the values are, with their unit.
        history_label: What the rows of the user that come before are.
    """
    from matinee.display import plotting

    table, evaluated = datamodule.interactions, datamodule.evaluated("test")
    counts = np.bincount(table.item_ids[datamodule.split.train], minlength=table.num_items + 1)
    popularity = counts[evaluated.item_ids]
    return {
        "by_history": plotting.metric_by(evaluated.history_lengths, values, history_label, label),
        "by_popularity": plotting.metric_by(
            popularity, values, "times the item is in train", label
        ),
    }


@torch.no_grad()
def ranked_samples(task: "NextItemTask", datamodule: SequenceDataModule, count: int) -> list[str]:
    """Recommend next items after some histories of test, the true next item marked."""
    items, texts = datamodule.interactions.items, []
    loader = datamodule.evaluation_dataloader("test")
    num_windows = len(datamodule.evaluation("test").windows.starts)
    for place in np.linspace(0, num_windows - 1, count).astype(int).tolist():
        batch = to_device(loader.collate(slice(place, place + 1)), task.device)
        answer = task.rank(batch, best=min(SHOWN, len(items)))
        length, target = int(batch.lengths), int(batch.target_ids.sum())
        history = batch.histories[0, 1:length].tolist()
        seen = ", ".join(_title(items, item) for item in history) or "nothing"
        texts += [
            f"**After** {literal(seen)}",
            _top(answer["best_items"][0], items, {target: "the next item"}),
            f"The next item was {literal(_title(items, target))}, at rank {answer['ranks'].item():g}.",
        ]
    return texts


@torch.no_grad()
def rated_samples(task: "RatingTask", datamodule: RatingDataModule, count: int) -> list[str]:
    """Recommend unrated items to some users of train and test, what they rated later marked."""
    table, split = datamodule.interactions, datamodule.split
    assert table.ratings is not None
    users, tested = table.user_ids[split.train], table.user_ids[split.test]
    known, texts = np.intersect1d(users, tested), []
    every_item = torch.arange(table.num_items + 1, device=task.device)
    for place in np.linspace(0, len(known) - 1, min(count, len(known))).astype(int).tolist():
        user = int(known[place])
        rated, later = split.train[users == user], split.test[tested == user]
        best = rated[np.argsort(-table.ratings[rated], kind="stable")[:5]]
        scores = task(torch.full_like(every_item, user), every_item)
        scores[torch.from_numpy(table.item_ids[rated]).long()] = float("-inf")
        scores[0] = float("-inf")
        values, best_items = scores.topk(min(SHOWN, len(table.items)))
        best_items[values == float("-inf")] = 0  # there are fewer candidates
        truth = {
            item: f"later rated {rating:g}"
            for item, rating in zip(
                table.item_ids[later].tolist(), table.ratings[later], strict=True
            )
        }
        raw_id: Any = table.users.loc[user, "raw_id"]
        liked = ", ".join(_title(table.items, item) for item in table.item_ids[best])
        texts += [
            f"**User** {literal(str(raw_id))}, who liked {literal(liked)}",
            _top(best_items, table.items, truth),
        ]
    return texts


@torch.no_grad()
def live_samples(task: "LiveRatingTask", datamodule: LiveDataModule, count: int) -> list[str]:
    """Predict the first ratings in test of some users, beside the ratings that they gave."""
    table, listened, texts = datamodule.interactions, datamodule.listened("test"), []
    first = listened.counts.cumsum() - listened.counts
    for reader in np.linspace(0, len(first) - 1, min(count, len(first))).astype(int).tolist():
        batch = to_device(datamodule.gather("test", np.array([reader])), task.device)
        predicted = task(batch)[:SHOWN].tolist()
        rows = listened.targets[first[reader] :][: len(predicted)]
        shown = {
            "ratings known": batch.known[: len(rows)].tolist(),
            "item": [_title(table.items, item) for item in table.item_ids[rows]],
            "predicted": [f"{rating:.2f}" for rating in predicted],
            "rated": [f"{rating:g}" for rating in batch.target_ratings[: len(rows)].tolist()],
        }
        raw_id: Any = table.users.loc[listened.users[reader], "raw_id"]
        texts += [f"**User** {literal(str(raw_id))}", as_markdown(pd.DataFrame(shown))]
    return texts


def _top(best_items: Tensor, items: pd.DataFrame, truth: Mapping[int, str]) -> str:
    rows = [
        {"rank": place, "recommended": _title(items, item), "truth": truth.get(item, "")}
        for place, item in enumerate(best_items.tolist(), start=1)
        if item  # 0 stands for no item
    ]
    return as_markdown(pd.DataFrame(rows))


def _title(items: pd.DataFrame, item: int) -> str:
    row: Any = items.loc[item]
    return " ".join(with_year(row).split())
