"""Loading: whole batches by tensor indexing, never row by row, in an order that can be resumed.

The order of an epoch is a function of (seed, epoch) alone, and a loader's place within an epoch is
part of a checkpoint, so a resumed run sees exactly the batches that the uninterrupted one would
have seen.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

Plan = Callable[[int], Sequence[Any]]  # epoch -> what each batch consists of, in order


class BatchLoader:
    """Iterates over the batches that a plan lays out.

    Args:
        plan: Lays out an epoch: for its number, one entry a batch, such as an index of rows.
        collate: Makes a batch from an entry.
        num_batches: How many entries a plan has, the same in every epoch.
    """

    batch_sampler = None  # where Lightning would look first

    def __init__(self, plan: Plan, collate: Callable[[Any], Any], num_batches: int) -> None:
        self.plan = plan
        self.collate = collate
        self.num_batches = num_batches
        self.epoch = 0
        self._next_batch = 0
        self._start_batch = 0

    @property
    def sampler(self) -> "BatchLoader":
        """Where Lightning looks for :meth:`set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the coming epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        return self.num_batches

    def __iter__(self) -> Iterator[Any]:
        entries = self.plan(self.epoch)
        start, self._start_batch = self._start_batch, 0
        for batch in range(start, self.num_batches):
            self._next_batch = (batch + 1) % self.num_batches
            yield self.collate(entries[batch])

    def state_dict(self) -> dict[str, int]:
        """Return the place within the epoch, for a checkpoint taken in its middle."""
        return {"next_batch": self._next_batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue the next iteration where the checkpoint was taken."""
        self._start_batch = state["next_batch"]


def shuffled(num_rows: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1) -> Plan:
    """Plan shuffled batches of row indices; processes share an epoch evenly.

    Args:
        num_rows: Number of rows, at least 1.
        batch_size: Rows of a batch; the last one may be smaller.
        seed: Seed of the order.
        rank: This process's number among ``world_size``.
        world_size: Processes that share an epoch. Each gets equally many rows; the first rows of
            the order are repeated to fill the last round.
    """

    def plan(epoch: int) -> Sequence[Tensor]:
        generator = torch.Generator().manual_seed(mix_seed(seed, epoch))
        order = torch.randperm(num_rows, generator=generator)
        if world_size > 1:
            rounds = torch.arange(-(-num_rows // world_size) * world_size) % num_rows
            order = order[rounds[rank::world_size]]
        return torch.split(order, batch_size)

    return plan


def in_order(num_rows: int, batch_size: int) -> Plan:
    """Plan batches of consecutive rows, as slices."""
    starts = range(0, num_rows, batch_size)
    slices = [slice(start, start + batch_size) for start in starts]
    return lambda epoch: slices


def to_device(batch: Any, device: torch.device) -> Any:
    """Move a batch, a named tuple of tensors, to a device; return it as it is if it is there."""
    if batch[0].device == device:
        return batch
    return type(batch)(*(column.to(device, non_blocking=True) for column in batch))


def mix_seed(*numbers: int) -> int:
    """Hash whole numbers of at least 0 to one 32-bit seed, so that neighbours share nothing.

    >>> mix_seed(0, 1), mix_seed(1, 0)
    (2939677055, 1949917470)
    """
    mixed = 0
    for number in numbers:  # SplitMix64 (Steele, Lea & Flood, OOPSLA 2014), one round a number
        mixed = (mixed + number + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        mixed ^= mixed >> 31
    return mixed & 0xFFFFFFFF
