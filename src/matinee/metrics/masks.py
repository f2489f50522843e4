"""Named subsets of rows."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

Masks = Mapping[str, npt.NDArray[np.bool_]]  # name of a segment -> its rows as a mask, (rows,)
FloatArray = npt.NDArray[np.float32] | npt.NDArray[np.float64]


def named_masks(segments: Masks | None, num_rows: int) -> dict[str, npt.NDArray[np.bool_]]:
    """Return the masks of all rows, under "", and of each segment, under "/NAME"."""
    named = {f"/{name}": mask for name, mask in (segments or {}).items()}
    return {"": np.ones(num_rows, np.bool_), **named}
