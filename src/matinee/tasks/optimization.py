"""Optimization: what both tasks tell Lightning of their optimizer and scheduler."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from matinee.optimizers import RowAdam

OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
SchedulerFactory = Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler]

TAKE_SPARSE = (RowAdam, torch.optim.SGD, torch.optim.SparseAdam, torch.optim.Adagrad)


def optimization(
    module: nn.Module, make_optimizer: OptimizerFactory, make_scheduler: SchedulerFactory | None
) -> Any:
    """Build the optimizer of a module's parameters, and its scheduler, stepped every epoch.

    Raises:
        ValueError: If an embedding gives sparse gradients that the optimizer cannot take.
    """
    optimizer = make_optimizer(module.parameters())
    sparse = any(isinstance(part, nn.Embedding) and part.sparse for part in module.modules())
    if sparse and not isinstance(optimizer, TAKE_SPARSE):
        raise ValueError(
            f"{type(optimizer).__name__} takes no sparse gradients; add optimizer=row_adam or "
            "model.sparse=false."
        )
    if make_scheduler is None:
        return optimizer
    return {"optimizer": optimizer, "lr_scheduler": make_scheduler(optimizer)}
