"""Callbacks: what is measured, kept and shown around a fit, whatever the model."""

from matinee.callbacks.keeping import AtomicCheckpointIO, Checkpoints, EpochTable
from matinee.callbacks.measuring import RankingMetrics, RatingMetrics
from matinee.callbacks.running import (
    FitProgress,
    NoProfiler,
    SeedEachStep,
    StopTogether,
    UnfusedOptimizers,
)

__all__ = [
    "AtomicCheckpointIO",
    "Checkpoints",
    "EpochTable",
    "FitProgress",
    "NoProfiler",
    "RankingMetrics",
    "RatingMetrics",
    "SeedEachStep",
    "StopTogether",
    "UnfusedOptimizers",
]
