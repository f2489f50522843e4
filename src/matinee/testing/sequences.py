"""Checks of encoders and of networks that score the next item of a history."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from matinee.contracts import ClosedForm, Encoder, Ranker, RecurrentEncoder, SequenceNetwork
from matinee.metrics import ranks
from matinee.networks.carried_states import CarriedStates
from matinee.networks.sequence_recommender import SequenceRecommender
from matinee.testing.properties import (
    NUM_ITEMS,
    NUM_USERS,
    ROUNDING,
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

MEMORIZED = 0.95  # mean reciprocal rank that training must reach
CHANCE = sum(1 / rank for rank in range(1, NUM_ITEMS + 1)) / NUM_ITEMS  # the same of random scores


def check_encoder(make: Callable[..., Encoder], knows_order: bool = True) -> None:
    """Check a causal encoder of histories.

    The encoder is checked inside a
    :class:`matinee.networks.sequence_recommender.SequenceRecommender`; see
    :func:`check_sequence_network` for the properties. One that is a
    :class:`matinee.contracts.RecurrentEncoder` must also give the same scores when it continues a
    history from a state.

    Args:
        make: Makes the encoder from ``embedding_dim``, which is 16, and also from ``num_users`` if
            the encoder declares ``needs_users``.
        knows_order: Whether the encoder must learn to distinguish histories that hold the same items
            in a different order. Pass False for an encoder that ignores the order on purpose.

    Raises:
        AssertionError: If a property is missing.
    """
    encoder: Callable[..., Any] = make
    whole = partial(SequenceRecommender, encoder=encoder, embedding_dim=16)
    with reproducible():
        _check_continues(_untrained(whole))
    check_sequence_network(whole, knows_order)


def check_sequence_network(make: Callable[..., Ranker], knows_order: bool = True) -> None:
    """Check a network that scores the next item of a history, be it trained or solved in closed form.

    The properties are:

    - shapes and finite values at all sizes, from a single empty history to long ones, and under
      mixed precision;
    - the same scores from ``score_next``, ``score``, ``score_all`` and ``item_table``;
    - representations, or scores of a network in closed form, that depend on the past of their own row
      only, not on later items, padding or other rows, in training and in evaluation;
    - dependence on users and histories as declared by ``needs_users`` and ``ignores_history``;
    - a gradient for each parameter, and for row 0 of each table;
    - the same answer when asked again, and from another instance with the same state dict;
    - learning: a few histories are memorized, and random items stay at chance.

    Args:
        make: Makes the network from the keywords ``num_items`` and ``num_users``.
        knows_order: See :func:`check_encoder`.

    Raises:
        AssertionError: If a property is missing.
    """
    with reproducible():
        solved = isinstance(_make(make), ClosedForm)
        check_complete(_make(make), Ranker if solved else SequenceNetwork)
        network, other = _make(make).double().eval(), _untrained(make)
        histories, user_ids = _histories(4, 6), torch.tensor([1, 2, 0, 3])
        sizes = ((network, NUM_ITEMS), (_untrained(make, 1, 1), 1))
        for part, num_items in () if solved else sizes:
            _check_scores(part, num_items)
        check_repeatable(
            network,
            lambda: _answers(network, histories, user_ids),
            lambda: _answers(network, _histories(5, 9), torch.arange(5)),
        )
        for part, num_items in sizes:
            _check_next(part, num_items)
        _check_past_only(network)
        _check_declarations(network)
        if not solved:
            _check_trainable(network)
        check_state_dict(network, other, lambda part: _scores(part, histories, user_ids))
        _check_memorizes(make(num_items=NUM_ITEMS, num_users=NUM_USERS), knows_order)
        _check_chance(make(num_items=NUM_ITEMS, num_users=NUM_USERS))


def _make(make: Callable[..., Ranker]) -> Any:
    network = make(num_items=NUM_ITEMS, num_users=NUM_USERS)
    if isinstance(network, ClosedForm):
        _fit(network, *_noise(8, 6))
    return network


def _untrained(
    make: Callable[..., Any], num_items: int = NUM_ITEMS, num_users: int = NUM_USERS
) -> Any:
    return make(num_items=num_items, num_users=num_users).double().eval()


def _scores(network: Any, histories: Tensor, user_ids: Tensor) -> Tensor:
    """Score all items after every position, (batch, length) to (batch, length, num_items + 1)."""
    if not isinstance(network, ClosedForm):
        scores: Tensor = network.score_all(network.represent(histories, user_ids))
        return scores
    ends = torch.arange(1, histories.shape[1] + 1)
    prefixes = histories * (
        torch.arange(len(ends)) < ends.view(-1, 1, 1)
    )  # one row of rows per end
    lengths = ends.unsqueeze(1).expand(-1, len(histories))
    ranker: Any = network
    return torch.stack(
        [ranker.score_next(*prefix, user_ids) for prefix in zip(prefixes, lengths, strict=True)], 1
    )


def _answers(network: Any, histories: Tensor, user_ids: Tensor) -> Tensor:
    """Represent every position, or score the real items if the network represents none."""
    if isinstance(network, ClosedForm):
        return _scores(network, histories, user_ids)[..., 1:]
    represented: Tensor = network.represent(histories, user_ids)
    return represented


@during("to score the next items of histories of different lengths")
def _check_next(network: Any, num_items: int) -> None:
    name = name_of(network)
    for batch, length in ((3, 6), (1, 1), (2, 120)):
        histories = _histories(batch, length) % (num_items + 1)
        lengths = length - torch.arange(batch)
        histories = (histories * (torch.arange(length) < lengths.unsqueeze(1))).int()
        user_ids = (torch.arange(batch) % 2).int()
        scores = network.score_next(histories, lengths.int(), user_ids)
        require(
            scores.shape == (batch, num_items + 1) and (scores[:, 0] == -math.inf).all(),
            f"{name}: score_next must return one score per item, and minus infinity for item 0.",
        )
        require(
            scores[:, 1:].isfinite().all(),
            f"{name}: score_next returns scores that are not finite for histories of shape "
            f"{(batch, length)}; look for a division by 0 or the logarithm of 0.",
        )
        before = scores[:, 1:].clone()
        if not isinstance(network, ClosedForm) and not hasattr(network, "prior"):
            last = _scores(network, histories, user_ids)[torch.arange(batch), lengths - 1]
            require(
                close(before, last[:, 1:]),
                f"{name}: score_next and score_all give different scores.",
            )
        scores.zero_()
        require(
            close(network.score_next(histories, lengths, user_ids)[:, 1:], before),
            f"{name}: score_next returns other scores after the caller has changed the first ones; "
            "return a copy.",
        )


@during("to continue histories from a state")
@torch.no_grad()
def _check_continues(network: SequenceRecommender) -> None:
    if not isinstance(network.encoder, RecurrentEncoder):
        return
    histories, lengths, user_ids = _histories(4, 6), torch.tensor([6, 2, 5, 3]), torch.arange(4)
    expected = network.score_next(histories, lengths, user_ids)
    network.carried = CarriedStates(network.encoder)
    network.score_next(histories, lengths - 1, user_ids)
    require(
        close(network.score_next(histories, lengths, user_ids)[:, 1:], expected[:, 1:]),
        f"{name_of(network)}: unroll from the state after a part gives other scores than the whole history.",
    )


@during("to score histories of different sizes")
def _check_scores(network: Any, num_items: int = NUM_ITEMS) -> None:
    name, width = name_of(network), network.item_table()[0].shape[1]
    for batch, length in ((3, 6), (1, 1), (2, 120)):
        represented = network.represent(
            _histories(batch, length) % (num_items + 1), torch.arange(batch) % 2
        )
        require(
            represented.shape == (batch, length, width),
            f"{name} represents histories of shape {(batch, length)} by {tuple(represented.shape)} instead "
            f"of {(batch, length, width)}; look for a squeeze, or for swapped dimensions.",
        )
        require(
            represented.isfinite().all(),
            f"{name} represents histories of shape {(batch, length)} by values that are not finite; look "
            "for a division by 0 or an exponential.",
        )
    represented = network.represent(
        (_histories(3, 6) % (num_items + 1)).int(), torch.tensor([1, 0, 1]).int()
    )
    scores = network.score_all(represented)
    require(
        scores.shape == (3, 6, num_items + 1) and (scores[..., 0] == -math.inf).all(),
        f"{name}: score_all must return one score per item, and minus infinity for item 0.",
    )
    item_ids = torch.randint(num_items + 1, (3, 6, 2))
    weights, biases = network.item_table()
    rows, shared_ids = represented.flatten(0, 1), torch.randint(num_items + 1, (1, 4))
    shared = scores.flatten(0, 1)[:, shared_ids[0]]
    for method, found, expected in (
        ("score", network.score(represented, item_ids), scores.gather(2, item_ids)),
        (
            "score",
            network.score(represented, item_ids[..., 0]),
            scores.gather(2, item_ids)[..., 0],
        ),
        ("item_table", (represented @ weights.mT + biases)[..., 1:], scores[..., 1:]),
        ("score of shared items", network.score(rows, shared_ids), shared),
    ):
        require(close(found, expected), f"{name}: {method} and score_all give different scores.")


@during("to represent histories of different lengths in one batch")
def _check_past_only(network: Any) -> None:
    name, length = name_of(network), min(8, _max_length(network))
    histories, user_ids = _histories(4, length), torch.tensor([1, 2, 0, 3])

    @torch.no_grad()
    def answer(histories: Tensor, user_ids: Tensor) -> Tensor:
        torch.manual_seed(1)  # the same dropout in each call
        answers: Tensor = _answers(network, histories, user_ids)
        return answers

    for training in (True, False):
        network.train(training)
        mode = "training" if training else "evaluation"
        before = answer(histories, user_ids)
        for end in range(1, length):
            changed = torch.cat((histories[:, :end], _other(histories[:, end:])), 1)
            require(
                close(answer(changed, user_ids)[:, :end], before[:, :end]),
                f"{name} sees the future in {mode} mode: a change of the items from position {end} on "
                "changes earlier representations; look for a convolution padded on both sides, "
                "attention without a causal mask, a reversed pass or a statistic over the positions.",
            )
        changed = torch.cat((histories[:1], _other(histories[1:])))
        other_users = torch.cat((user_ids[:1], user_ids[1:].flip(0)))
        require(
            close(answer(changed, other_users)[0], before[0]),
            f"{name} mixes the rows of a batch in {mode} mode: a change of other rows changes the "
            "representation of a row; look for batch normalization, a statistic over the batch or a "
            "reshape that moves values to another row.",
        )
    padded = answer(F.pad(histories, (0, 6)), user_ids)
    require(
        close(padded[:, :length], before),
        f"{name} depends on the padding: zeros on the right change the representations before them; "
        "look for a result that is divided by, or aligned to, the length of the batch.",
    )
    for row, end in enumerate((length, min(3, length), 1, 2)):
        alone = answer(histories[row : row + 1, :end], user_ids[row : row + 1])
        require(
            close(alone[0], before[row, :end]),
            f"{name} represents a history of {end} positions differently when it is the only row of its "
            "batch; look for a squeeze or a statistic over the batch.",
        )


@during("to represent histories of known and unknown users")
def _check_declarations(network: Any) -> None:
    name, histories, user_ids = name_of(network), _histories(4, 5), torch.tensor([1, 2, 0, 3])
    before = _answers(network, histories, user_ids)
    changed = torch.cat((histories[:, :4], _other(histories[:, 4:])), 1)
    differs = (_answers(network, changed, user_ids) - before).abs().amax(-1)[:, 4] > ROUNDING
    if network.ignores_history:
        require(not differs.any(), f"{name} declares ignores_history but depends on the history.")
    elif not isinstance(network, ClosedForm):
        require(
            differs.all(),
            f"{name} does not depend on the last item of a history; look for a shift by one position, "
            "or declare ignores_history = True.",
        )
    differs = (_answers(network, histories, user_ids + 1) - before).abs().amax((1, 2)) > ROUNDING
    if getattr(network, "needs_users", False):
        require(differs.all(), f"{name} declares needs_users but does not depend on the user.")
    else:
        require(not differs.any(), f"{name} depends on the user but does not declare needs_users.")


@during("in training")
def _check_trainable(network: Any) -> None:
    network.train()
    jitter(network)
    histories = _histories(8, min(8, _max_length(network)))
    user_ids = torch.arange(8) % (NUM_USERS + 1)
    scores = network.score_all(network.represent(histories, user_ids))[..., 1:]
    check_gradients(network, scores)
    check_tables(network, lambda: network.represent(histories, torch.zeros_like(user_ids)))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = network.train().float().score_all(network.represent(histories, user_ids))[..., 1:]
    check_gradients(network, mixed)
    network.double()


@during("to learn a few histories")
def _check_memorizes(network: Any, knows_order: bool) -> None:
    reads = not network.ignores_history and not isinstance(network, ClosedForm)
    rows: list[
        tuple[int, list[int], int]
    ] = []  # user, items, first position with one possible item
    if reads:
        rows += [(0, [1, 2, 3, 4, 5, 6], 1)]
    if reads and knows_order:
        rows += [(0, [7, 8, 9], 2), (0, [8, 7, 10], 2)]
    if getattr(network, "needs_users", False):
        rows += [(1, [11], 0), (2, [12], 0), (3, [13], 0)]
    if not rows:
        rows += [(0, [14, 14, 14], 0)]
    length = min(6, _max_length(network))
    targets = torch.tensor([[*items, *[0] * 6][:length] for _, items, _ in rows])
    user_ids, first = (torch.tensor([row[column] for row in rows]) for column in (0, 2))
    counted = torch.arange(length) >= first.unsqueeze(1)
    best = 0.0
    for _ in range(15):
        if isinstance(network, ClosedForm):
            _fit(network, targets, user_ids)
        else:
            _train(network, [(targets, user_ids)] * 20)
        best = max(best, _mean_reciprocal_rank(network, targets, user_ids, counted))
        if best >= MEMORIZED:
            return
    order = ", or pass knows_order=False if it ignores the order on purpose" if knows_order else ""
    raise AssertionError(
        f"{name_of(network)} does not memorize {len(rows)} histories in 300 steps of Adam: the mean "
        f"reciprocal rank is {best:.2f} instead of at least {MEMORIZED}; look for a detached tensor, "
        f"tensors that are not parameters or a saturated activation{order}."
    )


@during("to learn random histories")
def _check_chance(network: Any) -> None:
    length = min(5, _max_length(network))
    if isinstance(network, ClosedForm):
        _fit(network, *_noise(32, length))
    else:
        _train(network, [_noise(32, length) for _ in range(40)])
    targets, user_ids = _noise(2000 // length, length)
    reached = _mean_reciprocal_rank(network, targets, user_ids, targets > 0)
    require(
        abs(reached - CHANCE) < 0.04,
        f"{name_of(network)} reaches a mean reciprocal rank of {reached:.2f} on random items, where chance "
        f"is {CHANCE:.2f}; look for a target that is visible in the inputs.",
    )


def _fit(network: ClosedForm, targets: Tensor, user_ids: Tensor) -> None:
    shown = targets > 0
    users, items = user_ids.unsqueeze(1).expand_as(targets)[shown], targets[shown]
    network.fit(users, items)


def _train(network: Any, batches: Sequence[tuple[Tensor, Tensor]]) -> None:
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    network.train()
    for targets, user_ids in batches:
        scores = network.score_all(network.represent(_before(targets), user_ids))
        optimizer.zero_grad()
        F.cross_entropy(scores[targets > 0], targets[targets > 0]).backward()
        optimizer.step()


@torch.no_grad()
def _mean_reciprocal_rank(
    network: Any, targets: Tensor, user_ids: Tensor, counted: Tensor
) -> float:
    scores = _scores(network.eval(), _before(targets), user_ids)
    counted = counted & (targets > 0)
    return float((1 / ranks(scores[counted], targets[counted])).mean())


def _noise(batch: int, length: int) -> tuple[Tensor, Tensor]:
    """Draw targets, (batch, length), and their users, (batch,)."""
    targets = torch.randint(1, NUM_ITEMS + 1, (batch, length))
    return targets, torch.randint(NUM_USERS + 1, (batch,))


def _histories(batch: int, length: int) -> Tensor:
    """Draw histories in which unknown items, 0, occur."""
    return _before(torch.randint(NUM_ITEMS + 1, (batch, length)))


def _before(targets: Tensor) -> Tensor:
    """Return the history before each target, (batch, length)."""
    return F.pad(targets[:, :-1], (1, 0))


def _other(item_ids: Tensor) -> Tensor:
    """Replace each item by another one."""
    return item_ids % NUM_ITEMS + 1


def _max_length(network: nn.Module) -> int:
    """Return the most positions of a training row."""
    return min(getattr(part, "max_length", 1000) for part in network.modules())
