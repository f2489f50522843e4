"""``matinee predict``: predict the ratings of pairs of users and items."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from tqdm import tqdm

from matinee.errors import MatineeError
from matinee.experiment.building import Experiment, load_run
from matinee.experiment.run_folder import RESULT, asked_folder
from matinee.verbs.answer_files import answer_file, claim_answer_file, spare_data
from matinee.verbs.id_files import as_column, read_id_file, report_unknown
from matinee.verbs.shards import share_of

RATING = "predicted_rating"  # also of a run whose lists are in the order of another score
PAIRS_AT_ONCE = 2**16  # as many as evaluation takes


def answer(config: Any) -> Path:
    """Answer a composed ``predict`` config, and return the file of the ratings."""
    folder = asked_folder(config.run)
    output = claim_answer_file(config.output, [config.pairs])
    experiment = load_run(folder, config.checkpoint, dataset=config.dataset)
    spare_data(output, experiment.config.dataset)
    if not (folder / RESULT).exists():
        print(f"{folder} has not finished; using its best epoch so far.", file=sys.stderr)
    predict_many(experiment, config.pairs, output, config.shard)
    return output


@torch.no_grad()
def predict_ratings(
    experiment: Experiment, users: Sequence[Any], items: Sequence[Any]
) -> npt.NDArray[np.float32]:
    """Predict ratings of (user, item) pairs by raw ids; ids that train does not contain are unknown.

    Args:
        experiment: A loaded run of a rating model.
        users: Raw user ids, (n,).
        items: Raw item ids, (n,).

    Returns:
        Predicted ratings on the scale of the data, float32, (n,).

    Raises:
        MatineeError: If the run's model does not predict ratings, or there are not as many users as items.
    """
    users, items = list(users), list(items)
    if len(users) != len(items):
        raise MatineeError(
            f"there are {len(users)} users and {len(items)} items; give one user and one item for each pair."
        )
    interactions = experiment.datamodule.interactions
    return _rate(experiment, interactions.encode_users(users), interactions.encode_items(items))


def predict_many(
    experiment: Experiment, pairs: str, output: Path, shard: str | None = None
) -> None:
    """Write the predicted ratings of a file of pairs, in its order: ``user``, ``item``, ``predicted_rating``.

    A user or an item that the data do not know is the unknown one, as in evaluation.

    Args:
        experiment: A loaded run of a rating model.
        pairs: A file with the columns ``user`` and ``item``, see :mod:`matinee.verbs.id_files`.
        output: What :func:`matinee.verbs.answer_files.claim_answer_file` returned.
        shard: ``i/n`` predicts the i-th of n equal shares of the pairs, from 1; None predicts all.

    Raises:
        MatineeError: If the run's model does not predict ratings, or the file cannot be read; the message
            names file, line and column.
        NotWritten: If the output cannot be written.
    """
    _rate(
        experiment, np.zeros(1, np.int64), np.zeros(1, np.int64)
    )  # refuse a ranker before reading
    interactions = experiment.datamodule.interactions
    table = read_id_file(pairs, interactions, ["user", "item"])
    assert table.users is not None
    assert table.items is not None
    user_ids, item_ids = table.user_ids(interactions), table.item_ids(interactions)
    strangers = len(np.unique(table.users[1][user_ids == 0]))
    report_unknown(table.path, "users", strangers, len(table.users[0]))
    raw_users = as_column(table.users[0], interactions.users["raw_id"])
    raw_items = as_column(table.items[0], interactions.items["raw_id"])
    chosen = share_of(len(user_ids), shard)
    with (
        answer_file(output) as add,
        tqdm(total=len(chosen), desc="predict", unit="pair", disable=None) as bar,
    ):
        for start in range(chosen.start, chosen.stop, PAIRS_AT_ONCE):
            rows = slice(start, min(start + PAIRS_AT_ONCE, chosen.stop))
            columns = {
                "user": raw_users.take(pa.array(table.users[1][rows])),
                "item": raw_items.take(pa.array(table.items[1][rows])),
                RATING: _rate(experiment, user_ids[rows], item_ids[rows]),
            }
            add(pa.table(columns))
            bar.update(rows.stop - rows.start)


@torch.no_grad()
def _rate(
    experiment: Experiment,
    user_ids: npt.NDArray[np.integer],
    item_ids: npt.NDArray[np.integer],
) -> npt.NDArray[np.float32]:
    pair = torch.from_numpy(user_ids), torch.from_numpy(item_ids)
    ratings: npt.NDArray[np.float32] = experiment.task.rate(experiment.datamodule, *pair).numpy()
    return ratings
