"""Experiments: build the parts of a config, fit them, measure the result and record it."""
