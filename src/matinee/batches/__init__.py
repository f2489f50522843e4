"""Data modules: the parts of a split as batches."""

from matinee.batches.base import PARTS
from matinee.batches.live import LiveDataModule
from matinee.batches.rating import RatingBatch, RatingDataModule
from matinee.batches.sequence import RankingBatch, SequenceDataModule

__all__ = [
    "PARTS",
    "LiveDataModule",
    "RankingBatch",
    "RatingBatch",
    "RatingDataModule",
    "SequenceDataModule",
]
