"""Search: many short runs of one model, each known by the hash of its hyperparameters."""
