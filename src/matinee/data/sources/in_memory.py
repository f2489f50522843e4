"""Data that were handed over in Python, of which a config can only record the fingerprint."""

from matinee.data.interactions import Interactions
from matinee.errors import MatineeError


def load(sha256: str | None = None) -> Interactions:
    """Ask for the data of a run, which no file holds.

    Args:
        sha256: Fingerprint of the interactions.

    Raises:
        MatineeError: Always.
    """
    raise MatineeError(
        f"the data of this run were handed over in Python (SHA-256 {str(sha256)[:12]}...); hand them over "
        "again, as in matinee.load_run(folder, dataset=interactions)."
    )
