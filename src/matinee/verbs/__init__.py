"""Verbs: what a person asks for on the command line."""
