"""Datamodules: a split becomes loaders of whole batches."""

from matinee.datamodules.base import PARTS
from matinee.datamodules.rating import RatingBatch, RatingDataModule
from matinee.datamodules.sequence import RankingBatch, SequenceDataModule, met_before

__all__ = [
    "PARTS",
    "RankingBatch",
    "RatingBatch",
    "RatingDataModule",
    "SequenceDataModule",
    "met_before",
]
