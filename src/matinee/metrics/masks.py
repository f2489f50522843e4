"""Named subsets of what is measured."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

Masks = Mapping[str, npt.NDArray[np.bool_]]  # segment name -> which rows, bool, (rows,)
FloatArray = npt.NDArray[np.float32] | npt.NDArray[np.float64]


def named_masks(segments: Masks | None, num_rows: int) -> dict[str, npt.NDArray[np.bool_]]:
    """Lay the mask of all rows, named "", beside those of the segments, named "/NAME"."""
    named = {f"/{name}": mask for name, mask in (segments or {}).items()}
    return {"": np.ones(num_rows, np.bool_), **named}
