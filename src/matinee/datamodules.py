"""Datamodules: a split becomes loaders of whole batches."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor

from matinee.errors import MatineeError
from matinee.interactions import Interactions
from matinee.loading import BatchLoader, in_order, shuffled, to_device
from matinee.perturbation import Perturbation
from matinee.segments import Evaluated, Masks, check_segments, segment_masks
from matinee.sequences import (
    Histories,
    SequenceBatch,
    Windows,
    bucketed_batches,
    cut_windows,
    gather,
    last_target_only,
    windows_ending_at,
)
from matinee.splits import Rows, Split

PARTS = {"train": "train", "val": "validation", "test": "test"}  # logged prefix -> part of a split


class RatingBatch(NamedTuple):
    """Rated pairs, one row each; every tensor has shape (batch,)."""

    user_ids: Tensor  # int32, 0 where unknown
    item_ids: Tensor  # int32, 0 where unknown
    ratings: Tensor  # float32


class RatingDataModule(pl.LightningDataModule):
    """Rated pairs of a split, for rating prediction.

    Args:
        interactions: The whole table, with ratings.
        split: Which rows are train, validation and test.
        batch_size: Pairs of a training batch, at least 1.
        eval_batch_size: Pairs of a batch outside training, at least 1; results do not depend on it.
        segments: Subsets that metrics are told for, too, see :mod:`matinee.segments`.
        seed: Seed of the order of training rows, at least 0.

    Raises:
        MatineeError: If the interactions have no ratings, a number is out of range or a segment is
            unknown.
    """

    def __init__(
        self,
        interactions: Interactions,
        split: Split,
        batch_size: int = 1024,
        eval_batch_size: int = 65536,
        segments: Sequence[str] = ("warmth",),
        seed: int = 0,
    ) -> None:
        super().__init__()
        if interactions.ratings is None:
            raise MatineeError(
                "rating models need ratings and the dataset has none; "
                "name the column with dataset.rating=..."
            )
        _check_sizes(batch_size=batch_size, eval_batch_size=eval_batch_size)
        self.interactions = interactions
        self.split = split
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.segment_names = check_segments(segments, interactions)
        self.seed = seed

    def columns(self, stage: str) -> RatingBatch:
        """Return all rows of a stage (``train``, ``val`` or ``test``) as one batch."""
        rows: Rows = getattr(self.split, PARTS[stage])
        table = self.interactions
        assert table.ratings is not None
        columns = (table.user_ids, table.item_ids, table.ratings)
        return RatingBatch(*(torch.from_numpy(column[rows]) for column in columns))

    @cached_property
    def warm(self) -> tuple[Tensor, Tensor]:
        """Which user ids and which item ids occur in train."""
        return warm_ids(self.interactions, self.split.train)

    def evaluated(self, stage: str) -> Evaluated:
        """Tell the pairs of a stage, in the order of :meth:`columns`."""
        train, users, items = self.split.train, *self.columns(stage)[:2]
        counts = np.bincount(
            self.interactions.user_ids[train], minlength=self.interactions.num_users + 1
        )
        warm = self.warm[0][users] & self.warm[1][items]
        return Evaluated(users.numpy(), items.numpy(), counts[users], warm.numpy())

    def segments(self, stage: str) -> Masks:
        """Mark the rows of a stage that lie in each segment, in the order of :meth:`columns`."""
        names, table, train = self.segment_names, self.interactions, self.split.train
        return segment_masks(names, self.evaluated(stage), table, train) if names else {}

    @property
    def protocol(self) -> dict[str, Any]:
        """What was split how, for the record of a run."""
        return split_protocol(self.interactions, self.split)

    def train_dataloader(self) -> BatchLoader:
        """Batches of train, in an order of (seed, epoch)."""
        columns = self.columns("train")
        rank, world_size = _process(self)
        plan = shuffled(len(columns.ratings), self.batch_size, self.seed, rank, world_size)
        share = -(-len(columns.ratings) // world_size)
        return BatchLoader(plan, _take(columns), -(-share // self.batch_size))

    def val_dataloader(self) -> BatchLoader:
        """Batches of validation, in order."""
        return self.evaluation_dataloader("val")

    def test_dataloader(self) -> BatchLoader:
        """Batches of test, in order."""
        return self.evaluation_dataloader("test")

    def evaluation_dataloader(self, stage: str) -> BatchLoader:
        """Batches of any stage in the order of its rows, train included, for measuring."""
        columns = self.columns(stage)
        num_batches = -(-len(columns.ratings) // self.eval_batch_size)
        plan = in_order(len(columns.ratings), self.eval_batch_size)
        return BatchLoader(plan, _take(columns), num_batches)

    def transfer_batch_to_device(
        self, batch: RatingBatch, device: torch.device, dataloader_idx: int
    ) -> RatingBatch:
        """Move a batch; one that is there already costs nothing."""
        moved: RatingBatch = to_device(batch, device)
        return moved


class RankingBatch(NamedTuple):
    """Windows whose last items are to be ranked."""

    histories: Tensor  # int64, (batch, length), see SequenceBatch
    target_ids: Tensor  # int64, (batch, length); 0 but at each row's last position
    lengths: Tensor  # int32, (batch,)
    user_ids: Tensor  # int32, (batch,)
    seen_rows: Tensor  # int64, (pairs,): with seen_items, what a row's user met before its target
    seen_items: Tensor  # int64, (pairs,)


class SequenceDataModule(pl.LightningDataModule):
    """Windows of users' histories, for next-item recommendation.

    Training windows are cut from the rows of train alone. In evaluation, every ``eval_stride``-th
    row of a user's part, counted from its end, is a target, to be predicted from the at most
    ``eval_length - 1`` items that the user met before it in this part or an earlier one.

    Args:
        interactions: The whole table.
        split: Which rows are train, validation and test.
        length: Most items of a training window, at least 2.
        stride: Items between the ends of two training windows, at least 1.
        eval_length: Most items of an evaluated window, its target included, at least 1.
        eval_stride: Items between two targets of a user, at least 1.
        min_length: Fewest items of a window, the evaluated ones' targets included; training windows
            have at least 2.
        batch_size: Windows of a training batch, at least 1.
        eval_batch_size: Windows of a batch outside training; results do not depend on it.
        filter_seen: Whether items that the user met before the target are no candidates.
        drop_oldest: Share of each user's oldest rows of train that is not learned from, in [0, 1);
            evaluated histories and the segments stay those of the whole train.
        segments: Subsets that metrics are told for, too, see :mod:`matinee.segments`.
        seed: Seed of the order of training windows, at least 0.

    Raises:
        MatineeError: If a number is out of range, a part has no windows or a segment is unknown.
    """

    def __init__(
        self,
        interactions: Interactions,
        split: Split,
        length: int = 50,
        stride: int = 10,
        eval_length: int = 10,
        eval_stride: int = 10,
        min_length: int = 1,
        batch_size: int = 128,
        eval_batch_size: int = 512,
        filter_seen: bool = False,
        drop_oldest: float = 0.0,
        segments: Sequence[str] = (),
        seed: int = 0,
    ) -> None:
        super().__init__()
        _check_sizes(batch_size=batch_size, eval_batch_size=eval_batch_size, min_length=min_length)
        _check_sizes(stride=stride, eval_length=eval_length, eval_stride=eval_stride)
        if length < 2:
            raise MatineeError(
                f"data.length is {length}: a window needs a history and a next item; give at least 2."
            )
        if not 0 <= drop_oldest < 1:
            raise MatineeError(f"data.drop_oldest is {drop_oldest}; give a share in [0, 1).")
        self.interactions = interactions
        self.split = split
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.eval_length = eval_length
        self.eval_stride = eval_stride
        self.min_length = min_length
        self.filter_seen = filter_seen
        self.segment_names = check_segments(segments, interactions)
        self.seed = seed
        self.perturbation: Perturbation | None = None
        whole = Histories.from_rows(interactions, split.train)
        self.histories = Histories.from_rows(interactions, whole.without_oldest(drop_oldest))
        shortest = max(2, min_length)
        self.windows = cut_windows(self.histories, length, stride, shortest)
        if len(self.windows.starts) == 0:
            raise MatineeError(
                f"no user of train has {shortest} items; bring longer histories or split otherwise."
            )

    def perturb(self, histories: str) -> None:
        """Let evaluated windows be read with changed histories; targets, ranks and order stay.

        Args:
            histories: See :class:`matinee.perturbation.Perturbation`.

        Raises:
            MatineeError: If it is none of those named there.
        """
        self.perturbation = Perturbation(histories, self.seed)

    def evaluation(self, stage: str) -> tuple[Histories, Windows]:
        """Return what a stage may see, and the windows that end in its targets, short ones first."""
        parts = list(PARTS)[: list(PARTS).index(stage) + 1]
        part = Histories.from_rows(self.interactions, getattr(self.split, PARTS[stage]))
        targets = part.rows[cut_windows(part, 1, self.eval_stride).starts.numpy()]
        visible = np.concatenate([getattr(self.split, PARTS[earlier]) for earlier in parts])
        histories = Histories.from_rows(self.interactions, visible)
        positions = histories.positions(targets)
        windows = windows_ending_at(histories, positions, self.eval_length, self.min_length)
        return histories, windows.take(windows.lengths.argsort(stable=True))  # little padding

    def evaluated(self, stage: str) -> Evaluated:
        """Tell the targets of a stage, in the order of :meth:`evaluation`."""
        histories, windows = self.evaluation(stage)
        ends = (windows.starts + windows.lengths - 1).numpy()
        user_ids, item_ids = windows.user_ids.numpy(), histories.item_ids[ends]
        before = ends - histories.offsets[user_ids]
        return Evaluated(user_ids, item_ids, before, self.warm[1].numpy()[item_ids])

    def segments(self, stage: str) -> Masks:
        """Mark the windows of a stage that lie in each segment, in the order of :meth:`evaluation`."""
        names, table, train = self.segment_names, self.interactions, self.split.train
        return segment_masks(names, self.evaluated(stage), table, train) if names else {}

    @cached_property
    def warm(self) -> tuple[Tensor, Tensor]:
        """Which user ids and which item ids occur in what is learned from."""
        return warm_ids(self.interactions, self.histories.rows)

    @property
    def protocol(self) -> dict[str, Any]:
        """What was split and cut how, for the record of a run."""
        windows = {"length": self.eval_length, "stride": self.eval_stride}
        if self.min_length > 1:
            windows["min_length"] = self.min_length
        counts = {stage: len(self.evaluation(stage)[1].starts) for stage in ("val", "test")}
        return {
            **split_protocol(self.interactions, self.split),
            "windows": windows,
            "evaluated_windows": counts,
            "candidates": "all items but the padding",
            "filter_seen": self.filter_seen,
        }

    def train_dataloader(self) -> BatchLoader:
        """Length-bucketed batches of train, in an order of (seed, epoch)."""
        rank, world_size = _process(self)
        items = torch.from_numpy(self.histories.item_ids)
        num_batches = -(-len(self.windows.starts) // self.batch_size)

        def plan(epoch: int) -> list[Tensor]:
            batches = bucketed_batches(self.windows.lengths, self.batch_size, self.seed, epoch)
            share = -(-len(batches) // world_size)
            return [batches[(rank + i * world_size) % len(batches)] for i in range(share)]

        return BatchLoader(
            plan,
            lambda index: gather(items, self.windows.take(index)),
            -(-num_batches // world_size),
        )

    def val_dataloader(self) -> BatchLoader:
        """Windows of validation, in the order of :meth:`evaluation`."""
        return self.evaluation_dataloader("val")

    def test_dataloader(self) -> BatchLoader:
        """Windows of test, in the order of :meth:`evaluation`."""
        return self.evaluation_dataloader("test")

    def evaluation_dataloader(self, stage: str) -> BatchLoader:
        """Windows of any stage in the order of :meth:`evaluation`, train included, for measuring."""
        histories, windows = self.evaluation(stage)
        items = torch.from_numpy(histories.item_ids)
        offsets = torch.from_numpy(histories.offsets)
        count = len(windows.starts)
        if count == 0:
            raise MatineeError(f"{PARTS[stage]} has nothing to evaluate; split or cut otherwise.")

        def collate(chosen: slice) -> RankingBatch:
            taken = windows.take(chosen)
            if self.perturbation:
                read = self.perturbation(items, taken, chosen.start, int(windows.lengths.max()))
            else:
                read = gather(items, taken)
            batch = last_target_only(read)
            seen = (torch.zeros(0, dtype=torch.int64),) * 2
            if self.filter_seen:
                seen = met_before(items, offsets, taken)
            return RankingBatch(*batch, *seen)

        plan = in_order(count, self.eval_batch_size)
        return BatchLoader(plan, collate, -(-count // self.eval_batch_size))

    def transfer_batch_to_device(
        self, batch: SequenceBatch | RankingBatch, device: torch.device, dataloader_idx: int
    ) -> SequenceBatch | RankingBatch:
        """Move a batch; one that is there already costs nothing."""
        moved: SequenceBatch | RankingBatch = to_device(batch, device)
        return moved


def met_before(items: Tensor, offsets: Tensor, windows: Windows) -> tuple[Tensor, Tensor]:
    """List what each window's user met before its last item, as pairs (row of the windows, item).

    Args:
        items: The flat items of the histories, shape (rows,).
        offsets: Where each user's items start, shape (num_users + 2,).
        windows: The windows, n of them.

    Returns:
        Two int64 tensors of one length: rows in 0..n-1, ascending, and item ids.
    """
    starts = offsets[windows.user_ids.long()]
    counts = windows.starts + windows.lengths - 1 - starts
    rows = torch.repeat_interleave(torch.arange(len(counts)), counts)
    places = torch.arange(len(rows)) - (counts.cumsum(0) - counts)[rows]
    return rows, items[starts[rows] + places].long()


def warm_ids(interactions: Interactions, rows: Rows) -> tuple[Tensor, Tensor]:
    """Mark the ids that some rows hold: bool, (num_users + 1,) and (num_items + 1,)."""
    users = np.zeros(interactions.num_users + 1, dtype=bool)
    items = np.zeros(interactions.num_items + 1, dtype=bool)
    users[interactions.user_ids[rows]] = True
    items[interactions.item_ids[rows]] = True
    return torch.from_numpy(users), torch.from_numpy(items)


def split_protocol(interactions: Interactions, split: Split) -> dict[str, Any]:
    """Describe the data and the split: what must be equal for figures to be comparable."""
    return {
        "dataset": {
            "sha256": interactions.fingerprint,
            "rows": len(interactions),
            "users": interactions.num_users,
            "items": interactions.num_items,
            "duplicates_resolved": interactions.duplicates_resolved,
            **({"source": dict(interactions.source)} if interactions.source else {}),
        },
        "split": {
            "name": split.name,
            "options": dict(split.options),
            "fingerprint": split.fingerprint,
            "rows": split.sizes,
            "cold": split.cold(interactions),
        },
    }


def _take(columns: RatingBatch) -> Any:
    return lambda chosen: RatingBatch(*(column[chosen] for column in columns))


def _process(datamodule: pl.LightningDataModule) -> tuple[int, int]:
    trainer: Any = datamodule.trainer
    return (trainer.global_rank, trainer.world_size) if trainer else (0, 1)


def _check_sizes(**sizes: int) -> None:
    for option, size in sizes.items():
        if not 1 <= size < 2**31:
            raise MatineeError(
                f"data.{option} is {size}; give a whole number from 1 to {2**31 - 1}."
            )
