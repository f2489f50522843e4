"""``matinee serve``: answer requests over HTTP from a run or from an artefact."""
