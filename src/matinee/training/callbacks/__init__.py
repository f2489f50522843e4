"""Callbacks: what is measured, saved and shown around a fit."""

from matinee.training.callbacks.checkpoints import AtomicCheckpointIO, Checkpoints, EpochTable
from matinee.training.callbacks.epoch_metrics import EpochMetrics
from matinee.training.callbacks.fit_loop import (
    FitProgress,
    NoProfiler,
    SeedEachStep,
    StopTogether,
    UnfusedOptimizers,
)
from matinee.training.callbacks.inspection import Inspection
from matinee.training.callbacks.measured_run import MeasuredRun, RunCallback

__all__ = [
    "AtomicCheckpointIO",
    "Checkpoints",
    "EpochMetrics",
    "EpochTable",
    "FitProgress",
    "Inspection",
    "MeasuredRun",
    "NoProfiler",
    "RunCallback",
    "SeedEachStep",
    "StopTogether",
    "UnfusedOptimizers",
]
