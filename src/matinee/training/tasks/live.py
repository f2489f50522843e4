"""Live rating prediction: train a network of rated histories, predict each rating from what came before."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from matinee.batches import LiveDataModule
from matinee.batches.loading import to_device
from matinee.batches.queries import Queries
from matinee.contracts import LiveNetwork, RatedHistories, RatingLoss, ScoreScale
from matinee.errors import MatineeError
from matinee.training.tasks.base import (
    OptimizerFactory,
    SchedulerFactory,
    check_data,
    check_part,
)
from matinee.training.tasks.illustrations import live_samples
from matinee.training.tasks.rating import RatingTask, penalty


class LiveRatingTask(RatingTask):
    """Live rating prediction: train a network of rated histories, predict from what came before.

    Losses, penalty, metrics and the treatment of cold ids are those of :class:`RatingTask`. In training, a
    share of the histories have no user, and a share of the items of histories and of targets are unknown.
    """

    history_label = "ratings of the user that the model has seen"
    network: LiveNetwork  # type: ignore[assignment]
    _data: LiveDataModule | None = None  # for predictions that no batch was made for

    @classmethod
    def from_data(  # type: ignore[override]
        cls,
        datamodule: LiveDataModule,
        model: Callable[..., LiveNetwork],
        loss: RatingLoss,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None = None,
        l2: float = 0.0,
        unknown_users: float = 0.1,
        unknown_items: float = 0.1,
    ) -> "LiveRatingTask":
        """Build the task for given data, which determine sizes and scales.

        Args:
            datamodule: The split data.
            model: Makes the network from ``num_users``, ``num_items`` and ``scale``.
            loss: A rating loss, not fitted yet.
            optimizer: See :class:`RatingTask`, like the arguments that follow.
            scheduler: See there.
            l2: See there.
            unknown_users: See there.
            unknown_items: See there.

        Raises:
            ValueError: If data, network or loss are not made for rated histories, or a value is wrong.
        """
        advice = "or start from an experiment such as experiment=live/gru"
        check_data(datamodule, "listened", f"data=live, {advice}")
        check_part(loss, RatingLoss, "choose loss=mse or another loss of ratings")
        made = getattr(model, "func", model)
        check_part(made, LiveNetwork, f"choose model=listening, {advice}")
        interactions = datamodule.interactions
        ratings = datamodule.columns("train").ratings.numpy()
        loss.fit(ratings)
        network = model(
            num_users=interactions.num_users,
            num_items=interactions.num_items,
            scale=score_scale(loss, datamodule.mean, float(ratings.std(dtype=np.float64))),
        )
        assert interactions.rating_scale is not None
        task = cls(
            network,  # type: ignore[arg-type]
            loss,
            warm=datamodule.warm,
            rating_scale=interactions.rating_scale,
            optimizer=optimizer,
            scheduler=scheduler,
            l2=l2,
            unknown_users=unknown_users,
            unknown_items=unknown_items,
        )
        task._data = datamodule
        return task

    def step(self, batch: RatedHistories) -> dict[str, Tensor]:  # type: ignore[override]
        """Compute the objective of a batch; also return scores and ratings."""
        users, items = self.unknown_shares.flatten().tolist()

        def known(ids: Tensor, share: float) -> Tensor:
            return ids * (torch.rand(ids.shape, device=ids.device) >= share)

        batch = batch._replace(
            user_ids=known(batch.user_ids, users),
            item_ids=known(batch.item_ids, items),
            target_ids=known(batch.target_ids, items),
        )
        scores = self.network.read(batch)
        loss = self.loss(scores, batch.target_ratings)
        objective = loss
        if self.l2 > 0:
            objective = loss + self.l2 * penalty(self.network.looked_up(batch))
        return {
            "loss": objective,
            "data_loss": loss.detach(),
            "scores": scores.detach(),
            "ratings": batch.target_ratings,
        }

    def forward(self, batch: RatedHistories) -> Tensor:  # type: ignore[override]
        """Predict the ratings of the targets of a batch, (n,), cold ids included."""
        warm = batch._replace(
            user_ids=batch.user_ids * self.warm_users[batch.user_ids],
            item_ids=batch.item_ids * self.warm_items[batch.item_ids],
            target_ids=batch.target_ids * self.warm_items[batch.target_ids],
        )
        return self.rating(self.network.read(warm))

    def predict_step(self, batch: RatedHistories, batch_idx: int = 0) -> Tensor:  # type: ignore[override]
        """Predict the ratings of a batch, shape (n,)."""
        ratings: Tensor = self(batch)
        return ratings

    def validation_step(self, batch: RatedHistories, batch_idx: int) -> dict[str, Tensor]:  # type: ignore[override]
        """Predict; the callbacks measure."""
        return {"predictions": self.predict_step(batch), "ratings": batch.target_ratings}

    @property
    def protocol(self) -> dict[str, Any]:
        """What the metrics of :meth:`measure` mean."""
        return {
            **super().protocol,
            "candidates": "the rated pairs of the part, each from what its user rated before",
        }

    def score_items(self, datamodule: LiveDataModule, queries: Queries) -> Tensor:  # type: ignore[override]
        """Predict the ratings of all items after everything in the data, or after newcomers' ratings."""
        item_ids = np.arange(len(self.warm_items))
        scores = torch.empty(len(queries), len(item_ids))
        for number, user_id in enumerate(queries.user_ids.tolist()):
            query, rated = queries[number : number + 1], None
            if query.ratings is not None:  # all that is known of this user, also of one of the data
                user_id, rated = 0, (query.item_ids.numpy(), query.ratings.numpy())
            batch = to_device(datamodule.present(user_id, item_ids, rated), self.device)
            scores[number] = self(batch)
        scores[:, 0] = float("-inf")
        return scores

    def samples(self, datamodule: LiveDataModule, count: int) -> list[str]:  # type: ignore[override]
        """Show predictions for the first ratings in test of some users, in order."""
        return live_samples(self, datamodule, count)

    def rate(self, user_ids: Tensor, item_ids: Tensor) -> Tensor:
        """Predict the ratings of pairs of ids after everything in the data, (batch,) each, to (batch,)."""
        if self._data is None:
            raise MatineeError(
                "this task was made without data; make it by LiveRatingTask.from_data."
            )
        ratings, user_ids = torch.zeros(len(user_ids)), user_ids.cpu()
        for user in user_ids.unique().tolist():
            mine = user_ids == user
            batch = self._data.present(user, item_ids[mine].cpu().numpy())
            ratings[mine] = self(to_device(batch, self.device)).cpu()
        return ratings


def score_scale(loss: RatingLoss, mean: float, deviation: float) -> ScoreScale:
    """Describe the ratings of train and the scores that a fitted loss gives them."""
    with torch.enable_grad():
        start = torch.tensor([loss.initial_score], requires_grad=True)
        (slope,) = torch.autograd.grad(loss.rating(start).sum(), start)
    return ScoreScale(mean, deviation or 1.0, loss.initial_score, 1 / slope.item())
