"""Training objectives: rating losses, ranking losses and negative samplers."""
