"""Queries: users who ask for recommendations, with the items that each has met."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from matinee.batches.windows import Histories, Windows, gather, item_seconds, spans
from matinee.data.interactions import Interactions


@dataclass(frozen=True, eq=False)
class Queries:
    """Users who ask, n of them, and the items that each has met, one user after another.

    Attributes:
        user_ids: The users, int64, (n,); 0 is a newcomer.
        offsets: The items of query ``q`` are ``item_ids[offsets[q]:offsets[q + 1]]``; int64, (n + 1,).
        item_ids: Items, oldest first, integers, (items,); 0 is an item that is not in the data.
        ratings: How newcomers rated these items, float32, (items,); None if users of the data ask.
        times: When users of the data met them, seconds, int64, (items,); None if that is not known.
    """

    user_ids: Tensor
    offsets: Tensor
    item_ids: Tensor
    ratings: Tensor | None = None
    times: Tensor | None = None

    def __len__(self) -> int:
        return len(self.user_ids)

    def __getitem__(self, chosen: slice) -> Queries:
        """Return consecutive queries."""
        user_ids = self.user_ids[chosen]
        start = chosen.indices(len(self))[0]
        offsets = self.offsets[start : start + len(user_ids) + 1]
        items = slice(int(offsets[0]), int(offsets[-1]))
        return Queries(
            user_ids,
            offsets - offsets[0],
            self.item_ids[items],
            None if self.ratings is None else self.ratings[items],
            None if self.times is None else self.times[items],
        )

    @property
    def met(self) -> tuple[Tensor, Tensor]:
        """The pairs of a query, from 0, and an item that it has met, int64, (items,) each."""
        counts = self.offsets.diff()
        return torch.arange(len(self)).repeat_interleave(counts), self.item_ids.long()

    def histories(self, newest: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the newest items of each query as a batch, as in evaluation.

        Args:
            newest: Largest number of items of a history, at least 0.

        Returns:
            The histories, each beginning with 0 and padded with 0 on the right, int64, (n, length); the
            number of positions that are not padding, int64, (n,); and the times, see
            :func:`matinee.batches.windows.history_times`, (n, length), or None.
        """
        sizes = self.offsets.diff().clamp(max=newest)
        # a window ends with its target, which is still to come
        windows = Windows(self.offsets[1:] - sizes, sizes + 1, self.user_ids)
        columns = [
            None if column is None else torch.cat((column, column.new_zeros(1)))
            for column in (self.item_ids, self.times)
        ]
        assert columns[0] is not None
        batch = gather(columns[0], windows, columns[1])
        return batch.histories, batch.lengths, None if self.times is None else batch.times

    @classmethod
    def of_users(
        cls,
        interactions: Interactions,
        user_ids: npt.NDArray[np.integer],
        times: bool = False,
    ) -> Queries:
        """Ask for users of the data, who have met the items of all their rows.

        Args:
            interactions: The data.
            user_ids: The users in any order, also repeated, (n,); 0 is a newcomer without items.
            times: Whether the times are wanted.
        """
        asks = np.zeros(interactions.num_users + 1, np.bool_)
        asks[user_ids] = True
        rows = np.flatnonzero(asks[interactions.user_ids])
        histories = Histories.from_rows(interactions, rows)
        starts = torch.from_numpy(histories.offsets[user_ids])
        sizes = torch.from_numpy(np.diff(histories.offsets)[user_ids])
        _, places = spans(starts, sizes)
        seconds = item_seconds(interactions, histories.rows)[places] if times else None
        return cls(
            torch.from_numpy(np.asarray(user_ids, np.int64)),
            torch.cat((sizes.new_zeros(1), sizes.cumsum(0))),
            torch.from_numpy(histories.item_ids)[places],
            times=seconds,
        )

    @classmethod
    def of_histories(
        cls,
        histories: Sequence[Sequence[int] | npt.NDArray[np.integer]],
        ratings: Tensor | None = None,
        user_ids: Sequence[int] | None = None,
    ) -> Queries:
        """Ask for users by the items that they have met.

        Args:
            histories: The items of each user, oldest first; one list a user.
            ratings: The ratings of these items, one user after another, (items,).
            user_ids: The users, if they are in the data; None: all are newcomers.
        """
        sizes = torch.tensor([len(items) for items in histories], dtype=torch.int64)
        items = [torch.as_tensor(np.asarray(items, np.int64)) for items in histories]
        return cls(
            torch.tensor([0] * len(histories) if user_ids is None else list(user_ids)).long(),
            torch.cat((sizes.new_zeros(1), sizes.cumsum(0))),
            torch.cat(items) if items else torch.zeros(0, dtype=torch.int64),
            ratings,
        )
