"""``matinee similar`` and ``matinee embeddings``: items that are like an item, and the tables behind it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from matinee.batches.queries import Queries
from matinee.data.catalogues import with_year
from matinee.errors import MatineeError
from matinee.experiment.building import Experiment, load_run
from matinee.experiment.run_folder import RESULT, asked_folder
from matinee.metrics import best_items
from matinee.verbs.answer_files import answer_file, claim_answer_file, spare_data
from matinee.verbs.id_files import read_id_file
from matinee.verbs.item_names import ItemNames
from matinee.verbs.recommend import SCORES_AT_ONCE, USERS_AT_ONCE
from matinee.verbs.shards import share_of

By = Literal["cosine", "score"]


def answer(config: Any) -> pd.DataFrame | Path:
    """Answer a composed ``similar`` config: a table for one item, or the file with the lists of many."""
    folder = asked_folder(config.run)
    if (config.item is None) == (config.items is None):
        raise MatineeError("give one of item=... and items=...")
    if (config.items is None) != (config.output is None):
        raise MatineeError("items=... and output=FILE go together; give both or none.")
    if config.items is None and config.shard is not None:
        raise MatineeError("shard=... takes the items of items=...; leave it out.")
    many = config.items is not None
    output = claim_answer_file(config.output, [config.items]) if many else None
    experiment = _load(config, folder)
    if output is None:
        return similar(experiment, config.item, config.top_k, config.by)
    spare_data(output, experiment.config.dataset)
    similar_many(experiment, output, config.items, config.top_k, config.by, config.shard)
    return output


def similar(
    experiment: Experiment, item: Any, top_k: int = 10, by: By | None = None
) -> pd.DataFrame:
    """List the items that are most like an item.

    Args:
        experiment: A loaded run.
        item: Raw id or title of an item of train.
        top_k: Number of items, at least 1.
        by: ``cosine`` compares the item embeddings; ``score`` takes the scores of the next items after
            this item alone, for models that read histories. None takes ``cosine`` where the model has
            item embeddings.

    Returns:
        One row per item, best first, ties by lower id: ``rank``, ``item`` (raw id), ``title``, and
        ``cosine`` or ``score``.

    Raises:
        MatineeError: If train does not hold the item, ``top_k`` is not positive or the model cannot
            compare items in this way.
    """
    comparison = Comparison(experiment, by)
    items = experiment.datamodule.interactions.items
    found = ItemNames(experiment.datamodule.interactions).find([item]).astype(np.int64)
    if not experiment.task.warm_items[int(found[0])]:
        raise MatineeError(
            f"item {item!r} is not in train, so nothing is known of what it is like."
        )
    _, item_ids, scores = next(comparison.neighbours(found, top_k))
    best, values = item_ids[0].numpy(), scores[0].numpy()
    best, values = best[best > 0], values[best > 0]
    return pd.DataFrame(
        {
            "rank": np.arange(1, len(best) + 1),
            "item": items["raw_id"].loc[best].to_numpy(),
            "title": [with_year(items.loc[one]) for one in best],
            comparison.by: values.astype(np.float64),
        }
    )


def similar_many(
    experiment: Experiment,
    output: Path,
    items: str = "all",
    top_k: int = 10,
    by: By | None = None,
    shard: str | None = None,
) -> None:
    """Write the items that are most like each item to a file: ``item``, ``rank``, ``similar`` and the value.

    Args:
        experiment: A loaded run.
        output: What :func:`matinee.verbs.answer_files.claim_answer_file` returned.
        items: ``all``, the items of train, or a file with a column ``item``.
        top_k: See :func:`similar`.
        by: See there.
        shard: ``i/n`` answers the i-th of n equal shares of the items, from 1; None answers all.

    Raises:
        MatineeError: As :func:`similar`, or if the file cannot be read.
        NotWritten: If the output cannot be written.
    """
    comparison = Comparison(experiment, by)
    interactions, warm = experiment.datamodule.interactions, experiment.task.warm_items.numpy()
    asked = np.flatnonzero(warm)
    if items != "all":
        table = read_id_file(items, interactions, ["item"])
        asked = table.some_item_ids(interactions)
        if not warm[asked].all():
            row = int(np.argmin(warm[asked]))
            raise table.locations.error("item", row, "the item is not in train; remove the row")
    raw = pa.array(interactions.items["raw_id"].to_numpy())
    chosen = share_of(len(asked), shard)
    asked = asked[chosen.start : chosen.stop]
    with (
        answer_file(output) as add,
        tqdm(total=len(asked), desc="similar", unit="item", disable=None) as bar,
    ):
        for rows, item_ids, scores in comparison.neighbours(asked, top_k):
            found = item_ids > 0
            shown = torch.from_numpy(asked[rows]).repeat_interleave(found.sum(1))
            ranks = torch.arange(1, item_ids.shape[1] + 1).expand_as(item_ids)
            columns = {
                "item": raw.take(pa.array(shown.numpy() - 1)),
                "rank": pa.array(ranks[found].numpy()),
                "similar": raw.take(pa.array(item_ids[found].numpy() - 1)),
                comparison.by: pa.array(scores[found].numpy()),
            }
            add(pa.table(columns))
            bar.update(len(item_ids))


class Comparison:
    """Compare items with all items of train, by the cosines of their embeddings or by scores.

    Args:
        experiment: A loaded run.
        by: See :func:`similar`.

    Raises:
        MatineeError: If the model cannot compare items in this way.
    """

    @torch.no_grad()
    def __init__(self, experiment: Experiment, by: By | None = None) -> None:
        self.experiment = experiment
        self.by = _way(experiment, by)
        if self.by == "cosine":
            embeddings = experiment.task.network.tables()["items"]
            self.directions = F.normalize(embeddings.float(), dim=1)

    @torch.no_grad()
    def values(self, item_ids: Tensor) -> Tensor:
        """Compare items of train, (n,), with all items.

        Returns:
            The cosines or scores, (n, num_items + 1); minus infinity for the item itself and for items that
            are not in train.
        """
        task = self.experiment.task
        if self.by == "cosine":
            values = self.directions[item_ids] @ self.directions.T
        else:
            queries = Queries.of_histories(item_ids.unsqueeze(1).tolist())
            values = task.score_items(self.experiment.datamodule, queries)
        values[:, ~task.warm_items] = float("-inf")
        values[torch.arange(len(values)), item_ids] = float("-inf")
        return values

    def neighbours(
        self, asked: npt.NDArray[np.int64], top_k: int
    ) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Find the items that are most like each of n items, some items at a time.

        Args:
            asked: The items, (n,), all of train.
            top_k: Number of items, at least 1.

        Yields:
            Some of the items; what is most like each, ids, best first, ties by lower id, 0 where there is
            less; and the values, (items, min(top_k, num_items)) each.

        Raises:
            MatineeError: If ``top_k`` is not positive.
        """
        if isinstance(top_k, bool) or not isinstance(top_k, int | np.integer) or top_k < 1:
            raise MatineeError(f"top_k is {top_k}; give a whole number of at least 1.")
        item_ids = torch.from_numpy(asked)
        width = len(self.experiment.task.warm_items)
        at_once = max(1, min(USERS_AT_ONCE, SCORES_AT_ONCE // width))
        for start in range(0, len(item_ids), at_once):
            rows = slice(start, start + at_once)
            yield rows, *best_items(self.values(item_ids[rows]), int(top_k))


def export_embeddings(config: Any) -> Path:
    """Write the embeddings that a composed ``embeddings`` config asks for, and return the file.

    The columns are ``item`` or ``user``, the raw ids; ``in_train``, false where an embedding is untrained;
    and ``embedding``, a list of float32 numbers.

    Raises:
        MatineeError: If the model has no such embeddings, or the output is no file that holds lists.
        NotWritten: If the output cannot be written.
    """
    folder = asked_folder(config.run)
    output = claim_answer_file(config.output)
    if output.suffix.lower() == ".csv":
        raise MatineeError(
            f"output={output}: a cell of .csv holds no vector; name a .parquet file."
        )
    experiment = _load(config, folder)
    spare_data(output, experiment.config.dataset)
    weights = experiment.task.network.tables().get(config.table)
    if weights is None:
        raise MatineeError(f"this run's model has no embeddings of {config.table}.")
    is_item = config.table == "items"
    interactions, task = experiment.datamodule.interactions, experiment.task
    raw = (interactions.items if is_item else interactions.users)["raw_id"].to_numpy()
    warm = (task.warm_items if is_item else task.warm_users)[1:].numpy()
    vectors = weights[1:].detach().float().numpy()
    with answer_file(output) as add:
        for start in range(0, len(raw), 2**14):
            rows = slice(start, start + 2**14)
            values = pa.array(vectors[rows].ravel())
            columns = {
                config.table[:-1]: pa.array(raw[rows]),
                "in_train": pa.array(warm[rows]),
                "embedding": pa.FixedSizeListArray.from_arrays(values, vectors.shape[1]),
            }
            add(pa.table(columns))
    return output


def _load(config: Any, folder: Path) -> Experiment:
    experiment = load_run(folder, config.checkpoint, dataset=config.dataset)
    if not (folder / RESULT).exists():
        print(f"{folder} has not finished; using its best epoch so far.", file=sys.stderr)
    return experiment


def _way(experiment: Experiment, by: By | None) -> By:
    """Return how items are compared, if the model can do that."""
    task = experiment.task
    has_table = "items" in task.network.tables()
    reads = "history" in task.newcomer_inputs and not getattr(task.network, "ignores_history", True)
    if by is None:
        by = "cosine" if has_table else "score"
    if by == "cosine" and not has_table:
        raise MatineeError("this run's model has no item embeddings; use by=score.")
    if by == "score" and not reads:
        instead = "use by=cosine" if has_table else "it cannot say which items are alike"
        raise MatineeError(f"this run's model reads no history of items; {instead}.")
    return by
