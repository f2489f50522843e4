"""Rated histories of a split: every rating is predicted from what its user rated before."""

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from matinee.batches.base import PARTS
from matinee.batches.loading import BatchLoader, in_order
from matinee.batches.rating import RatingBatch, RatingDataModule
from matinee.batches.running_biases import RunningBiases
from matinee.batches.windows import bucketed_batches, spans
from matinee.contracts import RatedHistories
from matinee.data.interactions import Interactions
from matinee.data.segments import Evaluated
from matinee.data.splits import Rows, Split
from matinee.errors import MatineeError

Histories = Literal["live", "frozen"]
Order = Literal["time", "file"]
Rated = tuple[npt.NDArray[np.integer], npt.NDArray[np.floating]]  # items and their ratings
TICKS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}  # per second


@dataclass(frozen=True, eq=False)
class Listened:
    """What a stage predicts, and what it reads for that; histories lie one after another.

    Attributes:
        rows: Rows of the table that histories hold, (ratings,).
        offsets: Running offsets of item and user before each of them, float32, (ratings, 2).
        starts: Where the history of each reader begins, (readers,).
        lengths: How many of its rows a reader needs at most, (readers,).
        users: The user of each reader, (readers,).
        counts: Number of targets of each reader, (readers,). Readers are in the order of their targets.
        targets: Rows of the table to predict, (n,).
        known: Number of rows of the history that each target may see, (n,).
        states: Running offsets and counts before each target, float32, (n, 4).
    """

    rows: Rows
    offsets: npt.NDArray[np.float32]
    starts: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    users: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    targets: Rows
    known: npt.NDArray[np.int64]
    states: npt.NDArray[np.float32]


class LiveDataModule(RatingDataModule):
    r"""Rated histories of a split: every rating is predicted from what its user rated before.

    A rating of validation sees train and the earlier ratings of validation, one of test sees all earlier
    ratings, and one of train sees earlier ratings of train, so that a model is trained on what it is
    measured on. The running offsets of :class:`RunningBiases` are part of a batch.

    Args:
        interactions: The whole table, with ratings.
        split: Which rows are train, validation and test.
        histories: ``live``: a prediction sees all earlier ratings of its stage. ``frozen``: it sees those of
            train, so that nothing is learned about a user after train has ended.
        order: What *earlier* means. ``time``: at an earlier time; ratings of a user at the same time do not
            see each other, and are read in the order of their items. ``file``: in an earlier row of the
            table, which is in the order of (time, source row).
        item_damping: Damping of the running item offsets, in ratings, greater than 0.
        user_damping: The same for users.
        batch_size: Users per training batch, at least 1.
        eval_batch_size: Users per batch outside training, at least 1; results do not depend on it.
        segments: Subsets to report metrics for as well, see :mod:`matinee.data.segments`.
        seed: Seed of the order of the training batches, at least 0.

    Raises:
        MatineeError: If there are no ratings, or no times to go by, a value is out of range or a segment is
            unknown.
    """

    def __init__(
        self,
        interactions: Interactions,
        split: Split,
        histories: Histories = "live",
        order: Order = "time",
        item_damping: float = 5.0,
        user_damping: float = 5.0,
        batch_size: int = 8,
        eval_batch_size: int = 32,
        segments: Sequence[str] = ("warmth", "known"),
        seed: int = 0,
    ) -> None:
        super().__init__(interactions, split, batch_size, eval_batch_size, segments, seed)
        for option, value, choices in (
            ("histories", histories, get_args(Histories)),
            ("order", order, get_args(Order)),
        ):
            if value not in choices:
                raise MatineeError(f"{option} is {value!r}; choose {' or '.join(choices)}.")
        if order == "time" and interactions.timestamps is None:
            raise MatineeError(
                "order=time needs timestamps and the dataset has none; name their column "
                "(dataset.timestamp=...) or choose data.order=file."
            )
        self.histories = histories
        self.order = order
        self.dampings = item_damping, user_damping
        self._running_now = self._running()  # after all rows, once these are read
        self._listened: dict[str, Listened] = {}
        assert interactions.ratings is not None
        self.table_ratings = interactions.ratings
        self.mean = float(interactions.ratings[split.train].mean(dtype=np.float64))

    def _running(self) -> RunningBiases:
        table = self.interactions
        return RunningBiases(table.num_users, table.num_items, *self.dampings)

    def listened(self, stage: str) -> Listened:
        """Return what a stage predicts and reads; it is computed once."""
        if stage not in self._listened:
            parts = list(PARTS)[: list(PARTS).index(stage) + 1]
            visible = [getattr(self.split, PARTS[part]) for part in parts]
            running = self._running()
            self._listened[stage] = self._listen(running, visible)
            if stage == "test":
                self._running_now = running
        return self._listened[stage]

    def _listen(self, running: RunningBiases, visible: Sequence[Rows]) -> Listened:
        """Read all rows that are visible, and predict the last part of them."""
        table, ratings = self.interactions, self.table_ratings
        rows = np.sort(np.concatenate(visible))
        learned, wanted = np.zeros((2, len(table)), np.bool_)
        learned[visible[0] if self.histories == "frozen" else rows] = True
        wanted[visible[-1]] = True
        moments = np.arange(len(table))
        if self.order == "time":
            assert table.timestamps is not None
            moments = table.timestamps
            # Within a moment the order must not come from the file, so that it cannot change anything.
            keys = (ratings[rows], table.item_ids[rows], table.user_ids[rows], moments[rows])
            rows = rows[np.lexsort(keys)]
        states = running.read(
            table.user_ids[rows],
            table.item_ids[rows],
            ratings[rows].astype(np.float64) - self.mean,
            moments[rows],
            learned[rows],
        )
        by_user = table.user_ids[rows].argsort(kind="stable")
        rows, states = rows[by_user], states[by_user]
        users, learned = table.user_ids[rows].astype(np.int64), learned[rows]
        places = np.arange(len(rows))
        new_user = np.diff(users, prepend=-1) != 0
        new_moment = new_user | (np.diff(moments[rows], prepend=0) != 0)
        before = np.concatenate(([0], np.cumsum(learned)))  # learned rows before each place
        first = before[np.maximum.accumulate(np.where(new_user, places, 0))]
        known = before[np.maximum.accumulate(np.where(new_moment, places, 0))] - first
        places = np.flatnonzero(wanted[rows])  # of the targets
        bounds = np.flatnonzero(np.diff(users[places], prepend=-1))  # where the next reader begins
        lengths = np.maximum.reduceat(known[places], bounds)
        counts = np.diff(bounds, append=len(places))
        order = lengths.argsort(kind="stable")  # saves padding
        bounds, counts = bounds[order], counts[order]
        readers = places[bounds]
        _, chosen = spans(torch.from_numpy(bounds), torch.from_numpy(counts))
        places = places[chosen.numpy()]
        return Listened(
            rows=rows[learned],
            offsets=states[learned, :2],
            starts=first[readers],
            lengths=lengths[order],
            users=users[readers],
            counts=counts,
            targets=rows[places],
            known=known[places],
            states=states[places],
        )

    def columns(self, stage: str) -> RatingBatch:
        """Return the rows of a stage as one batch, in the order in which they are predicted."""
        table, rows = self.interactions, self.listened(stage).targets
        columns = (table.user_ids, table.item_ids, self.table_ratings)
        return RatingBatch(*(torch.from_numpy(column[rows]) for column in columns))

    def evaluated(self, stage: str) -> Evaluated:
        """Return the ratings of a stage, with the number of ratings that each prediction sees."""
        return super().evaluated(stage)._replace(history_lengths=self.listened(stage).known)

    @property
    def protocol(self) -> dict[str, Any]:
        """Return also what a prediction sees."""
        histories = {"kind": self.histories, "earlier": self.order}
        return {**super().protocol, "histories": histories}

    def train_dataloader(self, rank: int = 0, world_size: int = 1) -> BatchLoader:
        """Return batches of users with similar histories, in an order that is a function of (seed, epoch)."""
        lengths = torch.from_numpy(self.listened("train").lengths)
        num_batches = -(-len(lengths) // self.batch_size)

        def plan(epoch: int) -> list[Tensor]:
            batches = bucketed_batches(lengths, self.batch_size, self.seed, epoch)
            share = -(-len(batches) // world_size)
            return [batches[(rank + i * world_size) % len(batches)] for i in range(share)]

        return BatchLoader(
            plan,
            lambda readers: self.gather("train", readers.numpy()),
            -(-num_batches // world_size),
        )

    def evaluation_dataloader(self, stage: str) -> BatchLoader:
        """Return the batches of a stage in the order of :meth:`columns`, train included."""
        count = len(self.listened(stage).users)
        plan = in_order(count, self.eval_batch_size)
        every = np.arange(count)
        return BatchLoader(
            plan,
            lambda chosen: self.gather(stage, every[chosen]),
            -(-count // self.eval_batch_size),
        )

    def gather(self, stage: str, readers: npt.NDArray[np.int64]) -> RatedHistories:
        """Make the batch of some readers of a stage, (batch,)."""
        listened = self.listened(stage)
        first = np.cumsum(listened.counts) - listened.counts
        counts = torch.from_numpy(listened.counts[readers])
        numbers, places = spans(torch.from_numpy(first[readers]), counts)
        targets = places.numpy()
        chosen = listened.targets[targets]
        lengths = listened.lengths[readers]
        inside = np.arange(lengths.max(initial=0)) < lengths[:, None]  # (batch, length)
        read = (listened.starts[readers, None] + np.arange(inside.shape[1]))[inside]
        rows = listened.rows[read]
        times = np.zeros(len(rows), np.int64)
        if self.interactions.timestamps is not None:
            begun = listened.rows[np.repeat(listened.starts[readers], lengths)]
            times = self.interactions.timestamps[rows] - self.interactions.timestamps[begun]
        return RatedHistories(
            user_ids=torch.from_numpy(listened.users[readers]),
            item_ids=_padded(self.interactions.item_ids[rows].astype(np.int64), inside),
            ratings=_padded(self.table_ratings[rows], inside),
            offsets=_padded(listened.offsets[read], inside),
            times=_padded(times // TICKS[self.interactions.time_unit], inside),
            rows=numbers,
            known=torch.from_numpy(listened.known[targets]),
            target_ids=torch.from_numpy(self.interactions.item_ids[chosen].astype(np.int64)),
            target_states=torch.from_numpy(listened.states[targets]),
            target_ratings=torch.from_numpy(self.table_ratings[chosen]),
        )

    @cached_property
    def _now(self) -> tuple[Listened, npt.NDArray[np.int64]]:
        """Return what the last stage read, and where the history of each user begins in it."""
        listened = self.listened("test")
        users = self.interactions.user_ids[listened.rows]
        counts = np.bincount(users, minlength=self.interactions.num_users + 1)
        return listened, np.concatenate(([0], np.cumsum(counts)))

    def present(
        self,
        user_id: int,
        target_ids: npt.NDArray[np.integer],
        rated: Rated | None = None,
    ) -> RatedHistories:
        """Make the batch that predicts ratings from everything in the data, as they are now.

        Args:
            user_id: Whose ratings; 0 for a newcomer.
            target_ids: The items, (n,).
            rated: Items and ratings of a newcomer in order, (rated,) each. They come after all rows of the
                data, one after the other, and count for the running offsets of these items as well.
        """
        listened, begins = self._now
        running = self._running_now
        places = slice(begins[user_id], begins[user_id + 1])
        mine, offsets = listened.rows[places], listened.offsets[places]
        item_ids: npt.NDArray[np.integer] = self.interactions.item_ids[mine]
        ratings = self.table_ratings[mine]
        times = np.zeros(len(mine), np.int64)
        if self.interactions.timestamps is not None and len(mine):
            times = self.interactions.timestamps[mine] - self.interactions.timestamps[mine[0]]
        if rated is not None:
            item_ids, ratings = rated[0], rated[1].astype(np.float32)
            times = np.zeros(len(item_ids), np.int64)
            newcomer = np.zeros(len(item_ids), np.int64)
            running = deepcopy(running)
            deviations = ratings.astype(np.float64) - self.mean
            offsets = running.read(newcomer, item_ids, deviations, np.arange(len(item_ids)))[:, :2]
        states = [running.describe(user_id, item) for item in target_ids.tolist()]
        whole = np.ones((1, len(item_ids)), np.bool_)
        return RatedHistories(
            user_ids=torch.tensor([user_id]),
            item_ids=_padded(item_ids.astype(np.int64), whole),
            ratings=_padded(ratings, whole),
            offsets=_padded(offsets, whole),
            times=_padded(times // TICKS[self.interactions.time_unit], whole),
            rows=torch.zeros(len(target_ids), dtype=torch.int64),
            known=torch.full((len(target_ids),), len(item_ids)),
            target_ids=torch.from_numpy(target_ids.astype(np.int64)),
            target_states=torch.tensor(states),
            target_ratings=torch.full((len(target_ids),), self.mean),
        )

    def memorizable_batch(self, examples: int) -> RatedHistories:  # type: ignore[override]
        """Take the last ratings of the users with the longest histories, each item of a user once."""
        listened = self.listened("train")
        each = min(examples, 8)
        longest_last = np.arange(len(listened.users))
        readers = longest_last[-math.ceil(examples / each) :]
        batch = self.gather("train", readers)
        pairs = np.stack((batch.rows.numpy(), batch.target_ids.numpy()))[:, ::-1]
        _, last = np.unique(pairs, axis=1, return_index=True)
        last = np.sort(len(batch.rows) - 1 - last)
        rows = batch.rows[last].numpy()
        after = np.searchsorted(rows, rows, side="right") - np.arange(len(rows))  # 1 for the last
        kept = torch.from_numpy(last[after <= each])[:examples]
        return batch._replace(
            rows=batch.rows[kept],
            known=batch.known[kept],
            target_ids=batch.target_ids[kept],
            target_states=batch.target_states[kept],
            target_ratings=batch.target_ratings[kept],
        )


def _padded(values: npt.NDArray[Any], inside: npt.NDArray[np.bool_]) -> Tensor:
    """Spread values (places, ...) over (batch, length, ...), with 0 outside."""
    spread = np.zeros((*inside.shape, *values.shape[1:]), values.dtype)
    spread[inside] = values
    return torch.from_numpy(spread)
