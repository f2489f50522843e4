"""Causal encoders of item histories."""
