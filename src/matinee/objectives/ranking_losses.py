"""Ranking losses: how far a target's score is from standing above those of other items.

A sampled loss compares n targets with k negatives each, which come from a sampler (see
:mod:`matinee.objectives.sampling`); it is a module from :class:`RankingScores` to a scalar, the mean over the
targets. :class:`FullSoftmax` compares every target with the whole catalogue and needs no sampler.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class RankingScores(NamedTuple):
    """Scores of n targets and of k negatives each, with the log of their chance to be sampled."""

    positive: Tensor  # float, (n,)
    negative: Tensor  # float, (n, k)
    positive_log_q: (
        Tensor  # float, (n,); see matinee.objectives.sampling.NegativeSampler.log_probability
    )
    negative_log_q: Tensor  # float, (n, k)


class _RankingLoss(nn.Module):
    """A loss that needs to know nothing of the data before training."""

    def fit(self, num_items: int) -> None:
        """Learn the size of the catalogue, padding not counted, before training."""


class Pointwise(_RankingLoss):
    r"""Binary cross-entropy: is this pair an interaction or not?

    .. math:: -\log \sigma(s^+) - \tfrac1k \sum_j \log(1 - \sigma(s^-_j))

    With one negative it is the loss of SASRec (Kang & McAuley, ICDM 2018). The negatives are
    averaged, so a target weighs as much as all of its negatives, however many there are.
    """

    def forward(self, scores: RankingScores) -> Tensor:
        """Scores of n targets to a scalar in nats."""
        return _mean(F.softplus(-scores.positive) + F.softplus(scores.negative).mean(-1))


class SaturatingPointwise(_RankingLoss):
    r"""The probability of being wrong about a target and about a negative.

    .. math:: 1 - \sigma(s^+) + \tfrac1k \sum_j \sigma(s^-_j)

    It is what Spotlight calls its pointwise loss, kept to reproduce figures made with it. Unlike
    :class:`Pointwise` its gradient vanishes for a pair that is badly wrong.
    """

    def forward(self, scores: RankingScores) -> Tensor:
        """Scores of n targets to a scalar in [0, 2]."""
        # 1 - sigmoid(s) is sigmoid(-s), without the cancellation
        return _mean(torch.sigmoid(-scores.positive) + torch.sigmoid(scores.negative).mean(-1))


class BPR(_RankingLoss):
    r"""Bayesian personalised ranking (Rendle et al., UAI 2009).

    .. math:: -\tfrac1k \sum_j \log \sigma(s^+ - s^-_j)

    The paper's L2 term is the optimizer's matter here.
    """

    def forward(self, scores: RankingScores) -> Tensor:
        """Scores of n targets to a scalar in nats."""
        return _mean(F.softplus(-_margins(scores)).mean(-1))


class SaturatingBPR(_RankingLoss):
    r"""The probability of ranking a negative above the target.

    .. math:: 1 - \tfrac1k \sum_j \sigma(s^+ - s^-_j)

    It is what Spotlight calls its BPR loss, kept to reproduce figures made with it.
    """

    def forward(self, scores: RankingScores) -> Tensor:
        """Scores of n targets to a scalar in [0, 1]."""
        return _mean(torch.sigmoid(-_margins(scores)).mean(-1))


class Hinge(_RankingLoss):
    r"""A target should score above its negatives by a margin.

    .. math:: \tfrac1k \sum_j \max(0, m - s^+ + s^-_j)

    Args:
        margin: The margin :math:`m` in units of the score, greater than 0.
    """

    def __init__(self, margin: float = 1.0) -> None:
        super().__init__()
        self.margin = _positive(margin, "margin")

    def forward(self, scores: RankingScores) -> Tensor:
        """Scores of n targets to a scalar of at least 0."""
        return _mean(F.relu(self.margin - _margins(scores)).mean(-1))


class AdaptiveHinge(_RankingLoss):
    r"""A target should score above the hardest of its negatives by a margin.

    .. math:: \max(0, m - s^+ + \max_j s^-_j)

    The hardest of k draws stands in for the search of WARP, which draws until it finds a violator
    (Weston, Bengio & Usunier, IJCAI 2011); WARP's weight by the estimated rank is left out, as in
    Spotlight, where k is 5.

    Args:
        margin: The margin :math:`m` in units of the score, greater than 0.
    """

    def __init__(self, margin: float = 1.0) -> None:
        super().__init__()
        self.margin = _positive(margin, "margin")

    def forward(self, scores: RankingScores) -> Tensor:
        """Scores of n targets to a scalar of at least 0."""
        return _mean(F.relu(self.margin - scores.positive + scores.negative.amax(-1)))


class SampledSoftmax(_RankingLoss):
    r"""Cross-entropy over the catalogue, its other items estimated from the negatives.

    .. math::
        -s^+ + \log\Big(e^{s^+} + \tfrac1k \sum_j \frac{e^{s^-_j}}{q'(j)}\Big), \qquad
        q'(j) = \frac{q(j)}{1 - q(+)}

    The negatives must be drawn with ``exclude_target: true``; :math:`q'` is then their
    distribution, the sum an unbiased estimate of that over all other items, and the loss tends to
    :class:`FullSoftmax` as k grows. The classical correction (Bengio & Senécal, IEEE TNN 2008;
    Jean et al., ACL 2015) also takes :math:`\log q(+)` from the target's score. That treats the
    target, which is always there, as if it had been drawn, and does not tend to the full softmax
    (Khrylchenko et al., RecSys 2025); hence the deviation.
    """

    def forward(self, scores: RankingScores) -> Tensor:
        """Scores of n targets to a scalar in nats."""
        num_negatives = scores.negative.shape[-1]
        others = torch.log1p(-scores.positive_log_q.exp()) - math.log(num_negatives)
        logits = scores.negative - scores.negative_log_q + others.unsqueeze(-1)
        logits = torch.cat((scores.positive.unsqueeze(-1), logits), -1)
        return _mean(logits.logsumexp(-1) - scores.positive)


class GBCE(_RankingLoss):
    r"""Generalised binary cross-entropy against overconfidence (Petrov & Macdonald, RecSys 2023).

    .. math::
        -\tfrac1{k+1} \Big(\beta \log \sigma(s^+) + \sum_j \log(1 - \sigma(s^-_j))\Big), \qquad
        \beta = \alpha \Big(t \big(1 - \tfrac1\alpha\big) + \tfrac1\alpha\Big)

    with the sampling rate :math:`\alpha = k / (\text{num\_items} - 1)`. It is meant for uniform
    negatives that exclude the target; the paper's gSASRec draws 256 with t = 0.75.

    Args:
        t: Calibration in [0, 1]: 0 is binary cross-entropy, with 1 the sigmoid tends to the
            softmax's probability.
    """

    def __init__(self, t: float = 0.75) -> None:
        super().__init__()
        if not 0 <= t <= 1:
            raise ValueError(f"loss.t is {t}; give a number from 0 to 1.")
        self.t = t
        self.num_items = 0

    def fit(self, num_items: int) -> None:
        """Take the size of the catalogue.

        Raises:
            ValueError: If there is no second item.
        """
        if num_items < 2:
            raise ValueError(f"loss=gbce needs at least 2 items and there are {num_items}.")
        self.num_items = num_items

    def forward(self, scores: RankingScores) -> Tensor:
        """Scores of n targets to a scalar in nats."""
        if self.num_items < 2:
            raise RuntimeError("fit the loss to the number of items before it is used")
        num_negatives = scores.negative.shape[-1]
        rate = min(num_negatives / (self.num_items - 1), 1.0)  # repeated draws tell nothing new
        beta = self.t * (rate - 1) + 1
        entropy = beta * F.softplus(-scores.positive) + F.softplus(scores.negative).sum(-1)
        return _mean(entropy) / (num_negatives + 1)


class FullSoftmax(_RankingLoss):
    r"""Cross-entropy of the target over the whole catalogue; padding is no candidate.

    .. math:: -s_+ + \log \sum_{i=1}^{\text{num\_items}} e^{s_i}, \qquad s_i = r^\top w_i + b_i

    Where the (n, num_items) scores would be large, neither the forward nor the backward pass holds
    them: both work through the catalogue in chunks of items that fit a processor's cache, and the
    backward pass computes the scores again. That holds one chunk of scores beside the gradients.

    Args:
        chunk_size: Items of a chunk, at least 1. None chooses: everything at once where the scores
            take at most 8 MiB, else chunks of about 4 MiB.

    Raises:
        ValueError: If ``chunk_size`` is not positive.
    """

    def __init__(self, chunk_size: int | None = None) -> None:
        super().__init__()
        if chunk_size is not None and chunk_size < 1:
            raise ValueError(f"loss.chunk_size is {chunk_size}; give null or at least 1.")
        self.chunk_size = chunk_size

    def forward(
        self, representations: Tensor, item_weights: Tensor, item_biases: Tensor, target_ids: Tensor
    ) -> Tensor:
        """Compute the mean cross-entropy over n targets.

        Args:
            representations: What the network makes of each history, (n, dim).
            item_weights: Item embeddings, (num_items + 1, dim); row 0 is padding.
            item_biases: Item biases, (num_items + 1,).
            target_ids: Integers in 1..num_items, (n,).

        Returns:
            A scalar in nats. The chunked form computes in at least float32, autocast or not.
        """
        num_targets, num_items = len(target_ids), len(item_weights) - 1
        chunk_size = self.chunk_size
        if chunk_size is None:
            small = num_targets * num_items <= 2**21
            chunk_size = num_items if small else max(2**20 // num_targets, 128)
        if num_targets == 0:
            return representations.sum()  # 0, with a gradient of 0
        if chunk_size >= num_items:
            scores = F.linear(representations, item_weights[1:], item_biases[1:])
            return F.cross_entropy(scores, target_ids.long() - 1)
        dtype = torch.promote_types(item_weights.dtype, torch.float32)
        scored = (x.to(dtype) for x in (representations, item_weights, item_biases))
        with torch.autocast(representations.device.type, enabled=False):
            loss: Tensor = _ChunkedCrossEntropy.apply(  # type: ignore[no-untyped-call]
                *scored, target_ids.long(), chunk_size
            )
        return loss


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy over items 1.., in chunks of items; shapes as in :class:`FullSoftmax`."""

    @staticmethod
    def forward(
        ctx: Any,
        representations: Tensor,
        weights: Tensor,
        biases: Tensor,
        target_ids: Tensor,
        chunk_size: int,
    ) -> Tensor:
        num_targets = len(target_ids)
        buffer = representations.new_empty(num_targets * chunk_size)
        # |s| <= bound. Up to 60, sums of exp(s) stay in the range of float32 and need no shift.
        bound = representations.norm(dim=1).max() * weights.norm(dim=1).max() + biases.abs().max()
        is_bounded = bool(bound <= 60)
        log_sums = representations.new_full((num_targets,), -math.inf)  # over all chunks so far
        sums = torch.zeros_like(log_sums)
        for start in range(1, len(weights), chunk_size):
            chunk = slice(start, min(start + chunk_size, len(weights)))
            scores = _chunk_of(buffer, num_targets, chunk)
            torch.addmm(biases[chunk], representations, weights[chunk].T, out=scores)
            if is_bounded:
                sums += scores.exp_().sum(1)
            else:
                top = scores.amax(1, keepdim=True)
                sums = scores.sub_(top).exp_().sum(1)
                log_sums = torch.logaddexp(log_sums, sums.log_() + top.squeeze(1))
        if is_bounded:
            log_sums = sums.log()
        positive = (representations * weights[target_ids]).sum(1) + biases[target_ids]
        ctx.save_for_backward(representations, weights, biases, target_ids, log_sums)
        ctx.chunk_size = chunk_size
        return (log_sums - positive).mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        representations, weights, biases, target_ids, log_sums = ctx.saved_tensors
        num_targets = len(target_ids)
        scale = grad_loss / num_targets
        scaled = representations * scale
        grad_representations = torch.zeros_like(representations)
        grad_weights, grad_biases = torch.empty_like(weights), torch.empty_like(biases)
        grad_weights[0], grad_biases[0] = 0, 0
        buffer = representations.new_empty(num_targets * ctx.chunk_size)
        for start in range(1, len(weights), ctx.chunk_size):
            chunk = slice(start, min(start + ctx.chunk_size, len(weights)))
            probabilities = _chunk_of(buffer, num_targets, chunk)
            torch.sub(biases[chunk], log_sums.unsqueeze(1), out=probabilities)
            probabilities.addmm_(representations, weights[chunk].T).exp_()
            if ctx.needs_input_grad[0]:
                grad_representations.addmm_(probabilities, weights[chunk])
            if ctx.needs_input_grad[1]:
                torch.mm(probabilities.T, scaled, out=grad_weights[chunk])
            if ctx.needs_input_grad[2]:
                torch.sum(probabilities, 0, out=grad_biases[chunk])
        # the gradient by the scores is the probabilities less 1 at the target, over num_targets
        grad_representations.sub_(weights[target_ids]).mul_(scale)
        grad_weights.index_add_(0, target_ids, scaled, alpha=-1)
        grad_biases.mul_(scale).index_add_(0, target_ids, -scale.expand(num_targets))
        gradients = (grad_representations, grad_weights, grad_biases)
        needed = ctx.needs_input_grad
        return (*(g if needed[place] else None for place, g in enumerate(gradients)), None, None)


def _chunk_of(buffer: Tensor, num_targets: int, chunk: slice) -> Tensor:
    """Use the start of the buffer as a contiguous matrix, (num_targets, items of the chunk)."""
    num_items = chunk.stop - chunk.start
    return buffer[: num_targets * num_items].view(num_targets, num_items)


def _margins(scores: RankingScores) -> Tensor:
    return scores.positive.unsqueeze(-1) - scores.negative  # (n, k)


def _mean(losses: Tensor) -> Tensor:
    """Mean over the targets, (n,) to a scalar; 0 where there are none."""
    return losses.sum() / max(len(losses), 1)


def _positive(margin: float, option: str) -> float:
    if not 0 < margin < math.inf:
        raise ValueError(f"loss.{option} is {margin}; give a number greater than 0.")
    return margin
