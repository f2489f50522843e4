"""Next-item recommendation: train a sequence network on a ranking loss, rank the whole catalogue."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from matinee.batches import RankingBatch, SequenceDataModule
from matinee.batches.windows import SequenceBatch
from matinee.contracts import Headline, NegativeSampler, RankingLoss, RankingScores
from matinee.metrics import coverage, ranking_metrics, ranks
from matinee.training.tasks.base import OptimizerFactory, SchedulerFactory, Task

RANKED_AT_ONCE = 2**24  # scores held at a time


class NextItemTask(Task):
    """Predict every next item of the training windows; rank the last item of evaluated ones.

    The loss is computed only where there is a target: representations are masked first and scored
    after, so padded positions cost nothing. Outside training, items of a history that train never
    held become id 0; a user whom train never held becomes user 0.

    Args:
        network: A network with ``represent``, ``score``, ``score_all`` and ``item_table``, see
            :class:`matinee.networks.sequence_recommender.SequenceRecommender`.
        loss: A ranking loss that has been fitted to the catalogue.
        sampler: Draws the negatives of a sampled loss; None for :class:`FullSoftmax`.
        warm: Which user ids and which item ids train holds, bool, (num_users + 1,) and
            (num_items + 1,).
        optimizer: Makes the optimizer from parameters; unused by networks in closed form.
        scheduler: Makes a learning-rate scheduler, stepped every epoch; None keeps the rate.
        top_k: Cut-offs of the metrics, each at least 1.
        unknown_users: Share of user ids replaced by 0 while training, in [0, 1).

    Raises:
        ValueError: If loss and sampler do not go together or a number is out of range.
    """

    headline = Headline("mrr", higher_is_better=True)
    device_tolerance = (1e-2, 1e-3)  # nearly equal scores change places, and ranks whole numbers
    callbacks_choice = "ranking"

    def __init__(
        self,
        network: Any,
        loss: RankingLoss,
        sampler: NegativeSampler | None,
        warm: tuple[Tensor, Tensor],
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None = None,
        top_k: Sequence[int] = (1, 10, 20),
        unknown_users: float = 0.1,
    ) -> None:
        super().__init__(network, loss, warm, optimizer, scheduler)
        _check_pair(loss, sampler)
        if not top_k or min(top_k) < 1:
            raise ValueError(f"task.top_k is {list(top_k)}; give cut-offs of at least 1.")
        if not 0 <= unknown_users < 1:
            raise ValueError(f"task.unknown_users is {unknown_users}; give a share in [0, 1).")
        self.sampler = sampler
        self.top_k = sorted(top_k)
        self.unknown_users = unknown_users

    @classmethod
    def from_data(
        cls,
        datamodule: SequenceDataModule,
        model: Callable[..., nn.Module],
        loss: RankingLoss,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None = None,
        sampler: NegativeSampler | None = None,
        top_k: Sequence[int] = (1, 10, 20),
        unknown_users: float = 0.1,
    ) -> "NextItemTask":
        """Build the task for the data at hand: sizes and item counts come from them.

        Args:
            datamodule: The split data.
            model: Makes the network from ``num_items`` (and ``num_users``, if its encoder wants it).
            loss: A ranking loss, not yet fitted.
            optimizer: As in the constructor, like what follows.
            scheduler: See there.
            sampler: See there; not yet fitted.
            top_k: See there.
            unknown_users: See there.

        Raises:
            ValueError: If the loss is no ranking loss.
        """
        interactions = datamodule.interactions
        if hasattr(loss, "initial_score"):
            raise ValueError(
                f"{type(loss).__name__} is a loss of ratings; choose loss=softmax or another."
            )
        made = getattr(model, "func", model)
        if not hasattr(made, "represent"):
            raise ValueError(
                f"{made.__name__} rates pairs; choose model=gru or another that ranks items."
            )
        loss.fit(interactions.num_items)
        if sampler is not None:
            counts = np.bincount(
                datamodule.histories.item_ids, minlength=interactions.num_items + 1
            )
            sampler.fit(counts)
        network = model(num_items=interactions.num_items, num_users=interactions.num_users)
        longest = int(datamodule.windows.lengths.max())
        for name, part in network.named_modules():
            limit = getattr(part, "max_length", longest)
            if longest > limit:
                raise ValueError(
                    f"training windows have {longest} items and model.{name}.max_length is {limit}; "
                    f"set it to at least {longest}, or data.length to at most {limit}."
                )
        return cls(
            network,
            loss,
            sampler,
            warm=datamodule.warm,
            optimizer=optimizer,
            scheduler=scheduler,
            top_k=top_k,
            unknown_users=unknown_users,
        )

    def learnt_columns(self, datamodule: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Return the items of train, in place of users and ratings, too: they do not matter."""
        item_ids = torch.from_numpy(datamodule.histories.item_ids)
        return item_ids, item_ids, item_ids

    def step(self, batch: SequenceBatch) -> dict[str, Tensor]:
        """Compute the loss over the targets of a batch, and their number."""
        known = torch.rand(len(batch.user_ids), device=self.device) >= self.unknown_users
        representations = self.network.represent(batch.histories, batch.user_ids * known)
        here = batch.target_ids != 0
        loss = self.objective(representations[here], batch.target_ids[here])
        return {"loss": loss, "data_loss": loss.detach(), "count": here.sum()}

    def objective(self, representations: Tensor, target_ids: Tensor) -> Tensor:
        """Compare n targets, (n,), with other items, given representations (n, dim); a scalar."""
        loss: RankingLoss = self.loss
        if loss.compares == "catalogue":
            weights, biases = self.network.item_table()
            return loss(representations, weights, biases, target_ids)
        assert self.sampler is not None  # see _check_pair
        negatives = self.sampler.sample(target_ids)
        scores = RankingScores(
            positive=self.network.score(representations, target_ids),
            negative=self.network.score(representations, negatives),
            positive_log_q=self.sampler.log_probability(target_ids),
            negative_log_q=self.sampler.log_probability(negatives),
        )
        return loss(scores)

    def forward(self, histories: Tensor, lengths: Tensor, user_ids: Tensor) -> Tensor:
        """Score all items as the next ones of some histories.

        Args:
            histories: Item ids, each row beginning with 0, padded with 0 on the right,
                (batch, length).
            lengths: Positions that are not padding, (batch,).
            user_ids: Whose histories they are; 0 where unknown, (batch,).

        Returns:
            Scores (batch, num_items + 1); column 0, the padding, is minus infinity.
        """
        histories = histories * self.warm_items[histories]
        representations = self.network.represent(histories, user_ids * self.warm_users[user_ids])
        last = representations[
            torch.arange(len(lengths), device=lengths.device), lengths.long() - 1
        ]
        scores: Tensor = self.network.score_all(last)
        return scores

    def predict_step(self, batch: RankingBatch, batch_idx: int = 0) -> dict[str, Tensor]:
        """Rank each row's target: ``ranks`` (batch,) and ``best_items``, their ids (batch, k)."""
        return self.rank(batch, min(self.top_k[-1], len(self.warm_items) - 1))

    def rank(self, batch: RankingBatch, best: int) -> dict[str, Tensor]:
        """Rank each row's target among the candidates, and list the best of them.

        Args:
            batch: What to rank.
            best: Length of the lists, at most the number of items.

        Returns:
            ``ranks`` (batch,) and ``best_items``, ids (batch, best), 0 where candidates are fewer.
        """
        target_ids = batch.target_ids.sum(1)  # one target a row, 0 elsewhere
        parts = []
        rows_at_once = max(1, RANKED_AT_ONCE // len(self.warm_items))
        for start in range(0, len(target_ids), rows_at_once):
            rows = slice(start, start + rows_at_once)
            scores = self(batch.histories[rows], batch.lengths[rows], batch.user_ids[rows])
            mine = (batch.seen_rows >= start) & (batch.seen_rows < start + len(scores))
            seen = (batch.seen_rows[mine] - start, batch.seen_items[mine])
            target_ranks = ranks(scores, target_ids[rows], seen)
            scores[seen] = float("-inf")
            values, best_items = scores.topk(best)
            best_items[values == float("-inf")] = 0  # fewer candidates than k
            parts.append((target_ranks, best_items))
        target_ranks, best_items = (torch.cat(part) for part in zip(*parts, strict=True))
        return {"ranks": target_ranks, "best_items": best_items}

    def validation_step(self, batch: RankingBatch, batch_idx: int) -> dict[str, Tensor]:
        """Rank the targets; the callbacks measure."""
        return self.rank(batch, best=0)

    def measure(
        self,
        predictions: Sequence[dict[str, Tensor]],
        datamodule: SequenceDataModule,
        stage: str,
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """Measure the rankings of a whole stage, made by :meth:`predict_step` in the windows' order.

        Args:
            predictions: Ranks and best items, batch by batch.
            datamodule: Where the windows come from.
            stage: ``train``, ``val`` or ``test``.

        Returns:
            The metrics over windows, whole and by segment; and the rank of every window, its
            reciprocal (the window's own MRR), its user, its length and whether it lies in each segment.
        """
        target_ranks = torch.cat([part["ranks"] for part in predictions]).cpu().numpy()
        best_items = torch.cat([part["best_items"] for part in predictions]).cpu().numpy()
        _, windows = datamodule.evaluation(stage)
        segments = datamodule.segments(stage)
        metrics = ranking_metrics(target_ranks, self.top_k, segments)
        metrics |= coverage(best_items, datamodule.interactions.num_items, self.top_k)
        return metrics, {
            "user_id": windows.user_ids.numpy(),
            "history_length": windows.lengths.numpy() - 1,
            "rank": target_ranks,
            "mrr": 1 / target_ranks.astype(np.float64),
            **segments,
        }

    @property
    def protocol(self) -> dict[str, Any]:
        """What the figures of :meth:`measure` mean, for the record."""
        return {
            "ties": "average rank",
            "averaging": "over windows",
            "prediction": "unseen items of a history use row 0; unseen targets are candidates",
        }


def _check_pair(loss: RankingLoss, sampler: NegativeSampler | None) -> None:
    """Refuse a loss and a sampler that do not go together, by what both declare."""
    name = type(loss).__name__
    if loss.compares == "catalogue":
        if sampler is not None:
            raise ValueError(f"{name} compares targets with all items; add sampler=none.")
    elif sampler is None:
        raise ValueError(f"{name} compares targets with sampled items; add sampler=uniform.")
    elif loss.needs_excluded_target and not sampler.exclude_target:
        raise ValueError(f"{name} counts the target once; add sampler.exclude_target=true.")
    elif loss.needs_uniform_negatives and not sampler.is_uniform:
        raise ValueError(f"{name} needs uniform negatives; add sampler=uniform.")
