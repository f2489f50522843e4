"""Callbacks: what is measured, kept and shown around a fit, whatever the model."""

from matinee.training.callbacks.checkpoints import AtomicCheckpointIO, Checkpoints, EpochTable
from matinee.training.callbacks.epoch_metrics import RankingMetrics, RatingMetrics
from matinee.training.callbacks.fit_loop import (
    FitProgress,
    NoProfiler,
    SeedEachStep,
    StopTogether,
    UnfusedOptimizers,
)
from matinee.training.callbacks.inspection import Inspection

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
