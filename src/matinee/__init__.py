"""matinee: rating prediction and next-item recommendation with Lightning and Hydra."""

__version__ = "0.1.0"
