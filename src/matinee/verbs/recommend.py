"""``matinee recommend``: the best items for one user or for many, by the scores that evaluation uses."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import torch
from torch import Tensor
from tqdm import tqdm

from matinee.batches.queries import Queries
from matinee.batches.windows import spans
from matinee.data.catalogues import with_year
from matinee.data.interactions import Interactions
from matinee.errors import MatineeError
from matinee.experiment.building import Experiment, load_run
from matinee.experiment.run_folder import RESULT, asked_folder
from matinee.metrics import best_items
from matinee.verbs.answer_files import answer_file, claim_answer_file, spare_data
from matinee.verbs.id_files import as_column, histories_of_file, read_id_file, users_of_file
from matinee.verbs.item_names import ItemNames
from matinee.verbs.shards import share_of

SCORES_AT_ONCE = 2**26  # float32: 256 MB
USERS_AT_ONCE = 512  # more do not make the products faster, and histories take memory as well


@dataclass(frozen=True, eq=False)
class ItemLists:
    """Items that may, or may not, be recommended: the same for everyone, or a list for each query.

    Attributes:
        item_ids: The items, int64, (items,); 0 is ignored.
        offsets: Those of query ``q`` are ``item_ids[offsets[q]:offsets[q + 1]]``, int64, (n + 1,); None:
            all are for everyone.
    """

    item_ids: Tensor
    offsets: Tensor | None = None

    def places(self, start: int, stop: int) -> Any:
        """Return where the items of some queries are in their scores, (stop - start, num_items + 1)."""
        if self.offsets is None:
            return slice(None), self.item_ids
        starts = self.offsets[start:stop]
        rows, places = spans(starts, self.offsets[start + 1 : stop + 1] - starts)
        return rows, self.item_ids[places]


def answer(config: Any) -> pd.DataFrame | Path:
    """Answer a composed ``recommend`` config: a table for one user, or the file with the lists of many."""
    folder = asked_folder(config.run)
    asked = [name for name in ("users", "histories") if getattr(config, name) is not None]
    others = [name for name in ("user", "ratings", "history") if getattr(config, name) is not None]
    if asked and (len(asked) > 1 or others):
        raise MatineeError(f"{' and '.join([*asked, *others])} cannot be combined; give one.")
    if asked and config.output is None:
        raise MatineeError(f"{asked[0]}=... needs output=FILE for the lists; name one.")
    for name in ("output", "shard"):
        if not asked and getattr(config, name) is not None:
            raise MatineeError(
                f"{name}=... takes the lists of users=... or histories=...; give one."
            )
    inputs = [config.users, config.histories, config.allow, config.deny]
    output = claim_answer_file(config.output, inputs) if asked else None
    experiment = load_run(folder, config.checkpoint, dataset=config.dataset)
    if not (folder / RESULT).exists():
        print(f"{folder} has not finished; using its best epoch so far.", file=sys.stderr)
    options = {"top_k": config.top_k, "repeat": config.repeat}
    options |= {"allow": config.allow, "deny": config.deny}
    if output is None:
        return recommend(experiment, config.user, config.ratings, config.history, **options)
    spare_data(output, experiment.config.dataset)
    recommend_many(
        experiment, output, config.users, config.histories, shard=config.shard, **options
    )
    return output


def recommend(
    experiment: Experiment,
    user: Any = None,
    ratings: Mapping[Any, float] | None = None,
    history: Sequence[Any] | None = None,
    top_k: int = 10,
    repeat: bool = False,
    allow: Sequence[Any] | str | None = None,
    deny: Sequence[Any] | str | None = None,
) -> pd.DataFrame:
    """Recommend the best items to a user of the data or to a new user.

    Args:
        experiment: A loaded run.
        user: Raw id of a user of the data; None for a new user.
        ratings: Ratings of a new user by raw item id or title, see
            :class:`matinee.verbs.item_names.ItemNames`; for rating models.
        history: Items of a new user, oldest first, as raw ids or titles; for sequence models.
        top_k: Number of items, at least 1; fewer are returned if the catalogue is smaller.
        repeat: Whether to include items that the user has already met.
        allow: The only items to recommend, as raw ids or titles, or the name of a file with a column
            ``item``; None allows all.
        deny: Items never to recommend, given in the same way.

    Returns:
        One row per item, best first, ties by lower id: ``rank``, ``item`` (raw id),
        ``title``, and ``predicted_rating`` or ``score``.

    Raises:
        MatineeError: If the user or an item is not in the data, a rating is outside the scale, ``top_k``
            is not positive, the model cannot use the input, or no item is left.
    """
    given = [
        name
        for name, value in (("user", user), ("ratings", ratings), ("history", history))
        if value is not None
    ]
    if len(given) > 1:
        raise MatineeError(f"{' and '.join(given)} cannot be combined; give one of them.")
    for name in given:
        if name != "user":
            _check_input(experiment, name)
    interactions = experiment.datamodule.interactions
    if history is not None:
        queries = Queries.of_histories([ItemNames(interactions).find(list(history))])
    elif ratings is not None:
        rated, stars = _rated(interactions, ratings)
        queries = Queries.of_histories([rated], stars)
    else:
        queries = _of_users(experiment, np.array([_user_id(interactions, user)]))
    names = None
    if user is not None:
        names = [str(interactions.users["raw_id"].loc[int(queries.user_ids[0])])]
    lists = ranked(
        experiment,
        queries,
        top_k,
        repeat,
        item_lists(interactions, "allow", allow, names),
        item_lists(interactions, "deny", deny, names),
    )
    _, item_ids, scores = next(lists)
    best, values = item_ids[0].numpy(), scores[0].numpy()
    best, values = best[best > 0], values[best > 0]
    if len(best) == 0:
        limited = " or is not allowed" if allow is not None or deny is not None else ""
        raise MatineeError(
            f"this user has met every item of the data{limited}; add repeat=true to rank also those that "
            "the user has met."
        )
    items = interactions.items
    return pd.DataFrame(
        {
            "rank": np.arange(1, len(best) + 1),
            "item": items["raw_id"].loc[best].to_numpy(),
            "title": [with_year(items.loc[item]) for item in best],
            experiment.task.score_name: values.astype(np.float64),
        }
    )


def recommend_many(
    experiment: Experiment,
    output: Path,
    users: str | None = None,
    histories: str | None = None,
    top_k: int = 10,
    repeat: bool = False,
    allow: Sequence[Any] | str | None = None,
    deny: Sequence[Any] | str | None = None,
    shard: str | None = None,
) -> None:
    """Write the lists of many users to a file: ``user``, ``rank``, ``item`` and the score, best first.

    Memory holds the histories of those who ask and the scores of a few hundred of them at a time.

    Args:
        experiment: A loaded run.
        output: What :func:`matinee.verbs.answer_files.claim_answer_file` returned.
        users: ``all``, or a file of users of the data, see :mod:`matinee.verbs.id_files`.
        histories: A file of the items of users, new ones or not, instead of ``users``.
        top_k: See :func:`recommend`, like the arguments that follow.
        repeat: See there.
        allow: See there; a file with the columns ``user`` and ``item`` has a list for each user, and who is
            not in it gets nothing.
        deny: See there; a file may have lists for each user, too.
        shard: ``i/n`` answers the i-th of n equal shares of the users, from 1; None answers all.

    Raises:
        MatineeError: As :func:`recommend`, or if a file cannot be read; the message names file, line and
            column.
        NotWritten: If the output cannot be written.
    """
    interactions = experiment.datamodule.interactions
    raw: pa.Array
    if histories is not None:
        rated = "ratings" in experiment.task.newcomer_inputs
        if not rated:
            _check_input(experiment, "history")
        names, queries = histories_of_file(histories, interactions, rated)
        raw = as_column(names, interactions.users["raw_id"])
    else:
        every = np.arange(1, interactions.num_users + 1)
        asked = every if users == "all" else users_of_file(str(users), interactions)
        raw = _raw(interactions.users, asked)
        queries = _of_users(experiment, asked)
        names = [str(name) for name in raw.to_pylist()]
    allowed = item_lists(interactions, "allow", allow, names)
    denied = item_lists(interactions, "deny", deny, names)
    chosen = share_of(len(queries), shard)
    raw_items = pa.array(interactions.items["raw_id"].to_numpy())
    empty = 0
    with (
        answer_file(output) as add,
        tqdm(total=len(chosen), desc="recommend", unit="user", disable=None) as bar,
    ):
        for rows, item_ids, scores in ranked(
            experiment, queries, top_k, repeat, allowed, denied, chosen
        ):
            found = item_ids > 0
            counts = found.sum(1)
            empty += int((counts == 0).sum())
            places = torch.arange(rows.start, rows.stop).repeat_interleave(counts)
            ranks = torch.arange(1, item_ids.shape[1] + 1).expand_as(item_ids)
            columns = {
                "user": raw.take(pa.array(places.numpy())),
                "rank": pa.array(ranks[found].numpy()),
                "item": raw_items.take(pa.array(item_ids[found].numpy() - 1)),
                experiment.task.score_name: pa.array(scores[found].numpy()),
            }
            add(pa.table(columns))
            bar.update(len(rows))
    if empty:
        print(f"{output}: no item is left for {empty:,} of {len(chosen):,} users.", file=sys.stderr)


@torch.no_grad()
def ranked(
    experiment: Experiment,
    queries: Queries,
    top_k: int = 10,
    repeat: bool = False,
    allow: ItemLists | None = None,
    deny: ItemLists | None = None,
    chosen: range | None = None,
) -> Iterator[tuple[range, Tensor, Tensor]]:
    """Find the best items of each query, some queries at a time.

    One user and all users are answered here, by the forward pass that evaluation ranks with.

    Args:
        experiment: A loaded run.
        queries: Who asks, n of them.
        top_k: Number of items, at least 1.
        repeat: Whether items that were met are candidates.
        allow: The only candidates; None allows all items.
        deny: Items that are no candidates.
        chosen: Consecutive queries to answer; None answers all.

    Yields:
        Some queries; their best items, ids, best first, ties by lower id, 0 where there are fewer
        candidates; and the scores, (queries, min(top_k, num_items)) each.

    Raises:
        MatineeError: If ``top_k`` is not positive or the model cannot use the queries.
    """
    if isinstance(top_k, bool) or not isinstance(top_k, int | np.integer) or top_k < 1:
        raise MatineeError(f"top_k is {top_k}; give a whole number of at least 1.")
    chosen = range(len(queries)) if chosen is None else chosen
    width = experiment.datamodule.interactions.num_items + 1
    at_once = max(1, min(USERS_AT_ONCE, SCORES_AT_ONCE // width))
    for start in range(chosen.start, chosen.stop, at_once):
        rows = range(start, min(start + at_once, chosen.stop))
        asked = queries[rows.start : rows.stop]
        scores = experiment.task.score_items(experiment.datamodule, asked)
        leave_candidates(
            scores,
            None if repeat else asked.met,
            None if allow is None else allow.places(rows.start, rows.stop),
            None if deny is None else deny.places(rows.start, rows.stop),
        )
        best = best_items(scores, int(top_k))
        del scores  # before the next ones are computed
        yield rows, *best


def leave_candidates(scores: Tensor, met: Any, allow: Any, deny: Any) -> None:
    """Set the scores of items that are no candidates to minus infinity.

    Args:
        scores: Scores of all items, (n, num_items + 1), changed in place.
        met: Where the items that were met are in the scores, an index; None leaves them as candidates.
        allow: Where the only candidates are; None allows all items.
        deny: Where items that are no candidates are; None denies none.
    """
    if allow is not None:
        kept = scores[allow]
        scores.fill_(float("-inf"))
        scores[allow] = kept
    for places in (deny, met):
        if places is not None:
            scores[places] = float("-inf")


def item_lists(
    interactions: Interactions,
    option: str,
    items: Sequence[Any] | str | None,
    names: Sequence[str] | None,
) -> ItemLists | None:
    """Read items to allow or to deny.

    Args:
        interactions: The data.
        option: ``allow`` or ``deny``, for messages.
        items: Raw ids or titles; or a file with a column ``item`` and, if each user has a list, ``user``;
            None: there are none.
        names: The raw ids of those who ask, (n,); None if they have none.

    Raises:
        MatineeError: If an item of the sequence is not in the data, the file cannot be read, or it has lists
            by user and those who ask have no names.
    """
    if items is None:
        return None
    if not isinstance(items, str):
        return ItemLists(torch.from_numpy(ItemNames(interactions).find(list(items))).long())
    table = read_id_file(items, interactions, ["item"], optional=["user"])
    item_ids = table.some_item_ids(interactions)
    if table.users is None:
        return ItemLists(torch.from_numpy(np.unique(item_ids)))
    if names is None:
        raise MatineeError(
            f"{option}={items} has a list for each user, and a new user has none; remove its column 'user'."
        )
    turns = {name: turn for turn, name in enumerate(names)}
    raw, places = table.users
    of_user = np.array([turns.get(name, -1) for name in raw])
    rows = of_user[places]
    order = np.argsort(rows, kind="stable")
    order = order[np.searchsorted(rows[order], 0) :]  # without those who do not ask
    counts = np.bincount(rows[order], minlength=len(names))
    return ItemLists(
        torch.from_numpy(item_ids[order]),
        torch.from_numpy(np.concatenate(([0], np.cumsum(counts)))),
    )


def _check_input(experiment: Experiment, name: str) -> None:
    inputs = experiment.task.newcomer_inputs
    if name not in inputs:
        usable = " or ".join(f"{usable}=..." for usable in inputs)
        raise MatineeError(f"this run's model cannot use {name}=...; give {usable}")


def _of_users(experiment: Experiment, user_ids: npt.NDArray[np.integer]) -> Queries:
    datamodule = experiment.datamodule
    times = getattr(datamodule, "carries_times", False)  # as its batches do for evaluation
    return Queries.of_users(datamodule.interactions, user_ids, times)


def _raw(table: pd.DataFrame, ids: npt.NDArray[np.integer]) -> pa.Array:
    """Return the raw ids of users or items, (n,)."""
    return pa.array(table["raw_id"].to_numpy()[ids - 1])


def _user_id(interactions: Interactions, user: Any) -> int:
    if user is None:
        return 0
    user_id = int(interactions.encode_users([user])[0])
    if user_id == 0:
        raise MatineeError(
            f"user {user!r} is not in the data; give a raw id of the data, or "
            "history=[...] or ratings={...} of a new user."
        )
    return user_id


def _rated(
    interactions: Interactions, ratings: Mapping[Any, float]
) -> tuple[npt.NDArray[np.int32], Tensor]:
    """Return the items that a new user rated, and the ratings, (n,) each."""
    assert interactions.rating_scale is not None  # only tasks of rated data take ratings
    low, high = interactions.rating_scale
    for name, rating in ratings.items():
        if (
            isinstance(rating, bool | np.bool_)
            or not isinstance(rating, Real)
            or not low <= rating <= high
        ):
            raise MatineeError(
                f"the rating {rating!r} of item {name!r} is outside the scale {low:g} to {high:g}."
            )
    item_ids = ItemNames(interactions).find(list(ratings))
    if len(np.unique(item_ids)) < len(item_ids):
        raise MatineeError("an item is rated twice; give one rating per item.")
    return item_ids, torch.tensor([float(rating) for rating in ratings.values()])
