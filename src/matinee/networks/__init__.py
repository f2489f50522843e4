"""Plain ``torch.nn`` modules that map ids to scores; they know neither Lightning nor Hydra."""
