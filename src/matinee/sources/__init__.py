"""Readers: each function returns one validated :class:`matinee.interactions.Interactions`."""
