"""Perturbations: change the histories at evaluation, to see what a trained model uses of them."""

import re

import numpy as np
import torch
from torch import Tensor

from matinee.batches.windows import SequenceBatch, Windows, as_batch, gather
from matinee.errors import MatineeError


class Perturbation:
    """Changes the histories of evaluated windows; the targets stay the same.

    Args:
        name: ``shuffled`` puts the items of a history in a random order; ``last_in_place`` does so
            with all items but the last; ``last_N``, such as ``last_2``, keeps the last N items only.
        seed: Seed of the order, at least 0.

    Raises:
        MatineeError: If the name is unknown.
    """

    def __init__(self, name: str, seed: int) -> None:
        kept = re.fullmatch("last_([1-9][0-9]{0,8})", name)
        if not kept and name not in ("shuffled", "last_in_place"):
            raise MatineeError(
                f"histories={name} is unknown; choose shuffled, last_in_place or last_N, such as last_2."
            )
        self.kept = int(kept[1]) if kept else None
        self.in_place = 1 if name == "last_in_place" else 0
        self.seed = seed

    def __call__(
        self,
        items: Tensor,
        windows: Windows,
        first: int,
        longest: int,
        times: Tensor | None = None,
    ) -> SequenceBatch:
        """Make the batch of some consecutive windows of a stage, in place of :func:`gather`.

        Args:
            items: The flat items of the histories, (rows,).
            windows: The windows of the batch.
            first: Position of the first window in the stage. The order of the items of a window is a
                function of its position and the seed, and does not depend on the batch.
            longest: Length of the longest window of the stage.
            times: See :func:`gather`; where items change places, times stay.
        """
        if self.kept is not None:
            surplus = (windows.lengths - 1 - self.kept).clamp(min=0)
            return gather(
                items,
                Windows(windows.starts + surplus, windows.lengths - surplus, windows.user_ids),
                times,
            )
        batch = gather(items, windows, times)
        draws = np.random.PCG64(self.seed).advance(first * longest)  # one draw per position
        keys = np.random.Generator(draws).random((len(windows.starts), longest))
        places = torch.arange(batch.target_ids.shape[1])
        shuffled = places < (batch.lengths - 1 - self.in_place).unsqueeze(1)
        order = torch.where(shuffled, torch.from_numpy(keys)[:, : len(places)], 1.0 + places)
        target_ids = batch.target_ids.gather(1, order.argsort(1))
        return as_batch(target_ids, batch.lengths, batch.user_ids)._replace(times=batch.times)
