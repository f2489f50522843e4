"""Experiments: a config becomes objects, a fit, its measurement and a run folder."""
