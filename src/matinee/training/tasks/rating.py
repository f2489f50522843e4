"""Rating prediction: train a network on a rating loss, predict on the scale of the data."""

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from matinee.batches import RatingBatch, RatingDataModule
from matinee.batches.queries import Queries
from matinee.contracts import (
    ClosedForm,
    GridNetwork,
    Headline,
    LiveNetwork,
    PairNetwork,
    RatingLoss,
    Rows,
)
from matinee.metrics import rating_metrics, rating_metrics_per_user
from matinee.training.tasks.base import (
    LightningTask,
    OptimizerFactory,
    SchedulerFactory,
    check_data,
    check_part,
)
from matinee.training.tasks.folding import fold_in
from matinee.training.tasks.illustrations import breakdown, rated_samples

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TOLERANCE = 1 / 40  # of the rating scale: a tenth of a star on a scale of 1 to 5
RATED_AT_ONCE = 2**20  # scores that are converted to ratings at a time


Rated = TypeVar("Rated", bound=RatingDataModule, contravariant=True)


class BaseRatingTask(LightningTask[Rated]):
    r"""What all rating tasks share: the objective, the scale of predictions, and the metrics.

    The training objective of a batch of :math:`n` ratings is

    .. math:: L(s, r) + \lambda \frac1n \sum_{(u, i)} (\lVert p_u \rVert^2 + \lVert q_i \rVert^2)

    The penalty covers the rows that the batch looked up: a row is shrunk as often as it is used, so a
    rare user is not penalized for the size of the table.

    Args:
        network: Predicts the ratings; subclasses say which methods it needs.
        loss: A rating loss, fitted to the ratings of train.
        warm: Which user ids and which item ids train holds, bool, (num_users + 1,) and
            (num_items + 1,).
        rating_scale: Lowest and highest possible rating; predictions are clamped to it.
        optimizer: Makes the optimizer from the parameters; not used by networks in closed form.
        scheduler: Makes a learning-rate scheduler, stepped once per epoch; None keeps the rate.
        l2: Weight :math:`\lambda` of the penalty, at least 0.
        unknown_users: Share of the user ids replaced by 0 during training, in [0, 1).
        unknown_items: Share of the item ids replaced by 0 during training, in [0, 1).

    Attributes:
        history_label: What the histories are that figures break errors down by.

    Raises:
        ValueError: If ``l2`` or a share is out of range.
    """

    headline = Headline("rmse", higher_is_better=False, power=2)
    newcomer_inputs = ("ratings",)
    score_name = "predicted_rating"
    judged_by = "squared error"
    history_label: str
    network: PairNetwork | LiveNetwork
    loss: RatingLoss
    unknown_shares: Tensor

    def __init__(
        self,
        network: PairNetwork | LiveNetwork,
        loss: RatingLoss,
        warm: tuple[Tensor, Tensor],
        rating_scale: tuple[float, float],
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None = None,
        l2: float = 0.0,
        unknown_users: float = 0.1,
        unknown_items: float = 0.01,
    ) -> None:
        super().__init__(network, loss, warm, optimizer, scheduler)
        if not 0 <= l2 < math.inf:
            raise ValueError(f"l2 is {l2}; give a finite number of at least 0.")
        for option, share in (("unknown_users", unknown_users), ("unknown_items", unknown_items)):
            if not 0 <= share < 1:
                raise ValueError(f"{option} is {share}; give a share in [0, 1).")
        self.rating_scale = rating_scale
        self.l2 = l2
        shares = torch.tensor([[unknown_users], [unknown_items]])
        self.register_buffer("unknown_shares", shares, persistent=False)

    @classmethod
    def from_data(
        cls,
        datamodule: Rated,
        model: Callable[..., Any],
        loss: RatingLoss,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None = None,
        l2: float = 0.0,
        unknown_users: float = 0.1,
        unknown_items: float = 0.01,
    ) -> Self:
        """Build the task for given data, which determine sizes, scale and initial score.

        Args:
            datamodule: The split data.
            model: Makes the network, see :meth:`make_network`.
            loss: A rating loss, not fitted yet.
            optimizer: See :class:`BaseRatingTask`, like the arguments that follow.
            scheduler: See there.
            l2: See there.
            unknown_users: See there.
            unknown_items: See there.

        Raises:
            ValueError: If data, network and loss are not made for each other, or a value is out of range.
        """
        cls.check_parts(datamodule, model)
        check_part(loss, RatingLoss, "choose loss=mse or another loss of ratings")
        loss.fit(datamodule.columns("train").ratings.numpy())
        scale = datamodule.interactions.rating_scale
        assert scale is not None
        return cls(
            cls.make_network(datamodule, model, loss),
            loss,
            warm=datamodule.warm,
            rating_scale=scale,
            optimizer=optimizer,
            scheduler=scheduler,
            l2=l2,
            unknown_users=unknown_users,
            unknown_items=unknown_items,
        )

    @classmethod
    @abstractmethod
    def check_parts(cls, datamodule: object, model: object) -> None:
        """Raise a ValueError if the data or what makes the network are not made for this task."""

    @classmethod
    @abstractmethod
    def make_network(
        cls, datamodule: Rated, model: Callable[..., Any], loss: RatingLoss
    ) -> PairNetwork | LiveNetwork:
        """Make the network for given data and a fitted loss."""

    def objective(self, scores: Tensor, ratings: Tensor, rows: Rows) -> dict[str, Tensor]:
        """Compute what :meth:`step` returns.

        Args:
            scores: Scores of the batch, (n,).
            ratings: Its ratings, (n,).
            rows: What the penalty shrinks, (n, dim) each.
        """
        loss = self.loss(scores, ratings)
        return {
            "loss": loss + self.l2 * penalty(rows) if self.l2 > 0 else loss,
            "data_loss": loss.detach(),
            "scores": scores.detach(),
            "ratings": ratings,
        }

    def training_columns(self, datamodule: Rated) -> tuple[Tensor, Tensor, Tensor]:
        """Return the columns of train."""
        return datamodule.columns("train")

    def rating(self, scores: Tensor) -> Tensor:
        """Convert scores to ratings on the scale of the data, same shape."""
        return self.loss.rating(scores).clamp(*self.rating_scale)

    def running_sums(
        self, losses: Tensor, columns: Mapping[str, list[Tensor]]
    ) -> Mapping[str, float]:
        """Sum loss and errors over rows."""
        scores, ratings = columns["scores"], columns["ratings"]
        errors = (self.rating(torch.cat(scores)) - torch.cat(ratings)).cpu().double()
        sizes = torch.tensor([len(step) for step in ratings], dtype=torch.float64)
        return {
            "loss": float(losses @ sizes),
            "squared": float(errors.square().sum()),
            "absolute": float(errors.abs().sum()),
            "rows": len(errors),
        }

    def running_metrics(self, sums: Mapping[str, float]) -> dict[str, float]:
        """Average over rows; dropout is on and the weights change within the epoch."""
        rows = sums["rows"]
        return {
            "loss": sums["loss"] / rows,
            "rmse": (sums["squared"] / rows) ** 0.5,
            "mae": sums["absolute"] / rows,
        }

    def epoch_metrics(self, outputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, float]:
        """Compute the errors of the predictions."""
        return rating_metrics(outputs["predictions"], outputs["ratings"])

    def measure(
        self, predictions: Sequence[Tensor], datamodule: Rated, stage: str
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """Measure the predictions for a whole stage, made by :meth:`predict_step` in order.

        Args:
            predictions: Predicted ratings, batch by batch, together of shape (rows,).
            datamodule: Where the rows come from.
            stage: ``train``, ``val`` or ``test``.

        Returns:
            The metrics over rows, whole and by segment; and the same errors per user.
        """
        user_ids, _, ratings = datamodule.columns(stage)
        predicted, truth = _array(predictions), ratings.numpy()
        metrics = rating_metrics(predicted, truth, datamodule.segments(stage))
        return metrics, rating_metrics_per_user(predicted, truth, user_ids.numpy())

    @property
    def protocol(self) -> dict[str, Any]:
        """What the metrics of :meth:`measure` mean."""
        return {
            "candidates": "the rated pairs of the part",
            "filter_seen": False,
            "ties": "none: errors are not ranked",
            "averaging": "over rows",
            "prediction": f"clamped to {list(self.rating_scale)}; unseen ids use the unknown row",
        }

    def figures(self, predictions: Sequence[Tensor], datamodule: Rated) -> "dict[str, Figure]":
        """Draw the errors by rating, history and popularity."""
        from matinee.display import plotting

        ratings, predicted = datamodule.columns("test").ratings.numpy(), _array(predictions)
        errors = np.abs(predicted - ratings)
        label = "absolute error (stars)"
        return {
            "error_by_rating": plotting.rating_errors(ratings, predicted),
            **breakdown(datamodule, errors, label, self.history_label),
        }

    @property
    def memorization_tolerance(self) -> float:
        """The squared error of ratings that are off by 1/40 of the scale, or of 1 where all are equal."""
        lowest, highest = self.rating_scale
        return float((TOLERANCE * ((highest - lowest) or 1.0)) ** 2)

    def memorization_error(self, outputs: Mapping[str, Tensor]) -> float:
        """Compute the mean squared error of a step in rating units, whatever the loss."""
        return F.mse_loss(self.loss.rating(outputs["scores"]), outputs["ratings"]).item()

    def memorization_fault(self, batch: Any) -> str:
        """Return no fault: the error says everything."""
        return ""


class RatingTask(BaseRatingTask[RatingDataModule]):
    """Rating prediction: train a pair network on a rating loss, predict on the scale of the data.

    To train the unknown rows 0, a share of the user ids and of the item ids is replaced by 0 during training.
    Outside training, every id that train does not hold is replaced by 0. The arguments are those of
    :class:`BaseRatingTask`, with a pair network.
    """

    history_label = "ratings of the user in train"
    network: PairNetwork

    @classmethod
    def check_parts(cls, datamodule: object, model: object) -> None:
        """Check for columns of ratings and a pair network."""
        check_data(
            datamodule,
            "columns",
            "data=rating, or for next items start from an experiment such as experiment=user_based/gru",
        )
        check_part(
            getattr(model, "func", model),
            PairNetwork,
            "choose model=mf_bias or another that rates pairs, or for next items start from an experiment "
            "such as experiment=user_based/gru",
        )

    @classmethod
    def make_network(
        cls, datamodule: RatingDataModule, model: Callable[..., PairNetwork], loss: RatingLoss
    ) -> PairNetwork:
        """Make the network from ``num_users``, ``num_items`` and ``initial_score``."""
        interactions = datamodule.interactions
        network = model(
            num_users=interactions.num_users,
            num_items=interactions.num_items,
            initial_score=loss.initial_score,
        )
        ends = torch.tensor(interactions.rating_scale)
        if isinstance(network, ClosedForm) and not torch.equal(loss.rating(ends), ends):
            raise ValueError(
                f"{type(network).__name__} predicts ratings and {type(loss).__name__} takes scores that "
                "are none; choose loss=mse, or a model that is trained."
            )
        return network

    def step(self, batch: RatingBatch) -> dict[str, Tensor]:
        """Compute the objective of a batch; also return scores and ratings."""
        user_ids, item_ids, ratings = batch
        known = torch.rand(2, len(ratings), device=ratings.device) >= self.unknown_shares
        user_rows, item_rows = self.network.lookup(user_ids * known[0], item_ids * known[1])
        return self.objective(
            self.network.score(user_rows, item_rows), ratings, user_rows + item_rows
        )

    def forward(self, user_ids: Tensor, item_ids: Tensor) -> Tensor:
        """Predict ratings: ids of shape (batch,) to ratings of shape (batch,), cold ids included."""
        users = user_ids * self.warm_users[user_ids]
        items = item_ids * self.warm_items[item_ids]
        return self.rating(self.network(users, items))

    def predict_step(self, batch: RatingBatch, batch_idx: int = 0) -> Tensor:
        """Predict the ratings of a batch, shape (batch,)."""
        ratings: Tensor = self(batch.user_ids, batch.item_ids)
        return ratings

    def validation_step(self, batch: RatingBatch, batch_idx: int) -> dict[str, Tensor]:
        """Predict; the callbacks measure."""
        return {"predictions": self.predict_step(batch), "ratings": batch.ratings}

    def samples(self, datamodule: RatingDataModule, count: int) -> list[str]:
        """Recommend unrated items to some users."""
        return rated_samples(self, datamodule, count)

    def score_items(self, datamodule: RatingDataModule, queries: Queries) -> Tensor:
        """Predict the ratings of all items by each user, or by newcomers from the ratings given."""
        item_ids = torch.arange(len(self.warm_items)) * self.warm_items
        zeros = torch.zeros_like(item_ids)
        if queries.ratings is None:
            users = queries.user_ids * self.warm_users[queries.user_ids]
            user_rows, _ = self.network.lookup(users, torch.zeros_like(users))
        else:
            user_rows = fold_in(self, datamodule, queries)
        _, item_rows = self.network.lookup(zeros, item_ids)
        scores = score_all(self.network, user_rows, item_rows)
        for part in scores.split(max(1, RATED_AT_ONCE // len(item_ids))):
            part.copy_(self.rating(part))
        scores[:, 0] = float("-inf")
        return scores

    def rate(self, datamodule: RatingDataModule, user_ids: Tensor, item_ids: Tensor) -> Tensor:
        """Predict ratings, see :meth:`forward`."""
        ratings: Tensor = self(user_ids, item_ids)
        return ratings


def score_all(network: PairNetwork, user_rows: Rows, item_rows: Rows) -> Tensor:
    """Score all pairs of n users and m items, rows (n, dim) and (m, dim), to (n, m).

    A network without ``score_all``, see :class:`matinee.contracts.GridNetwork`, scores pair by pair.
    """
    if isinstance(network, GridNetwork):
        return network.score_all(user_rows, item_rows)
    num_items = len(item_rows[0])
    return torch.stack(
        [
            network.score(tuple(row[user].expand(num_items, -1) for row in user_rows), item_rows)
            for user in range(len(user_rows[0]))
        ]
    )


def penalty(rows: Rows) -> Tensor:
    """Sum the mean squared norm of looked-up rows, (batch, dim) each, over tables to a scalar."""
    first, *others = (row.square().sum() / len(row) for row in rows)
    return sum(others, start=first)


def _array(predictions: Sequence[Tensor]) -> npt.NDArray[np.float32]:
    predicted: npt.NDArray[np.float32] = torch.cat(list(predictions)).cpu().numpy()
    return predicted
