"""Training: what Lightning is told: tasks, callbacks, devices, optimizers, loggers."""
