"""Ranking losses: train the score of a target to exceed the scores of other items.

A sampled loss compares each of n targets with k negatives, which a sampler draws (see
:mod:`matinee.objectives.sampling`). It maps :class:`RankingScores` to a scalar, the mean over the
targets. :class:`FullSoftmax` compares each target with the whole catalogue and needs no sampler.
"""

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from matinee.contracts import RankingScores


class _NegativesLoss(nn.Module):
    """A loss that compares targets with negatives and does not depend on the data."""

    compares: Literal["negatives"] = "negatives"
    needs_excluded_target = False
    needs_uniform_negatives = False

    def fit(self, num_items: int) -> None:
        """Set the size of the catalogue, without the padding; called once before training."""


class Pointwise(_NegativesLoss):
    r"""Binary cross-entropy that separates targets from negatives.

    .. math:: -\log \sigma(s^+) - \tfrac1k \sum_j \log(1 - \sigma(s^-_j))

    With one negative it is the loss of SASRec (Kang & McAuley, ICDM 2018). The negatives are
    averaged, so a target has the same weight as all its negatives together.
    """

    def forward(self, scores: RankingScores) -> Tensor:
        """Map the scores of n targets to their mean loss, a scalar in nats."""
        return _mean(F.softplus(-scores.positive) + scores.mean(F.softplus(scores.negative)))


class SaturatingPointwise(_NegativesLoss):
    r"""Pointwise loss with bounded terms: the probabilities of misclassifying target and negatives.

    .. math:: 1 - \sigma(s^+) + \tfrac1k \sum_j \sigma(s^-_j)

    This is the pointwise loss of the Spotlight library, provided to reproduce its results. Unlike
    the gradient of :class:`Pointwise`, its gradient vanishes for badly misclassified pairs.
    """

    def forward(self, scores: RankingScores) -> Tensor:
        """Map the scores of n targets to their mean loss, a scalar in [0, 2]."""
        # sigmoid(-s) is 1 - sigmoid(s) without cancellation
        negative = scores.mean(torch.sigmoid(scores.negative))
        return _mean(torch.sigmoid(-scores.positive) + negative)


class BPR(_NegativesLoss):
    r"""Bayesian personalised ranking: rank the target above each negative (Rendle et al., UAI 2009).

    .. math:: -\tfrac1k \sum_j \log \sigma(s^+ - s^-_j)

    The L2 term of the paper is left to the optimizer (weight decay).
    """

    def forward(self, scores: RankingScores) -> Tensor:
        """Map the scores of n targets to their mean loss, a scalar in nats."""
        return _mean(scores.mean(F.softplus(-_margins(scores))))


class SaturatingBPR(_NegativesLoss):
    r"""BPR with bounded terms: the probability of ranking a negative above the target.

    .. math:: 1 - \tfrac1k \sum_j \sigma(s^+ - s^-_j)

    This is the BPR loss of the Spotlight library, provided to reproduce its results.
    """

    def forward(self, scores: RankingScores) -> Tensor:
        """Map the scores of n targets to their mean loss, a scalar in [0, 1]."""
        return _mean(scores.mean(torch.sigmoid(-_margins(scores))))


class Hinge(_NegativesLoss):
    r"""Hinge loss: penalise negatives that score less than a margin below the target.

    .. math:: \tfrac1k \sum_j \max(0, m - s^+ + s^-_j)

    Args:
        margin: Margin :math:`m`, in units of the score, finite and greater than 0.

    Raises:
        ValueError: If ``margin`` is out of range.
    """

    def __init__(self, margin: float = 1.0) -> None:
        super().__init__()
        self.margin = _checked(margin)

    def forward(self, scores: RankingScores) -> Tensor:
        """Map the scores of n targets to their mean loss, a scalar of at least 0."""
        return _mean(scores.mean(F.relu(self.margin - _margins(scores))))


class AdaptiveHinge(_NegativesLoss):
    r"""Hinge loss on the negative with the highest score.

    .. math:: \max(0, m - s^+ + \max_j s^-_j)

    WARP draws negatives until one violates the margin (Weston, Bengio & Usunier, IJCAI 2011); here
    the highest-scoring of k draws takes its place. As in the Spotlight library, where k is 5, there
    is no weight by estimated rank.

    Args:
        margin: Margin :math:`m`, in units of the score, finite and greater than 0.

    Raises:
        ValueError: If ``margin`` is out of range.
    """

    def __init__(self, margin: float = 1.0) -> None:
        super().__init__()
        self.margin = _checked(margin)

    def forward(self, scores: RankingScores) -> Tensor:
        """Map the scores of n targets to their mean loss, a scalar of at least 0."""
        return _mean(F.relu(self.margin - scores.positive + scores.negative.amax(-1)))


class SampledSoftmax(_NegativesLoss):
    r"""Cross-entropy over the catalogue, with the sum over other items estimated from negatives.

    .. math::
        -s^+ + \log\Big(e^{s^+} + \tfrac1k \sum_j \frac{e^{s^-_j}}{q'(j)}\Big), \qquad
        q'(j) = \frac{q(j)}{1 - q(+)}

    The sampler must exclude the target. Then :math:`q'` is the distribution of the negatives, the
    sum is an unbiased estimate of the sum over all other items, and the loss converges to
    :class:`FullSoftmax` as k grows. The classical correction (Bengio & Senécal, IEEE TNN 2008;
    Jean et al., ACL 2015) also subtracts :math:`\log q(+)` from the score of the target. We do not,
    because the target is always present and not drawn: with that correction the loss does not
    converge to the full softmax (Khrylchenko et al., RecSys 2025).
    """

    needs_excluded_target = True

    def forward(self, scores: RankingScores) -> Tensor:
        """Map the scores of n targets to their mean loss, a scalar in nats."""
        others = torch.log1p(-scores.positive_log_q.exp()) - scores.num_negatives.log()
        logits = scores.negative - scores.negative_log_q + others.unsqueeze(-1)
        logits = torch.cat((scores.positive.unsqueeze(-1), logits), -1)
        return _mean(logits.logsumexp(-1) - scores.positive)


class GBCE(_NegativesLoss):
    r"""Generalised binary cross-entropy, which reduces overconfidence (Petrov & Macdonald, RecSys 2023).

    .. math::
        -\tfrac1{k+1} \Big(\beta \log \sigma(s^+) + \sum_j \log(1 - \sigma(s^-_j))\Big), \qquad
        \beta = \alpha \Big(t \big(1 - \tfrac1\alpha\big) + \tfrac1\alpha\Big)

    with the sampling rate :math:`\alpha = k / (\text{num\_items} - 1)`. The negatives should be
    uniform and exclude the target; the paper's gSASRec draws 256 with t = 0.75.

    Args:
        t: Calibration, in [0, 1]. With 0 the loss is binary cross-entropy; with 1 the sigmoid of a
            score approximates the probability of the softmax.

    Raises:
        ValueError: If ``t`` is out of range.
    """

    needs_uniform_negatives = True

    def __init__(self, t: float = 0.75) -> None:
        super().__init__()
        if not 0 <= t <= 1:
            raise ValueError(f"t is {t}; give a number from 0 to 1.")
        self.t = t
        self.num_items = 0

    def fit(self, num_items: int) -> None:
        """Set the size of the catalogue, without the padding.

        Raises:
            ValueError: If there are fewer than 2 items.
        """
        if num_items < 2:
            raise ValueError(
                f"num_items is {num_items} and GBCE needs at least 2; use another loss."
            )
        self.num_items = num_items

    def forward(self, scores: RankingScores) -> Tensor:
        """Map the scores of n targets to their mean loss, a scalar in nats."""
        if self.num_items < 2:
            raise RuntimeError("the loss is not fitted; call fit(num_items) first.")
        rate = scores.num_negatives / (self.num_items - 1)
        beta = self.t * (rate.clamp_max(1) - 1) + 1  # repeated draws add no information
        entropy = beta * F.softplus(-scores.positive) + F.softplus(scores.negative).sum(-1)
        return _mean(entropy / (scores.num_negatives + 1))


class FullSoftmax(nn.Module):
    r"""Cross-entropy of the target over the whole catalogue.

    .. math:: -s_+ + \log \sum_{i=1}^{\text{num\_items}} e^{s_i}, \qquad s_i = r^\top w_i + b_i

    The padding, item 0, is not a candidate. If the matrix of (n, num_items) scores is large, it is
    never stored: the forward and the backward pass process the catalogue in chunks of items, and the
    backward pass recomputes the scores. Memory then holds one chunk of scores besides the gradients.

    Label smoothing replaces the one-hot target by a mixture with all items in equal shares (Szegedy et
    al., Rethinking the Inception Architecture for Computer Vision, CVPR 2016, section 7), which adds

    .. math:: \epsilon \Big(s_+ - \tfrac1{\text{num\_items}} \sum_i s_i\Big)

    Args:
        chunk_size: Items per chunk, at least 1. None chooses by the device, see :func:`items_at_once`.
        label_smoothing: Share :math:`\epsilon` of the target's probability spread over all items, in
            [0, 1).

    Raises:
        ValueError: If an option is out of range.
    """

    compares: Literal["catalogue"] = "catalogue"

    def __init__(self, chunk_size: int | None = None, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if chunk_size is not None and chunk_size < 1:
            raise ValueError(
                f"chunk_size is {chunk_size}; give a whole number of at least 1, or null."
            )
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing is {label_smoothing}; give a share in [0, 1).")
        self.chunk_size = chunk_size
        self.label_smoothing = label_smoothing

    def fit(self, num_items: int) -> None:
        """Do nothing: the item table gives the size of the catalogue."""

    def forward(
        self, representations: Tensor, item_weights: Tensor, item_biases: Tensor, target_ids: Tensor
    ) -> Tensor:
        """Compute the mean cross-entropy of n targets.

        Args:
            representations: Representation of each history, (n, dim).
            item_weights: Item embeddings, (num_items + 1, dim); row 0 is the padding.
            item_biases: Item biases, (num_items + 1,); entry 0 is the padding.
            target_ids: Target of each history, integers in 1..num_items, (n,).

        Returns:
            A scalar in nats; 0 if there are no targets. The computation in chunks uses at least
            float32, also under autocast.
        """
        num_targets, num_items = len(target_ids), len(item_weights) - 1
        chunk_size = self.chunk_size or items_at_once(
            num_targets, num_items, item_weights.device.type
        )
        if num_targets == 0:
            return representations.sum()  # 0, with a gradient of 0
        entropy = self._cross_entropy(
            representations, item_weights, item_biases, target_ids.long(), chunk_size
        )
        if not self.label_smoothing:
            return entropy
        rows = representations, item_weights[target_ids], item_biases[target_ids]
        positive = (rows[0] * rows[1]).sum(1) + rows[2]
        # the mean score of all items is the score of the mean item
        mean = representations @ item_weights[1:].mean(0) + item_biases[1:].mean()
        return entropy + self.label_smoothing * (positive - mean).mean()

    def _cross_entropy(
        self,
        representations: Tensor,
        item_weights: Tensor,
        item_biases: Tensor,
        target_ids: Tensor,
        chunk_size: int,
    ) -> Tensor:
        if chunk_size >= len(item_weights) - 1:
            scores = F.linear(representations, item_weights[1:], item_biases[1:])
            return F.cross_entropy(scores, target_ids - 1)
        dtype = torch.promote_types(item_weights.dtype, torch.float32)
        scored = (x.to(dtype) for x in (representations, item_weights, item_biases))
        with torch.autocast(representations.device.type, enabled=False):
            loss: Tensor = _ChunkedCrossEntropy.apply(  # type: ignore[no-untyped-call]
                *scored, target_ids, chunk_size
            )
        return loss


def items_at_once(num_targets: int, num_items: int, device_type: str) -> int:
    """Choose how many items :class:`FullSoftmax` scores at a time.

    On a CPU a chunk fits the caches: chunks of about 4 MiB of scores, all at once up to 8 MiB. On an
    accelerator each chunk costs kernel launches, so chunks are large: 256 MiB of scores. On one NVIDIA
    H200 a step with 1,000,000 items and 2,000 targets took 0.477 s in the chunks of a CPU and 0.050 s in
    chunks of that size.

    Args:
        num_targets: Rows of scores.
        num_items: Size of the catalogue.
        device_type: Type of the device, such as ``cpu`` or ``cuda``.

    Returns:
        A number of items of at least 128, or ``num_items``.
    """
    at_once, per_chunk = (2**21, 2**20) if device_type == "cpu" else (2**26, 2**26)  # scores
    if num_targets * num_items <= at_once:
        return num_items
    return max(per_chunk // num_targets, 128)


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy over items 1.. in chunks of items; see :class:`FullSoftmax` for shapes."""

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
        # |s| <= bound. With a bound of 60, sums of exp(s) stay in the range of float32 unshifted.
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
        # the gradient of the scores is (probabilities - 1 at the target) / num_targets
        grad_representations.sub_(weights[target_ids]).mul_(scale)
        grad_weights.index_add_(0, target_ids, scaled, alpha=-1)
        grad_biases.mul_(scale).index_add_(0, target_ids, -scale.expand(num_targets))
        gradients = (grad_representations, grad_weights, grad_biases)
        needed = ctx.needs_input_grad
        return (*(g if needed[place] else None for place, g in enumerate(gradients)), None, None)


def _chunk_of(buffer: Tensor, num_targets: int, chunk: slice) -> Tensor:
    """View the start of the buffer as a contiguous matrix, (num_targets, items of the chunk)."""
    num_items = chunk.stop - chunk.start
    return buffer[: num_targets * num_items].view(num_targets, num_items)


def _margins(scores: RankingScores) -> Tensor:
    return scores.positive.unsqueeze(-1) - scores.negative  # (n, k)


def _mean(losses: Tensor) -> Tensor:
    """Average over the targets, (n,) to a scalar; 0 if there are none."""
    return losses.sum() / max(len(losses), 1)


def _checked(margin: float) -> float:
    if not 0 < margin < math.inf:
        raise ValueError(f"margin is {margin}; give a finite number greater than 0.")
    return margin
