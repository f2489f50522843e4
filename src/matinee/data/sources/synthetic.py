"""Made-up sequences with a known law, to see whether a model learns what there is to learn."""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from matinee.data.interactions import Interactions
from matinee.errors import MatineeError

_MOST_CONCENTRATED = 1e300  # beyond, a Dirichlet draw overflows
_CACHED_PROBABILITIES = 2**24  # at most 128 MiB


def markov(
    num_users: int = 1000,
    num_items: int = 100,
    num_interactions: int = 20_000,
    concentration: float = 0.05,
    order: int = 1,
    seed: int = 0,
) -> Interactions:
    r"""Draw every user's items from one Markov chain.

    The first ``order`` items of a user are uniform. Then the next item given the last ``order``
    ones, the state :math:`s`, is drawn from :math:`p_s`, itself a draw from the Dirichlet
    distribution with all its parameters at the concentration. Each :math:`p_s` is a function of the
    seed and the state alone and is drawn when a user comes to it, so the ``num_items ** order``
    states need neither memory nor time unless they are visited.

    Args:
        num_users: Number of users, at least 1; their numbers of items differ by at most one.
        num_items: Number of items, at least 1. Those never drawn are not in the catalogue.
        num_interactions: Number of rows, at least ``num_users``.
        concentration: Greater than 0. Far below 1, one item or two follow each state; far
            above, all items are equally likely and there is nothing to learn.
        order: Length of a state, at least 1.
        seed: Seed of the chain and of the draws, at least 0.

    Returns:
        Interactions without ratings; the t-th items of all users come before all (t+1)-th ones.

    Raises:
        MatineeError: If a number is out of range.
    """
    for option, value, least in (
        ("num_users", num_users, 1),
        ("num_items", num_items, 1),
        ("num_interactions", num_interactions, num_users),
        ("order", order, 1),
        ("seed", seed, 0),
    ):
        if value < least:
            raise MatineeError(f"dataset.{option} is {value}; give at least {least}.")
    if not 0 < concentration <= _MOST_CONCENTRATED:
        raise MatineeError(
            f"dataset.concentration is {concentration}; give more than 0 and at most 1e300."
        )

    @lru_cache(maxsize=max(1, _CACHED_PROBABILITIES // num_items))
    def cumulative(state: tuple[int, ...]) -> npt.NDArray[np.float64]:
        generator = np.random.default_rng((seed, 1, *state))
        return np.cumsum(generator.dirichlet(np.full(num_items, concentration)))

    draws = np.random.default_rng((seed, 2)).random(num_interactions)
    item_ids = np.empty(num_interactions, np.int64)
    for user in range(num_users):
        state: tuple[int, ...] = ()
        for row in range(user, num_interactions, num_users):
            if len(state) < order:
                item_id = int(draws[row] * num_items) + 1
            else:
                # rounding may leave the last sum below 1
                found = int(np.searchsorted(cumulative(state), draws[row], side="right"))
                item_id = min(found, num_items - 1) + 1
            item_ids[row] = item_id
            state = (*state, item_id)[-order:]
    rows = np.arange(num_interactions)
    table = {"user": rows % num_users + 1, "item": item_ids, "timestamp": rows}
    return Interactions.from_table(table, duplicates="keep", time_unit="s")


def counting(num_rows: int = 1000, length: int = 20) -> Interactions:
    """Let every user count: 1, 2, ..., ``length``.

    A model that reads one item back predicts it perfectly; one that only knows what is popular is
    at chance (the sanity data of the netrex talk on sequence models).

    Args:
        num_rows: Number of users, at least 1.
        length: Number of items, each met once by everybody, at least 1.

    Returns:
        Interactions without ratings; all users meet item t at once, before item t + 1.

    Raises:
        MatineeError: If a number is not positive.

    >>> counting(2, 3).item_ids.tolist()
    [1, 1, 2, 2, 3, 3]
    """
    for option, value in (("num_rows", num_rows), ("length", length)):
        if value < 1:
            raise MatineeError(f"dataset.{option} is {value}; give at least 1.")
    rows = np.arange(num_rows * length)
    item_ids = rows // num_rows + 1
    table = {"user": rows % num_rows + 1, "item": item_ids, "timestamp": rows}
    return Interactions.from_table(table, time_unit="s")
