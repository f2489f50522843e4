"""Tasks: a network, a loss and an optimizer in one LightningModule."""

from matinee.training.tasks.joint import JointTask
from matinee.training.tasks.live import LiveRatingTask
from matinee.training.tasks.next_item import NextItemTask
from matinee.training.tasks.rating import RatingTask

__all__ = ["JointTask", "LiveRatingTask", "NextItemTask", "RatingTask"]
