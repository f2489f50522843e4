"""Loading: make whole batches by tensor indexing, in an order that survives a resume.

The order of an epoch is a function of (seed, epoch), and the position of a loader within an epoch is part
of a checkpoint. A resumed run therefore sees exactly the batches that it would have seen without the
interruption.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

Plan = Callable[[int], Sequence[Any]]  # epoch -> one entry per batch, in order


class BatchLoader:
    """Iterates over the batches of a plan.

    Args:
        plan: Returns one entry per batch, such as an index of rows, for the number of an epoch.
        collate: Makes a batch from an entry.
        num_batches: Number of entries, the same in every epoch.
    """

    batch_sampler = None  # Lightning looks here first for set_epoch

    def __init__(self, plan: Plan, collate: Callable[[Any], Any], num_batches: int) -> None:
        self.plan = plan
        self.collate = collate
        self.num_batches = num_batches
        self.epoch = 0
        self._next_batch = 0
        self._start_batch = 0

    @property
    def sampler(self) -> "BatchLoader":
        """Itself, because Lightning looks here for :meth:`set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next epoch."""
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
        """Return the position within the epoch, for a checkpoint in its middle."""
        return {"next_batch": self._next_batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue at the position of the checkpoint in the next iteration."""
        self._start_batch = state["next_batch"]


def shuffled(num_rows: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1) -> Plan:
    """Plan shuffled batches of row indices; several processes share an epoch evenly.

    Args:
        num_rows: Number of rows, at least 1.
        batch_size: Rows per batch; the last batch may be smaller.
        seed: Seed of the order.
        rank: Number of this process, from 0.
        world_size: Number of processes that share an epoch. Each gets the same number of rows; the
            first rows of the order are repeated to fill the last round.
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
    """Move a batch, a named tuple of tensors, to a device; a batch that is there is returned as it is."""
    if batch[0].device == device:
        return batch
    return type(batch)(*(column.to(device, non_blocking=True) for column in batch))


def mix_seed(*numbers: int) -> int:
    """Hash whole numbers of at least 0 to one 32-bit seed; nearby numbers give unrelated seeds.

    >>> mix_seed(0, 1), mix_seed(1, 0)
    (2939677055, 1949917470)
    """
    mixed = 0
    for number in numbers:  # SplitMix64 (Steele, Lea & Flood, OOPSLA 2014), one round per number
        mixed = (mixed + number + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        mixed ^= mixed >> 31
    return mixed & 0xFFFFFFFF
