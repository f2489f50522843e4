"""A metric: the mean rank of the targets."""

from collections.abc import Sequence
from typing import Any

from matinee.training.tasks import NextItemTask


class MeanRankTask(NextItemTask):
    """Next-item recommendation that also reports the mean rank of the targets."""

    @classmethod
    def from_data(cls, *parts: Any, **options: Any) -> NextItemTask:
        """Make the task; a config may only name what this package defines, and not what it inherits."""
        return super().from_data(*parts, **options)

    def measure(
        self, predictions: Sequence[Any], datamodule: Any, stage: str
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """Measure a whole stage; see :class:`NextItemTask`."""
        metrics, values = super().measure(predictions, datamodule, stage)
        ranks = 1 / values["mrr"]
        return {**metrics, "mean_rank": float(ranks.mean())}, values
