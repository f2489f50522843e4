"""What all data modules share: the parts of a split, their segments and their protocol."""

from collections.abc import Sequence
from typing import Any

from matinee.contracts import DataModule
from matinee.data.interactions import Interactions
from matinee.data.segments import Masks, check_segments, segment_masks
from matinee.data.splits import Split
from matinee.errors import MatineeError

PARTS = {"train": "train", "val": "validation", "test": "test"}  # logged prefix -> part of a split


class SplitDataModule(DataModule):
    """A data module for a table and its split.

    Args:
        interactions: The whole table.
        split: Which rows are train, validation and test.
        segments: Subsets to report metrics for as well, see :mod:`matinee.data.segments`.
        seed: Seed of the order of the training batches, at least 0.
        sizes: Options that must be whole numbers of at least 1, by name.

    Raises:
        MatineeError: If a size is out of range or a segment is unknown.
    """

    def __init__(
        self,
        interactions: Interactions,
        split: Split,
        segments: Sequence[str],
        seed: int,
        **sizes: int,
    ) -> None:
        for option, size in sizes.items():
            if not 1 <= size < 2**31:
                raise MatineeError(
                    f"{option} is {size}; give a whole number from 1 to {2**31 - 1}."
                )
        self.interactions = interactions
        self.split = split
        self.segment_names = check_segments(segments, interactions)
        self.seed = seed

    def segments(self, stage: str) -> Masks:
        """Return a mask for each segment, in the order of :meth:`evaluated`."""
        names, table, train = self.segment_names, self.interactions, self.split.train
        return segment_masks(names, self.evaluated(stage), table, train) if names else {}

    @property
    def protocol(self) -> dict[str, Any]:
        """Return the fingerprints and counts of the data and the split."""
        table, split = self.interactions, self.split
        return {
            "dataset": {
                "sha256": table.fingerprint,
                "rows": len(table),
                "users": table.num_users,
                "items": table.num_items,
                "duplicates_resolved": table.duplicates_resolved,
                **({"source": dict(table.source)} if table.source else {}),
            },
            "split": {
                "name": split.name,
                "options": dict(split.options),
                "fingerprint": split.fingerprint,
                "rows": split.sizes,
                "cold": split.cold(table),
            },
        }

    def perturb(self, histories: str) -> None:
        """Reject changed histories: these batches hold none.

        Raises:
            MatineeError: Always.
        """
        raise MatineeError(
            f"histories={histories} changes what a model reads, and this run's model reads no "
            "histories; leave it out."
        )
