"""Histories, windows, padded batches and their order, against plain loops."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from matinee.batches.windows import (
    FirstMeetings,
    Histories,
    SequenceBatch,
    Windows,
    bucketed_batches,
    cut_windows,
    gather,
    last_target_only,
    windows_ending_at,
)
from matinee.data.interactions import Interactions
from matinee.errors import MatineeError

USERS = st.lists(st.integers(1, 5), min_size=1, max_size=40)


def log_of(users: list[int]) -> Interactions:
    """Rows of users in this order; items are distinct, so that every mix-up shows."""
    table = {"user": users, "item": range(len(users)), "timestamp": range(len(users))}
    return Interactions.from_table(table)


def histories_of(users: list[int]) -> Histories:
    return Histories.from_rows(log_of(users), np.arange(len(users)))


def items_of(histories: Histories) -> torch.Tensor:
    return torch.from_numpy(histories.item_ids)


def slow_windows(histories: Histories, length: int, stride: int, min_length: int):
    """(user, items) of every window."""
    windows = []
    for user in range(len(histories.offsets) - 1):
        items = histories.item_ids[histories.offsets[user] : histories.offsets[user + 1]].tolist()
        found = []
        for end in range(len(items), 0, -stride):
            window = items[max(0, end - length) : end]
            if len(window) >= min_length:
                found.insert(0, (user, window))
        windows += found
    return windows


def slow_batch(windows: list[tuple[int, list[int]]], last_only: bool = False):
    longest = max((len(items) for _, items in windows), default=0)
    histories, targets = [], []
    for _, items in windows:
        padding = [0] * (longest - len(items))
        histories.append([0, *items[:-1], *padding])
        targets.append(([0] * (len(items) - 1) + items[-1:] if last_only else items) + padding)
    return histories, targets


@given(users=USERS, seed=st.integers(0, 9))
def test_histories_against_a_loop(users, seed):
    log = log_of(users)
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(log))[: rng.integers(0, len(log) + 1)]
    histories = Histories.from_rows(log, rows)
    assert (histories.item_ids.dtype, histories.offsets.dtype) == (np.int32, np.int64)
    assert len(histories.offsets) == log.num_users + 2
    for user in range(log.num_users + 1):
        owned = slice(histories.offsets[user], histories.offsets[user + 1])
        expected = [row for row in sorted(rows) if log.user_ids[row] == user]
        assert histories.rows[owned].tolist() == expected
        assert histories.item_ids[owned].tolist() == log.item_ids[expected].tolist()


def test_rows_of_equal_time_keep_the_order_of_the_source():
    table = {"user": [1, 2, 1, 1], "item": [9, 9, 7, 8], "timestamp": [5, 5, 5, 1]}
    log = Interactions.from_table(table)
    histories = Histories.from_rows(log, np.arange(4))
    assert log.items["raw_id"].loc[histories.item_ids].tolist() == [8, 9, 7, 9]


def test_positions_find_rows_of_another_part():
    histories = histories_of([1, 2, 1, 2, 1])
    positions = histories.positions(np.array([4, 1]))
    assert positions.tolist() == [2, 3]
    assert histories.rows[positions].tolist() == [4, 1]
    assert histories.positions(np.array([], dtype=np.int64)).tolist() == []
    part = Histories.from_rows(log_of([1, 2, 1, 2, 1]), np.array([0, 1]))
    assert part.positions(np.array([4, 1])).tolist() == [1]


def test_dropping_the_oldest_against_a_loop():
    users = [1] * 20 + [2] * 3 + [4]
    log = log_of(users)
    rows = np.flatnonzero(np.arange(len(users)) % 7 != 0)
    for share in (0.0, 0.29, 0.5, 0.9, 0.999):
        wanted = []
        for user in (1, 2, 3, 4):
            mine = [row for row in rows.tolist() if log.user_ids[row] == user]
            wanted += mine[int(len(mine) * share + 1e-9) :]
        assert Histories.from_rows(log, rows).without_oldest(share).tolist() == wanted


@given(
    users=USERS, length=st.integers(1, 8), stride=st.integers(1, 10), min_length=st.integers(1, 8)
)
def test_windows_and_batches_against_a_loop(users, length, stride, min_length):
    histories = histories_of(users)
    min_length = min(min_length, length)
    windows = cut_windows(histories, length, stride, min_length)
    expected = slow_windows(histories, length, stride, min_length)
    assert [t.dtype for t in windows] == [torch.int64, torch.int32, torch.int32]
    assert windows.user_ids.tolist() == [user for user, _ in expected]
    assert windows.lengths.tolist() == [len(items) for _, items in expected]

    batch = gather(items_of(histories), windows)
    histories_expected, targets_expected = slow_batch(expected)
    assert batch.histories.tolist() == histories_expected
    assert batch.target_ids.tolist() == targets_expected
    assert batch.targets_at.tolist() == batch.target_ids.nonzero().T.tolist()
    last = last_target_only(
        batch, torch.tensor([items[-1] for _, items in expected], dtype=torch.int64)
    )
    assert last.targets_at.tolist() == last.target_ids.nonzero().T.tolist()
    assert last.target_ids.tolist() == slow_batch(expected, last_only=True)[1]
    assert last.histories.tolist() == histories_expected
    assert (last.target_ids != 0).sum(1).tolist() == [1] * len(expected)


def test_a_batch_in_full():
    histories = histories_of([1, 1, 2, 1])
    batch = gather(items_of(histories), cut_windows(histories, length=3, stride=3))
    assert isinstance(batch, SequenceBatch)
    assert batch.histories.tolist() == [[0, 1, 2], [0, 0, 0]]
    assert batch.target_ids.tolist() == [[1, 2, 4], [3, 0, 0]]
    assert batch.lengths.tolist() == [3, 1]
    assert batch.user_ids.tolist() == [1, 2]
    assert batch.targets_at.tolist() == [[0, 0, 0, 1], [0, 1, 2, 0]]
    assert batch.histories.dtype == batch.target_ids.dtype == batch.targets_at.dtype == torch.int64


def test_stride_of_the_length_leaves_a_remainder_at_the_start():
    windows = cut_windows(histories_of([1] * 23), length=10, stride=10)
    assert windows.starts.tolist() == [0, 3, 13]
    assert windows.lengths.tolist() == [3, 10, 10]


def test_stride_one_ends_a_window_at_every_item():
    windows = cut_windows(histories_of([1] * 4), length=3, stride=1, min_length=2)
    assert windows.starts.tolist() == [0, 0, 1]
    assert windows.lengths.tolist() == [2, 3, 3]


def test_held_out_rows_are_predicted_from_what_came_before():
    histories = histories_of([1, 2, 1, 1])
    windows = windows_ending_at(histories, histories.positions(np.array([3])), length=2)
    batch = last_target_only(gather(items_of(histories), windows), torch.tensor([7]))
    assert batch.histories.tolist() == [[0, 3]]
    assert batch.target_ids.tolist() == [[0, 7]]


def test_one_user_with_one_item():
    histories = histories_of([1])
    assert gather(items_of(histories), cut_windows(histories, 5, 5)).histories.tolist() == [[0]]
    assert cut_windows(histories, 5, 5, min_length=2).starts.tolist() == []


def test_nothing_at_all():
    histories = Histories.from_rows(log_of([1, 2]), np.array([], dtype=np.int64))
    windows = cut_windows(histories, length=3, stride=1)
    batch = gather(items_of(histories), windows)
    assert batch.histories.shape == batch.target_ids.shape == (0, 0)
    assert last_target_only(batch, windows.starts).target_ids.shape == (0, 0)
    assert histories.positions(np.array([1])).tolist() == []
    assert bucketed_batches(windows.lengths, 4, 0, 0) == []


@given(rows=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 5)), min_size=1, max_size=40))
def test_items_met_before_against_a_loop(rows):
    users, items = zip(*rows, strict=True)
    table = {"user": users, "item": items, "timestamp": range(len(rows))}
    log = Interactions.from_table(table, duplicates="keep")
    histories = Histories.from_rows(log, np.arange(len(rows)))
    windows = cut_windows(histories, length=3, stride=2)
    windows = windows.take(torch.randperm(len(windows.starts)))
    listed, starts, ends = FirstMeetings.of(histories).before(windows)
    for number, (start, length, user) in enumerate(zip(*windows, strict=True)):
        owned = histories.item_ids[histories.offsets[user] : start + length - 1].tolist()
        expected = list(dict.fromkeys(owned))
        assert listed[starts[number] : ends[number]].tolist() == expected


def test_items_met_before_many_targets_of_one_user_are_listed_once():
    histories = histories_of([1] * 5000)
    windows = cut_windows(histories, length=10, stride=1)
    listed, starts, ends = FirstMeetings.of(histories).before(windows)
    assert len(listed) == 4999, "and not the sum over the targets, 12 million"
    assert (ends - starts).tolist() == list(range(5000))


def test_take_by_index_slice_and_mask():
    windows = cut_windows(histories_of([1, 1, 2, 3]), length=2, stride=1)
    assert windows.take(torch.tensor([3, 0])).user_ids.tolist() == [3, 1]
    assert windows.take(slice(1, 3)).starts.tolist() == [0, 2]
    assert windows.take(windows.user_ids == 2).lengths.tolist() == [1]


@pytest.mark.parametrize(
    ("length", "stride", "min_length", "refused"),
    [
        (0, 1, 1, "length is 0"),
        (3, 0, 1, "stride is 0"),
        (3, 1, 0, "min_length is 0"),
        (3, 1, 4, "min_length is 4 and length is 3"),
    ],
)
def test_refused_window_options(length, stride, min_length, refused):
    with pytest.raises(MatineeError, match=refused):
        cut_windows(histories_of([1]), length, stride, min_length)


def test_memory_of_windows_does_not_grow_with_their_length():
    num_rows, num_users = 200_000, 20
    rng = np.random.default_rng(0)
    log = Interactions(
        user_ids=rng.integers(1, num_users + 1, num_rows).astype(np.int32),
        item_ids=rng.integers(1, 100, num_rows).astype(np.int32),
        ratings=None,
        timestamps=None,
        users=pd.DataFrame({"raw_id": range(num_users)}),
        items=pd.DataFrame({"raw_id": range(100)}),
    )
    histories = Histories.from_rows(log, np.arange(num_rows))
    tracemalloc.start()
    windows = cut_windows(histories, length=1000, stride=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(windows.starts) == num_rows
    assert sum(column.nbytes for column in windows) == 16 * num_rows
    assert peak < 80 * num_rows  # bytes; copies of the windows would take 4,000 per row


LENGTHS = st.lists(st.integers(1, 200), max_size=150)


@given(lengths=LENGTHS, batch_size=st.integers(1, 40), epoch=st.integers(0, 3))
def test_bucketed_batches_hold_every_window_once_in_even_sizes(lengths, batch_size, epoch):
    lengths = torch.tensor(lengths, dtype=torch.int32)
    batches = bucketed_batches(lengths, batch_size, 0, epoch)
    assert len(batches) == -(-len(lengths) // batch_size)
    assert sorted(i for batch in batches for i in batch.tolist()) == list(range(len(lengths)))
    sizes = [len(batch) for batch in batches]
    assert max(sizes, default=0) <= batch_size
    assert max(sizes, default=0) - min(sizes, default=0) <= 1


def test_the_order_is_a_function_of_seed_and_epoch():
    lengths = torch.randint(1, 50, (500,), generator=torch.Generator().manual_seed(0)).int()

    def order(seed, epoch):
        return torch.cat(bucketed_batches(lengths, 32, seed, epoch)).tolist()

    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002 - to show that the global state does not matter
    first = order(3, 4)
    assert order(3, 4) == first
    others = [order(3, 5), order(4, 4), order(4, 3)]
    assert all(other != first for other in others)


def test_companions_are_of_similar_length_yet_change():
    lengths = torch.randint(1, 201, (2000,), generator=torch.Generator().manual_seed(0)).int()
    batches = bucketed_batches(lengths, 50, 0, 0)
    padded = sum(len(batch) * int(lengths[batch].max()) for batch in batches)
    assert padded < 1.2 * int(lengths.sum())  # random companions would pad to almost double
    again = {frozenset(batch.tolist()) for batch in bucketed_batches(lengths, 50, 0, 1)}
    assert not again & {frozenset(batch.tolist()) for batch in batches}
    means = [float(lengths[batch].float().mean()) for batch in batches]
    assert means != sorted(means)  # short ones do not come first


def test_refused_batch_sizes():
    with pytest.raises(MatineeError, match="batch_size is 0"):
        bucketed_batches(torch.ones(3), 0, 0, 0)


def test_windows_go_through_a_network_in_any_company():
    """A row reads the same alone and beside longer rows, but for its padding."""
    histories = histories_of([1, 1, 1, 2])
    windows = cut_windows(histories, 3, 3)
    together = gather(items_of(histories), windows)
    for row in range(2):
        alone = gather(items_of(histories), Windows(*(c[row : row + 1] for c in windows)))
        length = int(alone.lengths)
        assert torch.equal(together.histories[row, :length], alone.histories[0])
        assert not together.histories[row, length:].any()
