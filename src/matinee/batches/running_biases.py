"""Running biases: damped offsets of items and users, updated with every rating."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from matinee.errors import MatineeError


class RunningBiases:
    r"""Damped offsets of items and users from all ratings so far.

    Before a rating :math:`r` of item :math:`i` by user :math:`u`, the offsets are

    .. math:: b_i = \frac{S_i}{n_i + \lambda_I}, \qquad b_u = \frac{S_u}{n_u + \lambda_U}

    and the rating then adds :math:`r - \mu - b_u` to :math:`S_i`, :math:`r - \mu - b_i` to :math:`S_u` and
    1 to both counts. Each side therefore learns what the other did not explain when the rating came. Ratings
    of one moment see the state before that moment, and all of them are added afterwards.

    Args:
        num_users: Number of users; ids are 1..num_users, and 0 is a user who is not in the data.
        num_items: Number of items; ids are 1..num_items, and 0 is any item that is not in the data:
            its offset stays 0.
        item_damping: :math:`\lambda_I`, in ratings, greater than 0.
        user_damping: :math:`\lambda_U`, in ratings, greater than 0.

    Raises:
        MatineeError: If a damping is not greater than 0.
    """

    def __init__(
        self, num_users: int, num_items: int, item_damping: float, user_damping: float
    ) -> None:
        for option, damping in (("item_damping", item_damping), ("user_damping", user_damping)):
            if not damping > 0:
                raise MatineeError(f"{option} is {damping}; give a number greater than 0.")
        self.dampings = item_damping, user_damping
        # Lists: one value is read and written at a time, for which arrays are several times slower.
        self.item_sums, self.item_counts = [0.0] * (num_items + 1), [0] * (num_items + 1)
        self.user_sums, self.user_counts = [0.0] * (num_users + 1), [0] * (num_users + 1)

    def offsets(self, user: int, item: int) -> tuple[float, float]:
        """Return the offsets of an item and of a user, as they are now."""
        item_damping, user_damping = self.dampings
        return (
            self.item_sums[item] / (self.item_counts[item] + item_damping),
            self.user_sums[user] / (self.user_counts[user] + user_damping),
        )

    def describe(self, user: int, item: int) -> tuple[float, float, float, float]:
        """Return the offsets and the counts, each of the item first, as they are now."""
        return (*self.offsets(user, item), self.item_counts[item], self.user_counts[user])

    def read(
        self,
        user_ids: npt.NDArray[np.integer],
        item_ids: npt.NDArray[np.integer],
        deviations: npt.NDArray[np.floating],
        moments: npt.NDArray[np.integer],
        learned: npt.NDArray[np.bool_] | None = None,
    ) -> npt.NDArray[np.float32]:
        r"""Read ratings in their order and describe the state before each.

        Args:
            user_ids: User of each rating, (rows,).
            item_ids: Item of each rating, (rows,).
            deviations: The ratings minus :math:`\mu`, (rows,).
            moments: Ascending; ratings of one moment do not see each other, (rows,).
            learned: Which ratings are added to the state, (rows,); None adds all.

        Returns:
            Item offset, user offset, item count and user count before each rating, (rows, 4).
        """
        users, items, values = user_ids.tolist(), item_ids.tolist(), deviations.tolist()
        counted: Sequence[bool] = [True] * len(users) if learned is None else learned.tolist()
        before = np.empty((len(users), 4), np.float32)
        begins = np.flatnonzero(np.diff(moments, prepend=moments[:1] - 1)).tolist()
        for start, end in pairwise([*begins, len(users)]):
            states = [self.describe(users[row], items[row]) for row in range(start, end)]
            before[start:end] = states
            for row, (item_offset, user_offset, _, _) in zip(
                range(start, end), states, strict=True
            ):
                if counted[row]:
                    self.user_sums[users[row]] += values[row] - item_offset
                    self.user_counts[users[row]] += 1
                    if items[row]:  # unknown items have nothing in common
                        self.item_sums[items[row]] += values[row] - user_offset
                        self.item_counts[items[row]] += 1
        return before
