"""Arrays that grow at their end without a second copy of what they hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


class GrowingArray:
    """A one-dimensional array that values are appended to.

    Its memory is enlarged in place where the system can, so that the peak stays near the final size.

    Args:
        dtype: Type of the values.
        capacity: Number of values to expect; more may come.
    """

    def __init__(self, dtype: npt.DTypeLike, capacity: int = 0) -> None:
        self._buffer: npt.NDArray[Any] = np.empty(capacity, dtype)
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def values(self) -> npt.NDArray[Any]:
        """The values so far, as a view that is valid until the next `append`."""
        return self._buffer[: self._size]

    def append(self, values: npt.NDArray[Any]) -> None:
        """Add values at the end."""
        size = self._size + len(values)
        if size > len(self._buffer):
            self._buffer.resize(
                max(size, len(self._buffer) + len(self._buffer) // 8), refcheck=False
            )
        self._buffer[self._size : size] = values
        self._size = size

    def release(self) -> npt.NDArray[Any]:
        """Return the values and forget them."""
        self._buffer.resize(self._size, refcheck=False)
        values, self._buffer, self._size = self._buffer, np.empty(0, self._buffer.dtype), 0
        return values
