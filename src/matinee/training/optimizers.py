"""Optimizers that PyTorch does not have."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class RowAdam(torch.optim.Adam):
    """Adam that updates only the rows with a gradient, where gradients are sparse.

    In a table with sparse gradients (``sparse: true`` in its network), a step updates the rows that were
    looked up and their moments, so its cost does not grow with the table. Dense parameters are updated
    by Adam (Kingma & Ba 2015). The rule for sparse gradients is that of ``torch.optim.SparseAdam``,
    "lazy" Adam: the moments of other rows do not decay. There is no weight decay, which would change
    every row; use the task's ``l2``.

    Args:
        params: Parameters, sparse and dense ones together.
        lr: Learning rate, greater than 0.
        betas: Decay of the two moments.
        eps: Added to the square root of the second moment.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Perform one step and return what ``closure`` returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        sparse = [
            (group, parameter, parameter.grad.coalesce())
            for group in self.param_groups
            for parameter in group["params"]
            if parameter.grad is not None and parameter.grad.is_sparse
        ]
        for _, parameter, _ in sparse:
            parameter.grad = None  # Adam skips it
        super().step()
        for group, parameter, gradient in sparse:
            self._update_rows(group, parameter, gradient)
        return loss

    def _update_rows(self, group: dict[str, Any], parameter: Tensor, gradient: Tensor) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        state["step"] += 1
        steps, (beta1, beta2) = state["step"].item(), group["betas"]
        rows, values = gradient.indices()[0], gradient.values()
        first = state["exp_avg"][rows].lerp_(values, 1 - beta1)
        second = state["exp_avg_sq"][rows].lerp_(values.square(), 1 - beta2)
        state["exp_avg"][rows] = first
        state["exp_avg_sq"][rows] = second
        rate = group["lr"] * (1 - beta2**steps) ** 0.5 / (1 - beta1**steps)
        parameter.index_add_(0, rows, first / second.sqrt_().add_(group["eps"]), alpha=-rate)
