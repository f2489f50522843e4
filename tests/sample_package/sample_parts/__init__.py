"""One part of each kind, outside matinee."""

__version__ = "0.1.0"
