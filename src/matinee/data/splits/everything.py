"""All rows of another split as train, for a model that is put to work after it has been measured."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from matinee.data.interactions import Interactions
from matinee.data.splits.split import Split


def everything(interactions: Interactions, split: Callable[[Interactions], Split]) -> Split:
    """Take train, validation and test of another split as train, and leave the other parts empty.

    Args:
        interactions: The table to split.
        split: The other split; rows that it leaves out stay out.

    Returns:
        The split; its options hold the name, the options and the fingerprint of the other one.
    """
    whole = split(interactions)
    nothing = np.zeros(0, np.int64)
    options = {"split": whole.name, "options": whole.options, "fingerprint": whole.fingerprint}
    train = np.sort(np.concatenate((whole.train, whole.validation, whole.test)))
    return Split("everything", options, train, nothing, nothing)
