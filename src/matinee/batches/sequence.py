"""Windows of users' histories, for next-item recommendation."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from matinee.batches.base import PARTS, SplitDataModule
from matinee.batches.loading import BatchLoader, in_order
from matinee.batches.perturbation import Perturbation
from matinee.batches.windows import (
    FirstMeetings,
    Histories,
    Windows,
    bucketed_batches,
    cut_windows,
    gather,
    item_seconds,
    last_target_only,
    windows_ending_at,
)
from matinee.data.interactions import Interactions
from matinee.data.segments import Evaluated
from matinee.data.splits import Split, warm_ids
from matinee.data.splits.users import draws_of_users
from matinee.errors import MatineeError

EvalTargets = Literal["successive", "first", "last", "random", "all"]


class RankingBatch(NamedTuple):
    """Windows whose last items are ranked."""

    histories: Tensor  # int64, (batch, length), see SequenceBatch
    target_ids: Tensor  # int64, (batch, length); 0 but at each row's last position
    lengths: Tensor  # int32, (batch,)
    user_ids: Tensor  # int32, (batch,)
    targets_at: Tensor  # int64, (2, batch), see SequenceBatch
    times: Tensor  # int64, (batch, length) or (batch, 0), see SequenceBatch
    seen_items: Tensor  # int64, (items,), one list of items after another
    seen_from: Tensor  # int64, (batch,), where the items begin that are no candidates for the row
    seen_to: Tensor  # int64, (batch,), where they end


class Evaluation(NamedTuple):
    """What a stage evaluates, short windows first.

    Attributes:
        histories: The histories that the stage may see, without rows.
        windows: The windows to evaluate; the last item of each is replaced by its target.
        target_ids: The items to rank, int64, (windows,).
    """

    histories: Histories
    windows: Windows
    target_ids: Tensor


class SequenceDataModule(SplitDataModule):
    """Windows of users' histories, for next-item recommendation.

    Training windows are cut from the rows of train alone. In evaluation, some rows of a user's part are
    targets. A target is predicted from the last ``eval_length - 1`` items, at most, that the user met
    before it in this part or an earlier one.

    Args:
        interactions: The whole table.
        split: Which rows are train, validation and test.
        length: Maximum number of items in a training window, at least 2.
        stride: Items between the ends of two training windows, at least 1.
        eval_length: Maximum number of items in an evaluated window with its target, at least 1.
        eval_stride: Items between two targets of a user, at least 1, if they are successive.
        eval_targets: Which rows of a user's part of validation or test are targets. ``successive``:
            every ``eval_stride``-th row, counted from the end, each predicted from all rows before it.
            ``first``, ``last`` and ``random``: one row; the random one depends on the raw user id
            alone. ``all``: every row, predicted from what came before the part, so that nothing of the
            part is known (the five target rules of Gusak et al., Time to Split, RecSys 2025). In train,
            targets are successive.
        min_length: Minimum number of items in a window, with the target of an evaluated one; training
            windows always have at least 2.
        batch_size: Windows per training batch, at least 1.
        eval_batch_size: Windows per batch outside training, at least 1; results do not depend on it.
        filter_seen: Whether items that the user met before the target are left out of the candidates.
        measure_train: Whether train is measured after a fit; None if it has no more windows to evaluate
            than to train on.
        drop_oldest: Share of the oldest training rows of each user to leave out of training, in
            [0, 1); evaluated histories and segments still use all of train.
        segments: Subsets to report metrics for as well, see :mod:`matinee.data.segments`.
        seed: Seed of the order of the training batches, at least 0.

    Raises:
        MatineeError: If a number is out of range, train has no windows or a segment is unknown.
    """

    def __init__(
        self,
        interactions: Interactions,
        split: Split,
        length: int = 50,
        stride: int = 10,
        eval_length: int = 10,
        eval_stride: int = 10,
        eval_targets: EvalTargets = "successive",
        min_length: int = 1,
        batch_size: int = 128,
        eval_batch_size: int = 512,
        filter_seen: bool = False,
        drop_oldest: float = 0.0,
        segments: Sequence[str] = (),
        seed: int = 0,
        measure_train: bool | None = None,
    ) -> None:
        sizes = {"batch_size": batch_size, "eval_batch_size": eval_batch_size, "stride": stride}
        sizes |= {"eval_length": eval_length, "eval_stride": eval_stride, "min_length": min_length}
        super().__init__(interactions, split, segments, seed, **sizes)
        if length < 2:
            raise MatineeError(
                f"length is {length} and a window needs a history and a next item; give at least 2."
            )
        if min_length > min(length, eval_length):
            raise MatineeError(
                f"min_length is {min_length} and windows have at most length={length} and "
                f"eval_length={eval_length} items; lower it."
            )
        if not 0 <= drop_oldest < 1:
            raise MatineeError(f"drop_oldest is {drop_oldest}; give a share in [0, 1).")
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.eval_length = eval_length
        self.eval_stride = eval_stride
        if eval_targets not in get_args(EvalTargets):
            raise MatineeError(
                f"eval_targets is {eval_targets!r}; choose one of {', '.join(get_args(EvalTargets))}."
            )
        self.eval_targets = eval_targets
        self.min_length = min_length
        self.filter_seen = filter_seen
        self.measure_train = measure_train
        self.perturbation: Perturbation | None = None
        self._evaluations: dict[str, Evaluation] = {}
        self._meetings: dict[str, FirstMeetings] = {}
        self._times: dict[str, Tensor] = {}
        self.carries_times = False  # set by a task whose network needs times
        self.histories = Histories.from_rows(interactions, split.train)
        if drop_oldest > 0:
            rows = self.histories.without_oldest(drop_oldest)
            self.histories = Histories.from_rows(interactions, rows)
        shortest = max(2, min_length)
        self.windows = cut_windows(self.histories, length, stride, shortest)
        if len(self.windows.starts) == 0:
            left = f" after drop_oldest={drop_oldest}" if drop_oldest else ""
            raise MatineeError(
                f"no user of train has {shortest} items{left}; use data with longer histories, a lower "
                "drop_oldest or another split."
            )

    def perturb(self, histories: str) -> None:
        """Evaluate with changed histories; targets, candidates and order stay the same.

        Args:
            histories: See :class:`matinee.batches.perturbation.Perturbation`.

        Raises:
            MatineeError: If the name is unknown.
        """
        self.perturbation = Perturbation(histories, self.seed)

    @property
    def measured(self) -> tuple[str, ...]:
        """Return the stages to measure after a fit, train among them or not."""
        measure_train = self.measure_train
        if measure_train is None:
            count = len(self.evaluation("train").windows.starts)
            measure_train = count <= len(self.windows.starts)
        return tuple(PARTS) if measure_train else ("val", "test")

    def evaluation(self, stage: str) -> Evaluation:
        """Return what a stage evaluates; it is computed once."""
        if stage not in self._evaluations:
            self._evaluations[stage] = self._find_evaluation(stage)
        return self._evaluations[stage]

    def _visible(self, stage: str) -> Histories:
        """Return the histories of the rows that a stage may see."""
        parts = list(PARTS)[: list(PARTS).index(stage) + 1]
        rows = [getattr(self.split, PARTS[part]) for part in parts]
        return Histories.from_rows(self.interactions, np.concatenate(rows))

    def _find_evaluation(self, stage: str) -> Evaluation:
        histories = self._visible(stage)
        part = histories
        if stage != "train":
            part = Histories.from_rows(self.interactions, getattr(self.split, PARTS[stage]))
        targets = self._targets(part, "successive" if stage == "train" else self.eval_targets)
        ends = targets
        if self.eval_targets == "all" and stage != "train":
            ends = part.offsets[np.searchsorted(part.offsets, targets, side="right") - 1]
        positions = histories.positions(part.rows)  # of the rows of the part, in their order
        windows = windows_ending_at(histories, positions[ends], self.eval_length)
        target_ids = torch.from_numpy(part.item_ids[targets]).long()
        long_enough = windows.lengths >= self.min_length
        windows, target_ids = windows.take(long_enough), target_ids[long_enough]
        order = windows.lengths.argsort(stable=True)  # saves padding
        return Evaluation(histories.without_rows(), windows.take(order), target_ids[order])

    def _targets(self, part: Histories, kind: EvalTargets) -> npt.NDArray[np.int64]:
        """Choose the targets among the items of a part, as positions in ``part.item_ids``, ascending."""
        if kind == "all":
            return np.arange(len(part.item_ids))
        if kind == "successive":
            return cut_windows(part, 1, self.eval_stride).starts.numpy()
        counts = np.diff(part.offsets)
        places = np.zeros_like(counts)
        if kind == "last":
            places = counts - 1
        elif kind == "random":
            places = np.floor(draws_of_users(self.interactions, 0) * counts).astype(np.int64)
        chosen: npt.NDArray[np.int64] = (part.offsets[:-1] + places)[counts > 0]
        return chosen

    def evaluated(self, stage: str) -> Evaluated:
        """Return the targets of a stage, in the order of :meth:`evaluation`."""
        histories, windows, target_ids = self.evaluation(stage)
        user_ids, item_ids = windows.user_ids.numpy(), target_ids.numpy()
        before = (windows.starts + windows.lengths - 1).numpy() - histories.offsets[user_ids]
        _, warm_items = warm_ids(self.interactions, self.split.train)
        return Evaluated(user_ids, item_ids, before, warm_items[item_ids])

    @cached_property
    def warm(self) -> tuple[Tensor, Tensor]:
        """Return which user ids and which item ids occur in the training rows that are kept."""
        users, items = warm_ids(self.interactions, self.histories.rows)
        return torch.from_numpy(users), torch.from_numpy(items)

    @property
    def protocol(self) -> dict[str, Any]:
        """Return also how windows are cut and what the candidates are."""
        windows: dict[str, Any] = {"length": self.eval_length}
        if self.eval_targets == "successive":
            windows["stride"] = self.eval_stride
        else:
            windows["targets"] = self.eval_targets
        if self.min_length > 1:
            windows["min_length"] = self.min_length
        counts = {stage: len(self.evaluation(stage).windows.starts) for stage in ("val", "test")}
        return {
            **super().protocol,
            "windows": windows,
            "evaluated_windows": counts,
            "candidates": "all items but the padding",
            "filter_seen": self.filter_seen,
        }

    def train_dataloader(self, rank: int = 0, world_size: int = 1) -> BatchLoader:
        """Return training batches of similar lengths, in an order that is a function of (seed, epoch)."""
        items = torch.from_numpy(self.histories.item_ids)
        times = item_seconds(self.interactions, self.histories.rows) if self.carries_times else None
        num_batches = -(-len(self.windows.starts) // self.batch_size)

        def plan(epoch: int) -> list[Tensor]:
            batches = bucketed_batches(self.windows.lengths, self.batch_size, self.seed, epoch)
            share = -(-len(batches) // world_size)
            return [batches[(rank + i * world_size) % len(batches)] for i in range(share)]

        return BatchLoader(
            plan,
            lambda index: gather(items, self.windows.take(index), times),
            -(-num_batches // world_size),
        )

    def evaluation_dataloader(self, stage: str) -> BatchLoader:
        """Return the batches of a stage in the order of :meth:`evaluation`, train included.

        Raises:
            MatineeError: If the stage has no windows.
        """
        histories, windows, target_ids = self.evaluation(stage)
        items = torch.from_numpy(histories.item_ids)
        count = len(windows.starts)
        if count == 0:
            raise MatineeError(
                f"{PARTS[stage]} has no windows to evaluate; change the split or data.eval_length."
            )

        times = self._times_of(stage)

        def collate(chosen: slice) -> RankingBatch:
            taken = windows.take(chosen)
            if self.perturbation:
                longest = int(windows.lengths.max())
                read = self.perturbation(items, taken, chosen.start, longest, times)
            else:
                read = gather(items, taken, times)
            batch = last_target_only(read, target_ids[chosen])
            return RankingBatch(*batch, *self._seen(stage, taken))

        plan = in_order(count, self.eval_batch_size)
        return BatchLoader(plan, collate, -(-count // self.eval_batch_size))

    def memorizable_batch(self, examples: int) -> RankingBatch:
        """Take windows of different users with different sets of items, long ones first.

        A model that ignores the order can tell such histories apart, and so can one that knows the
        user alone.
        """
        histories, windows, target_ids = self.evaluation("train")
        items = torch.from_numpy(histories.item_ids)
        taken: list[int] = []
        users: set[int] = set()
        met: set[frozenset[int]] = set()
        columns = [column.numpy() for column in windows]
        for number in reversed(range(len(windows.starts))):
            start, length, user = (int(column[number]) for column in columns)
            history = frozenset(histories.item_ids[start : start + length - 1].tolist())
            if user not in users and history not in met:
                taken.append(number)
                users.add(user)
                met.add(history)
            if len(taken) == examples:
                break
        index = torch.tensor(taken)
        chosen = windows.take(index)
        read = gather(items, chosen, self._times_of("train"))
        batch = last_target_only(read, target_ids[index])
        return RankingBatch(*batch, *self._seen("train", chosen))

    def _times_of(self, stage: str) -> Tensor | None:
        """Return the times of the items that a stage may see, (rows,), if they were asked for."""
        if self.carries_times and stage not in self._times:
            self._times[stage] = item_seconds(self.interactions, self._visible(stage).rows)
        return self._times.get(stage)

    def _seen(self, stage: str, windows: Windows) -> tuple[Tensor, Tensor, Tensor]:
        """List what is left out of the candidates, see :class:`FirstMeetings`; nothing by default."""
        if not self.filter_seen:
            nothing = torch.zeros(len(windows.starts), dtype=torch.int64)
            return nothing[:0], nothing, nothing
        if stage not in self._meetings:
            self._meetings[stage] = FirstMeetings.of(self.evaluation(stage).histories)
        return self._meetings[stage].before(windows)
