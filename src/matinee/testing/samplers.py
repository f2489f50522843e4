"""Check of samplers of negative items."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from matinee.contracts import NegativeSampler
from matinee.testing.properties import (
    check_complete,
    check_state_dict,
    during,
    name_of,
    reproducible,
    require,
)

COUNTS = np.array([99, 1, 0, 5, 20, 74])  # of items 0 to 5; entry 0 must have no effect
ITEMS = torch.arange(1, 6)
DRAWS = 20_000  # for each target


def check_sampler(make: Callable[[], NegativeSampler]) -> None:
    """Check a sampler of negative items.

    The properties are:

    - draws of the right shape, dtype and range: for each target, also for none, or one draw for all
      targets, of which there is at least one;
    - probabilities that sum to 1 and are equal if ``is_uniform`` is true, and draws that follow them;
    - no draw of the target if ``exclude_target`` is true and draws are not shared, and draws of it
      otherwise;
    - draws from torch's global generator;
    - unchanged targets;
    - the same answer from another instance with the same state dict.

    Args:
        make: Makes the sampler. The check fits it to the counts of 5 items, one of which is 0.

    Raises:
        AssertionError: If a property is missing.
    """
    with reproducible():
        sampler, other = make(), make()
        check_complete(sampler, NegativeSampler)
        _fit(sampler)
        _fit(other)
        _check_draws(sampler)
        _check_seed(sampler)
        _check_distribution(sampler)
        check_state_dict(sampler, other, lambda part: part.log_probability(ITEMS))


@during("to be fitted")
def _fit(sampler: Any) -> None:
    sampler.fit(COUNTS)


@during("to draw for different numbers of targets")
def _check_draws(sampler: Any) -> None:
    name = name_of(sampler)
    none = [] if _is_shared(sampler) else [ITEMS[:0]]
    for target_ids in (ITEMS, ITEMS.int(), ITEMS[:1], *none):
        before = target_ids.clone()
        draws, rows = sampler.sample(target_ids), 1 if _is_shared(sampler) else len(target_ids)
        shape = (rows, sampler.num_negatives)
        require(
            draws.shape == shape and draws.dtype == torch.int64,
            f"{name}: sample returns {draws.dtype} {tuple(draws.shape)} instead of torch.int64 {shape}.",
        )
        require(
            ((draws >= 1) & (draws <= len(ITEMS))).all(),
            f"{name} draws ids outside of 1..{len(ITEMS)}; look for draws of item 0, the padding.",
        )
        require(
            torch.equal(target_ids, before),
            f"{name} changes the targets; look for an in-place operation.",
        )


def _is_shared(sampler: Any) -> bool:
    """Return whether all targets share one draw."""
    return len(sampler.sample(ITEMS[:2])) == 1


def _targets(number: int) -> torch.Tensor:
    """Draw targets as often as train has them; a sampler may take its negatives from the batch."""
    counts = torch.from_numpy(COUNTS).double()
    counts[0] = 0
    return torch.multinomial(counts, number, replacement=True)


@during("to draw with a seed")
def _check_seed(sampler: Any) -> None:
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(sampler.sample(ITEMS.repeat(20)))
    require(
        torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2]),
        f"{name_of(sampler)}: draws must be a function of torch.manual_seed; look for NumPy's or another "
        "generator.",
    )


@during("to compare draws with probabilities")
def _check_distribution(sampler: Any) -> None:
    name = name_of(sampler)
    log_q = sampler.log_probability(torch.arange(len(COUNTS)))
    probabilities = log_q.double().exp()
    require(
        log_q.dtype == torch.float32
        and probabilities[0] == 0
        and abs(float(probabilities.sum()) - 1) < 1e-5,
        f"{name}: log_probability must return float32, minus infinity for item 0, and probabilities that "
        f"sum to 1, but for items 0 to 5 they are {[round(p, 4) for p in probabilities.tolist()]}.",
    )
    require(
        not sampler.is_uniform or (probabilities[1:] - probabilities[1]).abs().max() < 1e-6,
        f"{name} declares is_uniform, but its items are not equally likely.",
    )
    for target_id in ITEMS.tolist():
        rows = -(-DRAWS // sampler.num_negatives)
        if _is_shared(sampler):
            targets = _targets(rows * sampler.num_negatives).split(sampler.num_negatives)
            draws = torch.cat([sampler.sample(target_ids) for target_ids in targets]).flatten()
        else:
            draws = sampler.sample(torch.full((rows,), target_id)).flatten()
        counts, expected = torch.bincount(draws, minlength=len(COUNTS)), probabilities.clone()
        if sampler.exclude_target and not _is_shared(sampler):
            require(
                counts[target_id] == 0,
                f"{name} has exclude_target but draws the target; look for negatives that belong to "
                "another row.",
            )
            expected[target_id] = 0
        expected *= len(draws) / expected.sum()
        possible = expected > 0
        chi_squared = ((counts - expected).square() / expected)[possible].sum()
        freedom = int(possible.sum()) - 1
        require(
            not counts[~possible].any()
            and chi_squared <= freedom + 10 * math.sqrt(2 * freedom),  # 10 standard deviations
            f"{name} draws with other frequencies than log_probability says: for target {target_id}, "
            f"items 1 to 5 are drawn {counts[1:].tolist()} times instead of about "
            f"{expected[1:].round().int().tolist()}.",
        )
