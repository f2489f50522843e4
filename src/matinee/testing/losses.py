"""Checks of rating losses and ranking losses."""

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from matinee.contracts import (
    CatalogueLoss,
    NegativesLoss,
    RankingLoss,
    RankingScores,
    RatingLoss,
)
from matinee.metrics import ranks
from matinee.networks.encoders.users import UserFactors
from matinee.networks.sequence_recommender import SequenceRecommender
from matinee.objectives.comparing import compare
from matinee.objectives.sampling import UniformSampler
from matinee.testing.properties import (
    NUM_ITEMS,
    NUM_USERS,
    check_complete,
    check_state_dict,
    close,
    during,
    jitter,
    name_of,
    reproducible,
    require,
)

ROWS = 40  # targets or ratings in the batch of a check


def check_rating_loss(make: Callable[[], RatingLoss]) -> None:
    """Check a loss that compares scores with ratings.

    The properties are:

    - an initial score that converts to a rating within the range of train;
    - converted ratings that never fall when the score rises;
    - one finite number, also for one rating and for extreme scores;
    - a mean: the loss does not grow with the number of ratings;
    - a correct gradient;
    - the same answer from another instance with the same state dict;
    - learning: scores trained with the loss convert to the ratings.

    Args:
        make: Makes the loss. The check fits it to ratings from 1 to 5.

    Raises:
        AssertionError: If a property is missing.
    """
    with reproducible():
        ratings = torch.randint(2, 11, (ROWS,)) / 2
        loss: Any = make()
        other: Any = make()
        check_complete(loss, RatingLoss)
        _fit(loss, ratings.numpy())
        _fit(other, ratings.numpy())
        _check_conversion(loss, ratings)
        _check_learns_ratings(copy.deepcopy(loss), ratings)
        loss, other = loss.double(), other.double()
        scores = torch.randn(ROWS).double()

        def compute(loss: Any, rows: Tensor, scores: Tensor) -> Tensor:
            value: Tensor = loss(scores[rows], ratings[rows].to(scores.dtype))
            return value

        _check_loss(loss, compute, [scores])
        jitter(loss)
        check_state_dict(loss, other, lambda part: part.rating(scores))


def check_ranking_loss(make: Callable[[], RankingLoss]) -> None:
    """Check a loss that compares targets with negatives or with the whole catalogue.

    The properties are:

    - one finite number, also for one target and for extreme scores, and 0 without targets;
    - a mean: the loss does not grow with the number of targets;
    - a lower loss for higher scores of targets, a higher one for higher scores of other items;
    - a correct gradient;
    - no effect of item 0, the padding, for a loss that compares with the catalogue;
    - no effect of negatives that do not count, for a loss that compares with negatives;
    - the same answer from another instance with the same state dict;
    - learning: a network trained with the loss ranks the targets first.

    Args:
        make: Makes the loss. The check fits it to the size of a catalogue.

    Raises:
        AssertionError: If a property is missing.
    """
    with reproducible():
        loss: Any = make()
        other: Any = make()
        compares = getattr(loss, "compares", None)
        require(
            compares in ("negatives", "catalogue"),
            f"{name_of(loss)} compares targets with {compares!r}; declare compares = 'negatives' or "
            "compares = 'catalogue'.",
        )
        check_complete(loss, NegativesLoss if compares == "negatives" else CatalogueLoss)
        _fit(loss, NUM_ITEMS)
        _fit(other, NUM_ITEMS)
        _check_learns_targets(copy.deepcopy(loss))
        check = _check_sampled if compares == "negatives" else _check_catalogue
        check(loss.double(), other.double())


@during("to be fitted")
def _fit(loss: Any, data: Any) -> None:
    loss.fit(data)


@during("to convert scores to ratings")
def _check_conversion(loss: Any, ratings: Tensor) -> None:
    name, lowest, highest = name_of(loss), float(ratings.min()), float(ratings.max())
    start = loss.rating(torch.tensor([loss.initial_score])).item()
    require(
        lowest <= start <= highest,
        f"{name}: the initial score {loss.initial_score:.2f} converts to the rating {start:.2f}, outside of "
        f"the ratings of train, {lowest} to {highest}; look at fit.",
    )
    converted = loss.rating(loss.initial_score + torch.linspace(-5, 5, 101)).detach()
    require(
        converted.shape == (101,) and (converted.diff() >= 0).all(),
        f"{name}: rating must return one rating per score, and a higher score must not give a lower rating.",
    )


@during("to train scores")
def _check_learns_ratings(loss: Any, ratings: Tensor) -> None:
    scores = torch.full_like(ratings, loss.initial_score).requires_grad_()
    optimizer = torch.optim.Adam([scores, *loss.parameters()], lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        loss(scores, ratings).backward()
        optimizer.step()
    error = (loss.rating(scores) - ratings).square().mean().sqrt().item()
    floor = float(ratings.std()) / 2
    require(
        error < floor,
        f"{name_of(loss)} does not train scores to convert to the ratings in 200 steps of Adam: the RMSE "
        f"is {error:.2f} instead of less than {floor:.2f}; look for a detached tensor, a wrong sign, or "
        "a rating method that does not match the loss.",
    )


def _check_sampled(loss: Any, other: Any) -> None:
    positive, negative = 2 * torch.randn(ROWS).double(), 2 * torch.randn(ROWS, 3).double()
    log_q = (0.01 + 0.2 * torch.rand(ROWS, 4).double()).log()

    def compute(loss: Any, rows: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        chances = log_q[rows].to(positive.dtype)
        value: Tensor = loss(
            RankingScores(positive[rows], negative[rows], chances[:, 0], chances[:, 1:])
        )
        return value

    rows = torch.arange(ROWS)
    _check_loss(loss, compute, [positive, negative])
    _check_no_targets(loss, compute, [positive, negative])
    _check_direction(
        loss,
        compute(loss, rows, positive, negative),
        compute(loss, rows, positive + 1, negative),
        compute(loss, rows, positive, negative + 1),
    )
    _check_counted(loss, RankingScores(positive, negative, log_q[:, 0], log_q[:, 1:]))
    jitter(loss)
    check_state_dict(loss, other, lambda part: compute(part, rows, positive, negative))


def _check_catalogue(loss: Any, other: Any) -> None:
    represented, weights = torch.randn(ROWS, 4).double(), torch.randn(NUM_ITEMS + 1, 4).double()
    biases, target_ids = (
        torch.randn(NUM_ITEMS + 1).double(),
        torch.randint(1, NUM_ITEMS + 1, (ROWS,)),
    )

    def compute(loss: Any, rows: Tensor, represented: Tensor, *table: Tensor) -> Tensor:
        value: Tensor = loss(represented[rows], *table, target_ids[rows])
        return value

    rows = torch.arange(ROWS)
    _check_loss(loss, compute, [represented, weights, biases])
    _check_no_targets(loss, compute, [represented, weights, biases])
    _check_padding(loss, represented, weights, biases, target_ids)
    target_ids = torch.full_like(target_ids, 3)
    raised = torch.zeros_like(biases)
    raised[3] = 1
    _check_direction(
        loss,
        compute(loss, rows, represented, weights, biases),
        compute(loss, rows, represented, weights, biases + raised),
        compute(loss, rows, represented, weights, biases + 1 - raised),
    )
    jitter(loss)
    check_state_dict(loss, other, lambda part: compute(part, rows, represented, weights, biases))


@during("for other weights of the padding")
def _check_padding(
    loss: Any, represented: Tensor, weights: Tensor, biases: Tensor, target_ids: Tensor
) -> None:
    value = loss(represented, weights, biases, target_ids.int())
    changed_weights, changed_biases = weights.clone(), biases.clone()
    changed_weights[0], changed_biases[0] = 5, 50
    require(
        close(loss(represented, changed_weights, changed_biases, target_ids), value),
        f"{name_of(loss)} counts the padding: a change of item 0 changes the loss; leave out row 0 of the "
        "item table.",
    )


def _check_direction(loss: Any, value: Tensor, better: Tensor, worse: Tensor) -> None:
    require(
        better < value < worse,
        f"{name_of(loss)} is {value.item():.4f}, {better.item():.4f} after a rise of the scores of the "
        f"targets and {worse.item():.4f} after a rise of the scores of other items; it must fall and "
        "then rise; look for a wrong sign.",
    )


@during("to compute a loss and its gradient")
def _check_loss(loss: Any, compute: Callable[..., Tensor], inputs: list[Tensor]) -> None:
    """Check what holds for each loss.

    Args:
        loss: The loss, in float64.
        compute: Computes the loss from a loss, the indices of some rows, and the inputs.
        inputs: Tensors with a gradient. The first one has a score or a representation per row.
    """
    name, rows = name_of(loss), torch.arange(ROWS)
    value, single = compute(loss, rows, *inputs), compute(loss, rows[:1], *inputs)
    require(
        value.shape == single.shape == () and value.isfinite() and single.isfinite(),
        f"{name} must return one finite number for {ROWS} rows and for 1; look for a missing mean.",
    )
    first, rest = compute(loss, rows[:10], *inputs), compute(loss, rows[10:], *inputs)
    mean = (10 * first + (ROWS - 10) * rest) / ROWS
    require(
        close(value, mean),
        f"{name} is not a mean over its rows: {ROWS} rows give {value.item():.6f}, and the weighted mean "
        f"of their first 10 and the rest is {mean.item():.6f}; divide the sum over the rows by their "
        "number.",
    )
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    require(
        torch.autograd.gradcheck(partial(compute, loss, rows[:4]), leaves, raise_exception=False),
        f"{name} has no gradient or one that differs from a numerical gradient; look for a detached "
        "tensor or a wrong custom backward.",
    )
    single_precision = copy.deepcopy(loss).float()
    for size in (1e4, -1e4):
        extreme = [size * inputs[0].sign(), *inputs[1:]]
        leaves = [tensor.float().requires_grad_() for tensor in extreme]
        value = compute(single_precision, rows, *leaves)
        gradients = torch.autograd.grad(value, leaves, materialize_grads=True)
        require(
            all(found.isfinite().all() for found in (value, *gradients)),
            f"{name} or its gradient is not finite for scores of 10,000 in float32; look for a logarithm "
            "or an exponential that softplus, logsigmoid or logsumexp can replace.",
        )


@during("for negatives that do not count")
def _check_counted(loss: Any, scores: RankingScores) -> None:
    fewer = RankingScores(
        *(column[..., :-1] if column.dim() > 1 else column for column in scores[:4])
    )
    negative = scores.negative.clone()
    negative[:, -1] = -math.inf
    negative.requires_grad_()
    counted = torch.full_like(scores.positive, negative.shape[1] - 1)
    value = loss(scores._replace(negative=negative, counted=counted))
    require(
        close(value, loss(fewer)),
        f"{name_of(loss)} counts negatives that do not count: their score is minus infinity and they lie "
        "beyond scores.counted; average over negatives with scores.mean, or divide by "
        "scores.num_negatives.",
    )
    (gradient,) = torch.autograd.grad(value, negative)
    require(
        gradient.isfinite().all() and not gradient[:, -1].any(),
        f"{name_of(loss)} has a gradient for negatives that do not count, or one that is not finite; look "
        "for a product with their score, which is minus infinity.",
    )


@during("without targets")
def _check_no_targets(loss: Any, compute: Callable[..., Tensor], inputs: list[Tensor]) -> None:
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    value = compute(loss, torch.arange(0), *leaves)
    require(
        value == 0 and value.requires_grad,
        f"{name_of(loss)} is {value.item()} without targets; return 0 with a gradient.",
    )
    value.backward()


@during("to train a network")
def _check_learns_targets(loss: Any) -> None:
    network = SequenceRecommender(NUM_ITEMS, UserFactors, embedding_dim=16, num_users=NUM_USERS)
    user_ids = torch.arange(1, NUM_USERS + 1)
    target_ids, histories = 2 * user_ids, torch.zeros(NUM_USERS, 1, dtype=torch.int64)
    sampler = UniformSampler(num_negatives=5)
    sampler.fit(np.ones(NUM_ITEMS + 1, dtype=np.int64))
    optimizer = torch.optim.Adam([*network.parameters(), *loss.parameters()], lr=0.05)
    for _ in range(200):
        represented = network.represent(histories, user_ids)[:, 0]
        if loss.compares == "negatives":
            value = loss(compare(network, sampler, represented, target_ids))
        else:
            value = loss(represented, *network.item_table(), target_ids)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    with torch.no_grad():
        scores = network.score_all(network.represent(histories, user_ids)[:, 0])
    reached = float((1 / ranks(scores, target_ids)).mean())
    require(
        reached >= 0.9,
        f"{name_of(loss)} does not train a network to rank one item per user first in 200 steps of Adam: "
        f"the mean reciprocal rank is {reached:.2f} instead of at least 0.9; look for a wrong sign, a "
        "detached tensor or targets that are shifted by one.",
    )
