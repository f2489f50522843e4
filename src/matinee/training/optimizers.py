"""Optimizers: what PyTorch's own do not do."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class RowAdam(torch.optim.Adam):
    """Adam that touches only the rows that a step saw, where gradients are sparse.

    A table with sparse gradients (``sparse: true`` in its network) is updated in the rows that were
    looked up, moments included, at a cost that does not grow with the table; what is dense is
    updated as by Adam (Kingma & Ba 2015). On sparse gradients the rule is that of
    ``torch.optim.SparseAdam``, "lazy" Adam: the moments of an unseen row do not decay. It takes no
    weight decay there, since that would touch every row; use the task's ``l2``.

    Args:
        params: Parameters, sparse and dense ones together.
        lr: Learning rate, greater than 0.
        betas: Decay of the two moments.
        eps: Added to the root of the second moment.
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
        """Update once; returns what ``closure`` returned."""
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
            parameter.grad = None  # Adam passes over it
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
