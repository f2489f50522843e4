"""A task with one more metric."""

from collections.abc import Sequence
from typing import Any

from matinee.training.tasks import NextItemTask


class MeanRankTask(NextItemTask):
    """Next-item recommendation that also reports the mean rank of the targets."""

    @classmethod
    def from_data(cls, *parts: Any, **options: Any) -> NextItemTask:
        """Make the task. A config may name this method because the class itself defines it."""
        return super().from_data(*parts, **options)

    def measure(
        self, predictions: Sequence[Any], datamodule: Any, stage: str
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """Add ``mean_rank`` to the metrics of a stage."""
        metrics, values = super().measure(predictions, datamodule, stage)
        return {**metrics, "mean_rank": float((1 / values["mrr"]).mean())}, values
