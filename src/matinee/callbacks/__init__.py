"""Callbacks: what is measured, kept and shown around a fit, whatever the model."""

from matinee.callbacks.inspecting import Inspection
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
    "Inspection",
    "NoProfiler",
    "RankingMetrics",
    "RatingMetrics",
    "SeedEachStep",
    "StopTogether",
    "UnfusedOptimizers",
]
