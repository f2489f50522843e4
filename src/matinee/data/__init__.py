"""Data: interactions, their sources, splits and segments."""
