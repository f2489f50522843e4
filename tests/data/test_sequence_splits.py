"""Splits of histories: whole users, last rows, tails."""

from dataclasses import replace

import numpy as np
import pytest
from hydra.utils import instantiate
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from matinee.config.folders import config_dir
from matinee.data.interactions import Interactions
from matinee.data.splits import leave_last_out, user_based, user_tail
from matinee.errors import MatineeError


def log_of(users, **columns) -> Interactions:
    table = {"user": users, "item": [1] * len(users), "timestamp": range(len(users)), **columns}
    return Interactions.from_table(table, duplicates="keep")


def sides(log, split):
    """Raw user id -> part, where every user has one part."""
    raw = log.users["raw_id"].to_numpy()
    found = {}
    for part in ("train", "validation", "test"):
        for user in raw[log.user_ids[getattr(split, part)] - 1]:
            assert found.setdefault(str(user), part) == part
    return found


def covers_every_row(log, split) -> bool:
    rows = np.concatenate((split.train, split.validation, split.test))
    parts = (split.train, split.validation, split.test)
    ascending = all((np.diff(part) > 0).all() for part in parts)
    return ascending and np.sort(rows).tolist() == list(range(len(log)))


def test_user_based_holds_out_whole_users_in_the_shares_asked_for():
    log = log_of(np.random.default_rng(0).integers(0, 3000, 20_000))
    split = user_based(log, seed=0, validation_share=0.1, test_share=0.2)
    assert covers_every_row(log, split)
    parts = list(sides(log, split).values())
    assert parts.count("test") / len(parts) == pytest.approx(0.2, abs=0.025)
    assert parts.count("validation") / len(parts) == pytest.approx(0.1, abs=0.02)
    assert split.name == "user_based"
    assert split.options == {"validation_share": 0.1, "test_share": 0.2}
    cold = split.cold(log)["test"]
    assert cold["rows"] == len(split.test)


def test_a_users_side_depends_on_nothing_else():
    users = list(range(500))
    whole = log_of(users)
    expected = sides(whole, user_based(whole, seed=3))
    half = log_of([user for user in users[::-1] if user % 2] * 3)
    found = sides(half, user_based(half, seed=3))
    assert found == {user: part for user, part in expected.items() if int(user) % 2}
    text = log_of([str(user) for user in users])
    assert sides(text, user_based(text, seed=3)) == expected
    assert sides(whole, user_based(whole, seed=4)) != expected
    assert user_based(whole, seed=3).fingerprint == user_based(whole, seed=3).fingerprint


def test_the_hash_is_the_same_for_ever():
    log = log_of(range(12))
    found = sides(log, user_based(log, seed=0, validation_share=0.3, test_share=0.4))
    parts = "".join(found[str(user)][1] for user in range(12))
    # printf "0:$user" | sha256sum, the first 12 digits: below 0.4 test, below 0.7 validation
    assert parts == "araaeraeaear"


def slow_leave_last_out(log):
    parts = {"train": [], "validation": [], "test": []}
    for user in range(1, log.num_users + 1):
        rows = np.flatnonzero(log.user_ids == user).tolist()
        if len(rows) >= 3:
            parts["test"].append(rows.pop())
            parts["validation"].append(rows.pop())
        parts["train"] += rows
    return {part: sorted(rows) for part, rows in parts.items()}


def slow_user_tail(log, validation_share, test_share):
    parts = {"train": [], "validation": [], "test": []}
    for user in range(1, log.num_users + 1):
        rows = np.flatnonzero(log.user_ids == user).tolist()
        num_test = len(rows) * test_share // 100
        num_validation = len(rows) * validation_share // 100
        end = len(rows) - num_test
        parts["test"] += rows[end:]
        parts["validation"] += rows[end - num_validation : end]
        parts["train"] += rows[: end - num_validation]
    return {part: sorted(rows) for part, rows in parts.items()}


USERS = st.lists(st.integers(1, 4), min_size=1, max_size=60)


@given(users=USERS)
def test_leave_last_out_against_a_loop(users):
    log = log_of(users)
    expected = slow_leave_last_out(log)
    if not expected["test"]:
        with pytest.raises(MatineeError, match="leaves no rows"):
            leave_last_out(log)
        return
    split = leave_last_out(log)
    assert {part: getattr(split, part).tolist() for part in expected} == expected
    assert covers_every_row(log, split)


@given(users=USERS, validation=st.integers(1, 49), test=st.integers(1, 49))
def test_user_tail_against_a_loop(users, validation, test):
    log = log_of(users)
    expected = slow_user_tail(log, validation, test)
    if not all(expected.values()):
        with pytest.raises(MatineeError, match="leaves no rows"):
            user_tail(log, validation / 100, test / 100)
        return
    split = user_tail(log, validation / 100, test / 100)
    assert {part: getattr(split, part).tolist() for part in expected} == expected
    assert covers_every_row(log, split)


@pytest.mark.parametrize("make", [leave_last_out, lambda log: user_tail(log, 0.2, 0.2)])
def test_rows_of_equal_time_and_rows_without_time_keep_the_source_order(make):
    users, items = [1] * 5, [5, 3, 4, 2, 1]
    for columns in ({"timestamp": [7] * 5}, {}):
        log = Interactions.from_table({"user": users, "item": items, **columns})
        split = make(log)
        assert log.items["raw_id"].loc[log.item_ids[split.test]].tolist() == [1]
        assert log.items["raw_id"].loc[log.item_ids[split.validation]].tolist() == [2]


def test_a_share_of_a_users_rows_is_exact_where_its_product_is_whole():
    """100 * 0.29 is 28.999... in floating point."""
    split = user_tail(log_of([1] * 100), validation_share=0.29, test_share=0.29)
    assert split.sizes == {"train": 42, "validation": 29, "test": 29}


@pytest.mark.parametrize("make", [leave_last_out, lambda log: user_tail(log, 0.2, 0.2)])
def test_rows_that_are_not_in_the_order_of_time_are_noticed(make):
    """A reader that builds interactions without ``from_table`` could leave them so."""
    log = log_of([1] * 5 + [2] * 5)
    make(log)
    with pytest.raises(AssertionError, match="earlier than its predecessor's"):
        make(replace(log, timestamps=log.timestamps[::-1]))


def test_short_histories_stay_in_train():
    log = log_of([1, 1, 2, 3, 3, 3])
    split = leave_last_out(log)
    assert (split.train.tolist(), split.validation.tolist(), split.test.tolist()) == (
        [0, 1, 2, 3],
        [4],
        [5],
    )
    log = log_of([1] * 20 + [2] * 19)
    assert set(log.user_ids[user_tail(log).test].tolist()) == {1}


def test_a_user_without_interactions_is_no_problem_for_a_single_one():
    log = log_of([9, 9, 9])
    assert leave_last_out(log).sizes == {"train": 1, "validation": 1, "test": 1}
    with pytest.raises(MatineeError, match="user_based leaves no rows"):
        user_based(log, seed=0)


@pytest.mark.parametrize(
    "make", [lambda log, *shares: user_based(log, 0, *shares), user_tail], ids=["based", "tail"]
)
@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ((0.0, 0.1), "validation_share is 0"),
        ((0.1, 1.0), "test_share is 1"),
        ((0.5, 0.5), "nothing for train"),
        ((0.1, float("nan")), "test_share is nan"),
    ],
)
def test_refused_shares(make, shares, message):
    with pytest.raises(MatineeError, match=message):
        make(log_of([1, 2, 3]), *shares)


@pytest.mark.parametrize("name", ["user_based", "leave_last_out", "user_tail"])
def test_configs_make_their_split(name):
    config = OmegaConf.load(config_dir() / "split" / f"{name}.yaml")
    config = OmegaConf.merge({"seed": 5, "split": config}).split
    split = instantiate(config)(log_of(list(range(60)) * 40))
    assert split.name == name
    options = {key: config[key] for key in config if key[0] != "_" and key != "seed"}
    assert split.options == options
