"""Windows: the items of each user in time order, cut into windows and gathered into padded batches.

Items are copied once, into one flat array, and a window is an offset into it. Memory therefore grows
with the interactions and not with the overlap of the windows, and one gather makes a padded batch.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from matinee.data.interactions import Interactions
from matinee.data.splits import Rows
from matinee.errors import MatineeError


@dataclass(frozen=True, eq=False)
class Histories:
    """The items of all users, one user after another, in the order of (user, time, source row).

    Attributes:
        item_ids: The items, int32, shape (rows,).
        offsets: The items of user ``u`` are ``item_ids[offsets[u]:offsets[u + 1]]``; int64,
            (num_users + 2,). User 0 and users without rows have none.
        rows: The row of the interactions for each item, int64, shape (rows,).
    """

    item_ids: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    rows: Rows

    @classmethod
    def from_rows(cls, interactions: Interactions, rows: Rows) -> "Histories":
        """Build the histories of some rows.

        Args:
            interactions: The whole table, which is in the order of (time, source row).
            rows: Distinct row positions in any order, such as one or more parts of a split.
        """
        # Sorting (user, row) as one number is several times faster than a stable argsort by user.
        keys = interactions.user_ids[rows].astype(np.int64) * len(interactions) + rows
        keys.sort()
        ordered = keys % len(interactions)
        counts = np.bincount(interactions.user_ids[rows], minlength=interactions.num_users + 1)
        return cls(
            item_ids=interactions.item_ids[ordered],
            offsets=np.concatenate(([0], np.cumsum(counts, dtype=np.int64))),
            rows=ordered,
        )

    def without_rows(self) -> "Histories":
        """Return the histories without ``rows``, which take two thirds of the memory."""
        return replace(self, rows=self.rows[:0])

    def positions(self, rows: Rows) -> npt.NDArray[np.int64]:
        """Return the positions of some rows in ``item_ids``, ascending; absent rows are skipped."""
        wanted = np.zeros(max(self.rows.max(initial=-1), np.max(rows, initial=-1)) + 1, np.bool_)
        wanted[rows] = True
        return np.flatnonzero(wanted[self.rows])

    def without_oldest(self, share: float) -> Rows:
        """Return the rows without the oldest ones of each user.

        Args:
            share: Share of each user's rows to leave out, rounded down, in [0, 1).

        Returns:
            Row positions in the order of ``rows``; every user with rows keeps at least one.
        """
        counts = np.diff(self.offsets)
        places = np.arange(len(self.rows)) - np.repeat(self.offsets[:-1], counts)
        # the small term: 100 rows times 0.29 are 28.999..., and 29 rows have to go
        return self.rows[places >= np.repeat(np.floor(counts * share + 1e-9), counts)]


class Windows(NamedTuple):
    """Parts of histories as offsets into ``Histories.item_ids``, all of shape (windows,)."""

    starts: Tensor  # int64, position of the first item
    lengths: Tensor  # int32, number of items, at least 1
    user_ids: Tensor  # int32

    def take(self, index: Tensor | slice) -> "Windows":
        """Return some of the windows: a slice, or an index of shape (n,), or a mask (windows,)."""
        return Windows(*(column[index] for column in self))


@dataclass(frozen=True, eq=False)
class FirstMeetings:
    """The items of each user without repetitions, in the order in which the user met them.

    What a user has met by any time is the beginning of one list. However many targets a user has, the
    memory of what was met before each of them therefore grows with the history, not with its square.

    Attributes:
        item_ids: The lists of all users, one after another, int32, shape (pairs,).
        counts: Number of ``item_ids`` before each position of the histories, int64, (rows + 1,).
        offsets: As in :class:`Histories`.
    """

    item_ids: Tensor
    counts: Tensor
    offsets: Tensor

    @classmethod
    def of(cls, histories: Histories) -> "FirstMeetings":
        """List the items of each user."""
        items, offsets = histories.item_ids, histories.offsets
        users = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        _, first = np.unique(users * (items.max(initial=0) + 1) + items, return_index=True)
        is_first = np.zeros(len(items), np.bool_)
        is_first[first] = True
        counts = np.concatenate(([0], np.cumsum(is_first, dtype=np.int64)))
        lists = items[is_first], counts, offsets
        return cls(*(torch.from_numpy(column) for column in lists))

    def before(self, windows: Windows) -> tuple[Tensor, Tensor, Tensor]:
        """List the items that the user of each window met before its last item.

        Args:
            windows: Windows of the histories, n of them.

        Returns:
            A list of item ids, int64, with the list of each user of the windows once; and where in it
            the items of each window begin and end, int64, (n,) each.
        """
        user_ids, row = windows.user_ids.long().unique(return_inverse=True)
        ends = self.counts[windows.starts + windows.lengths - 1]
        starts = self.counts[self.offsets[user_ids]]
        sizes = starts.scatter_reduce(0, row, ends, "amax") - starts
        _, places = spans(starts, sizes)
        shift = (sizes.cumsum(0) - sizes - starts)[row]
        return self.item_ids[places].long(), starts[row] + shift, ends + shift


def spans(starts: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """List the places of some spans, one span after another.

    Args:
        starts: First place of each span, int64, (n,).
        sizes: Number of places of each span, int64, (n,), at least 0.

    Returns:
        The span of each place, in 0..n-1, ascending, and the place, int64 both.

    >>> spans(torch.tensor([5, 0]), torch.tensor([2, 1]))
    (tensor([0, 0, 1]), tensor([5, 6, 0]))
    """
    numbers = torch.arange(len(sizes), device=sizes.device).repeat_interleave(sizes)
    first = sizes.cumsum(0) - sizes
    places = torch.arange(len(numbers), device=sizes.device) + (starts - first)[numbers]
    return numbers, places


class SequenceBatch(NamedTuple):
    """Padded windows: for every position, the items before it and the item there.

    A window (a, b, c) becomes the history [0, a, b] with the targets [a, b, c], so a causal network
    predicts all positions at once, the first one from the empty history. Shorter rows end in 0.
    """

    histories: Tensor  # int64, (batch, length)
    target_ids: Tensor  # int64, (batch, length); 0 where there is no target
    lengths: Tensor  # int32, (batch,), number of positions that are not padding
    user_ids: Tensor  # int32, (batch,)
    targets_at: Tensor  # int64, (2, targets): rows and positions where target_ids is not 0
    times: Tensor  # int64, (batch, length), see history_times; (batch, 0) where they were not asked for


def cut_windows(histories: Histories, length: int, stride: int, min_length: int = 1) -> Windows:
    """Cut every history into windows, starting at its end.

    The last window ends with the last item, and each window before it ends ``stride`` items earlier.
    Windows that reach the start of a history are shorter: with ``stride`` equal to ``length`` this is
    the remainder, and with a stride of 1 a window ends at every item.

    Args:
        histories: What to cut.
        length: Maximum number of items in a window, at least 1.
        stride: Items between the ends of two windows, at least 1. A stride above ``length`` leaves
            out the items in between.
        min_length: Minimum number of items in a window, from 1 to ``length``; shorter windows are
            dropped. A prediction from at least one item needs 2.

    Returns:
        Windows in the order of the users, and in time order for each user.

    Raises:
        MatineeError: If a number is out of range.
    """
    if stride < 1:
        raise MatineeError(f"stride is {stride}; give a whole number of at least 1.")
    ends = np.repeat(histories.offsets[1:], np.diff(histories.offsets))
    ends -= np.arange(1, len(ends) + 1)  # items after this one
    return windows_ending_at(histories, np.flatnonzero(ends % stride == 0), length, min_length)


def windows_ending_at(
    histories: Histories, positions: npt.NDArray[np.int64], length: int, min_length: int = 1
) -> Windows:
    """Return the windows that end at given positions.

    With :meth:`Histories.positions`, held-out rows are predicted from all items before them, whichever
    part of the split these belong to.

    Args:
        histories: What to cut.
        positions: Positions in ``histories.item_ids``, shape (n,).
        length: As in :func:`cut_windows`.
        min_length: As in :func:`cut_windows`.

    Returns:
        At most n windows, in the order of the positions.

    Raises:
        MatineeError: If a length is out of range.
    """
    if not 1 <= min_length <= length:
        raise MatineeError(
            f"min_length is {min_length} and length is {length}; give numbers of at least 1, min_length "
            "not above length."
        )
    user_ids = np.searchsorted(histories.offsets, positions, side="right") - 1
    starts = np.maximum(histories.offsets[user_ids], positions - (length - 1))
    lengths = positions - starts + 1
    kept = lengths >= min_length
    return Windows(
        torch.from_numpy(starts[kept]),
        torch.from_numpy(lengths[kept].astype(np.int32)),
        torch.from_numpy(user_ids[kept].astype(np.int32)),
    )


def gather(item_ids: Tensor, windows: Windows, times: Tensor | None = None) -> SequenceBatch:
    """Make the padded batch of some windows by one gather.

    Args:
        item_ids: The flat items of the histories, integers, shape (rows,), on any device.
        windows: The windows of the batch, on the same device.
        times: The time of each item, integers, shape (rows,); None leaves times out.

    Returns:
        The batch, as long as its longest window, with a target at every position of a window.
    """
    target_ids, lengths = _gather(item_ids, windows)
    batch = as_batch(target_ids, lengths, windows.user_ids)
    if times is None:
        return batch
    return batch._replace(times=history_times(_gather(times, windows)[0], lengths))


def history_times(item_times: Tensor, lengths: Tensor) -> Tensor:
    """Return the time of the newest item at each position of a history, since the first item.

    The empty history, position 0, has the time 0, and so have the first item and the padding. No time
    of a target that is still to come, and no date, can be seen.

    Args:
        item_times: The times of the items of some windows, int64, (batch, length).
        lengths: Number of items of each window, (batch,).

    >>> history_times(torch.tensor([[90, 95, 99], [70, 0, 0]]), torch.tensor([3, 1]))
    tensor([[0, 0, 5],
            [0, 0, 0]])
    """
    times = torch.zeros_like(item_times)
    times[:, 1:] = item_times[:, :-1] - item_times[:, :1]
    places = torch.arange(times.shape[1], device=lengths.device)
    return times.masked_fill_(places >= lengths.unsqueeze(1), 0)


def item_seconds(interactions: Interactions, rows: Rows) -> Tensor:
    """Return the times of some rows in seconds, int64, (rows,); 0 in data without times."""
    times = interactions.timestamps
    if times is None:
        return torch.zeros(len(rows), dtype=torch.int64)
    moments = times[rows].astype(f"datetime64[{interactions.time_unit}]")
    return torch.from_numpy(moments.astype("datetime64[s]").astype(np.int64))


def as_batch(target_ids: Tensor, lengths: Tensor, user_ids: Tensor) -> SequenceBatch:
    """Make a batch from the items of some windows, which become the targets.

    Args:
        target_ids: The items, padded with 0 on the right, (batch, length).
        lengths: Number of items of each window, (batch,).
        user_ids: The users of the windows, (batch,).
    """
    histories = torch.zeros_like(target_ids)
    histories[:, 1:] = target_ids[:, :-1]
    if histories.shape[1]:
        # the last item of a shorter window is a target, but not part of the padded history
        places = torch.arange(histories.shape[1], device=lengths.device)
        histories.masked_fill_(places >= lengths.unsqueeze(1), 0)
    targets_at = target_ids.nonzero().T  # once, where an accelerator does not have to be waited for
    no_times = lengths.new_zeros(len(lengths), 0, dtype=torch.int64)
    return SequenceBatch(histories, target_ids, lengths, user_ids, targets_at, no_times)


def last_target_only(batch: SequenceBatch, last_ids: Tensor) -> SequenceBatch:
    """Keep only a target at the last position of each row, for evaluation: the given items, (batch,)."""
    rows = torch.arange(len(batch.lengths), device=batch.lengths.device)
    last = batch.lengths.long() - 1
    target_ids = torch.zeros_like(batch.target_ids)
    target_ids[rows, last] = last_ids
    return batch._replace(target_ids=target_ids, targets_at=torch.stack((rows, last)))


def bucketed_batches(lengths: Tensor, batch_size: int, seed: int, epoch: int) -> list[Tensor]:
    """Group windows of similar length into batches of nearly equal size.

    Windows are ordered by their length, blurred by up to a tenth so that batches change between epochs,
    and cut into batches whose sizes differ by at most one. The batches are shuffled.

    Args:
        lengths: Length of each window, shape (windows,).
        batch_size: Maximum number of windows in a batch, at least 1.
        seed: Seed of the order, at least 0.
        epoch: Number of the epoch, at least 0; the order is a function of (seed, epoch).

    Returns:
        Indices of the windows of each batch, int64; together they contain every window once.

    Raises:
        MatineeError: If ``batch_size`` is not positive.
    """
    if batch_size < 1:
        raise MatineeError(f"batch_size is {batch_size}; give a whole number of at least 1.")
    generator = np.random.default_rng((seed, epoch))
    # by length times a random number from 1 to 1.1, which also breaks ties
    blur = generator.random(len(lengths), dtype=np.float32)
    order = np.argsort(lengths.numpy() * (1 + blur / 10))
    num_batches = -(-len(order) // batch_size)
    batches = [torch.from_numpy(part) for part in np.array_split(order, max(num_batches, 1))]
    return [batches[place] for place in generator.permutation(num_batches)]


def _gather(item_ids: Tensor, windows: Windows) -> tuple[Tensor, Tensor]:
    """Return the items of the windows, right-padded with 0, (n, longest), and their lengths."""
    lengths = windows.lengths
    width = int(lengths.max()) if len(lengths) else 0
    places = torch.arange(width, device=item_ids.device)
    if width == 0:
        return torch.zeros(len(lengths), 0, dtype=torch.int64, device=item_ids.device), lengths
    index = (windows.starts.unsqueeze(1) + places).clamp_(max=len(item_ids) - 1)
    items = item_ids[index].long()
    return items.masked_fill_(places >= lengths.unsqueeze(1), 0), lengths
