"""Live rating prediction: train a network of rated histories, predict each rating from what came before."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from matinee.batches import LiveDataModule
from matinee.batches.live import Rated
from matinee.batches.loading import to_device
from matinee.batches.queries import Queries
from matinee.contracts import LiveNetwork, RatedHistories, RatingLoss, ScoreScale
from matinee.training.tasks.base import check_data, check_part
from matinee.training.tasks.illustrations import live_samples
from matinee.training.tasks.rating import BaseRatingTask


class LiveRatingTask(BaseRatingTask[LiveDataModule]):
    """Live rating prediction: train a network of rated histories, predict from what came before.

    Losses, penalty, metrics and the treatment of cold ids are those of ratings of pairs. In training, a
    share of the histories have no user, and a share of the items of histories and of targets are unknown.
    The arguments are those of :class:`matinee.training.tasks.rating.BaseRatingTask`, with a live network.
    """

    history_label = "ratings of the user that the model has seen"
    network: LiveNetwork

    @classmethod
    def check_parts(cls, datamodule: object, model: object) -> None:
        """Check for rated histories and a network that reads them."""
        advice = "or start from an experiment such as experiment=live/gru"
        check_data(datamodule, "listened", f"data=live, {advice}")
        made = getattr(model, "func", model)
        check_part(made, LiveNetwork, f"choose model=listening, {advice}")

    @classmethod
    def make_network(
        cls, datamodule: LiveDataModule, model: Callable[..., LiveNetwork], loss: RatingLoss
    ) -> LiveNetwork:
        """Make the network from ``num_users``, ``num_items`` and ``scale``."""
        deviation = float(datamodule.columns("train").ratings.numpy().std(dtype=np.float64))
        return model(
            num_users=datamodule.interactions.num_users,
            num_items=datamodule.interactions.num_items,
            scale=score_scale(loss, datamodule.mean, deviation),
        )

    def step(self, batch: RatedHistories) -> dict[str, Tensor]:
        """Compute the objective of a batch; also return scores and ratings."""
        batch = self.with_unknowns(batch)
        scores = self.network.read(batch)
        rows = self.network.looked_up(batch) if self.l2 > 0 else ()
        return self.objective(scores, batch.target_ratings, rows)

    def with_unknowns(self, batch: RatedHistories) -> RatedHistories:
        """Replace shares of the ids of a batch by 0, as in training."""
        users, items = self.unknown_shares.flatten().tolist()

        def known(ids: Tensor, share: float) -> Tensor:
            return ids * (torch.rand(ids.shape, device=ids.device) >= share)

        return batch._replace(
            user_ids=known(batch.user_ids, users),
            item_ids=known(batch.item_ids, items),
            target_ids=known(batch.target_ids, items),
        )

    def with_warm(self, batch: RatedHistories) -> RatedHistories:
        """Replace the ids of a batch that train does not hold by 0."""
        return batch._replace(
            user_ids=batch.user_ids * self.warm_users[batch.user_ids],
            item_ids=batch.item_ids * self.warm_items[batch.item_ids],
            target_ids=batch.target_ids * self.warm_items[batch.target_ids],
        )

    def forward(self, batch: RatedHistories) -> Tensor:
        """Predict the ratings of the targets of a batch, (n,), cold ids included."""
        return self.rating(self.network.read(self.with_warm(batch)))

    def predict_step(self, batch: RatedHistories, batch_idx: int = 0) -> Any:
        """Predict the ratings of a batch, shape (n,)."""
        return self(batch)

    def validation_step(self, batch: RatedHistories, batch_idx: int) -> dict[str, Tensor]:
        """Predict; the callbacks measure."""
        return {"predictions": self.predict_step(batch), "ratings": batch.target_ratings}

    @property
    def protocol(self) -> dict[str, Any]:
        """What the metrics of :meth:`measure` mean."""
        return {
            **super().protocol,
            "candidates": "the rated pairs of the part, each from what its user rated before",
        }

    def score_items(self, datamodule: LiveDataModule, queries: Queries) -> Tensor:
        """Predict the ratings of all items after everything in the data, or after newcomers' ratings."""
        scores = torch.empty(len(queries), len(self.warm_items))
        for number, user_id in enumerate(queries.user_ids.tolist()):
            query, rated = queries[number : number + 1], None
            if query.ratings is not None:  # all that is known of this user, also of one of the data
                user_id, rated = 0, (query.item_ids.numpy(), query.ratings.numpy())
            scores[number] = self.score_after(datamodule, user_id, rated)
        scores[:, 0] = float("-inf")
        return scores

    def score_after(self, datamodule: LiveDataModule, user_id: int, rated: Rated | None) -> Tensor:
        """Predict the ratings of all items, (num_items + 1,), see :meth:`LiveDataModule.present`."""
        batch = datamodule.present(user_id, np.arange(len(self.warm_items)), rated)
        ratings: Tensor = self(to_device(batch, self.device))
        return ratings

    def samples(self, datamodule: LiveDataModule, count: int) -> list[str]:
        """Show predictions for the first ratings in test of some users, in order."""
        return live_samples(self, datamodule, count)

    def rate(self, datamodule: LiveDataModule, user_ids: Tensor, item_ids: Tensor) -> Tensor:
        """Predict the ratings of pairs of ids after everything in the data, (batch,) each, to (batch,)."""
        ratings, user_ids = torch.zeros(len(user_ids)), user_ids.cpu()
        for user in user_ids.unique().tolist():
            mine = user_ids == user
            batch = datamodule.present(user, item_ids[mine].cpu().numpy())
            ratings[mine] = self(to_device(batch, self.device)).cpu()
        return ratings


def score_scale(loss: RatingLoss, mean: float, deviation: float) -> ScoreScale:
    """Describe the ratings of train and the scores that a fitted loss gives them."""
    with torch.enable_grad():
        start = torch.tensor([loss.initial_score], requires_grad=True)
        (slope,) = torch.autograd.grad(loss.rating(start).sum(), start)
    return ScoreScale(mean, deviation or 1.0, loss.initial_score, 1 / slope.item())
