"""Ranking losses pass the test kit and agree with float64 loops and with each other."""

import copy
import math

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch.nn import functional as F

from matinee.config.folders import config_dir
from matinee.objectives import ranking_losses
from matinee.objectives.comparing import compare
from matinee.objectives.ranking_losses import (
    BPR,
    GBCE,
    AdaptiveHinge,
    FullSoftmax,
    Hinge,
    Pointwise,
    RankingScores,
    SampledSoftmax,
    SaturatingBPR,
    SaturatingPointwise,
    items_at_once,
)
from matinee.objectives.sampling import InBatchSampler, PopularitySampler, UniformSampler
from matinee.testing import check_ranking_loss

NUM_ITEMS = 21


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def slow_gbce(p, negatives, pq, nq):
    rate = len(negatives) / (NUM_ITEMS - 1)
    beta = rate * (0.75 * (1 - 1 / rate) + 1 / rate)
    total = beta * math.log(sigmoid(p)) + sum(math.log(1 - sigmoid(n)) for n in negatives)
    return -total / (len(negatives) + 1)


def slow_sampled_softmax(p, negatives, pq, nq):
    others = sum(
        math.exp(n) / (math.exp(q) / (1 - math.exp(pq))) for n, q in zip(negatives, nq, strict=True)
    )
    return -p + math.log(math.exp(p) + others / len(negatives))


def mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)


# name -> (loss, the loss of one target, written down as in its formula)
LOSSES = {
    "pointwise": (
        Pointwise(),
        lambda p, n, pq, nq: -math.log(sigmoid(p)) - mean(math.log(1 - sigmoid(x)) for x in n),
    ),
    "saturating_pointwise": (
        SaturatingPointwise(),
        lambda p, n, pq, nq: 1 - sigmoid(p) + mean(map(sigmoid, n)),
    ),
    "bpr": (BPR(), lambda p, n, pq, nq: -mean(math.log(sigmoid(p - x)) for x in n)),
    "saturating_bpr": (
        SaturatingBPR(),
        lambda p, n, pq, nq: 1 - mean(sigmoid(p - x) for x in n),
    ),
    "hinge": (Hinge(), lambda p, n, pq, nq: mean(max(0, 1 - p + x) for x in n)),
    "hinge_of_half": (Hinge(0.5), lambda p, n, pq, nq: mean(max(0, 0.5 - p + x) for x in n)),
    "adaptive_hinge": (AdaptiveHinge(), lambda p, n, pq, nq: max(0, 1 - p + max(n))),
    "sampled_softmax": (SampledSoftmax(), slow_sampled_softmax),
    "gbce": (GBCE(t=0.75), slow_gbce),
}


@pytest.fixture(params=LOSSES)
def loss_and_slow(request):
    loss, slow = LOSSES[request.param]
    loss.fit(NUM_ITEMS)
    return loss, slow


@pytest.mark.parametrize("name", LOSSES)
def test_sampled_loss_passes_the_kit(name):
    check_ranking_loss(lambda: copy.deepcopy(LOSSES[name][0]))


@pytest.mark.parametrize("chunk_size", [None, 7])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_full_softmax_passes_the_kit(chunk_size, label_smoothing):
    check_ranking_loss(lambda: FullSoftmax(chunk_size, label_smoothing))


def make_scores(n: int, k: int, dtype=torch.float64, seed: int = 0) -> RankingScores:
    generator = torch.Generator().manual_seed(seed)
    positive, negative = (2 * torch.randn(s, generator=generator) for s in ((n,), (n, k)))
    log_q = torch.rand(n, k + 1, generator=generator).mul(0.2).add(0.01).log()
    columns = positive, negative, log_q[:, 0], log_q[:, 1:]
    return RankingScores(*(column.to(dtype) for column in columns))


@pytest.mark.parametrize(("n", "k"), [(7, 5), (1, 5), (7, 1), (1, 1)])
def test_sampled_losses_against_a_loop(loss_and_slow, n, k):
    loss, slow = loss_and_slow
    scores = make_scores(n, k)
    rows = zip(*(column.tolist() for column in scores[:4]), strict=True)
    assert loss(scores).item() == pytest.approx(mean(slow(*row) for row in rows), rel=1e-10)


def test_saturating_losses_hardly_learn_from_a_bad_mistake():
    wrong = RankingScores(torch.tensor([-20.0]), torch.tensor([[20.0]]), *torch.zeros(2, 1, 1))
    for steep, flat in ((Pointwise(), SaturatingPointwise()), (BPR(), SaturatingBPR())):
        gradients = []
        for loss in (steep, flat):
            positive = wrong.positive.clone().requires_grad_()
            loss(wrong._replace(positive=positive)).backward()
            gradients.append(float(positive.grad))
        assert gradients[0] == pytest.approx(-1, abs=1e-6)
        assert abs(gradients[1]) < 1e-6


def test_gbce_without_calibration_is_binary_cross_entropy():
    loss = GBCE(t=0)
    loss.fit(NUM_ITEMS)
    scores = make_scores(6, 4)
    logits = torch.cat((scores.positive[:, None], scores.negative), 1)
    labels = torch.zeros_like(logits)
    labels[:, 0] = 1
    torch.testing.assert_close(loss(scores), F.binary_cross_entropy_with_logits(logits, labels))


def test_gbce_of_more_draws_than_items():
    loss = GBCE(t=1)
    loss.fit(3)
    scores = make_scores(2, 4)  # the rate counts as 1, and so does beta
    expected = F.softplus(-scores.positive) + F.softplus(scores.negative).sum(1)
    torch.testing.assert_close(loss(scores), expected.mean() / 5)


def test_refused_options():
    for make in (Hinge, AdaptiveHinge):
        for margin in (0.0, -1.0, math.nan, math.inf):
            with pytest.raises(ValueError, match="margin"):
                make(margin)
    for t in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=r"^t is"):
            GBCE(t)
    with pytest.raises(ValueError, match="at least 2"):
        GBCE().fit(1)
    with pytest.raises(RuntimeError, match="call fit"):
        GBCE()(make_scores(1, 1))
    with pytest.raises(ValueError, match="chunk_size is 0"):
        FullSoftmax(0)


def softmax_inputs(n: int, num_items: int, dim: int = 4, scale: float = 1.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    shapes = (n, dim), (num_items + 1, dim), (num_items + 1,)
    tensors = [scale * torch.randn(shape, generator=generator) for shape in shapes]
    targets = torch.randint(1, num_items + 1, (n,), generator=generator)
    return [x.to(dtype).requires_grad_() for x in tensors], targets


def value_and_gradients(loss, tensors, targets):
    value = 3 * loss(*tensors, targets)  # an incoming gradient other than 1
    return [value, *torch.autograd.grad(value, tensors)]


@pytest.mark.parametrize("chunk_size", [1, 4, 10, 11, 100, None])
@pytest.mark.parametrize("n", [1, 7])
def test_full_softmax_against_a_loop(chunk_size, n):
    tensors, targets = softmax_inputs(n, 11)
    r, w, b = (x.detach().numpy() for x in tensors)
    expected = 0.0
    for row, target in zip(r, targets.tolist(), strict=True):
        scores = [float(row @ w[i] + b[i]) for i in range(1, 12)]  # padding is no candidate
        expected += math.log(sum(map(math.exp, scores))) - scores[target - 1]
    loss = FullSoftmax(chunk_size)
    assert loss(*tensors, targets).item() == pytest.approx(expected / n, rel=1e-12)


@pytest.mark.parametrize("scale", [1.0, 30.0])  # with and without a shift of the exponents
def test_chunked_and_plain_softmax_agree(scale):
    tensors, targets = softmax_inputs(9, 23, scale=scale)
    plain = value_and_gradients(FullSoftmax(23), tensors, targets)
    chunked = value_and_gradients(FullSoftmax(5), tensors, targets)
    for one, other in zip(plain, chunked, strict=True):
        torch.testing.assert_close(one, other)
    assert not chunked[2][0].any()  # padding is not pushed anywhere
    assert chunked[3][0] == 0


@pytest.mark.parametrize("chunk_size", [4, None])
def test_label_smoothing_is_that_of_pytorch(chunk_size):
    tensors, targets = softmax_inputs(9, 23)
    found = value_and_gradients(FullSoftmax(chunk_size, 0.2), tensors, targets)

    def expected(r, w, b, targets):
        return F.cross_entropy(F.linear(r, w[1:], b[1:]), targets - 1, label_smoothing=0.2)

    for one, other in zip(found, value_and_gradients(expected, tensors, targets), strict=True):
        torch.testing.assert_close(one, other)
    for share in (-0.1, 1.0, math.nan):
        with pytest.raises(ValueError, match="label_smoothing is"):
            FullSoftmax(label_smoothing=share)


def test_chunks_are_chosen_by_size_without_changing_the_result():
    tensors, targets = softmax_inputs(300, 9000, dtype=torch.float32)  # 2.7 million scores
    chosen = value_and_gradients(FullSoftmax(), tensors, targets)
    plain = value_and_gradients(FullSoftmax(10**6), tensors, targets)
    assert type(chosen[0].grad_fn.next_functions[0][0]).__name__ == "_ChunkedCrossEntropyBackward"
    for one, other in zip(plain, chosen, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("num_targets", "num_items", "on_cpu", "on_accelerator"),
    [
        (0, 1000, 1000, 1000),
        (2**11, 2**10, 2**10, 2**10),  # as many scores as are made at once on a CPU
        (2**11, 2**10 + 1, 2**9, 2**10 + 1),
        (2**13, 2**13, 2**7, 2**13),  # the same for an accelerator
        (2**13, 2**13 + 1, 2**7, 2**13),
        (2000, 1_000_000, 524, 33_554),
        (2**20, 1000, 128, 128),  # never fewer
    ],
)
def test_chunks_of_the_catalogue(num_targets, num_items, on_cpu, on_accelerator):
    assert items_at_once(num_targets, num_items, "cpu") == on_cpu
    for device_type in ("cuda", "npu", "mps"):
        assert items_at_once(num_targets, num_items, device_type) == on_accelerator


@pytest.mark.parametrize("chunk_size", [3, 100])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_full_softmax_has_the_right_gradient(chunk_size, scale):
    tensors, targets = softmax_inputs(3, 7, scale=scale)
    loss = FullSoftmax(chunk_size)
    assert torch.autograd.gradcheck(lambda *x: loss(*x, targets), tensors)


@pytest.mark.parametrize("frozen", [(0,), (1,), (2,), (0, 2), (1, 2)])
def test_chunked_softmax_with_frozen_inputs(frozen):
    tensors, targets = softmax_inputs(4, 9)
    for place in frozen:
        tensors[place].requires_grad_(False)
    wanted = [x for x in tensors if x.requires_grad]
    for loss in (FullSoftmax(2), FullSoftmax(9)):
        gradients = torch.autograd.grad(loss(*tensors, targets), wanted)
        if loss.chunk_size == 2:
            chunked = gradients
    for one, other in zip(chunked, gradients, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("chunk_size", [1, None])
def test_full_softmax_of_one_item_is_certain(chunk_size):
    tensors, targets = softmax_inputs(2, 1)
    assert FullSoftmax(chunk_size)(*tensors, targets).item() == pytest.approx(0, abs=1e-12)


def test_full_softmax_takes_narrow_ids_and_scores_out_of_range():
    (r, w, b), targets = softmax_inputs(4, 9, dtype=torch.float32)
    wild = 1e4 * r
    plain, chunked = (FullSoftmax(size)(wild, w, b, targets.int()) for size in (9, 2))
    assert chunked.isfinite()
    torch.testing.assert_close(plain, chunked)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("scale", [9.4, 10.0])
def test_chunked_softmax_shifts_exponents_that_float32_cannot_hold(sign, scale):
    """exp(90) is infinite in float32 and exp(-90) has lost its digits."""
    generator = torch.Generator().manual_seed(0)
    r, b = torch.full((2, 1), scale), torch.zeros(10)
    w = sign * 10 + torch.randn(10, 1, generator=generator) / 10
    tensors = [x.requires_grad_() for x in (r, w, b)]
    targets = torch.tensor([3, 9])
    exact = value_and_gradients(FullSoftmax(9), [x.double() for x in tensors], targets)
    chunked = value_and_gradients(FullSoftmax(4), tensors, targets)
    for one, other in zip(chunked, exact, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-4)


def test_chunked_softmax_is_precise_under_autocast():
    (r, w, b), targets = softmax_inputs(40, 90, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = F.linear(r, torch.eye(4))
        assert half.dtype == torch.bfloat16
        value = FullSoftmax(16)(half, w, b, targets)
        value.backward()
    assert value.dtype == torch.float32
    expected = FullSoftmax(90)(half.float(), w, b, targets)
    torch.testing.assert_close(value, expected)
    assert r.grad.isfinite().all()


def test_chunked_softmax_never_holds_all_scores():
    """The largest tensor of a step is a chunk or a table, not the 20 million scores."""
    (r, w, b), targets = softmax_inputs(1000, 20_000, dtype=torch.float32)
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        FullSoftmax()(r, w, b, targets).backward()
    peak = max(event.self_cpu_memory_usage for event in profile.events())
    assert 0 < peak <= 4 * 2**20


class Table:
    """Scores items by a table, as a sequence network does, in the plainest way."""

    def __init__(self, weights, biases):
        self.weights, self.biases = weights, biases

    def score(self, representations, item_ids):
        if item_ids.dim() == 1:
            item_ids = item_ids.unsqueeze(1)
            return self.score(representations, item_ids).squeeze(1)
        item_ids = item_ids.expand(len(representations), -1)
        products = torch.einsum("nd,nkd->nk", representations, self.weights[item_ids])
        return products + self.biases[item_ids]


@pytest.mark.parametrize("sampler", [UniformSampler, PopularitySampler])
def test_shared_negatives_against_a_loop(loss_and_slow, sampler):
    """The negatives of a target are those of the draw that are other items."""
    loss, slow = loss_and_slow
    (r, w, b), _ = softmax_inputs(8, 6, scale=0.7)
    targets = torch.tensor([1, 2, 3, 4, 5, 6, 1, 2])
    negatives = sampler(num_negatives=9, shared=True)
    negatives.fit(np.array([0, 4, 1, 2, 9, 3, 1]))
    torch.manual_seed(2)
    drawn = negatives.sample(targets)[0].tolist()
    log_q = negatives.log_probability(torch.arange(7)).tolist()
    assert len(drawn) == 9, "one draw for all"
    assert len({drawn.count(target) for target in targets.tolist()}) > 2, "some are hit"
    expected, counts = [], []
    for represented, target in zip(r, targets.tolist(), strict=True):
        scores = (w @ represented + b).tolist()
        others = [item for item in drawn if item != target]
        kept = [scores[item] for item in others], log_q[target], [log_q[item] for item in others]
        expected.append(slow(scores[target], *kept))
        counts.append(len(others))
    torch.manual_seed(2)
    scores = compare(Table(w, b), negatives, r, targets)
    assert scores.counted.tolist() == counts
    assert loss(scores).item() == pytest.approx(mean(expected), rel=1e-6)


def test_a_shared_draw_of_nothing_but_the_target():
    """Losses that compare differences are then 0, and none has a value that is not finite."""
    negatives = UniformSampler(num_negatives=2, shared=True)
    negatives.fit(np.ones(3))
    (r, w, b), _ = softmax_inputs(1, 2)
    torch.manual_seed(0)
    scores = compare(Table(w, b), negatives, r, torch.tensor([1]))
    while scores.counted.item() > 0:
        scores = compare(Table(w, b), negatives, r, torch.tensor([1]))
    for loss, _ in LOSSES.values():
        loss.fit(2)
        value = loss(scores)
        gradients = torch.autograd.grad(value, (r, w, b), retain_graph=True)
        assert all(found.isfinite().all() for found in (value, *gradients))
    for loss in (BPR(), Hinge(), AdaptiveHinge(), SampledSoftmax()):
        assert loss(scores) == 0


def test_a_shared_draw_may_compare_a_target_with_itself():
    negatives = UniformSampler(num_negatives=9, exclude_target=False, shared=True)
    negatives.fit(np.ones(3))
    (r, w, b), targets = softmax_inputs(4, 2)
    scores = compare(Table(w, b), negatives, r, targets)
    assert scores.counted is None
    assert scores.negative.isfinite().all()


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("sampler", [UniformSampler, PopularitySampler])
def test_sampled_softmax_tends_to_the_full_one(sampler, shared):
    torch.manual_seed(0)
    (r, w, b), targets = softmax_inputs(6, 30, dtype=torch.float32)
    negatives = sampler(num_negatives=20_000, shared=shared)
    negatives.fit(np.arange(31) ** 2)
    full = FullSoftmax()(r, w, b, targets)
    estimate = SampledSoftmax()(compare(Table(w, b), negatives, r, targets))
    assert estimate.item() == pytest.approx(full.item(), rel=0.02)
    for one, other in zip(
        torch.autograd.grad(estimate, (r, w, b)),
        torch.autograd.grad(full, (r, w, b)),
        strict=True,
    ):
        assert (one - other).norm() < 0.05 * other.norm()


@pytest.mark.parametrize("uniform_share", [0.0, 0.5])
def test_sampled_softmax_of_a_batch_tends_to_the_full_one(uniform_share):
    torch.manual_seed(0)
    (r, w, b), _ = softmax_inputs(6, 30, dtype=torch.float32)
    counts = torch.arange(31) ** 2 + 3
    counts[0] = 0
    targets = torch.multinomial(counts.float(), 5_000, replacement=True)
    r = r.detach()[torch.arange(5_000) % 6].requires_grad_()
    negatives = InBatchSampler(num_negatives=5_000, uniform_share=uniform_share)
    negatives.fit(counts.numpy())
    full = FullSoftmax()(r, w, b, targets)
    estimate = SampledSoftmax()(compare(Table(w, b), negatives, r, targets))
    assert estimate.item() == pytest.approx(full.item(), rel=0.02)
    one, other = (torch.autograd.grad(loss, w)[0] for loss in (estimate, full))
    assert (one - other).norm() < 0.1 * other.norm()


def test_every_loss_has_a_config_with_its_defaults():
    configured = set()
    for path in (config_dir() / "loss").glob("*.yaml"):
        config = OmegaConf.load(path)
        if config._target_.startswith("matinee.objectives.ranking_losses."):
            loss = instantiate(config)
            configured.add(type(loss).__name__)
            default = type(loss)()
            assert {key: getattr(default, key) for key in config if key != "_target_"} == {
                key: value for key, value in config.items() if key != "_target_"
            }
    public = {
        name
        for name, value in vars(ranking_losses).items()
        if isinstance(value, type) and value.__module__ == ranking_losses.__name__
    }
    assert configured == {name for name in public if name[0] != "_"} - {"RankingScores"}
