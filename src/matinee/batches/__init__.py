"""Data modules: the parts of a split as batches."""

from matinee.batches.base import PARTS
from matinee.batches.rating import RatingBatch, RatingDataModule
from matinee.batches.sequence import RankingBatch, SequenceDataModule

__all__ = [
    "PARTS",
    "RankingBatch",
    "RatingBatch",
    "RatingDataModule",
    "SequenceDataModule",
]
