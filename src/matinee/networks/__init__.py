"""Networks: plain ``torch.nn`` modules that map ids to scores, without Lightning or Hydra."""
