r"""Significance: how much the difference between two models depends on which users were tested.

The difference is that of the metrics in the table. For a metric :math:`m` over the test rows of draw
:math:`d` of the split, averaged over the seeds that ran on that draw and over the draws :math:`D` that
both models ran on, it is

.. math:: \Delta = \frac{1}{|D|} \sum_{d \in D} \left( \overline{m}_{a,d} - \overline{m}_{b,d} \right).

Rows of one user are not independent. Therefore users are resampled, each with all rows in all draws (a
cluster bootstrap, :func:`bootstrap`), and both models are measured on the same resample. The interval
covers the choice of users, not the choice of seeds.

The p-value is from Wilcoxon's signed-rank test on one number for each user: the difference of the user's
mean squared error (for RMSE) or mean reciprocal rank (for MRR), averaged over the draws with that user.
The test weights users equally, the metric weights rows equally.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from matinee.errors import MatineeError
from matinee.experiment.run_folder import PER_USER
from matinee.verbs.report.comparison import Comparison, RunGroup
from matinee.verbs.report.runs import Run

Floats = npt.NDArray[np.float64]
LARGEST = 1e12  # count or value of a user; sums of more would lose digits
RESAMPLES = 10_000
BLOCK_SIZE = 2**22  # users drawn at a time, over all resamples of a block


@dataclass(frozen=True)
class UserSums:
    """The headline metric of a run on test, as sums for each user.

    Attributes:
        users: Raw ids, unique and ascending, (users,).
        counts: Number of rows or windows of each user, (users,).
        totals: Sum over these rows of the metric to the given power, (users,): squared errors for
            RMSE, reciprocal ranks for MRR.
        power: See :class:`matinee.contracts.Headline`.
    """

    users: npt.NDArray[np.str_]
    counts: Floats
    totals: Floats
    power: int

    @property
    def metric(self) -> float:
        """The metric over all rows."""
        return float((self.totals.sum() / self.counts.sum()) ** (1 / self.power))


Draws = Mapping[str, Sequence[UserSums]]  # fingerprint of a split -> the runs on it


@dataclass(frozen=True)
class Difference:
    """A model's metric minus that of the best model, over the draws that both have.

    Attributes:
        value: The difference, in units of the metric.
        low: Lower end of the 95 % interval.
        high: Upper end.
        p: Two-sided p-value of the signed-rank test, with Holm's correction in :func:`differences`.
        users: Number of users.
        draws: Number of draws of the split.
    """

    value: float
    low: float
    high: float
    p: float
    users: int
    draws: int


def differences(comparison: Comparison) -> tuple[dict[str, Difference], list[str]]:
    """Compare every model with the best one, which is selected on validation, not on test.

    Args:
        comparison: The groups of one protocol.

    Returns:
        Differences by label, without the best, with p-values corrected for their number; and a
        sentence for each model that could not be compared.
    """
    if len(comparison.groups) < 2:
        return {}, []
    *others, best = comparison.groups
    try:
        against = read_draws(best)
    except MatineeError as error:
        return {}, [f"Nothing is compared with {best.label}: {error}"]
    groups: dict[tuple[str, ...], dict[str, Draws]] = defaultdict(dict)
    problems = []
    for other in others:
        try:
            draws = read_draws(other)
            groups[_shared(draws, against)][other.label] = draws
        except MatineeError as error:
            problems.append(f"{other.label} is not compared: {error}")
    found: dict[str, Difference] = {}
    for shared, models in groups.items():
        found |= paired(models, {draw: against[draw] for draw in shared})
    corrected = dict(zip(found, holm(np.array([entry.p for entry in found.values()])), strict=True))
    return {
        other.label: replace(found[other.label], p=float(corrected[other.label]))
        for other in others
        if other.label in found
    }, problems


def paired(models: Mapping[str, Draws], best: Draws) -> dict[str, Difference]:
    """Compare models with the best model on the draws of the latter, without correcting p-values.

    Args:
        models: Runs of each model on every draw of ``best``, with the same users and rows.
        best: Runs of the model that is subtracted.
    """
    power = next(iter(best.values()))[0].power
    users = np.unique(np.concatenate([runs[0].users for runs in best.values()]))
    counts = np.zeros((len(users), len(best)))
    columns, draw_of, averaging = [], [], []  # a column for each run
    for draw, (name, first) in enumerate((name, runs[0]) for name, runs in best.items()):
        places = np.searchsorted(users, first.users)
        counts[places, draw] = first.counts
        for model, draws in enumerate([best, *models.values()]):
            for run in draws[name]:
                columns.append(np.zeros(len(users)))
                columns[-1][places] = run.totals
                draw_of.append(draw)
                averaging.append((model, 1 / len(draws[name])))
    totals = np.stack(columns, axis=1)
    to_models = np.zeros((len(columns), 1 + len(models)))
    for column, (model, share) in enumerate(averaging):
        to_models[column, model] = share

    def from_best(totals: Floats, counts: Floats, power: int) -> Floats:
        """Turn sums (n, runs) over counts (n, draws) into differences from the best (n, models)."""
        rows = counts[:, draw_of]
        metrics = np.divide(totals, rows, out=np.zeros_like(totals), where=rows > 0)
        means = metrics ** (1 / power) @ to_models / (counts > 0).sum(1, keepdims=True)
        difference: Floats = means[:, 1:] - means[:, :1]
        return difference

    every_run = np.ones((1, len(columns)))
    estimates = bootstrap(
        lambda totals, counts, _: from_best(totals, counts, power),
        [totals],
        counts,
        ((drawn, every_run) for drawn in _resamples(len(users))),
    )
    own = from_best(totals, counts, 1).round(12)  # each user alone; rounding errors are ties
    p_values = [signed_rank(own[:, model]) for model in range(len(models))]
    return {
        label: Difference(value, low, high, p, len(users), len(best))
        for label, (value, low, high), p in zip(models, estimates.T.tolist(), p_values, strict=True)
    }


def bootstrap(
    statistic: Callable[[Floats, Floats, Floats], Floats],
    totals: Sequence[Floats],
    counts: Floats,
    resamples: Iterable[tuple[Floats, Floats]],
) -> Floats:
    """Estimate statistics of the metrics of runs, with the 95 % intervals of a percentile bootstrap.

    Users are resampled with all their rows, because the rows of one user are not independent.

    Args:
        statistic: Computes k statistics for each of n resamples, (n, k), from sums over users of
            ``totals``, (n, runs), and of ``counts``, (n, draws), and from the weights of the runs,
            (n, runs) or (1, runs).
        totals: Values summed over the rows of each user, (users, runs). Runs may be split into several
            arrays; those with the same content give the same sums, to the last bit.
        counts: Number of rows of each user, (users, draws). A draw may serve several runs.
        resamples: Blocks of n resamples: how often each user is drawn, (n, users), and the weights
            of the runs, (n, runs) or (1, runs); ones if runs are not resampled.

    Returns:
        The statistics of all users and runs, and the lower and the upper ends of the intervals, (3, k).
    """

    def computed(users: Floats, runs: Floats) -> Floats:
        return statistic(np.hstack([users @ part for part in totals]), users @ counts, runs)

    value = computed(np.ones((1, len(counts))), np.ones((1, sum(part.shape[1] for part in totals))))
    drawn = [computed(users, runs) for users, runs in resamples]
    return np.vstack([value, np.percentile(np.concatenate(drawn), [2.5, 97.5], axis=0)])


def signed_rank(values: Floats) -> float:
    """Return the two-sided p-value of Wilcoxon's signed-rank test for symmetry around zero.

    Zeros are ranked with the other values and then count for neither side (Pratt 1959).

    Args:
        values: Independent differences, (n,).
    """
    if not np.any(values):
        return 1.0
    return float(stats.wilcoxon(values, zero_method="pratt").pvalue)


def holm(p_values: Floats) -> Floats:
    """Correct p-values for their number by Holm's step-down method (1979).

    >>> holm(np.array([0.01, 0.04, 0.03])).round(2).tolist()
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values)
    steps = np.arange(len(p_values), 0, -1) * p_values[order]
    corrected = np.empty_like(p_values)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return corrected


def read_draws(group: RunGroup) -> dict[str, list[UserSums]]:
    """Read the per-user sums of a group of runs, by the draw of their split.

    Raises:
        MatineeError: As in :func:`read_user_sums`.
    """
    draws: dict[str, list[UserSums]] = defaultdict(list)
    for run in group.runs:
        draws[run.draw].append(read_user_sums(run))
    return draws


def read_user_sums(run: Run) -> UserSums:
    """Read the per-user sums of a run's headline metric on test.

    Raises:
        MatineeError: If they are missing or broken, or do not make the recorded metric.
    """
    path, metric, power = run.folder / PER_USER, run.headline.metric, run.headline.power
    arrays = run.files.per_user()
    try:
        names = arrays["user"]
        if names.ndim != 1 or names.dtype.kind != "U" or not len(names):
            raise ValueError("user holds no ids")
        values = _numbers(arrays, metric, names)
        # without counts, the rows are windows
        counts = _numbers(arrays, "count", names) if "count" in arrays else np.ones(len(names))
        if counts.min() < 1 or max(counts.max(), np.abs(values).max()) > LARGEST:
            raise ValueError("count or a value is out of range")
    except (ValueError, KeyError) as error:
        raise MatineeError(f"{path} cannot be read ({error}).") from error
    users, rows = np.unique(names, return_inverse=True)
    with np.errstate(over="ignore"):  # an infinite sum does not make the recorded metric
        totals = counts * values**power
    sums = UserSums(users, _summed(rows, counts), _summed(rows, totals), power)
    recorded = run.result["metrics"].get(f"test/{metric}", float("nan"))
    if not np.isclose(sums.metric, recorded, rtol=1e-5):
        raise MatineeError(
            f"{path} makes a test {metric} of {sums.metric:.6f}, not {recorded:.6f}."
        )
    return sums


def _numbers(arrays: Mapping[str, npt.NDArray[Any]], name: str, users: Any) -> Floats:
    """Return an array of finite numbers, one for each entry of ``users``."""
    values = arrays[name]
    if values.shape != users.shape or values.dtype.kind not in "iuf":
        raise ValueError(f"{name} is not one number for each user")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} is not finite")
    return values.astype(np.float64)


def _summed(rows: npt.NDArray[np.intp], values: npt.NDArray[Any]) -> Floats:
    return np.bincount(rows, weights=values).astype(np.float64)


def _shared(ours: Draws, theirs: Draws) -> tuple[str, ...]:
    """Return the draws that both have; refuse them if their test rows differ."""
    shared = tuple(draw for draw in theirs if draw in ours)
    if not shared:
        raise MatineeError("it was never measured on the same draw of the split.")
    for draw in shared:
        first = theirs[draw][0]
        for run in (*theirs[draw], *ours[draw]):
            if not np.array_equal(run.users, first.users) or np.any(run.counts != first.counts):
                raise MatineeError("its per-user values are for other users or rows; train again.")
    if len({user for draw in shared for user in theirs[draw][0].users.tolist()}) < 2:
        raise MatineeError("a test needs two users or more.")
    return shared


def _resamples(num_users: int) -> Iterator[Floats]:
    """Yield how often each user is drawn in each resample, in blocks of (resamples, num_users)."""
    rng = np.random.default_rng(0)
    most = max(1, BLOCK_SIZE // num_users)
    for start in range(0, RESAMPLES, most):
        rows = min(most, RESAMPLES - start)
        drawn = (
            rng.integers(num_users, size=(rows, num_users)) + num_users * np.arange(rows)[:, None]
        )
        counted = np.bincount(drawn.ravel(), minlength=rows * num_users)
        yield counted.reshape(rows, num_users).astype(np.float64)
