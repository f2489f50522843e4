"""Checks of networks that score pairs of a user and an item."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from matinee.contracts import ClosedForm, GridNetwork, PairNetwork
from matinee.testing.properties import (
    FLAT,
    NUM_ITEMS,
    NUM_USERS,
    check_complete,
    check_gradients,
    check_repeatable,
    check_state_dict,
    check_tables,
    close,
    during,
    jitter,
    name_of,
    reproducible,
    require,
)


def check_pair_network(make: Callable[..., PairNetwork]) -> None:
    """Check a network that scores pairs of a user and an item.

    The properties are:

    - shapes and finite scores at all sizes, with one user and one item, and for unknown ids;
    - ``lookup`` followed by ``score`` gives the scores of the forward;
    - a score depends on its own pair only, in training and in evaluation;
    - scores near the initial score before training, also for rows of zeros, to which the penalty of
      the task shrinks the rows;
    - a gradient for each parameter, for the rows, and for row 0 of each table;
    - the same answer when asked again, and from another instance with the same state dict;
    - the same scores from ``score_all``, if the network has it;
    - learning: ratings that are sums of user and item biases are predicted for new pairs.

    There is no check on random ratings: a network that only gets ids cannot predict them.

    Args:
        make: Makes the network from the keywords ``num_users``, ``num_items`` and
            ``initial_score``.

    Raises:
        AssertionError: If a property is missing.
    """
    with reproducible():
        sized: Callable[..., Any] = partial(make, num_users=NUM_USERS, num_items=NUM_ITEMS)
        check_complete(sized(initial_score=0.0), PairNetwork)
        pairs = _every_pair(torch.arange(NUM_USERS + 1), torch.arange(NUM_ITEMS + 1))
        for initial_score in (3.5, 0.0):
            _check_start(sized(initial_score=initial_score).eval(), initial_score, *pairs)
        network, other = (_fitted(sized(initial_score=3.5)).double().eval() for _ in range(2))
        check_repeatable(
            network, lambda: network(*pairs), lambda: network(pairs[0].flip(0), pairs[1])
        )
        _check_scores(network)
        _check_scores(sized(num_users=1, num_items=1, initial_score=0.0).double().eval())
        _check_own_pair(network)
        if not isinstance(network, ClosedForm):
            _check_trainable(network, *pairs)
        check_state_dict(network, other, lambda part: part(*pairs))
        if isinstance(network, GridNetwork):
            _check_grid(network)
        _check_learns(sized)


def _every_pair(user_ids: Tensor, item_ids: Tensor) -> tuple[Tensor, Tensor]:
    users, items = torch.cartesian_prod(user_ids, item_ids).T
    return users, items


def _fitted(network: Any) -> Any:
    """Fit a network in closed form to random ratings."""
    if isinstance(network, ClosedForm):
        pairs = _every_pair(torch.arange(1, NUM_USERS + 1), torch.arange(1, NUM_ITEMS + 1))
        network.fit(*pairs, torch.randn(NUM_USERS * NUM_ITEMS))
    return network


@during("to score pairs before training")
def _check_start(network: Any, initial_score: float, user_ids: Tensor, item_ids: Tensor) -> None:
    user_rows, item_rows = network.lookup(user_ids, item_ids)
    zeros = (tuple(map(torch.zeros_like, rows)) for rows in (user_rows, item_rows))
    for what, scores in (
        ("scores", network(user_ids, item_ids)),
        ("the scores of rows of zeros", network.score(*zeros)),
    ):
        distance = float((scores.detach() - initial_score).abs().max())
        require(
            distance < 0.5,
            f"{name_of(network)}: {what} start up to {distance:.2f} away from the initial score "
            f"{initial_score}; add the initial score in score, and initialize tables near 0.",
        )


@during("to score batches of different sizes")
def _check_scores(network: Any) -> None:
    name = name_of(network)
    for ids in (torch.tensor([1, 0, 1]), torch.tensor([1]), torch.tensor([0], dtype=torch.int32)):
        scores = network(ids, ids.flip(0))
        require(
            scores.shape == ids.shape and scores.isfinite().all(),
            f"{name} returns {tuple(scores.shape)} for {len(ids)} pairs instead of {len(ids)} finite scores.",
        )
        rows = network.lookup(ids, ids.flip(0))
        require(
            all(row.dim() == 2 and len(row) == len(ids) for side in rows for row in side),
            f"{name}: lookup must return two tuples of rows, (batch, dim) each.",
        )
        require(
            close(network.score(*rows), scores),
            f"{name}: score gives other scores for the rows of lookup than the forward for the ids.",
        )


@during("to score all pairs of users and items")
@torch.no_grad()
def _check_grid(network: Any) -> None:
    user_ids, item_ids = torch.tensor([3, 0, 1]), torch.arange(NUM_ITEMS + 1)
    user_rows, _ = network.lookup(user_ids, torch.zeros_like(user_ids))
    _, item_rows = network.lookup(torch.zeros_like(item_ids), item_ids)
    expected = network(*_every_pair(user_ids, item_ids)).view(len(user_ids), len(item_ids))
    require(
        close(network.score_all(user_rows, item_rows), expected),
        f"{name_of(network)}: score_all gives other scores than the forward for the same pairs.",
    )


@during("to score pairs alone and in a batch")
def _check_own_pair(network: Any) -> None:
    name, user_ids, item_ids = name_of(network), torch.tensor([3, 1, 0]), torch.tensor([4, 0, 5])

    @torch.no_grad()
    def score(user_ids: Tensor, item_ids: Tensor) -> Tensor:
        torch.manual_seed(1)  # the same dropout in each call
        scores: Tensor = network(user_ids, item_ids)
        return scores

    for training in (True, False):
        network.train(training)
        before = score(user_ids, item_ids)
        companions = torch.tensor([3, 5, 6]), torch.tensor([4, 7, 8])
        require(
            close(score(*companions)[0], before[0]),
            f"{name} mixes the pairs of a batch in {'training' if training else 'evaluation'} mode: a "
            "change of other pairs changes a score; look for batch normalization or a statistic over "
            "the batch.",
        )
    for row in range(3):
        require(
            close(score(user_ids[row : row + 1], item_ids[row : row + 1])[0], before[row]),
            f"{name} scores a pair differently when it is the only one of its batch; look for a squeeze "
            "or a statistic over the batch.",
        )


@during("in training")
def _check_trainable(network: Any, user_ids: Tensor, item_ids: Tensor) -> None:
    network.train()
    jitter(network)
    check_gradients(network, network(user_ids, item_ids))
    unknown = torch.zeros(32, dtype=torch.int64)
    check_tables(network, lambda: network(unknown, unknown))
    user_rows, item_rows = (
        tuple(row.detach().requires_grad_() for row in rows)
        for rows in network.lookup(user_ids, item_ids)
    )
    scores = network.score(user_rows, item_rows)
    gradients = torch.autograd.grad(
        (scores * torch.randn_like(scores)).sum(), user_rows + item_rows, allow_unused=True
    )
    require(
        all(gradient is not None and gradient.abs().max() > FLAT for gradient in gradients),
        f"{name_of(network)}: score has no gradient for some rows that lookup returns, so the rows of "
        "new users cannot be estimated; look for a detached tensor or unused rows.",
    )


def _check_learns(make: Callable[..., Any]) -> None:
    num_users, num_items = 60, 40
    user_ids, item_ids = _every_pair(torch.arange(1, num_users + 1), torch.arange(1, num_items + 1))
    ratings = 3 + torch.randn(num_users + 1)[user_ids] + torch.randn(num_items + 1)[item_ids]
    new = torch.rand(len(ratings)) < 0.3
    train = user_ids[~new], item_ids[~new], ratings[~new]
    network = make(num_users=num_users, num_items=num_items, initial_score=float(ratings.mean()))
    floor, best = float(ratings.std()) / 2, math.inf
    for _ in range(10):
        _train(network, *train)
        with torch.no_grad():
            errors = network.eval()(user_ids[new], item_ids[new]) - ratings[new]
        best = min(best, float(errors.square().mean().sqrt()))
        if best < floor:
            return
    raise AssertionError(
        f"{name_of(network)} does not learn ratings that are sums of user and item biases in 300 steps "
        f"of Adam: the RMSE of new pairs is {best:.2f} instead of less than {floor:.2f}; look for a "
        "detached tensor, tensors that are not parameters or rows of the wrong ids."
    )


@during("to learn ratings")
def _train(network: Any, user_ids: Tensor, item_ids: Tensor, ratings: Tensor) -> None:
    if isinstance(network, ClosedForm):
        network.fit(user_ids, item_ids, ratings)
        return
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-2)
    network.train()
    for _ in range(30):
        user_rows, item_rows = network.lookup(user_ids, item_ids)
        penalty = sum(row.square().sum(-1).mean() for row in user_rows + item_rows)
        optimizer.zero_grad()
        (F.mse_loss(network.score(user_rows, item_rows), ratings) + 0.02 * penalty).backward()
        optimizer.step()
