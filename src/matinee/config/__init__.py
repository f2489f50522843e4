"""Config: composing, checking and making the parts that a config describes; only here is Hydra used."""
