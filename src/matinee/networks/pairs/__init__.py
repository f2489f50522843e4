"""Networks that score pairs of a user and an item."""
