"""Contracts: what the parts of an experiment ask of each other.

A part fulfils a contract by having its attributes and methods; it need not inherit from it. Nothing
here needs Lightning or Hydra. Ids are integers: users 1..num_users, items 1..num_items, and 0 stands
for an unknown user, an unknown item or padding.
"""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt
from torch import Tensor

from matinee.data.interactions import Interactions
from matinee.data.segments import Evaluated, Masks
from matinee.data.splits import Split


@dataclass(frozen=True)
class Headline:
    """The metric by which the models of a task are selected and compared.

    Attributes:
        metric: Name without the stage, such as ``rmse``. ``per_user.npz`` holds the metric of every
            user or window under this name.
        higher_is_better: Whether a higher value is better.
        power: Exponent of the power mean that leads from these values to the metric over all rows,
            ``mean(value ** power) ** (1 / power)``: 2 for RMSE, 1 for an average.
    """

    metric: str
    higher_is_better: bool
    power: int = 1

    @property
    def monitor(self) -> str:
        """Name of the validation metric, such as ``val/rmse``."""
        return f"val/{self.metric}"

    @property
    def mode(self) -> Literal["min", "max"]:
        """The direction, as callbacks write it."""
        return "max" if self.higher_is_better else "min"

    def goodness(self, value: float) -> float:
        """Return the value, negated where lower is better, so that higher is always better."""
        return value if self.higher_is_better else -value


Rows = tuple[Tensor, ...]  # what the tables of a network hold for some ids, (batch, dim) each


class RankingScores(NamedTuple):
    """Scores of n targets and of k negatives each, with the log-probability of drawing each item.

    Negatives that all targets share include some targets. Where ``counted`` is given, these do not
    count: their score is minus infinity, and a mean over negatives is taken by :meth:`mean`. See also
    :meth:`NegativeSampler.log_probability`.
    """

    positive: Tensor  # float, (n,)
    negative: Tensor  # float, (n, k)
    positive_log_q: Tensor  # float, (n,)
    negative_log_q: Tensor  # float, (n, k), or (1, k) where all targets share their negatives
    counted: Tensor | None = (
        None  # float, (n,), negatives that count, at least 0; None: all of them
    )

    def mean(self, losses: Tensor) -> Tensor:
        """Average over the negatives that count: losses, 0 for the others, (n, k) to (n,)."""
        if self.counted is None:
            return losses.mean(-1)
        return losses.sum(-1) / self.num_negatives

    @property
    def num_negatives(self) -> Tensor:
        """How many negatives count, to divide by, at least 1: (n,), or a scalar if all do."""
        if self.counted is None:
            return self.negative.new_full((), self.negative.shape[-1])
        return self.counted.clamp_min(1)


def lacking(part: object, contract: type) -> list[str]:
    """List the methods and attributes of a contract that a part lacks; of a class, methods alone.

    >>> lacking(dict, PairNetwork)
    ['lookup', 'score', 'tables']
    """
    contracts = contract.__mro__[
        -4::-1
    ]  # without Protocol, Generic and object; the contract is last
    methods = [name for each in contracts for name in vars(each)]
    attributes = [name for each in contracts for name in each.__annotations__]
    declared = methods if isinstance(part, type) else attributes + methods
    return [name for name in declared if not name.startswith("_") and not hasattr(part, name)]


class RatingLoss(Protocol):
    """Compares scores with ratings, and converts scores to ratings."""

    def fit(self, ratings: npt.NDArray[np.float32]) -> None:
        """Learn from the ratings of train, shape (rows,), before the network is made."""

    @property
    def initial_score(self) -> float:
        """The score that an untrained network gives to every pair."""

    def rating(self, scores: Tensor) -> Tensor:
        """Convert scores to ratings on the scale of the data, same shape."""

    def __call__(self, scores: Tensor, ratings: Tensor) -> Tensor:
        """Average the loss over a batch: scores and ratings, (batch,) each, to a scalar."""


class NegativesLoss(Protocol):
    """Compares the score of each target with the scores of sampled items."""

    compares: Literal["negatives"]
    needs_excluded_target: bool  # whether a target must never be among its own negatives
    needs_uniform_negatives: bool  # whether all items must be equally likely negatives

    def fit(self, num_items: int) -> None:
        """Set the size of the catalogue, without the padding, before training."""

    def __call__(self, scores: RankingScores) -> Tensor:
        """Average the loss over the targets, to a scalar."""


class CatalogueLoss(Protocol):
    """Compares the score of each target with the scores of all items."""

    compares: Literal["catalogue"]

    def fit(self, num_items: int) -> None:
        """Set the size of the catalogue, without the padding, before training."""

    def __call__(
        self, representations: Tensor, item_weights: Tensor, item_biases: Tensor, target_ids: Tensor
    ) -> Tensor:
        """Average the loss over n targets, to a scalar.

        Args:
            representations: Representations of the histories, (n, dim).
            item_weights: Item embeddings, (num_items + 1, dim); row 0 is no candidate.
            item_biases: Item biases, (num_items + 1,).
            target_ids: Targets in 1..num_items, (n,).
        """


RankingLoss = NegativesLoss | CatalogueLoss  # told apart by ``compares``


class NegativeSampler(Protocol):
    """Draws items for a loss that compares targets with negatives."""

    num_negatives: int  # per target, at least 1
    exclude_target: bool  # whether a target is never its own negative
    is_uniform: bool  # whether all items are equally likely

    def fit(self, item_counts: npt.NDArray[np.integer]) -> None:
        """Learn the catalogue from the counts of the items in train, (num_items + 1,); 0 is ignored."""

    def sample(self, target_ids: Tensor) -> Tensor:
        """Draw negatives: targets (n,) to int64 (n, num_negatives) in 1..num_items.

        A sampler may draw (1, num_negatives) instead: all targets then share the draw. Where such a
        draw hits a target, :func:`matinee.objectives.comparing.compare` excludes it.
        """

    def log_probability(self, item_ids: Tensor) -> Tensor:
        """Return the log-probability of items in a draw that may hit the target, float32, same shape.

        Where the target is excluded, every other item is more likely by the factor
        1 / (1 - probability of the target).
        """


@runtime_checkable
class ClosedForm(Protocol):
    """A network that is solved, not trained."""

    def fit(self, *columns: Any) -> None:
        """Solve for the buffers of the network, from all of train.

        Args:
            columns: Users and items of the rows, (rows,) each; a pair network gets the ratings as
                well. The rows of a user come in time order.
        """


class PairNetwork(Protocol):
    """Scores pairs of users and items; made from ``num_users``, ``num_items`` and ``initial_score``.

    Rows are deviations from what is expected of an unknown id, so shrinking them to 0 is shrinking
    to the unknown.
    """

    def lookup(self, user_ids: Tensor, item_ids: Tensor) -> tuple[Rows, Rows]:
        """Look up the rows of users and of items, ids (batch,) to rows (batch, dim)."""

    def score(self, user_rows: Rows, item_rows: Rows) -> Tensor:
        """Score looked-up rows, to (batch,)."""

    def __call__(self, user_ids: Tensor, item_ids: Tensor) -> Tensor:
        """Score pairs of ids, (batch,) each, to (batch,)."""

    def tables(self) -> Mapping[str, Tensor]:
        """Return the embeddings, ``users`` (num_users + 1, dim) and ``items`` (num_items + 1, dim)."""


@runtime_checkable
class GridNetwork(Protocol):
    """A pair network that scores many users and many items at once, which is faster than pair by pair."""

    def score_all(self, user_rows: Rows, item_rows: Rows) -> Tensor:
        """Score all pairs of looked-up rows, (n, dim) and (m, dim), to (n, m)."""


class RatedHistories(NamedTuple):
    """Histories of ratings in order, and ratings to predict from their beginnings.

    A prediction reads the first ``known`` rows of its history and nothing later.
    """

    user_ids: Tensor  # int64, (batch,), 0 where unknown
    item_ids: Tensor  # int64, (batch, length), 0 where unknown, and as padding on the right
    ratings: Tensor  # float32, (batch, length)
    offsets: Tensor  # float32, (batch, length, 2), of item and user before each rating
    times: Tensor  # int64, (batch, length), seconds since the first row
    rows: Tensor  # int64, (n,), the history of each prediction
    known: Tensor  # int64, (n,), the number of its rows that the prediction reads
    target_ids: Tensor  # int64, (n,), 0 where unknown
    target_states: Tensor  # float32, (n, 4), running offsets and counts, of the item first
    target_ratings: Tensor  # float32, (n,)


class ScoreScale(NamedTuple):
    """What a network of rated histories has to know of the ratings of train and of the loss."""

    mean: float  # of the ratings
    deviation: float  # their standard deviation, greater than 0
    initial_score: float  # the score that means the mean rating
    per_rating: float  # how much the score rises there with the rating

    def score(self, ratings: Tensor) -> Tensor:
        """Return the scores that mean given ratings near the mean, same shape."""
        return self.initial_score + (ratings - self.mean) * self.per_rating


class LiveNetwork(Protocol):
    """Predicts ratings from rated histories; made from ``num_users``, ``num_items`` and ``scale``."""

    def read(self, batch: RatedHistories) -> Tensor:
        """Score the targets of a batch, (n,), each from what it may see; padding changes nothing."""

    def looked_up(self, batch: RatedHistories) -> Rows:
        """Return the rows that the penalty of the task shrinks, (n, dim) each."""

    def tables(self) -> Mapping[str, Tensor]:
        """Return the embeddings, as :meth:`PairNetwork.tables`; networks without any return none."""


class JointLiveNetwork(LiveNetwork, Protocol):
    """A live network that also scores all items as the next one of each history."""

    def known(self, batch: RatedHistories) -> Tensor:
        """Represent what each prediction of a batch may see, (n, dim)."""

    def rate(self, known: Tensor, batch: RatedHistories) -> Tensor:
        """Score the targets of a batch as :meth:`read` does, given what :meth:`known` returned, (n,)."""

    def choose(self, known: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what scores the next items as in :class:`CatalogueLoss`.

        Representations (n, dim), weights (num_items + 1, dim) and biases (num_items + 1,).
        """


class Encoder(Protocol):
    """Encodes histories; made from ``embedding_dim``, and ``num_users`` if it needs users.

    Its class may declare what is False otherwise: ``ignores_history``, that its outputs depend on the
    user alone; ``needs_users``, to be called with the user ids, (batch,), after the inputs, and to have
    ``tables()`` like a network, for the embeddings of the users; and ``needs_times``, to be called with
    the times, (batch, length), after these.

    The time of a position is that of its newest item, in seconds since the first item of the row, and 0
    for the empty history. All are 0 where times are not known.
    """

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Encode (batch, length, dim) as (batch, length, dim); a position never sees later ones."""


State = tuple[Any, ...]  # of a recurrent encoder: tensors, or tuples of them, with the batch first


@runtime_checkable
class RecurrentEncoder(Encoder, Protocol):
    """An encoder that reads step by step, so that a history can be continued from the state after a part."""

    def initial_state(self, batch_size: int) -> State:
        """Return the state before the first step."""

    def unroll(self, inputs: Tensor, state: State, *context: Tensor) -> tuple[Tensor, State]:
        """Encode the next part (batch, length, dim) as (batch, length, dim); also return the state after it.

        ``context`` is what else the encoder is called with, such as the user ids.
        """


class Ranker(Protocol):
    """Scores all items after a history; made from ``num_items`` and ``num_users``.

    A history begins with 0 and is padded with 0 on the right; scores depend on nothing else of the
    batch.
    """

    ignores_history: bool  # whether its scores depend on the user alone

    def score_next(self, histories: Tensor, lengths: Tensor, user_ids: Tensor) -> Tensor:
        """Score all items as the next ones after some histories.

        Args:
            histories: Item ids, (batch, length); unknown items are 0 as well.
            lengths: Number of positions that are not padding, at least 1, (batch,).
            user_ids: The users of the histories; 0 where unknown, (batch,).

        Returns:
            Scores (batch, num_items + 1), which the caller may change; column 0 is minus infinity.

        A network that declares ``needs_times`` has ``times`` as a fourth argument, see
        :class:`Encoder`; without it all are 0.
        """

    def tables(self) -> Mapping[str, Tensor]:
        """Return the embeddings, as :meth:`PairNetwork.tables`; networks without any return none."""


class SequenceNetwork(Ranker, Protocol):
    """A ranker that is trained: it represents every position, and items are scored against that.

    A position never sees later ones. A network may have a ``prior``, a network in closed form that is
    solved at the start of the fit.
    """

    def represent(self, histories: Tensor, user_ids: Tensor) -> Tensor:
        """Represent every position: ids (batch, length) of users (batch,) to (batch, length, dim).

        A network that declares ``needs_times`` has ``times`` as a third argument.
        """

    def item_table(self) -> tuple[Tensor, Tensor]:
        """Return what scores the catalogue: weights (num_items + 1, dim), biases (num_items + 1,)."""

    def score(self, representations: Tensor, item_ids: Tensor) -> Tensor:
        """Score chosen items, ids (...) or (..., k) for (..., dim), to the shape of the ids.

        Ids (1, k) are scored for each of n representations (n, dim), to (n, k).
        """

    def score_all(self, representations: Tensor) -> Tensor:
        """Score all items, (..., dim) to (..., num_items + 1); column 0 is minus infinity."""


Network = PairNetwork | LiveNetwork | Ranker  # what a task trains or solves


class DataModule(Protocol):
    """Data that were split, as batches; stages are ``train``, ``val`` and ``test``.

    Attributes:
        interactions: The whole table.
        split: Which rows are train, validation and test.
    """

    interactions: Interactions
    split: Split

    @property
    @abstractmethod
    def warm(self) -> tuple[Tensor, Tensor]:
        """Which ids train holds: users (num_users + 1,) and items (num_items + 1,), bool."""

    @property
    @abstractmethod
    def protocol(self) -> dict[str, Any]:
        """What must be equal for metrics to be comparable, as plain values."""

    @property
    def measured(self) -> Sequence[str]:
        """The stages to measure after a fit, in order; validation and test are always among them."""
        return ("train", "val", "test")

    @abstractmethod
    def train_dataloader(self, rank: int = 0, world_size: int = 1) -> Iterable[Any]:
        """Return the training batches of one of the processes that share an epoch."""

    @abstractmethod
    def evaluation_dataloader(self, stage: str) -> Iterable[Any]:
        """Return the batches of a stage in order, train included, for measuring."""

    @abstractmethod
    def evaluated(self, stage: str) -> Evaluated:
        """Return what a stage evaluates, in the order of its batches."""

    @abstractmethod
    def segments(self, stage: str) -> Masks:
        """Return which of it lies in each segment, in the same order."""

    @abstractmethod
    def memorizable_batch(self, examples: int) -> Any:
        """Choose a batch of train that a model can learn completely, of at most so many examples."""

    def perturb(self, histories: str) -> None:
        """Evaluate with changed histories, see :mod:`matinee.batches.perturbation`.

        Raises:
            MatineeError: If batches hold no histories, or the name is unknown.
        """


Data = TypeVar("Data", bound=DataModule, contravariant=True)


class Task(Protocol[Data]):
    """A network with its loss: fitted, then measured.

    What a fit and the verbs ask of it besides is declared by
    :class:`matinee.training.tasks.base.LightningTask`.
    """

    headline: Headline  # the metric by which its models are selected

    @property
    @abstractmethod
    def protocol(self) -> dict[str, Any]:
        """What its metrics mean, as plain values."""

    @abstractmethod
    def measure(
        self, predictions: Sequence[Any], datamodule: Data, stage: str
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """Measure the predictions for a whole stage, batch by batch in order.

        Returns:
            The metrics, whole and by segment; and, as arrays of one length, ``user_id``, the headline
            metric of every user or window, and ``count``, the rows behind it, unless that is 1.
        """
