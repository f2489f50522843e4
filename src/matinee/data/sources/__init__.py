"""Readers: each function returns one validated :class:`matinee.data.interactions.Interactions`."""
