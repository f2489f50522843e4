"""The checks find what is wrong with parts that are broken in one way each."""

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from matinee import testing
from matinee.networks.encoders.pooling import Pooling
from matinee.networks.encoders.recurrent import GRU
from matinee.networks.encoders.user_conditioned import UserConditioned
from matinee.networks.encoders.users import UserFactors
from matinee.networks.pairs.factorization import BiasedMatrixFactorization
from matinee.networks.rankers.popularity import Popularity
from matinee.networks.sequence_recommender import SequenceRecommender
from matinee.objectives.ranking_losses import BPR, FullSoftmax
from matinee.objectives.rating_losses import MSE
from matinee.objectives.sampling import PopularitySampler, UniformSampler

Broken = dict[str, tuple[Callable[..., Any], str]]


class Sound(nn.Module):
    """An encoder without a fault; each broken one changes one thing."""

    def __init__(self, embedding_dim: int) -> None:
        super().__init__()
        self.gru = nn.GRU(embedding_dim, embedding_dim, batch_first=True)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.gru(inputs)[0]


def changed(before: Callable[..., Tensor] | None = None, after: Any = None) -> type[nn.Module]:
    """Make an encoder whose inputs or outputs a function of (module, tensor) changes."""

    class Changed(Sound):
        def forward(self, inputs: Tensor) -> Tensor:
            outputs = super().forward(before(self, inputs) if before else inputs)
            return after(self, outputs) if after else outputs

    return Changed


class ForgetsItsState(GRU):
    def unroll(self, inputs: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, Any]:
        return super().unroll(inputs, self.initial_state(len(inputs)))


class BothSides(nn.Module):
    def __init__(self, embedding_dim: int) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(embedding_dim, embedding_dim, 3, padding=1)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.convolution(inputs.mT).mT


class Normalized(Sound):
    def __init__(self, embedding_dim: int) -> None:
        super().__init__(embedding_dim)
        self.norm = nn.BatchNorm1d(embedding_dim)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.norm(super().forward(inputs).mT).mT


class Unused(Sound):
    def __init__(self, embedding_dim: int) -> None:
        super().__init__(embedding_dim)
        self.scale = nn.Parameter(torch.ones(()))


class Unregistered(Sound):
    def __init__(self, embedding_dim: int) -> None:
        super().__init__(embedding_dim)
        self.shift = torch.randn(embedding_dim)

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs) + self.shift.to(inputs)


class Remembering(Sound):
    last: Tensor | float = 0.0

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = super().forward(inputs) + self.last
        self.last = outputs.detach().mean().to(inputs)
        return outputs


class Frozen(Sound):
    """Has weights with gradients, but no output that they change noticeably."""

    def forward(self, inputs: Tensor) -> Tensor:
        return 1e-6 * super().forward(inputs)


class ExtraState(Sound):
    def get_extra_state(self) -> dict[str, int]:
        return {"version": 1}

    def set_extra_state(self, state: dict[str, int]) -> None: ...


class UserPadding(UserConditioned):
    def __init__(self, embedding_dim: int, num_users: int) -> None:
        super().__init__(embedding_dim, num_users, GRU)
        self.users.padding_idx = 0


class UserIgnored(UserConditioned):
    def forward(self, inputs: Tensor, user_ids: Tensor) -> Tensor:
        return self.encoder(inputs)


class HistoryRead(UserFactors):
    def forward(self, inputs: Tensor, user_ids: Tensor) -> Tensor:
        return super().forward(inputs, user_ids) + inputs


def narrow(module: nn.Module, inputs: Tensor) -> Tensor:
    return inputs + torch.zeros(()).lerp(inputs.sum() * 0, 0.5)  # float32 meets float64


ENCODERS: Broken = {
    "forgets its state": (ForgetsItsState, "unroll from the state after a part gives other scores"),
    "next": (changed(after=lambda m, x: x.roll(-1, 1)), "sees the future in training mode"),
    "both sides": (BothSides, "sees the future"),
    "mean over positions": (changed(lambda m, x: x - x.mean(1, keepdim=True)), "sees the future"),
    "batch mean": (changed(lambda m, x: x - x.mean(0)), "mixes the rows of a batch"),
    "batch normalization": (Normalized, "sees the future in training mode|mixes the rows"),
    "length": (changed(lambda m, x: x / x.shape[1]), "depends on the padding"),
    "batch size": (changed(lambda m, x: x / len(x)), "only row of its batch"),
    "squeeze": (changed(after=lambda m, x: x.squeeze(0)), r"\(1, 1\) by \(1, 16\) instead of"),
    "no batch of one": (
        changed(lambda m, x: x[1] if len(x) == 1 else x),
        "Changed fails to score histories of different sizes: IndexError",
    ),
    "not finite": (changed(lambda m, x: (x - 10).log()), "not finite"),
    "previous": (changed(lambda m, x: F.pad(x, (0, 0, 1, -1))), "not depend on the last item"),
    "dropout": (changed(lambda m, x: F.dropout(x, 0.1)), "another answer when asked again"),
    "state": (Remembering, "another answer when asked again"),
    "detached": (
        changed(lambda m, x: x.detach()),
        "row 0 of the table of items, .* is not trained",
    ),
    "unused": (Unused, r"encoder\.scale has no gradient"),
    "gradient": (
        changed(lambda m, x: x + (x - x).square().sum(-1, keepdim=True).sqrt()),
        "gradient of .* is not finite",
    ),
    "mixed precision": (
        changed(
            after=lambda m, x: x.lerp(
                m.gru(x)[0].bfloat16() if x.dtype != torch.float64 else x, 0.5
            )
        ),
        "fails in training: RuntimeError",
    ),
    "unregistered": (Unregistered, "not restored by its state dict"),
    "extra state": (ExtraState, "the state dict must hold tensors only"),
    "precision": (changed(narrow), "fails to score histories"),
    "learns nothing": (Frozen, r"does not memorize 3 histories .*knows_order=False"),
    "order": (Pooling, "pass knows_order=False"),
    "large batches": (
        changed(after=lambda m, x: x.roll(-1, 1) if len(x) > 20 else x),
        "random items, where chance is 0.18",
    ),
    "users ignored": (partial(UserIgnored, encoder=GRU), "not depend on the user"),
    "unknown user": (UserPadding, "row 0 of the table of users, .* is not trained"),
    "history read": (HistoryRead, "declares ignores_history but depends"),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_broken_encoder(name: str) -> None:
    make, sentence = ENCODERS[name]
    with pytest.raises(AssertionError, match=sentence):
        testing.check_encoder(make)


def test_sound_encoder() -> None:
    testing.check_encoder(Sound)
    with pytest.raises(AssertionError, match="Pooling does not memorize"):
        testing.check_encoder(Pooling)
    testing.check_encoder(Pooling, knows_order=False)


class Recommender(SequenceRecommender):
    def __init__(self, num_items: int, num_users: int) -> None:
        super().__init__(num_items, GRU, embedding_dim=16, num_users=num_users)


class OtherTable(Recommender):
    def item_table(self) -> tuple[Tensor, Tensor]:
        weights, biases = super().item_table()
        return weights, biases + 1

    def score_all(self, representations: Tensor) -> Tensor:
        return super().score_all(representations) - 1


class OtherScore(Recommender):
    def score(self, representations: Tensor, item_ids: Tensor) -> Tensor:
        return super().score(representations, item_ids) * 2


class OtherTables(Recommender):
    def tables(self) -> dict[str, Tensor]:
        return {"users": self.item_embeddings.weight}


class PaddingChosen(Recommender):
    def score(self, representations: Tensor, item_ids: Tensor) -> Tensor:
        return super().score(representations, item_ids).nan_to_num(neginf=0.0)


class PaddingScored(Recommender):
    def score_all(self, representations: Tensor) -> Tensor:
        return super().score_all(representations).nan_to_num(neginf=0.0)


class Undeclared(Recommender):
    def represent(self, histories: Tensor, user_ids: Tensor, times: Tensor | None = None) -> Tensor:
        return super().represent(histories) * (1 + user_ids.view(-1, 1, 1))


class RarestFirst(Popularity):
    def fit(self, user_ids: Tensor, item_ids: Tensor) -> None:
        super().fit(user_ids, item_ids)
        self.item_scores[1:] *= -1


class FirstPosition(Recommender):
    def score_next(self, histories: Tensor, lengths: Tensor, user_ids: Tensor) -> Tensor:
        return super().score_next(histories, torch.ones_like(lengths), user_ids)


class Shared(Popularity):
    def score_next(self, histories: Tensor, lengths: Tensor, user_ids: Tensor) -> Tensor:
        return self.item_scores.expand(len(histories), -1)


class Cold(Popularity):
    def score_next(self, histories: Tensor, lengths: Tensor, user_ids: Tensor) -> Tensor:
        scores = super().score_next(histories, lengths, user_ids)
        return scores.masked_fill(scores == 0, -torch.inf)


class BatchMean(Popularity):
    def score_next(self, histories: Tensor, lengths: Tensor, user_ids: Tensor) -> Tensor:
        scores = super().score_next(histories, lengths, user_ids)
        return scores + histories.double().mean()


class Padded(Popularity):
    def score_next(self, histories: Tensor, lengths: Tensor, user_ids: Tensor) -> Tensor:
        scores = super().score_next(histories, lengths, user_ids)
        return scores + (histories == 0).sum(1, keepdim=True)


class NotStored(Popularity):
    def fit(self, user_ids: Tensor, item_ids: Tensor) -> None:
        super().fit(user_ids, item_ids)
        self.counts = self.item_scores.clone()

    def score_next(self, histories: Tensor, lengths: Tensor, user_ids: Tensor) -> Tensor:
        return super().score_next(histories, lengths, user_ids) + hasattr(self, "counts")


NETWORKS: Broken = {
    "table": (OtherTable, "item_table and score_all give different scores"),
    "score": (OtherScore, "score and score_all give different scores"),
    "padding chosen": (PaddingChosen, "score and score_all give different scores"),
    "padding": (PaddingScored, "minus infinity for item 0"),
    "table of users": (OtherTables, r"tables\(\) has 21 rows of 'users'"),
    "users": (Undeclared, "depends on the user but does not declare needs_users"),
    "position": (FirstPosition, "score_next and score_all give different scores"),
    "closed form": (RarestFirst, "RarestFirst does not memorize"),
    "closed form: shared": (Shared, "after the caller has changed the first ones"),
    "closed form: cold items": (Cold, "scores that are not finite"),
    "closed form: batch": (BatchMean, "mixes the rows of a batch"),
    "closed form: padding": (Padded, "depends on the padding"),
    "closed form: state": (NotStored, "is not restored by its state dict"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_broken_sequence_network(name: str) -> None:
    make, sentence = NETWORKS[name]
    with pytest.raises(AssertionError, match=sentence):
        testing.check_sequence_network(make)


class Pair(BiasedMatrixFactorization):
    """A pair network without a fault."""


class Shaped(Pair):
    def score(self, user_rows: Any, item_rows: Any) -> Tensor:
        return super().score(user_rows, item_rows).unsqueeze(-1)


class Standardized(Pair):
    def score(self, user_rows: Any, item_rows: Any) -> Tensor:
        scores = super().score(user_rows, item_rows)
        return scores + (scores - scores.mean())


class OtherForward(Pair):
    def forward(self, user_ids: Tensor, item_ids: Tensor) -> Tensor:
        return super().forward(user_ids, item_ids) + 0.1


class StartsAtZero(Pair):
    def __init__(self, num_users: int, num_items: int, initial_score: float) -> None:
        super().__init__(num_users, num_items, 0.0)


class Centred(Pair):
    """Starts right, but only because its rows are not 0."""

    def score(self, user_rows: Any, item_rows: Any) -> Tensor:
        return super().score(user_rows, item_rows) - (user_rows[0] == 0).all(-1).float()


class DetachedRows(Pair):
    def score(self, user_rows: Any, item_rows: Any) -> Tensor:
        return super().score((user_rows[0].detach(),), item_rows)


class UnusedRows(Pair):
    def lookup(self, user_ids: Tensor, item_ids: Tensor) -> Any:
        user_rows, item_rows = super().lookup(user_ids, item_ids)
        return user_rows * 2, item_rows

    def score(self, user_rows: Any, item_rows: Any) -> Tensor:
        return super().score(user_rows[:1], item_rows)


class FlatRows(Pair):
    def lookup(self, user_ids: Tensor, item_ids: Tensor) -> Any:
        return (user_ids,), (item_ids,)

    def score(self, user_rows: Any, item_rows: Any) -> Tensor:
        return super().score(*super().lookup(user_rows[0], item_rows[0]))


class Alone(Pair):
    def score(self, user_rows: Any, item_rows: Any) -> Tensor:
        return super().score(user_rows, item_rows) + 0.1 * (len(user_rows[0]) == 1)


class Dropping(Pair):
    def score(self, user_rows: Any, item_rows: Any) -> Tensor:
        return super().score((F.dropout(user_rows[0], 0.1),), item_rows)


class ItemPadding(Pair):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.item_factors.padding_idx = 0


class OneItem(Pair):
    def lookup(self, user_ids: Tensor, item_ids: Tensor) -> Any:
        return super().lookup(user_ids, item_ids * 0)


class PairState(Pair):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.shift = float(torch.rand(()) / 10)

    def score(self, user_rows: Any, item_rows: Any) -> Tensor:
        return super().score(user_rows, item_rows) + self.shift


class OtherGrid(Pair):
    def score_all(self, user_rows: Any, item_rows: Any) -> Tensor:
        return super().score_all(user_rows, item_rows) + 0.1


class NoRows(nn.Module):
    def __init__(self, num_users: int, num_items: int, initial_score: float) -> None:
        super().__init__()

    def forward(self, user_ids: Tensor, item_ids: Tensor) -> Tensor:
        return torch.zeros(len(user_ids))


class NoUnknown(Pair):
    def lookup(self, user_ids: Tensor, item_ids: Tensor) -> Any:
        if (user_ids == 0).any():
            raise KeyError(0)
        return super().lookup(user_ids, item_ids)


PAIRS: Broken = {
    "shape": (Shaped, r"returns \(3, 1\) for 3 pairs"),
    "rows": (FlatRows, "two tuples of rows"),
    "unused rows": (UnusedRows, "score has no gradient for some rows"),
    "grid": (OtherGrid, "score_all gives other scores"),
    "alone": (Alone, "only one of its batch"),
    "dropout": (Dropping, "another answer when asked again"),
    "batch": (Standardized, "mixes the pairs of a batch"),
    "forward": (OtherForward, "other scores for the rows of lookup"),
    "start": (StartsAtZero, "scores start up to 3.* away from the initial score 3.5"),
    "zeros": (Centred, "the scores of rows of zeros start up to 1.00 away"),
    "detached": (DetachedRows, "has no gradient"),
    "unknown": (ItemPadding, "row 0 of the table of items, .* is not trained"),
    "state": (PairState, "not restored by its state dict"),
    "items": (OneItem, "does not learn ratings"),
    "incomplete": (
        NoRows,
        r"NoRows has no lookup, score, tables; see matinee\.contracts\.PairNetwork",
    ),
    "crash": (NoUnknown, "NoUnknown fails to score pairs before training: KeyError"),
}


@pytest.mark.parametrize("name", PAIRS)
def test_broken_pair_network(name: str) -> None:
    make, sentence = PAIRS[name]
    with pytest.raises(AssertionError, match=sentence):
        testing.check_pair_network(make)


def rating_loss(**methods: Any) -> type[MSE]:
    return type("Changed", (MSE,), methods)


def forward(compute: Callable[[Tensor, Tensor], Tensor]) -> dict[str, Any]:
    return {"forward": lambda self, scores, ratings: compute(scores, ratings)}


def out_of_range(self: Any, ratings: np.ndarray) -> None:
    self.initial_score = float(ratings.sum())


RATING_LOSSES: Broken = {
    "sum": (
        rating_loss(**forward(lambda s, r: (s - r).square().sum())),
        "not a mean over its rows",
    ),
    "batch": (
        rating_loss(**forward(lambda s, r: (s - r).square().sum() / 128)),
        "not a mean over its rows",
    ),
    "rows": (
        rating_loss(**forward(lambda s, r: (s - r).square())),
        "fails to train scores|finite number",
    ),
    "detached": (
        rating_loss(**forward(lambda s, r: (s.detach() - r).square().mean())),
        "fails to train",
    ),
    "sign": (rating_loss(**forward(lambda s, r: -(s - r).abs().mean())), "does not train scores"),
    "overflow": (
        rating_loss(**forward(lambda s, r: (s - r).cosh().log().mean())),
        "not finite for scores of 10,000",
    ),
    "start": (rating_loss(fit=out_of_range), "outside of the ratings of train"),
    "falling": (
        rating_loss(rating=lambda self, scores: 6 - scores),
        "a higher score must not give",
    ),
    "fit": (rating_loss(fit=lambda self: None), "Changed fails to be fitted: TypeError"),
}


@pytest.mark.parametrize("name", RATING_LOSSES)
def test_broken_rating_loss(name: str) -> None:
    make, sentence = RATING_LOSSES[name]
    with pytest.raises(AssertionError, match=sentence):
        testing.check_rating_loss(make)


class WrongBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor) -> Tensor:
        return scores.square()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


def sampled(compute: Callable[[Tensor, Tensor], Tensor]) -> type[BPR]:
    """Make a loss of positive (n,) and negative (n, k) scores."""
    methods = {"forward": lambda self, scores: compute(scores.positive, scores.negative)}
    return type("Changed", (BPR,), methods)


class CountsAll(BPR):
    """Divides by all negatives, also where some do not count."""

    def forward(self, scores: Any) -> Tensor:
        return super().forward(scores._replace(counted=None))


def margins(positive: Tensor, negative: Tensor) -> Tensor:
    return F.softplus(negative - positive.unsqueeze(-1)).mean(-1)


class PaddingCounted(FullSoftmax):
    def forward(
        self, represented: Tensor, weights: Tensor, biases: Tensor, target_ids: Tensor
    ) -> Any:
        scores = F.linear(represented, weights, biases)
        return F.cross_entropy(scores, target_ids.long(), reduction="sum") / max(len(scores), 1)


class Shifted(FullSoftmax):
    def forward(
        self, represented: Tensor, weights: Tensor, biases: Tensor, target_ids: Tensor
    ) -> Any:
        return super().forward(represented, weights, biases, target_ids % (len(weights) - 1) + 1)


class Overweighted(BPR):
    """Has a weight that is not part of the state dict."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = float(torch.rand(()))

    def forward(self, scores: Any) -> Tensor:
        return self.weight * super().forward(scores)


RANKING_LOSSES: Broken = {
    "all counted": (CountsAll, "counts negatives that do not count"),
    "sum": (sampled(lambda p, n: margins(p, n).sum()), "not a mean over its rows"),
    "batch": (sampled(lambda p, n: margins(p, n).sum() / 128), "not a mean over its rows"),
    "no targets": (sampled(lambda p, n: margins(p, n).mean()), "is nan without targets"),
    "rows": (sampled(margins), "fails to train a network: RuntimeError"),
    "sign": (
        sampled(lambda p, n: margins(-p, -n).sum() / max(len(p), 1)),
        "does not train a network to rank",
    ),
    "targets alone": (
        sampled(lambda p, n: F.softplus(-p).sum() / max(len(p), 1)),
        "does not train a network|must fall and then rise|no gradient",
    ),
    "overflow": (
        sampled(lambda p, n: (1 + margins(p, n).exp()).log().sum() / max(len(p), 1)),
        "not finite for scores of 10,000",
    ),
    "backward": (
        sampled(lambda p, n: WrongBackward.apply(margins(p, n)).sum() / max(len(p), 1)),
        "differs from a numerical gradient",
    ),
    "padding": (PaddingCounted, "counts the padding"),
    "shifted": (Shifted, "shifted by one"),
    "undeclared": (MSE, "declare compares = 'negatives'"),
    "state": (Overweighted, "not restored by its state dict"),
}


@pytest.mark.parametrize("name", RANKING_LOSSES)
def test_broken_ranking_loss(name: str) -> None:
    make, sentence = RANKING_LOSSES[name]
    with pytest.raises(AssertionError, match=sentence):
        testing.check_ranking_loss(make)


class DrawsTarget(UniformSampler):
    def sample(self, target_ids: Tensor) -> Tensor:
        return torch.randint(1, self.num_items + 1, (len(target_ids), self.num_negatives))


class NeverTarget(UniformSampler):
    """Says that it may draw the target and never does."""

    def __init__(self) -> None:
        super().__init__()
        self.exclude_target = False

    def sample(self, target_ids: Tensor) -> Tensor:
        shape = (len(target_ids), self.num_negatives)
        draws = torch.randint(1, self.num_items, shape)
        return draws + (draws >= target_ids.unsqueeze(1))


class OtherRow(UniformSampler):
    """Gives each row's negatives to another row."""

    def sample(self, target_ids: Tensor) -> Tensor:
        negatives = super().sample(torch.cat((target_ids, target_ids % 5 + 1)))
        return negatives[-len(target_ids) :] if len(target_ids) else negatives


class DrawsPadding(UniformSampler):
    def sample(self, target_ids: Tensor) -> Tensor:
        return super().sample(target_ids) - 1


class Transposed(UniformSampler):
    def sample(self, target_ids: Tensor) -> Tensor:
        return super().sample(target_ids).T


class OwnGenerator(UniformSampler):
    def sample(self, target_ids: Tensor) -> Tensor:
        shape = (len(target_ids), self.num_negatives)
        draws = torch.from_numpy(np.random.default_rng().integers(1, self.num_items, shape))
        return draws + (draws >= target_ids.unsqueeze(1))


class InPlace(UniformSampler):
    def sample(self, target_ids: Tensor) -> Tensor:
        negatives = super().sample(target_ids)
        target_ids.clamp_(max=2)
        return negatives


class Uncorrected(PopularitySampler):
    """Reports the popularity and draws its root."""

    def log_probability(self, item_ids: Tensor) -> Tensor:
        counts = torch.tensor([0.0, 1, 0, 5, 20, 74])
        return (counts / counts.sum()).log()[item_ids]


class Skewed(PopularitySampler):
    is_uniform = True


class Unnormalized(UniformSampler):
    def log_probability(self, item_ids: Tensor) -> Tensor:
        return super().log_probability(item_ids) + 1


SAMPLERS: Broken = {
    "target": (DrawsTarget, "has exclude_target but draws the target"),
    "row": (OtherRow, "has exclude_target but draws the target"),
    "padding": (DrawsPadding, "outside of 1..5"),
    "shape": (
        partial(Transposed, 3),
        r"returns torch.int64 \(3, 5\) instead of torch.int64 \(5, 3\)",
    ),
    "generator": (OwnGenerator, "must be a function of torch.manual_seed"),
    "in place": (InPlace, "changes the targets"),
    "frequencies": (Uncorrected, "draws with other frequencies"),
    "probabilities": (Unnormalized, "probabilities that sum to 1"),
    "skewed": (Skewed, "declares is_uniform"),
    "seldom": (NeverTarget, "draws with other frequencies"),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_broken_sampler(name: str) -> None:
    make, sentence = SAMPLERS[name]
    with pytest.raises(AssertionError, match=sentence):
        testing.check_sampler(make)


def test_random_state_is_left_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    testing.check_sampler(UniformSampler)
    testing.check_rating_loss(MSE)
    assert torch.equal(torch.rand(2), expected)


def test_checks_do_not_depend_on_the_random_state() -> None:
    sentences = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        with pytest.raises(AssertionError) as caught:
            testing.check_sampler(Uncorrected)
        sentences.append(str(caught.value))
    assert sentences[0] == sentences[1]


def test_kit_needs_torch_alone() -> None:
    program = (
        "import sys, matinee.testing;"
        "print(*({'lightning', 'hydra', 'omegaconf', 'pytest'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""
