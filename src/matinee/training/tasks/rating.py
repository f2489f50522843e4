"""Rating prediction: train a pair network on a rating loss, predict on the data's own scale."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from matinee.batches import RatingBatch, RatingDataModule
from matinee.contracts import Headline, RatingLoss, Rows
from matinee.metrics import rating_metrics, rating_metrics_per_user
from matinee.training.tasks.base import OptimizerFactory, SchedulerFactory, Task


class RatingTask(Task):
    r"""Rating prediction: train a pair network on a rating loss, predict on the data's own scale.

    The training objective of a batch of :math:`n` pairs is

    .. math:: L(s, r) + \lambda \frac1n \sum_{(u, i)} (\lVert p_u \rVert^2 + \lVert q_i \rVert^2)

    with the penalty on the rows that the batch looked up: a row is shrunk as often as it is used,
    so a rare user is not punished for the size of the table. To train the unknown rows 0, a share
    of the user ids and of the item ids is replaced by 0 while training; outside training, every id
    that train never held is replaced by 0.

    Args:
        network: A pair network with ``lookup`` and ``score``, see
            :mod:`matinee.networks.pairs.factorization`.
        loss: A rating loss that has been fitted to the ratings of train.
        warm: Which user ids and which item ids train holds, bool, (num_users + 1,) and
            (num_items + 1,).
        rating_scale: Lowest and highest possible rating; predictions are clamped to it.
        optimizer: Makes the optimizer from parameters; unused by networks in closed form.
        scheduler: Makes a learning-rate scheduler, stepped every epoch; None keeps the rate.
        l2: The penalty's weight :math:`\lambda`, at least 0.
        unknown_users: Share of user ids replaced by 0 while training, in [0, 1).
        unknown_items: Share of item ids replaced by 0 while training, in [0, 1).

    Raises:
        ValueError: If ``l2`` or a share is out of range.
    """

    headline = Headline("rmse", higher_is_better=False, power=2)
    callbacks_choice = "rating"
    loss: RatingLoss
    unknown_shares: Tensor

    def __init__(
        self,
        network: Any,
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
        if not l2 >= 0:
            raise ValueError(f"task.l2 is {l2}; give a number of at least 0.")
        for option, share in (("users", unknown_users), ("items", unknown_items)):
            if not 0 <= share < 1:
                raise ValueError(f"task.unknown_{option} is {share}; give a share in [0, 1).")
        self.rating_scale = rating_scale
        self.l2 = l2
        shares = torch.tensor([[unknown_users], [unknown_items]])
        self.register_buffer("unknown_shares", shares, persistent=False)

    @classmethod
    def from_data(
        cls,
        datamodule: RatingDataModule,
        model: Callable[..., nn.Module],
        loss: RatingLoss,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None = None,
        l2: float = 0.0,
        unknown_users: float = 0.1,
        unknown_items: float = 0.01,
    ) -> "RatingTask":
        """Build the task for the data at hand: sizes, scale and starting score come from them.

        Args:
            datamodule: The split data.
            model: Makes the network from ``num_users``, ``num_items`` and ``initial_score``.
            loss: A rating loss, not yet fitted.
            optimizer: As in the constructor, like what follows.
            scheduler: See there.
            l2: See there.
            unknown_users: See there.
            unknown_items: See there.
        """
        interactions = datamodule.interactions
        if not hasattr(loss, "initial_score"):
            raise ValueError(
                f"{type(loss).__name__} is no loss of ratings; choose loss=mse or another."
            )
        made = getattr(model, "func", model)
        if not hasattr(made, "lookup"):
            raise ValueError(
                f"{made.__name__} ranks items and rates none; start from experiment=user_based/gru or "
                "another experiment of next items."
            )
        loss.fit(datamodule.columns("train").ratings.numpy())
        network = model(
            num_users=interactions.num_users,
            num_items=interactions.num_items,
            initial_score=loss.initial_score,
        )
        assert interactions.rating_scale is not None
        return cls(
            network,
            loss,
            warm=datamodule.warm,
            rating_scale=interactions.rating_scale,
            optimizer=optimizer,
            scheduler=scheduler,
            l2=l2,
            unknown_users=unknown_users,
            unknown_items=unknown_items,
        )

    def learnt_columns(self, datamodule: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Return the columns of train."""
        columns: RatingBatch = datamodule.columns("train")
        return columns

    def step(self, batch: RatingBatch) -> dict[str, Tensor]:
        """Compute the objective of a batch, its loss without the penalty, and the scores."""
        user_ids, item_ids, ratings = batch
        known = torch.rand(2, len(ratings), device=ratings.device) >= self.unknown_shares
        user_ids, item_ids = user_ids * known[0], item_ids * known[1]
        user_rows, item_rows = self.network.lookup(user_ids, item_ids)
        scores = self.network.score(user_rows, item_rows)
        loss = self.loss(scores, ratings)
        objective = loss + self.l2 * penalty(user_rows + item_rows) if self.l2 > 0 else loss
        return {"loss": objective, "data_loss": loss.detach(), "scores": scores.detach()}

    def forward(self, user_ids: Tensor, item_ids: Tensor) -> Tensor:
        """Predict ratings: ids of shape (batch,) to ratings of shape (batch,), cold ids included."""
        users = user_ids * self.warm_users[user_ids]
        items = item_ids * self.warm_items[item_ids]
        return self.rating(self.network(users, items))

    def rating(self, scores: Tensor) -> Tensor:
        """Turn scores into ratings on the scale of the data, same shape."""
        return self.loss.rating(scores).clamp(*self.rating_scale)

    def measure(
        self, predictions: Sequence[Tensor], datamodule: RatingDataModule, stage: str
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """Measure the predictions of a whole stage, made by :meth:`predict_step` in the rows' order.

        Args:
            predictions: Predicted ratings, batch by batch, together of shape (rows,).
            datamodule: Where the rows come from.
            stage: ``train``, ``val`` or ``test``.

        Returns:
            The metrics over rows, whole and by segment; and the same errors per user.
        """
        user_ids, _, ratings = datamodule.columns(stage)
        predicted, truth = torch.cat(list(predictions)).cpu().numpy(), ratings.numpy()
        metrics = rating_metrics(predicted, truth, datamodule.segments(stage))
        return metrics, rating_metrics_per_user(predicted, truth, user_ids.numpy())

    @property
    def protocol(self) -> dict[str, Any]:
        """What the figures of :meth:`measure` mean, for the record."""
        return {
            "candidates": "the rated pairs of the part",
            "filter_seen": False,
            "ties": "none: errors are not ranked",
            "averaging": "over rows",
            "prediction": f"clamped to {list(self.rating_scale)}; unseen ids use the unknown row",
        }

    def predict_step(self, batch: RatingBatch, batch_idx: int = 0) -> Tensor:
        """Predict the ratings of a batch, shape (batch,)."""
        return self(batch.user_ids, batch.item_ids)  # type: ignore[no-any-return]

    def validation_step(self, batch: RatingBatch, batch_idx: int) -> dict[str, Tensor]:
        """Predict; the callbacks measure."""
        return {"predictions": self.predict_step(batch), "ratings": batch.ratings}


def penalty(rows: Rows) -> Tensor:
    """Mean squared norm of looked-up rows, (batch, dim) each, summed over tables to a scalar."""
    first, *others = (row.square().sum() / len(row) for row in rows)
    return sum(others, start=first)
