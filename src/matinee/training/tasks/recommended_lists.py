"""Metrics of the recommended lists of a stage, chosen by name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy import sparse
from torch import Tensor

from matinee.batches.sequence import SequenceDataModule
from matinee.data.interactions import Interactions
from matinee.metrics import beyond_accuracy

ListMetric = Literal["novelty", "popularity", "diversity", "serendipity", "gini", "miscalibration"]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ListMetrics:
    """Metrics of the recommended lists.

    Attributes:
        names: See :data:`ListMetric` and :mod:`matinee.metrics.beyond_accuracy`.
        item_column: Column of the items with the labels for diversity and miscalibration; None measures
            diversity by the item embeddings.
    """

    names: Sequence[str] = ()
    item_column: str | None = None

    def check(self, interactions: Interactions, tables: Mapping[str, Tensor]) -> None:
        """Check that the metrics can be computed.

        Raises:
            ValueError: If a name is unknown, or a metric lacks the labels or embeddings that it needs.
        """
        known = get_args(ListMetric)
        if unknown := [name for name in self.names if name not in known]:
            raise ValueError(f"list_metrics holds {unknown[0]!r}; choose of {', '.join(known)}.")
        if self.item_column is not None:
            item_labels(interactions, self.item_column)
        elif "miscalibration" in self.names:
            raise ValueError(
                "list_metrics holds 'miscalibration', which compares labels; set item_column to a column "
                "of the items, such as genres."
            )
        elif "diversity" in self.names and "items" not in tables:
            raise ValueError(
                "list_metrics holds 'diversity' and the model has no item embeddings; set item_column to "
                "a column of the items, such as genres."
            )

    def measure(
        self,
        best_items: npt.NDArray[np.integer],
        datamodule: SequenceDataModule,
        stage: str,
        top_k: Sequence[int],
        tables: Mapping[str, Tensor],
    ) -> tuple[dict[str, float], dict[str, Floats]]:
        """Measure the lists of a stage.

        Args:
            best_items: The list of each window, best first; 0 where there are fewer candidates,
                (windows, k).
            datamodule: Where the windows come from.
            stage: ``train``, ``val`` or ``test``.
            top_k: Cut-offs.
            tables: The embeddings of the network.

        Returns:
            ``NAME@k``, averaged over the windows that have a value; and the values of all windows,
            (windows,) each, NaN where there is none.
        """
        averages: dict[str, float] = {}
        values: dict[str, Floats] = {}
        if not self.names:
            return averages, values
        num_items = datamodule.interactions.num_items
        counts = np.bincount(datamodule.histories.item_ids, minlength=num_items + 1)
        target_ids = datamodule.evaluation(stage).target_ids.numpy()
        labels = (
            item_labels(datamodule.interactions, self.item_column) if self.item_column else None
        )
        compute: dict[str, Callable[[Any], Floats]] = {
            "novelty": lambda lists: beyond_accuracy.novelty(lists, counts),
            "popularity": lambda lists: beyond_accuracy.popularity(lists, counts),
            "serendipity": lambda lists: beyond_accuracy.serendipity(lists, target_ids, counts),
        }
        if "diversity" in self.names:
            vectors = tables["items"].detach().cpu().numpy() if labels is None else labels
            compute["diversity"] = lambda lists: beyond_accuracy.diversity(lists, vectors)
        if "miscalibration" in self.names and labels is not None:
            profiles = shown_labels(datamodule, stage, labels)
            compute["miscalibration"] = lambda lists: beyond_accuracy.miscalibration(
                lists, profiles, labels
            )
        for name in self.names:
            for k in top_k:
                lists = best_items[:, :k]
                if name == "gini":
                    averages[f"{name}@{k}"] = beyond_accuracy.gini(lists, num_items)
                elif not np.isnan(found := compute[name](lists)).all():
                    averages[f"{name}@{k}"] = float(np.nanmean(found))
                    values[f"{name}@{k}"] = found
        return averages, values


def item_labels(interactions: Interactions, column: str) -> Floats:
    """Return the labels of each item as shares, (num_items + 1, labels); rows sum to 1 or to 0.

    Args:
        interactions: Their items have the column, a text of labels that are separated by ``|``.
        column: Its name.

    Raises:
        ValueError: If there is no such column.
    """
    items = interactions.items
    if column not in items or column == "raw_id":
        known = ", ".join(str(name) for name in items if name != "raw_id") or "none"
        raise ValueError(f"item_column is {column!r}; the columns of the items are: {known}.")
    texts = items[column].astype("string").fillna("").reindex(range(len(items) + 1), fill_value="")
    marks = texts.str.get_dummies("|").drop(columns="", errors="ignore")
    labels = marks.to_numpy(dtype=np.float64)
    shares: Floats = labels / np.maximum(labels.sum(1, keepdims=True), 1)
    return shares


def shown_labels(datamodule: SequenceDataModule, stage: str, labels: Floats) -> Floats:
    """Sum the labels of the items that each window shows, (windows, labels)."""
    histories, windows, _ = datamodule.evaluation(stage)
    shown = (windows.lengths - 1).numpy()
    ends = np.concatenate(([0], np.cumsum(shown, dtype=np.int64)))
    places = np.arange(ends[-1]) + np.repeat(windows.starts.numpy() - ends[:-1], shown)
    items = histories.item_ids[places]
    weights = np.ones(len(items))
    seen = sparse.csr_matrix((weights, items, ends), shape=(len(shown), len(labels)))
    summed: Floats = seen @ labels
    return summed
