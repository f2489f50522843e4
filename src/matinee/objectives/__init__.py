"""Objectives: what networks are trained on: losses and negative samplers."""
