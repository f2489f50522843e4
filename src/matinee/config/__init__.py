"""Config: compose, check and build configs. Only this package knows how Hydra works."""
