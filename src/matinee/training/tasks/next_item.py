"""Next-item recommendation: train a sequence network on a ranking loss, rank the whole catalogue."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from matinee.batches import RankingBatch, SequenceDataModule
from matinee.batches.queries import Queries
from matinee.batches.windows import SequenceBatch, spans
from matinee.contracts import (
    CatalogueLoss,
    ClosedForm,
    Headline,
    NegativeSampler,
    NegativesLoss,
    Ranker,
    RankingLoss,
    SequenceNetwork,
)
from matinee.errors import MatineeError
from matinee.metrics import coverage, ranking_metrics, ranks
from matinee.objectives.comparing import compare
from matinee.training.tasks.base import (
    LightningTask,
    OptimizerFactory,
    SchedulerFactory,
    check_data,
    check_part,
)
from matinee.training.tasks.illustrations import breakdown, ranked_samples
from matinee.training.tasks.recommended_lists import ListMetrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RANKED_AT_ONCE = 2**24  # scores held at a time
TOLERANCE = 0.05  # nats, margins or shares: the target gets 95 % of the softmax's probability


class NextItemTask(LightningTask[SequenceDataModule]):
    """Predict every next item of the training windows; rank the last item of evaluated ones.

    The loss is computed only at positions with a target: representations are masked before they are
    scored, so padding costs nothing. Outside training, items of a history that train does not hold
    become id 0, and so do such users.

    Args:
        network: A sequence network, or any ranker in closed form.
        loss: A ranking loss, fitted to the catalogue.
        sampler: Draws the negatives for a loss that compares targets with negatives; else None.
        warm: Which user ids and which item ids train holds, bool, (num_users + 1,) and
            (num_items + 1,).
        optimizer: Makes the optimizer from the parameters; not used by networks in closed form.
        scheduler: Makes a learning-rate scheduler, stepped once per epoch; None keeps the rate.
        top_k: Cut-offs of the metrics, each at least 1.
        unknown_users: Share of the user ids replaced by 0 during training, in [0, 1).
        lists: Metrics of the recommended lists; None measures none.

    Raises:
        ValueError: If loss and sampler do not fit together or a number is out of range.
    """

    headline = Headline("mrr", higher_is_better=True)
    newcomer_inputs = ("history",)
    score_name = "score"
    judged_by = None
    device_tolerance = (1e-2, 1e-3)  # nearly equal scores change places, and ranks whole numbers
    network: SequenceNetwork  # in closed form a mere Ranker, because it takes no steps
    loss: RankingLoss

    def __init__(
        self,
        network: Ranker,
        loss: RankingLoss,
        sampler: NegativeSampler | None,
        warm: tuple[Tensor, Tensor],
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None = None,
        top_k: Sequence[int] = (1, 10, 20),
        unknown_users: float = 0.1,
        lists: ListMetrics | None = None,
    ) -> None:
        super().__init__(network, loss, warm, optimizer, scheduler)
        _check_pair(loss, sampler)
        if not top_k or min(top_k) < 1:
            raise ValueError(f"top_k is {list(top_k)}; give cut-offs of at least 1.")
        if not 0 <= unknown_users < 1:
            raise ValueError(f"unknown_users is {unknown_users}; give a share in [0, 1).")
        self.sampler = sampler
        self.top_k = sorted(top_k)
        self.unknown_users = unknown_users
        self.lists = lists or ListMetrics()

    @classmethod
    def from_data(
        cls,
        datamodule: SequenceDataModule,
        model: Callable[..., Ranker],
        loss: RankingLoss,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None = None,
        sampler: NegativeSampler | None = None,
        top_k: Sequence[int] = (1, 10, 20),
        unknown_users: float = 0.1,
        list_metrics: Sequence[str] = (),
        item_column: str | None = None,
    ) -> "NextItemTask":
        """Build the task for given data, which determine sizes and item counts.

        Args:
            datamodule: The split data.
            model: Makes the network from ``num_items`` and ``num_users``.
            loss: A ranking loss, not fitted yet.
            optimizer: See :class:`NextItemTask`, like the arguments that follow.
            scheduler: See there.
            sampler: See there; not fitted yet.
            top_k: See there.
            unknown_users: See there.
            list_metrics: Names of metrics of the recommended lists, see :class:`ListMetrics`.
            item_column: See there.

        Raises:
            ValueError: If the parts are not made for next items or do not fit together, or a value is
                out of range.
        """
        check_data(
            datamodule,
            "windows",
            "data=sequence, or for ratings start from an experiment such as experiment=chronological/mf",
        )
        interactions = datamodule.interactions
        _check_loss(loss)
        check_part(
            getattr(model, "func", model),
            Ranker,
            "choose model=gru or another that ranks items",
        )
        loss.fit(interactions.num_items)
        if sampler is not None:
            check_part(sampler, NegativeSampler, "choose sampler=uniform or another")
            counts = np.bincount(
                datamodule.histories.item_ids, minlength=interactions.num_items + 1
            )
            sampler.fit(counts)
        network = model(num_items=interactions.num_items, num_users=interactions.num_users)
        datamodule.carries_times = getattr(network, "needs_times", False)
        contract = Ranker if isinstance(network, ClosedForm) else SequenceNetwork
        check_part(network, contract, "choose model=gru or another that ranks items")
        lists = ListMetrics(list_metrics, item_column)
        lists.check(interactions, network.tables())
        longest = int(datamodule.windows.lengths.max())
        parts = network.named_modules() if isinstance(network, nn.Module) else ()
        for name, part in parts:
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
            lists=lists,
        )

    def training_columns(self, datamodule: SequenceDataModule) -> tuple[Tensor, Tensor]:
        """Return users and items of train, one user after another."""
        offsets, item_ids = datamodule.histories.offsets, datamodule.histories.item_ids
        user_ids = np.repeat(np.arange(len(offsets) - 1, dtype=np.int32), np.diff(offsets))
        return torch.from_numpy(user_ids), torch.from_numpy(item_ids)

    def step(self, batch: SequenceBatch | RankingBatch) -> dict[str, Tensor]:
        """Compute the loss over the targets of a batch; also return their number."""
        known = torch.rand(len(batch.user_ids), device=self.device) >= self.unknown_users
        context = self._times(batch.times)
        representations = self.network.represent(batch.histories, batch.user_ids * known, *context)
        rows, positions = (
            batch.targets_at
        )  # an accelerator would count a mask and let the host wait
        targets = batch.target_ids[rows, positions]
        loss = self.objective(representations[rows, positions], targets)
        return {"loss": loss, "data_loss": loss.detach(), "count": torch.tensor(len(rows))}

    def objective(self, representations: Tensor, target_ids: Tensor) -> Tensor:
        """Compare n targets, (n,), with other items, given representations (n, dim); a scalar."""
        if self.loss.compares == "catalogue":
            weights, biases = self.network.item_table()
            return self.loss(representations, weights, biases, target_ids)
        assert self.sampler is not None  # see _check_pair
        return self.loss(compare(self.network, self.sampler, representations, target_ids))

    def _times(self, times: Tensor | None) -> tuple[Tensor, ...]:
        """Return the times for a network that needs them, or nothing."""
        return () if times is None or not getattr(self.network, "needs_times", False) else (times,)

    def forward(
        self, histories: Tensor, lengths: Tensor, user_ids: Tensor, times: Tensor | None = None
    ) -> Tensor:
        """Score all items as the next ones after some histories.

        Args:
            histories: Item ids, each row beginning with 0, padded with 0 on the right,
                (batch, length).
            lengths: Number of positions that are not padding, (batch,).
            user_ids: The users of the histories; 0 where unknown, (batch,).
            times: Seconds since the first item, (batch, length), for a network that needs them; None
                stands for 0 everywhere.

        Returns:
            Scores (batch, num_items + 1); column 0, the padding, is minus infinity.
        """
        histories = histories * self.warm_items[histories]
        users = user_ids * self.warm_users[user_ids]
        return self.network.score_next(histories, lengths, users, *self._times(times))

    def predict_step(self, batch: RankingBatch, batch_idx: int = 0) -> dict[str, Tensor]:
        """Rank the target of each row: ``ranks`` (batch,) and ``best_items``, ids (batch, k)."""
        return self.rank(batch, min(self.top_k[-1], len(self.warm_items) - 1))

    def rank(self, batch: RankingBatch, best: int) -> dict[str, Tensor]:
        """Rank the target of each row among the candidates, and list the best candidates.

        Args:
            batch: What to rank.
            best: Length of the lists, at most the number of items.

        Returns:
            ``ranks`` (batch,) and ``best_items``, ids (batch, best), 0 where there are fewer
            candidates.
        """
        target_ids = batch.target_ids.sum(1)  # one target per row, 0 elsewhere
        parts = []
        rows_at_once = max(1, RANKED_AT_ONCE // len(self.warm_items))
        for start in range(0, len(target_ids), rows_at_once):
            rows = slice(start, start + rows_at_once)
            scores = self(
                batch.histories[rows],
                batch.lengths[rows],
                batch.user_ids[rows],
                batch.times[rows],
            )
            seen_from = batch.seen_from[rows]
            seen_rows, places = spans(seen_from, batch.seen_to[rows] - seen_from)
            seen = (seen_rows, batch.seen_items[places])
            target_ranks = ranks(scores, target_ids[rows], seen)
            scores[seen] = float("-inf")
            values, best_items = scores.topk(best)
            best_items[values == float("-inf")] = 0  # there are fewer candidates
            parts.append((target_ranks, best_items))
        target_ranks, best_items = (torch.cat(part) for part in zip(*parts, strict=True))
        return {"ranks": target_ranks, "best_items": best_items}

    def validation_step(self, batch: RankingBatch, batch_idx: int) -> dict[str, Tensor]:
        """Rank the targets; the callbacks measure."""
        return self.rank(batch, best=0)

    def running_sums(
        self, losses: Tensor, columns: Mapping[str, list[Tensor]]
    ) -> Mapping[str, float]:
        """Sum the loss over targets."""
        counts = torch.stack(columns["count"]).cpu().double()
        return {"loss": float(losses @ counts), "targets": float(counts.sum())}

    def running_metrics(self, sums: Mapping[str, float]) -> dict[str, float]:
        """Average the loss over targets."""
        return {"loss": sums["loss"] / sums["targets"]} if sums["targets"] else {}

    def epoch_metrics(self, outputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, float]:
        """Compute the metrics of the ranks."""
        return ranking_metrics(outputs["ranks"], self.top_k)

    def measure(
        self,
        predictions: Sequence[dict[str, Tensor]],
        datamodule: SequenceDataModule,
        stage: str,
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """Measure the rankings of a whole stage, made by :meth:`predict_step` in order.

        Args:
            predictions: Ranks and best items, batch by batch.
            datamodule: Where the windows come from.
            stage: ``train``, ``val`` or ``test``.

        Returns:
            The metrics over windows, whole and by segment; and for every window its user, the length of
            its history, the rank of its target and the reciprocal (the window's own MRR), and whether
            it lies in each segment.
        """
        target_ranks = _ranks(predictions)
        best_items = torch.cat([part["best_items"] for part in predictions]).cpu().numpy()
        windows = datamodule.evaluation(stage).windows
        segments = datamodule.segments(stage)
        metrics = ranking_metrics(target_ranks, self.top_k, segments)
        metrics |= coverage(best_items, datamodule.interactions.num_items, self.top_k)
        of_lists, of_windows = self.lists.measure(
            best_items, datamodule, stage, self.top_k, self.network.tables()
        )
        return metrics | of_lists, {
            "user_id": windows.user_ids.numpy(),
            "history_length": windows.lengths.numpy() - 1,
            "rank": target_ranks,
            "mrr": 1 / target_ranks.astype(np.float64),
            **segments,
            **of_windows,
        }

    @property
    def protocol(self) -> dict[str, Any]:
        """What the metrics of :meth:`measure` mean."""
        return {
            "ties": "average rank",
            "averaging": "over windows",
            "prediction": "unseen items of a history use row 0; unseen targets are candidates",
        }

    def figures(
        self, predictions: Sequence[dict[str, Tensor]], datamodule: SequenceDataModule
    ) -> "dict[str, Figure]":
        """Draw the ranks, and the mean reciprocal rank by history and popularity."""
        from matinee.display import plotting

        target_ranks = _ranks(predictions)
        label, history = "mean reciprocal rank", "items of the user before the target"
        return {
            "ranks": plotting.rank_histogram(target_ranks, datamodule.interactions.num_items),
            **breakdown(datamodule, 1 / target_ranks, label, history),
        }

    def samples(self, datamodule: SequenceDataModule, count: int) -> list[str]:
        """Recommend next items after some histories."""
        return ranked_samples(self, datamodule, count)

    def score_items(self, datamodule: SequenceDataModule, queries: Queries) -> Tensor:
        """Score all items after the newest ones of each query, as many as evaluation shows.

        Items of newcomers have no times, and count as met at the same time.

        Raises:
            MatineeError: If the model depends on the user alone and a newcomer has a history.
        """
        has_items = queries.offsets.diff() > 0
        if self.network.ignores_history and bool((has_items & (queries.user_ids == 0)).any()):
            raise MatineeError("this run's model knows users and reads no history; give user=...")
        histories, lengths, times = queries.histories(datamodule.eval_length - 1)
        scores: Tensor = self(histories, lengths, queries.user_ids, times)
        return scores

    def rate(self, datamodule: SequenceDataModule, user_ids: Tensor, item_ids: Tensor) -> Tensor:
        """Raise an error: scores of next items are no ratings."""
        raise MatineeError("this run's model ranks items and rates none; use recommend.")

    @property
    def memorization_tolerance(self) -> float:
        """The same for all ranking losses."""
        return TOLERANCE

    def memorization_error(self, outputs: Mapping[str, Tensor]) -> float:
        """Return the loss of a step."""
        return outputs["data_loss"].item()

    @torch.no_grad()
    def memorization_fault(self, batch: RankingBatch) -> str:
        """Check that every target ranks first outside training.

        A sampled loss can be small when a model merely prefers the items of the batch, whatever the
        history.
        """
        training = self.training
        self.eval()
        target_ranks = self.rank(batch, best=0)["ranks"]
        self.train(training)
        return "" if bool((target_ranks == 1).all()) else "targets not ranked first"


def _check_loss(loss: RankingLoss) -> None:
    contracts = {"negatives": NegativesLoss, "catalogue": CatalogueLoss}
    contract = contracts.get(getattr(loss, "compares", ""))
    if contract is None:
        raise ValueError(
            f"{type(loss).__name__} is no ranking loss; choose loss=softmax or another, or declare what it "
            f"compares: {' or '.join(contracts)}."
        )
    check_part(loss, contract, "choose loss=softmax or another")


def _check_pair(loss: RankingLoss, sampler: NegativeSampler | None) -> None:
    """Refuse a loss and a sampler that do not fit together, by what both declare."""
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


def _ranks(predictions: Sequence[dict[str, Tensor]]) -> npt.NDArray[np.float32]:
    target_ranks: npt.NDArray[np.float32] = (
        torch.cat([part["ranks"] for part in predictions]).cpu().numpy()
    )
    return target_ranks
