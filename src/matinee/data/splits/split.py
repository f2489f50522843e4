"""What a split is, and what every one of them is checked for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from matinee.data.interactions import Interactions
from matinee.errors import MatineeError

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Split:
    """Row positions of the three parts, each ascending, together every row at most once.

    Attributes:
        name: The protocol's name, with its options in ``options``.
        options: Plain values; together with the name they describe the protocol but not the draw.
        train: Positions into the interactions that models may learn from.
        validation: Positions used to choose hyperparameters, epochs and models.
        test: Positions touched once, by the chosen model.
    """

    name: str
    options: Mapping[str, Any]
    train: Rows
    validation: Rows
    test: Rows

    @property
    def sizes(self) -> dict[str, int]:
        """Number of rows of each part."""
        return {
            "train": len(self.train),
            "validation": len(self.validation),
            "test": len(self.test),
        }

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over the row positions: two equal fingerprints mean the very same split."""
        digest = hashlib.sha256()
        for rows in (self.train, self.validation, self.test):
            digest.update(len(rows).to_bytes(8, "little"))
            digest.update(np.ascontiguousarray(rows, dtype="<i8").data)
        return digest.hexdigest()

    def cold(self, interactions: Interactions) -> dict[str, dict[str, int]]:
        """Count what validation and test hold that train has never seen.

        Args:
            interactions: The table that was split.

        Returns:
            For ``"validation"`` and ``"test"``: the numbers of cold ``users`` and ``items`` and of
            the ``rows`` that touch at least one of them.
        """
        warm_users, warm_items = warm_ids(interactions, self.train)
        counts = {}
        for part, rows in (("validation", self.validation), ("test", self.test)):
            user_ids, item_ids = interactions.user_ids[rows], interactions.item_ids[rows]
            cold_user, cold_item = ~warm_users[user_ids], ~warm_items[item_ids]
            counts[part] = {
                "users": len(np.unique(user_ids[cold_user])),
                "items": len(np.unique(item_ids[cold_item])),
                "rows": int(np.count_nonzero(cold_user | cold_item)),
            }
        return counts


def warm_ids(
    interactions: Interactions, rows: Rows
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Mark the ids that some rows hold, users (num_users + 1,) and items (num_items + 1,)."""
    users = np.zeros(interactions.num_users + 1, dtype=np.bool_)
    items = np.zeros(interactions.num_items + 1, dtype=np.bool_)
    users[interactions.user_ids[rows]] = True
    items[interactions.item_ids[rows]] = True
    return users, items


def check_shares(validation_share: float, test_share: float) -> None:
    """Check that both shares are possible and leave something for train.

    Raises:
        MatineeError: If not.
    """
    check_share(validation_share, "validation_share")
    check_share(test_share, "test_share")
    if validation_share + test_share >= 1:
        raise MatineeError(
            f"validation_share={validation_share} and test_share={test_share} leave nothing for train; "
            "lower one of them."
        )


def check_share(share: float, option: str) -> None:
    """Check that a share lies between 0 and 1.

    Raises:
        MatineeError: If not; it names the option.
    """
    if not 0 < share < 1:
        raise MatineeError(f"{option} is {share}; give a share between 0 and 1, both excluded.")


def check_parts(split: Split) -> None:
    """Check that no part is empty.

    Raises:
        MatineeError: If one is.
    """
    empty = [part for part, size in split.sizes.items() if size == 0]
    if empty:
        raise MatineeError(
            f"split={split.name} leaves no rows for {' and '.join(empty)} (sizes {split.sizes}); "
            "change its options or bring more data."
        )
