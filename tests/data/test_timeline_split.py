"""The split at one point in time: against loops, and nothing learned from the future."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from matinee.config.composing import compose
from matinee.config.folders import config_dir
from matinee.data.interactions import Interactions
from matinee.data.splits import global_timeline
from matinee.errors import MatineeError

DAY = 86_400
MODELS = sorted(path.stem for path in (config_dir() / "experiment/leave_last_out").glob("*.yaml"))


def log_of(rows: list[tuple[int, int]], unit: str = "s") -> Interactions:
    """Make interactions of (user, time); every row has an item of its own."""
    users, times = zip(*rows, strict=True)
    columns = {"user": users, "item": range(len(rows)), "timestamp": times}
    return Interactions.from_table(columns, time_unit=unit)


def numbered(count: int) -> Interactions:
    """Make one row a second from time 0, of three users in turn."""
    return log_of([(row % 3, row) for row in range(count)])


def parts(split) -> tuple[list[int], list[int], list[int]]:
    return split.train.tolist(), split.validation.tolist(), split.test.tolist()


def test_a_quantile_cuts_at_one_moment() -> None:
    split = global_timeline(numbered(20), quantile=0.8, validation_share=0.25)
    # 0..19: the 0.8 quantile is 15.2, so 16 rows are known; of 0..15 the 0.75 quantile is 11.25
    assert parts(split) == (list(range(12)), [12, 13, 14, 15], [16, 17, 18, 19])
    assert split.options == {"quantile": 0.8, "validation": "time", "validation_share": 0.25}


@pytest.mark.parametrize(
    ("date", "first"),
    [
        ("1970-01-02", 4),
        ("1970-01-01T23:59:59.5", 4),
        ("1970-01-02T01:00:00+01:00", 4),
        ("1970-01-01T18:00:01Z", 4),
        ("1970-01-01T18:00:00", 3),
    ],
)
@pytest.mark.parametrize("unit", ["s", "ms"])
def test_a_date_is_the_first_moment_of_test(date: str, first: int, unit: str) -> None:
    scale = {"s": 1, "ms": 1000}[unit]
    log = log_of([(1, hour * 3600 * scale) for hour in (0, 6, 12, 18, 24, 30)], unit)
    split = global_timeline(log, date=date, validation="last")
    assert split.test.tolist() == list(range(first, 6))
    assert split.validation.tolist() == [first - 1]


def test_rows_in_the_gap_belong_to_no_part() -> None:
    log = log_of([(day % 2, day * DAY) for day in range(10)])
    split = global_timeline(log, quantile=0.8, gap_days=2, validation="last")
    assert split.test.tolist() == [8, 9]
    known = sorted([*split.train, *split.validation])
    assert known == [0, 1, 2, 3, 4, 5]  # less than two days before row 8: 7 and, at exactly two, 6
    assert split.options["gap_days"] == 2


def test_validation_users_are_held_out_whole() -> None:
    log = log_of([(user, time) for time in range(30) for user in range(40)])
    split = global_timeline(log, validation="users", validation_share=0.3, seed=1)
    held_out = set(log.user_ids[split.validation])
    assert held_out.isdisjoint(log.user_ids[split.train])
    assert 4 <= len(held_out) <= 20
    assert held_out != set(
        log.user_ids[global_timeline(log, validation="users", seed=2).validation]
    )


def test_folds_roll_over_what_comes_after_the_cut() -> None:
    log = numbered(40)
    folds = [
        global_timeline(log, quantile=0.5, folds=4, fold=fold, validation_share=0.2)
        for fold in (1, 2, 3, 4)
    ]
    assert [split.test.tolist() for split in folds] == [
        list(range(start, start + 5)) for start in (20, 25, 30, 35)
    ]
    for split in folds:  # each learns from everything before its test part
        assert sorted([*split.train, *split.validation]) == list(range(split.test[0]))
    assert len({split.fingerprint for split in folds}) == 4


def split_unless_empty(log: Interactions, options):
    """Return the split, or None if a part would be empty."""
    try:
        return global_timeline(log, **options)
    except MatineeError as error:
        if "leaves no rows for" not in str(error):
            raise
        return None


@given(
    rows=st.lists(st.tuples(st.integers(1, 4), st.integers(0, 25)), min_size=4, max_size=50),
    quantile=st.integers(5, 95),
    validation=st.sampled_from(["time", "users", "last"]),
    gap=st.integers(0, 3),
    folds=st.integers(1, 3),
    fold=st.integers(1, 3),
)
def test_models_learn_from_all_rows_before_the_gap_and_no_other(
    rows, quantile, validation, gap, folds, fold
) -> None:
    log = log_of(rows)
    options = {"quantile": quantile / 100, "gap_days": gap / DAY, "validation": validation}
    options |= {"validation_share": 0.3, "folds": folds, "fold": min(fold, folds)}
    split = split_unless_empty(log, options)
    assume(split is not None)
    times, cut = log.timestamps, log.timestamps[split.test].min()
    known = sorted([*split.train, *split.validation])
    assert known == [row for row, time in enumerate(times) if time < cut - gap]
    if validation == "time":
        assert times[split.train].max() < times[split.validation].min()
    if validation == "last":
        for user in np.unique(log.user_ids[known]):
            mine = [row for row in known if log.user_ids[row] == user]
            held_out = [row for row in split.validation if log.user_ids[row] == user]
            assert held_out == (mine[-1:] if len(mine) > 1 else [])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"quantile": 1.0}, "quantile is 1.0"),
        ({"date": "soon"}, "date is 'soon'; give an ISO 8601 date"),
        ({"date": "2090-01-01"}, "leaves no rows for test"),
        ({"date": "1960-01-01"}, "leaves no rows for train and validation"),
        ({"gap_days": -1}, "gap_days is -1"),
        ({"gap_days": float("nan")}, "gap_days is nan"),
        ({"validation": "first"}, "choose one of time, users, last"),
        ({"validation_share": 0}, "validation_share is 0"),
        ({"folds": 0}, "folds is 0"),
        ({"folds": 2, "fold": 3}, "from 1 to folds=2"),
    ],
)
def test_what_cannot_be_split_is_refused(options, sentence: str) -> None:
    with pytest.raises(MatineeError, match=sentence):
        global_timeline(numbered(20), **options)


@pytest.mark.parametrize("model", MODELS)
def test_an_experiment_differs_from_leave_last_out_in_what_is_evaluated_alone(model: str) -> None:
    other, ours = (
        compose(f"experiment={split}/{model}") for split in ("leave_last_out", "global_timeline")
    )
    assert ours.split._target_.endswith(".global_timeline") and ours.data.eval_targets == "last"
    assert other.data.eval_targets == "successive" and other.data.eval_stride == 1
    for config in (other, ours):
        del config.split, config.data.eval_targets, config.name
    assert ours == other


def test_times_are_needed() -> None:
    log = Interactions.from_table({"user": [1, 2], "item": [1, 2]})
    with pytest.raises(MatineeError, match="needs timestamps"):
        global_timeline(log)
