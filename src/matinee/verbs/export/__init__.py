"""``matinee export``: a run as programs and tables that answer without matinee."""
