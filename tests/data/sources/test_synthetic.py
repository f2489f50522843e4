"""Made-up sequences: their law, their sizes, their order."""

from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from matinee.config.folders import config_dir
from matinee.data.sources.synthetic import counting, markov
from matinee.errors import MatineeError


def rows_by_user(log):
    raw = log.items["raw_id"].to_numpy()[log.item_ids - 1]
    return [raw[log.user_ids == user].tolist() for user in range(1, log.num_users + 1)]


def test_counting(capsys):
    log = counting(num_rows=3, length=4)
    assert not capsys.readouterr().err  # nothing about times in 1970
    assert rows_by_user(log) == [[1, 2, 3, 4]] * 3
    assert (np.diff(log.timestamps) > 0).all()
    assert counting(1, 1).item_ids.tolist() == [1]
    assert (len(counting()), counting().num_items) == (20_000, 20)


def test_markov_sizes_and_order(capsys):
    log = markov(num_users=7, num_items=10, num_interactions=100, concentration=1, order=2, seed=1)
    assert not capsys.readouterr().err
    assert len(log) == 100
    assert {len(row) for row in rows_by_user(log)} == {14, 15}
    assert (np.diff(log.timestamps) > 0).all()
    assert log.ratings is None
    assert log.items["raw_id"].between(1, 10).all()


@pytest.mark.parametrize("order", [1, 2])
def test_a_low_concentration_makes_the_state_decide(order):
    log = markov(50, 10, 20_000, concentration=0.01, order=order)
    follows = defaultdict(Counter)
    for row in rows_by_user(log):
        for place in range(order, len(row)):
            follows[tuple(row[place - order : place])][row[place]] += 1
    hits = sum(counter.most_common(1)[0][1] for counter in follows.values())
    assert hits / (len(log) - 50 * order) > 0.9
    assert len({counter.most_common(1)[0][0] for counter in follows.values()}) > 3


def test_a_high_concentration_makes_noise():
    log = markov(50, 10, 20_000, concentration=10_000)
    pairs = np.zeros((11, 11))
    for row in rows_by_user(log):
        np.add.at(pairs, (row[:-1], row[1:]), 1)
    shares = pairs[1:, 1:] / pairs[1:, 1:].sum(1, keepdims=True)
    assert np.abs(shares - 0.1).max() < 0.04


def test_the_seed_decides():
    first, again, other = (markov(5, 10, 200, seed=seed).fingerprint for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_the_chain_does_not_depend_on_who_walks_it():
    """With one certain successor a state, two walks of different sizes agree on it."""
    successors = [
        {(a, b) for row in rows_by_user(log) for a, b in pairwise(row)}
        for log in (markov(3, 20, 300, 1e-4), markov(10, 20, 2000, 1e-4))
    ]
    assert successors[0] & successors[1]
    known = dict(successors[1])
    assert all(known[a] == b for a, b in successors[0] if a in known)


def test_a_high_order_is_made_of_visited_states_only():
    assert len(markov(100, 1000, 3000, concentration=0.1, order=5)) == 3000


def test_one_user_and_one_item():
    assert markov(1, 1, 3).item_ids.tolist() == [1, 1, 1]
    assert markov(1, 5, 1).user_ids.tolist() == [1]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("num_users", 0),
        ("num_items", 0),
        ("num_interactions", 2),
        ("concentration", 0),
        ("concentration", float("nan")),
        ("order", 0),
        ("seed", -1),
    ],
)
def test_refused_options(option, value):
    with pytest.raises(MatineeError, match=f"dataset.{option}"):
        markov(**{"num_users": 3, option: value})


@pytest.mark.parametrize("option", ["num_rows", "length"])
def test_refused_counting(option):
    with pytest.raises(MatineeError, match=f"dataset.{option}"):
        counting(**{option: 0})


@pytest.mark.parametrize("make", [markov, counting])
def test_configs_hold_the_defaults(make):
    config = OmegaConf.load(config_dir() / "dataset" / f"{make.__name__}.yaml")
    assert instantiate(config).fingerprint == make().fingerprint
