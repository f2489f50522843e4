"""Display: tables and figures for terminals, files, TensorBoard and notebooks."""
