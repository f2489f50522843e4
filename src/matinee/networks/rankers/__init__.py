"""Rankers: networks in closed form that score all items after a history."""
