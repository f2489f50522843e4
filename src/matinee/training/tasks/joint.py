"""Joint prediction: which item a user rates next, and how, from everything rated before."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from matinee.batches import LiveDataModule
from matinee.batches.live import Rated
from matinee.batches.loading import to_device
from matinee.contracts import JointLiveNetwork, RatedHistories, RatingLoss
from matinee.metrics import FloatArray, ranking_metrics, ranks
from matinee.objectives.ranking_losses import FullSoftmax
from matinee.training.tasks.base import OptimizerFactory, SchedulerFactory, check_part
from matinee.training.tasks.illustrations import breakdown
from matinee.training.tasks.live import LiveRatingTask
from matinee.training.tasks.next_item import RANKED_AT_ONCE, NextItemTask

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class JointTask(LiveRatingTask):
    r"""Joint prediction: train one network to predict the next item and its rating.

    Every rating of a batch is both a rating to predict and, before it is known, the next item to find among
    all items. With the weight :math:`w`, the training loss is

    .. math:: (1 - w) \, L(s, r) + w \left(-y_i + \log \sum_j e^{y_j}\right)

    for the rating loss :math:`L` and the scores :math:`y` of the items as the next one. The first part is
    that of :class:`LiveRatingTask`. In the second, all items are candidates, also those rated before, and
    targets are never replaced by the unknown item.

    Attributes:
        weight: The weight :math:`w`, in [0, 1].
        headlines: The metrics by which models can be selected, by their names.
    """

    headlines: ClassVar = {"rmse": LiveRatingTask.headline, "mrr": NextItemTask.headline}
    network: JointLiveNetwork
    weight: float

    @classmethod
    def from_data(
        cls,
        datamodule: LiveDataModule,
        model: Callable[..., Any],
        loss: RatingLoss,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None = None,
        l2: float = 0.0,
        unknown_users: float = 0.1,
        unknown_items: float = 0.1,
        weight: float = 0.5,
        headline: Literal["rmse", "mrr"] = "rmse",
    ) -> "JointTask":
        """Build the task for given data, which determine sizes, scale and initial score.

        Args:
            datamodule: The split data.
            model: Makes the network, see :meth:`make_network`.
            loss: A rating loss, not fitted yet.
            optimizer: As in :meth:`LiveRatingTask.from_data`, like the arguments that follow.
            scheduler: See there.
            l2: See there.
            unknown_users: See there.
            unknown_items: See there.
            weight: Weight of the next item in the loss, in [0, 1].
            headline: The metric by which models are selected. ``mrr`` also makes the scores of the next item
                those of :meth:`score_items`.

        Raises:
            ValueError: If data, network and loss are not made for each other, or a value is out of range.
        """
        if not 0 <= weight <= 1:
            raise ValueError(f"weight is {weight}; give a number in [0, 1].")
        if headline not in cls.headlines:
            raise ValueError(f"headline is {headline!r}; choose {' or '.join(cls.headlines)}.")
        parts = (datamodule, model, loss, optimizer, scheduler)
        task = super().from_data(*parts, l2, unknown_users, unknown_items)
        task.weight = weight
        task.headline = cls.headlines[headline]
        task.score_name = "score" if headline == "mrr" else cls.score_name
        return task

    @classmethod
    def check_parts(cls, datamodule: object, model: object) -> None:
        """Check also that the network scores next items."""
        super().check_parts(datamodule, model)
        check_part(getattr(model, "func", model), JointLiveNetwork, "choose model=joint")

    def step(self, batch: RatedHistories) -> dict[str, Tensor]:
        """Compute the objective of a batch; also return scores and ratings."""
        masked = self.with_unknowns(batch)
        known = self.network.known(masked)
        rows = self.network.looked_up(masked) if self.l2 > 0 else ()
        outputs = self.objective(self.network.rate(known, masked), batch.target_ratings, rows)
        next_item = FullSoftmax()(*self.network.choose(known), batch.target_ids)
        for name, part in (("loss", next_item), ("data_loss", next_item.detach())):
            outputs[name] = (1 - self.weight) * outputs[name] + self.weight * part
        return outputs

    def predict_step(self, batch: RatedHistories, batch_idx: int = 0) -> dict[str, Tensor]:
        """Predict the ratings of a batch and rank its targets: ``predictions`` and ``ranks``, (n,) each."""
        warm = self.with_warm(batch)
        known = self.network.known(warm)
        rows_at_once = max(1, RANKED_AT_ONCE // len(self.warm_items))
        parts = zip(known.split(rows_at_once), batch.target_ids.split(rows_at_once), strict=True)
        target_ranks = [ranks(self.score_next(part), targets) for part, targets in parts]
        return {
            "predictions": self.rating(self.network.rate(known, warm)),
            "ranks": torch.cat(target_ranks),
        }

    def validation_step(self, batch: RatedHistories, batch_idx: int) -> dict[str, Tensor]:
        """Predict; the callbacks measure."""
        return {**self.predict_step(batch), "ratings": batch.target_ratings}

    def score_next(self, known: Tensor) -> Tensor:
        """Score all items as the next ones, (n, dim) to (n, num_items + 1); column 0 is minus infinity."""
        representations, weights, biases = self.network.choose(known)
        scores = F.linear(representations, weights, biases)
        scores[:, 0] = float("-inf")
        return scores

    def epoch_metrics(self, outputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, float]:
        """Compute the errors of the predictions, and the metrics of the ranks."""
        return super().epoch_metrics(outputs) | ranking_metrics(outputs["ranks"])

    def measure(
        self, predictions: Sequence[Any], datamodule: LiveDataModule, stage: str
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """Measure ratings and ranks of a whole stage, made by :meth:`predict_step` in order.

        Returns:
            The metrics over rows, whole and by segment; and errors and reciprocal ranks per user.
        """
        rated, target_ranks = _split(predictions)
        metrics, per_user = super().measure(rated, datamodule, stage)
        _, row_users = np.unique(datamodule.columns(stage).user_ids.numpy(), return_inverse=True)
        reciprocal = np.bincount(row_users, 1 / target_ranks.astype(np.float64))
        metrics |= ranking_metrics(target_ranks, segments=datamodule.segments(stage))
        return metrics, {**per_user, "mrr": reciprocal / per_user["count"]}

    @property
    def protocol(self) -> dict[str, Any]:
        """What the metrics of :meth:`measure` mean."""
        rated = super().protocol
        return {
            **rated,
            "candidates": f"{rated['candidates']}; all items as the next one",
            "ties": "average rank",
        }

    def figures(
        self, predictions: Sequence[Any], datamodule: LiveDataModule
    ) -> "dict[str, Figure]":
        """Draw the errors by rating, history and popularity, and the reciprocal ranks likewise."""
        from matinee.display import plotting

        rated, target_ranks = _split(predictions)
        ranking = breakdown(
            datamodule, 1 / target_ranks, "mean reciprocal rank", self.history_label
        )
        return {
            **super().figures(rated, datamodule),
            "ranks": plotting.rank_histogram(target_ranks, datamodule.interactions.num_items),
            **{f"ranks_{name}": figure for name, figure in ranking.items()},
        }

    def score_after(self, datamodule: LiveDataModule, user_id: int, rated: Rated | None) -> Tensor:
        """Predict the ratings of all items, or score them as the next ones, by the headline metric."""
        if self.headline == self.headlines["rmse"]:
            return super().score_after(datamodule, user_id, rated)
        batch = to_device(datamodule.present(user_id, np.zeros(1, np.int64), rated), self.device)
        return self.score_next(self.network.known(self.with_warm(batch)))[0]


def _split(predictions: Sequence[dict[str, Tensor]]) -> tuple[list[Tensor], FloatArray]:
    target_ranks: FloatArray = torch.cat([part["ranks"] for part in predictions]).cpu().numpy()
    return [part["predictions"] for part in predictions], target_ranks
