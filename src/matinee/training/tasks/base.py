"""The base of all tasks: a network, its loss and its optimizer, as Lightning trains them."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import numpy.typing as npt
import torch
from torch import Tensor, nn

from matinee.batches.queries import Queries
from matinee.contracts import (
    ClosedForm,
    Data,
    Network,
    RankingLoss,
    RatingLoss,
    Task,
    lacking,
)
from matinee.training.optimizers import RowAdam

if TYPE_CHECKING:
    from matplotlib.figure import Figure  # takes a second to import, and most runs draw nothing

OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
SchedulerFactory = Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler]

TAKE_SPARSE = (RowAdam, torch.optim.SGD, torch.optim.SparseAdam, torch.optim.Adagrad)


class LightningTask(pl.LightningModule, Task[Data]):
    """A network with its loss and optimizer; a network in closed form is solved instead of trained.

    Callbacks and verbs ask a task whatever differs between rating prediction, next-item recommendation
    and other tasks: a subclass answers by the abstract methods below.

    Args:
        network: The network; subclasses say which methods it needs.
        loss: The loss, fitted to the data.
        warm: Which user ids and which item ids train holds, bool, (num_users + 1,) and
            (num_items + 1,).
        optimizer: Makes the optimizer from the parameters; not used by networks in closed form.
        scheduler: Makes a learning-rate scheduler, stepped once per epoch; None keeps the rate.

    Attributes:
        newcomer_inputs: What the task can use of a user who is not in the data: some of ``ratings`` and
            ``history``.
        score_name: Name of the scores of :meth:`score_items`, such as ``predicted_rating``.
        device_tolerance: Largest relative and largest absolute difference, of which one has to hold, of
            a metric that is computed from the same weights on another kind of device.
        judged_by: What :meth:`memorization_error` measures; None if it is the loss itself.
        closed_form: Whether the network is solved at the start of the fit instead of trained.
    """

    newcomer_inputs: tuple[str, ...]
    score_name: str
    device_tolerance: tuple[float, float] = (1e-4, 0.0)  # errors are sums over float32
    judged_by: str | None
    network: Network
    loss: RatingLoss | RankingLoss
    warm_users: Tensor
    warm_items: Tensor

    def __init__(
        self,
        network: Network,
        loss: RatingLoss | RankingLoss,
        warm: tuple[Tensor, Tensor],
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None,
    ) -> None:
        super().__init__()
        self.network = network
        self.closed_form = isinstance(network, ClosedForm)  # takes too long to ask in every step
        self.loss = loss
        self.register_buffer("warm_users", warm[0])
        self.register_buffer("warm_items", warm[1])
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning sets the running hook dozens of times per step; nn.Module would search for weights
        if name == "_current_fx_name":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def configure_optimizers(self) -> Any:
        """Build the optimizer and its scheduler; a network in closed form has none.

        Raises:
            ValueError: If an embedding has sparse gradients that the optimizer does not support.
        """
        if self.closed_form:
            return None
        optimizer = self.make_optimizer(self.parameters())
        sparse = any(isinstance(part, nn.Embedding) and part.sparse for part in self.modules())
        if sparse and not isinstance(optimizer, TAKE_SPARSE):
            raise ValueError(
                f"{type(optimizer).__name__} does not support sparse gradients; add optimizer=row_adam "
                "or model.sparse=false."
            )
        if self.make_scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": self.make_scheduler(optimizer)}

    def on_fit_start(self) -> None:
        """Solve a network in closed form, or its prior, on the host: some accelerators lack float64."""
        solved = self.network if self.closed_form else getattr(self.network, "prior", None)
        if isinstance(solved, ClosedForm):
            loaders: Any = self.trainer.datamodule  # type: ignore[attr-defined]
            solved.fit(*self.training_columns(loaders.data))

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor] | None:
        """Compute the loss of a batch; a network in closed form has nothing left to learn."""
        if self.closed_form:
            self.trainer.should_stop = True
            return None
        return self.step(batch)

    def test_step(self, batch: Any, batch_idx: int) -> Any:
        """Predict as in validation; the callbacks measure."""
        return self.validation_step(batch, batch_idx)

    # during a fit

    @abstractmethod
    def training_columns(self, datamodule: Data) -> tuple[Tensor, ...]:
        """Return the columns of train, see :meth:`matinee.contracts.ClosedForm.fit`."""

    @abstractmethod
    def step(self, batch: Any) -> dict[str, Tensor]:
        """Compute a training step.

        Returns:
            ``loss``, a scalar to minimize; ``data_loss``, the part of it to report, detached; and what
            else :meth:`running_sums` needs, detached.
        """

    @abstractmethod
    def running_sums(
        self, losses: Tensor, columns: Mapping[str, list[Tensor]]
    ) -> Mapping[str, float]:
        """Sum what the metrics of train are computed from over some steps.

        Args:
            losses: The ``data_loss`` of each step, float64 on the host, (steps,).
            columns: What else :meth:`step` returned, by name, one tensor per step.
        """

    @abstractmethod
    def running_metrics(self, sums: Mapping[str, float]) -> dict[str, float]:
        """Compute the metrics of train, ``loss`` among them, from the sums over an epoch."""

    @abstractmethod
    def epoch_metrics(self, outputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, float]:
        """Compute the metrics of validation or test from what its steps returned for all rows."""

    # of a trained task, see also Task.measure

    @abstractmethod
    def figures(self, predictions: Sequence[Any], datamodule: Data) -> "dict[str, Figure]":
        """Draw the predictions for test, by name."""

    @abstractmethod
    def samples(self, datamodule: Data, count: int) -> list[str]:
        """Recommend items by title for some rows of test and mark the truth, in Markdown."""

    @abstractmethod
    def score_items(self, datamodule: Data, queries: Queries) -> Tensor:
        """Score all items for each of n queries.

        Args:
            datamodule: The data that the task was built for.
            queries: Who asks, and what they have met; their tensors are on the host.

        Returns:
            Scores, (n, num_items + 1), which the caller may change; column 0 is minus infinity.

        Raises:
            MatineeError: If nothing can be predicted from what is given.
        """

    @abstractmethod
    def rate(self, datamodule: Data, user_ids: Tensor, item_ids: Tensor) -> Tensor:
        """Predict the ratings of pairs of ids, (batch,) each, to (batch,), after everything in the data.

        Raises:
            MatineeError: If the task predicts no ratings.
        """

    # whether one batch can be learned completely

    @property
    @abstractmethod
    def memorization_tolerance(self) -> float:
        """The highest :meth:`memorization_error` at which a batch counts as learned."""

    @abstractmethod
    def memorization_error(self, outputs: Mapping[str, Tensor]) -> float:
        """Compute the error of a training step from what :meth:`step` returned."""

    @abstractmethod
    def memorization_fault(self, batch: Any) -> str:
        """Describe what is wrong with the predictions for a learned batch; empty if nothing is."""


def check_data(datamodule: object, needed: str, advice: str) -> None:
    """Check that a data module makes the batches of a task.

    Args:
        datamodule: The data module.
        needed: An attribute that those for the task have.
        advice: What to choose otherwise.

    Raises:
        ValueError: If it does not have it.
    """
    if not hasattr(datamodule, needed):
        raise ValueError(
            f"{type(datamodule).__name__} makes no batches for this task; choose {advice}."
        )


def check_part(part: object, contract: type, advice: str) -> None:
    """Check that a part has what its contract asks for.

    Args:
        part: An object, or the class of one that is still to be made.
        contract: A Protocol of :mod:`matinee.contracts`.
        advice: What to do otherwise.

    Raises:
        ValueError: Naming what is missing.
    """
    if missing := lacking(part, contract):
        name = getattr(part, "__name__", type(part).__name__)
        raise ValueError(
            f"{name} is no {contract.__name__}, it lacks {', '.join(missing)}; {advice}."
        )
