"""Tables and figures for terminals, files, TensorBoard and notebooks."""
