"""Task: what Lightning is told of a network, a loss and an optimizer, whatever is predicted."""

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from matinee.contracts import ClosedForm, Headline
from matinee.training.optimizers import RowAdam

OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
SchedulerFactory = Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler]

TAKE_SPARSE = (RowAdam, torch.optim.SGD, torch.optim.SparseAdam, torch.optim.Adagrad)


class Task(pl.LightningModule):
    """A network with its loss and its optimizer; a network in closed form is solved, not trained.

    Args:
        network: What is trained; subclasses say what it must offer.
        loss: A loss that has been fitted to the data.
        warm: Which user ids and which item ids train holds, bool, (num_users + 1,) and
            (num_items + 1,).
        optimizer: Makes the optimizer from parameters; unused by networks in closed form.
        scheduler: Makes a learning-rate scheduler, stepped every epoch; None keeps the rate.

    Attributes:
        device_tolerance: Largest relative and largest absolute difference, of which one has to hold, of
            a metric that is computed from the same weights on another kind of device.
    """

    headline: ClassVar[Headline]
    device_tolerance: ClassVar[tuple[float, float]] = (1e-4, 0.0)  # errors are sums over float32
    callbacks_choice: str  # of the group callbacks
    warm_users: Tensor
    warm_items: Tensor

    def __init__(
        self,
        network: Any,
        loss: Any,
        warm: tuple[Tensor, Tensor],
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None,
    ) -> None:
        super().__init__()
        self.network = network
        self.loss = loss
        self.register_buffer("warm_users", warm[0])
        self.register_buffer("warm_items", warm[1])
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning notes the running hook dozens of times a step; a module would look for weights
        if name == "_current_fx_name":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    @property
    def closed_form(self) -> bool:
        """Whether the network is solved at the start of fitting instead of trained."""
        return isinstance(self.network, ClosedForm)

    def configure_optimizers(self) -> Any:
        """Build the optimizer and its scheduler; a network in closed form has none.

        Raises:
            ValueError: If an embedding gives sparse gradients that the optimizer cannot take.
        """
        if self.closed_form:
            return None
        optimizer = self.make_optimizer(self.parameters())
        sparse = any(isinstance(part, nn.Embedding) and part.sparse for part in self.modules())
        if sparse and not isinstance(optimizer, TAKE_SPARSE):
            raise ValueError(
                f"{type(optimizer).__name__} takes no sparse gradients; add optimizer=row_adam or "
                "model.sparse=false."
            )
        if self.make_scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": self.make_scheduler(optimizer)}

    def learnt_columns(self, datamodule: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Return users, items and ratings of train, (rows,) each, for a network in closed form."""
        raise NotImplementedError

    def on_fit_start(self) -> None:
        """Solve a network in closed form, on the host: some accelerators lack float64."""
        if self.closed_form:
            datamodule = self.trainer.datamodule  # type: ignore[attr-defined]
            self.network.fit(*self.learnt_columns(datamodule))

    def step(self, batch: Any) -> dict[str, Tensor]:
        """Compute the ``loss`` that a batch of train is learnt by, and what callbacks measure."""
        raise NotImplementedError

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor] | None:
        """Compute a step's loss; a network in closed form has nothing left to learn."""
        if self.closed_form:
            self.trainer.should_stop = True
            return None
        return self.step(batch)

    def test_step(self, batch: Any, batch_idx: int) -> Any:
        """Answer as in validation; the callbacks measure."""
        return self.validation_step(batch, batch_idx)
