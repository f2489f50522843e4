"""Operations of PyTorch that its exporter does not translate to ONNX, written with others."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def cholesky(matrix: Tensor, upper: bool = False) -> Tensor:
    """Factorize positive definite matrices column by column, (..., n, n) to lower triangles."""
    columns: list[Tensor] = []
    for place in range(matrix.shape[-1]):
        column = matrix[..., :, :1] / matrix[..., :1, :1].sqrt()
        columns.append(F.pad(column, (0, 0, place, 0)))
        rest = column[..., 1:, :]
        matrix = matrix[..., 1:, 1:] - rest @ rest.mT
    return torch.cat(columns, -1)


def cholesky_ex(
    matrix: Tensor, upper: bool = False, check_errors: bool = False
) -> tuple[Tensor, Tensor]:
    """Factorize as :func:`cholesky`; the second value reports no error."""
    return cholesky(matrix), matrix.new_zeros(matrix.shape[:-2], dtype=torch.int32)


def cholesky_solve(right: Tensor, lower: Tensor, upper: bool = False) -> Tensor:
    r"""Solve :math:`L L^\top x = b` by substitution, for (..., n, m) and (..., n, n)."""
    num_rows = lower.shape[-1]
    forward: list[Tensor] = []
    for row in range(num_rows):
        value = right[..., row : row + 1, :]
        if forward:
            value = value - lower[..., row : row + 1, :row] @ torch.cat(forward, -2)
        forward.append(value / lower[..., row : row + 1, row : row + 1])
    backward: list[Tensor] = []
    for row in reversed(range(num_rows)):
        value = forward[row]
        if backward:
            below = lower[..., row + 1 :, row : row + 1].mT
            value = value - below @ torch.cat(backward[::-1], -2)
        backward.append(value / lower[..., row : row + 1, row : row + 1])
    return torch.cat(backward[::-1], -2)


DECOMPOSED: Mapping[Any, Callable[..., Any]] = {
    torch.ops.aten.linalg_cholesky.default: cholesky,
    torch.ops.aten.linalg_cholesky_ex.default: cholesky_ex,
    torch.ops.aten.cholesky_solve.default: cholesky_solve,
}


def translations() -> dict[Any, Callable[..., Any]]:
    """Return what ONNX computes in place of an operation, by operation."""
    from onnx import TensorProto, helper
    from onnxscript import opset18

    op: Any = opset18  # its annotations know no operation on any type
    zero = helper.make_tensor("zero", TensorProto.INT64, [1], [0])

    def sort(values: Any, *, stable: bool = True, dim: int = -1, descending: bool = False) -> Any:
        # among equal values TopK returns the first ones first, as a stable sort does
        size = op.Gather(op.Shape(values), op.Constant(value_ints=[dim]), axis=0)
        return op.TopK(values, size, axis=dim, largest=int(descending), sorted=1)

    def prod(values: Any, dims: Sequence[int], output_dtype: Any = None) -> Any:
        return op.ReduceProd(values, op.Constant(value_ints=list(dims)), keepdims=0)

    def repeat_interleave(repeats: Any, *, output_size: int | None = None) -> Any:
        # the exporter's own translation takes memory for the product of both lengths
        size = op.ReduceSum(repeats, op.Constant(value_ints=[0]), keepdims=1)
        starts = op.CumSum(repeats, op.Constant(value_int=0)) - repeats
        marks = op.ConstantOfShape(size + 1, value=zero)
        ones = op.Expand(op.Constant(value_ints=[1]), op.Shape(starts))
        marks = op.ScatterElements(marks, starts, ones, reduction="add")
        ids = op.CumSum(marks, op.Constant(value_int=0)) - 1
        return op.Slice(ids, op.Constant(value_ints=[0]), size)

    aten = torch.ops.aten
    return {
        aten.sort.stable: sort,
        torch.ops.prims.prod.default: prod,
        aten.repeat_interleave.Tensor: repeat_interleave,
    }
