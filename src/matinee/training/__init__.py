"""Training with Lightning: tasks, callbacks, devices, optimizers, loggers."""
