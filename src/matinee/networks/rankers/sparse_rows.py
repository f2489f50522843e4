"""Sparse matrices as a part of networks: kept in checkpoints, read by rows on any device."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor, nn

ADDED_AT_ONCE = 2**23  # entries of rows that are added up at a time, about 40 bytes each


class SparseRows(nn.Module):
    """A matrix in compressed sparse rows, 8 bytes an entry.

    Args:
        num_rows: Number of rows.
        num_columns: Number of columns.
    """

    offsets: Tensor  # int64, (num_rows + 1,)
    columns: Tensor  # int32, (entries,)
    values: Tensor  # float, (entries,)

    def __init__(self, num_rows: int, num_columns: int) -> None:
        super().__init__()
        self.num_columns = num_columns
        self.register_buffer("offsets", torch.zeros(num_rows + 1, dtype=torch.int64))
        self.register_buffer("columns", torch.zeros(0, dtype=torch.int32))
        self.register_buffer("values", torch.zeros(0))
        self.register_load_state_dict_pre_hook(_make_room)  # type: ignore[no-untyped-call]

    def store(self, matrix: scipy.sparse.csr_array) -> None:
        """Take over the entries of a matrix of the same shape."""
        device, dtype = self.values.device, self.values.dtype
        self.offsets.copy_(torch.from_numpy(matrix.indptr.astype(np.int64)))
        self.columns = torch.from_numpy(matrix.indices.astype(np.int32)).to(device)
        self.values = torch.from_numpy(matrix.data).to(device, dtype)

    def add_up(self, row_ids: Tensor, weights: Tensor) -> Tensor:
        """Add up weighted rows of the matrix, without expanding it.

        Args:
            row_ids: Rows to add up, integers (batch, n).
            weights: Their weights, (batch, n); a row of weight 0 costs nothing.

        Returns:
            The sums, (batch, num_columns).
        """
        starts = self.offsets[row_ids.long()]
        counts = (self.offsets[row_ids.long() + 1] - starts) * (weights != 0)
        sums = self.values.new_zeros(row_ids.shape[0], self.num_columns)
        if torch.compiler.is_exporting():  # a program has no loop over blocks
            self._add(sums, starts, counts, weights)
            return sums
        largest = int(counts.sum(1).max()) if len(row_ids) else 0
        for part in torch.arange(len(row_ids)).split(max(1, ADDED_AT_ONCE // max(1, largest))):
            block = slice(int(part[0]), int(part[-1]) + 1)
            self._add(sums[block], starts[block], counts[block], weights[block])
        return sums

    def _add(self, sums: Tensor, starts: Tensor, counts: Tensor, weights: Tensor) -> None:
        starts, counts = starts.flatten(), counts.flatten()
        which = torch.repeat_interleave(counts)
        before = counts.cumsum(0) - counts
        places = torch.arange(which.shape[0], device=counts.device) + (starts - before)[which]
        targets = which // weights.shape[1] * self.num_columns + self.columns[places]
        products = weights.flatten().to(sums.dtype)[which] * self.values[places]
        sums.view(-1).scatter_add_(0, targets, products)


def _make_room(
    module: SparseRows, state_dict: Mapping[str, Any], prefix: str, *others: Any
) -> None:
    """Give the entries the sizes of a checkpoint, which depend on what was learned."""
    for name in ("columns", "values"):
        stored = state_dict.get(prefix + name)
        if isinstance(stored, Tensor):
            setattr(module, name, getattr(module, name).new_empty(stored.shape))
