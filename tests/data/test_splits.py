from dataclasses import replace

import numpy as np
import pytest

from matinee.data import splits
from matinee.data.interactions import Interactions
from matinee.errors import MatineeError


def table(timestamps: list[int] | None, users: list[int] | None = None) -> Interactions:
    count = len(timestamps) if timestamps is not None else 10
    columns = {
        "user": users or list(range(count)),
        "item": list(range(count)),
        "rating": [3.0] * count,
    }
    if timestamps is not None:
        columns["timestamp"] = timestamps
    return Interactions.from_table(columns)


def test_chronological_cuts_twice_at_the_quantile() -> None:
    split = splits.chronological(table(list(range(0, 100, 10))), quantile=0.8)
    # ten times 0..90: the 0.8 quantile is 72, so 0..70 go left (8); of those it is 56, so 6 stay
    assert split.train.tolist() == [0, 1, 2, 3, 4, 5]
    assert split.validation.tolist() == [6, 7]
    assert split.test.tolist() == [8, 9]


def test_chronological_keeps_equal_times_together() -> None:
    split = splits.chronological(table([1, 1, 1, 1, 1, 1, 2, 2, 3, 3]), quantile=0.7)
    times = np.array([1, 1, 1, 1, 1, 1, 2, 2, 3, 3])
    parts = [set(times[rows]) for rows in (split.train, split.validation, split.test)]
    assert parts == [{1}, {2}, {3}]


def test_chronological_notices_rows_that_are_not_in_the_order_of_time() -> None:
    """A reader that builds interactions without ``from_table`` could leave them so."""
    times = np.array([0, 90, 20, 30, 40, 50, 60, 70, 80, 10])
    interactions = replace(table(list(range(10))), timestamps=times)
    with pytest.raises(AssertionError, match="reaches past its successor"):
        splits.chronological(interactions)


def test_chronological_refuses_what_it_cannot_do() -> None:
    with pytest.raises(MatineeError, match="needs timestamps"):
        splits.chronological(table(None))
    with pytest.raises(MatineeError, match="leaves no rows for validation"):
        splits.chronological(table([5] * 6))
    with pytest.raises(MatineeError, match="quantile is 1"):
        splits.chronological(table([1, 2, 3]), quantile=1.0)


def test_random_is_a_partition_and_a_function_of_its_seed() -> None:
    interactions = table(list(range(1000)))
    split = splits.random(interactions, seed=3)
    assert split.sizes == {"train": 720, "validation": 80, "test": 200}
    everything = np.concatenate([split.train, split.validation, split.test])
    assert np.array_equal(np.sort(everything), np.arange(1000))
    assert split.fingerprint == splits.random(interactions, seed=3).fingerprint
    assert split.fingerprint != splits.random(interactions, seed=4).fingerprint


def test_random_refuses_a_table_too_small() -> None:
    with pytest.raises(MatineeError, match="leaves no rows for validation"):
        splits.random(table([1, 2]), seed=0)


def test_fingerprint_tells_parts_apart() -> None:
    rows = np.arange(4)
    one = splits.Split("s", {}, rows[:2], rows[2:3], rows[3:])
    other = splits.Split("s", {}, rows[:1], rows[1:3], rows[3:])
    assert one.fingerprint != other.fingerprint


def test_cold_counts_users_items_and_rows() -> None:
    interactions = Interactions.from_table(
        {"user": [1, 1, 2, 1, 3], "item": [1, 2, 1, 3, 1], "timestamp": [1, 2, 3, 4, 5]}
    )
    split = splits.Split("s", {}, np.array([0, 1]), np.array([2, 3]), np.array([4]))
    assert split.cold(interactions) == {
        "validation": {"users": 1, "items": 1, "rows": 2},
        "test": {"users": 1, "items": 0, "rows": 1},
    }


@pytest.mark.network
def test_movielens_100k_has_the_published_sizes() -> None:
    from matinee.data.sources.movielens import load

    interactions = load("ml-100k")
    split = splits.chronological(interactions)
    assert split.sizes == {"train": 64002, "validation": 16001, "test": 19997}
    times = interactions.timestamps
    assert times is not None
    edges = [
        times[rows[i]] for rows in (split.train, split.validation, split.test) for i in (0, -1)
    ]
    days = [str(np.datetime64(int(edge), "s"))[:10] for edge in edges]
    assert [days[0], days[1], days[3], days[5]] == [
        "1997-09-20",
        "1998-01-24",
        "1998-03-07",
        "1998-04-22",
    ]
    cold_users = ~np.isin(
        interactions.user_ids[split.validation], interactions.user_ids[split.train]
    )
    assert cold_users.mean() == pytest.approx(0.823, abs=5e-4)
