"""Metrics: plain functions that compare predictions with the truth. They keep no state."""

from matinee.metrics.masks import FloatArray
from matinee.metrics.ranking import best_items, coverage, ranking_metrics, ranks
from matinee.metrics.rating import rating_metrics, rating_metrics_per_user

__all__ = [
    "FloatArray",
    "best_items",
    "coverage",
    "ranking_metrics",
    "ranks",
    "rating_metrics",
    "rating_metrics_per_user",
]
