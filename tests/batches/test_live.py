"""Live batches: what a prediction may see, and the running offsets."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from matinee.batches import LiveDataModule
from matinee.batches.running_biases import RunningBiases
from matinee.contracts import RatedHistories
from matinee.data.interactions import Interactions
from matinee.data.splits import Split
from matinee.errors import MatineeError

Columns = dict[str, npt.NDArray[Any]]


def made_up(seed: int = 0, rows: int = 300) -> Columns:
    """Ratings by 12 users of 15 items at 80 times, so that many rows share their time."""
    rng = np.random.default_rng(seed)
    return {
        "user": rng.integers(1, 13, rows),
        "item": rng.integers(1, 16, rows),
        "rating": rng.integers(1, 6, rows).astype(float),
        "timestamp": np.sort(rng.integers(0, 80, rows)),
    }


def module(columns: Columns, **options: Any) -> LiveDataModule:
    table = Interactions.from_table(columns, duplicates="keep")
    times = np.asarray(columns["timestamp"])
    parts = [
        np.flatnonzero((times >= low) & (times < high))
        for low, high in ((0, 40), (40, 60), (60, 99))
    ]
    return LiveDataModule(table, Split("in_time", {}, *parts), **options)


def batches(data: LiveDataModule, stage: str) -> list[RatedHistories]:
    return list(data.evaluation_dataloader(stage))


@pytest.mark.parametrize("order", ["time", "file"])
def test_running_offsets_follow_their_definition(order: str) -> None:
    columns = made_up()
    data = module(columns, order=order, item_damping=2.0, user_damping=3.0)
    users, items, times = columns["user"], columns["item"], columns["timestamp"]
    deviations = columns["rating"] - columns["rating"][times < 40].mean()
    item_parts: list[float] = []  # what each rating added to the sum of its item
    user_parts: list[float] = []
    expected = []
    for row in range(len(users)):
        earlier = [r for r in range(row) if order == "file" or times[r] < times[row]]
        of_item = [r for r in earlier if items[r] == items[row]]
        of_user = [r for r in earlier if users[r] == users[row]]
        item_offset = sum(item_parts[r] for r in of_item) / (len(of_item) + 2)
        user_offset = sum(user_parts[r] for r in of_user) / (len(of_user) + 3)
        item_parts.append(deviations[row] - user_offset)
        user_parts.append(deviations[row] - item_offset)
        expected.append([item_offset, user_offset, len(of_item), len(of_user)])
    listened = data.listened("test")
    assert sorted(listened.targets) == np.flatnonzero(times >= 60).tolist()
    np.testing.assert_allclose(listened.states, np.array(expected)[listened.targets], atol=1e-6)
    np.testing.assert_allclose(listened.offsets, np.array(expected)[listened.rows, :2], atol=1e-6)
    assert listened.known.tolist() == [int(expected[row][3]) for row in listened.targets]


def test_a_batch_holds_what_is_known_before_each_target() -> None:
    columns = {
        "user": np.array([1, 2, 1, 1, 1, 2, 1]),
        "item": np.array([1, 1, 3, 2, 2, 3, 1]),
        "rating": np.array([5.0, 1.0, 4.0, 3.0, 2.0, 2.0, 1.0]),
        "timestamp": np.array([0, 10, 20, 20, 50, 51, 70]),
    }
    (train,), (val,), (test,) = (
        batches(module(columns), stage) for stage in ("train", "val", "test")
    )
    assert train.user_ids.tolist() == [2, 1] and train.item_ids.tolist() == [[0], [1]]
    assert train.rows.tolist() == [0, 1, 1, 1] and train.known.tolist() == [0, 0, 1, 1]
    assert train.target_ids.tolist() == [1, 1, 2, 3]  # items of one time in the order of their ids
    assert val.item_ids.tolist() == [[1, 0, 0], [1, 2, 3]]
    assert val.ratings.tolist() == [[1, 0, 0], [5, 3, 4]]
    assert val.times.tolist() == [[0, 0, 0], [0, 20, 20]]
    assert test.item_ids.tolist() == [[1, 2, 3, 2]] and test.known.tolist() == [4]
    (test,) = batches(module(columns, histories="frozen"), "test")
    assert test.item_ids.tolist() == [[1, 2, 3]] and test.known.tolist() == [3]
    (train,) = batches(module(columns, order="file"), "train")
    assert train.target_ids.tolist() == [1, 1, 3, 2] and train.known.tolist() == [0, 0, 1, 2]


def test_the_columns_of_a_stage_are_in_the_order_of_its_batches() -> None:
    data = module(made_up(), eval_batch_size=3)
    for stage in ("train", "val", "test"):
        users, items, ratings = data.columns(stage)
        parts = batches(data, stage)
        assert torch.equal(torch.cat([batch.user_ids[batch.rows] for batch in parts]), users.long())
        assert torch.equal(torch.cat([batch.target_ids for batch in parts]), items.long())
        assert torch.equal(torch.cat([batch.target_ratings for batch in parts]), ratings)
        known = torch.cat([batch.known for batch in parts])
        assert data.evaluated(stage).history_lengths.tolist() == known.tolist()
        masks = data.segments(stage)
        assert sum(mask.sum() for name, mask in masks.items() if name.startswith("known")) == len(
            known
        )


def test_an_epoch_trains_on_every_row_once_in_an_order_of_its_own() -> None:
    data = module(made_up(), batch_size=2, seed=3)
    loader = data.train_dataloader()
    orders = []
    for epoch in (0, 0, 1):
        loader.set_epoch(epoch)
        orders.append([batch.user_ids.tolist() for batch in loader])
    assert orders[0] == orders[1] != orders[2]
    readers = [user for users in orders[2] for user in users]
    assert sorted(readers) == sorted(set(data.columns("train").user_ids.tolist()))
    shared = [batch for rank in (0, 1) for batch in data.train_dataloader(rank, 2)]
    assert sum(len(batch.rows) for batch in shared) >= len(data.columns("train").ratings)


def test_the_protocol_names_what_a_prediction_sees() -> None:
    kinds = [
        module(made_up(), histories=histories, order=order).protocol["histories"]
        for histories in ("live", "frozen")
        for order in ("time", "file")
    ]
    assert kinds[0] == {"kind": "live", "earlier": "time"}
    assert len({str(kind) for kind in kinds}) == 4


def test_the_present_comes_after_all_rows() -> None:
    columns = made_up()
    data = module(columns, item_damping=2.0, user_damping=3.0)
    batch = data.present(4, np.array([7, 1]))
    mine = columns["user"] == 4
    assert batch.item_ids.shape[1] == batch.known[0] == mine.sum()
    assert batch.target_states[0, 2] == (columns["item"] == 7).sum()
    assert batch.target_states[0, 3] == mine.sum()
    newcomer = data.present(0, np.array([7]), (np.array([2, 7]), np.array([1.0, 5.0])))
    assert newcomer.item_ids.tolist() == [[2, 7]] and newcomer.known.tolist() == [2]
    assert newcomer.target_states[0, 2] == batch.target_states[0, 2] + 1  # the newcomer rated it
    assert newcomer.target_states[0, 3] == 2
    assert torch.equal(data.present(4, np.array([7, 1])).target_states, batch.target_states)
    frozen = module(columns, histories="frozen").present(4, np.array([7]))
    assert frozen.known[0] == (mine & (columns["timestamp"] < 40)).sum()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"histories": "alive"}, "histories is 'alive'; choose live or frozen"),
        ({"order": "row"}, "order is 'row'; choose time or file"),
        ({"item_damping": 0.0}, "item_damping is 0.0"),
        ({"user_damping": float("nan")}, "user_damping is nan"),
    ],
)
def test_wrong_options_are_rejected(options: dict[str, Any], message: str) -> None:
    with pytest.raises(MatineeError, match=message):
        module(made_up(), **options)


def test_data_without_times_have_an_order_of_the_file_only() -> None:
    columns = {name: column for name, column in made_up(rows=6).items() if name != "timestamp"}
    table = Interactions.from_table(columns, duplicates="keep")
    split = Split("in_time", {}, np.arange(3), np.arange(3, 5), np.arange(5, 6))
    with pytest.raises(MatineeError, match=r"order=time needs timestamps.*data\.order=file"):
        LiveDataModule(table, split)
    (batch,) = batches(LiveDataModule(table, split, order="file"), "test")
    assert batch.times.eq(0).all()


def test_a_state_without_ratings_has_no_offsets() -> None:
    assert RunningBiases(2, 2, 1.0, 1.0).describe(1, 2) == (0, 0, 0, 0)


@pytest.mark.network
def test_running_offsets_have_the_documented_errors_on_movielens_100k() -> None:
    from matinee.data.sources.movielens import load
    from matinee.data.splits import chronological

    table = load("ml-100k")
    data = LiveDataModule(table, chronological(table), order="file")
    for stage, expected in (("val", 0.9462), ("test", 0.9649)):
        ratings = data.columns(stage).ratings.numpy().astype(float)
        predicted = (data.mean + data.listened(stage).states[:, :2].sum(1)).clip(1, 5)
        assert np.sqrt(((predicted - ratings) ** 2).mean()) == pytest.approx(expected, abs=5e-5)


def test_items_that_are_not_in_the_data_share_no_offset() -> None:
    running = RunningBiases(1, 2, 1.0, 1.0)
    users, items = np.zeros(2, np.int64), np.zeros(2, np.int64)
    before = running.read(users, items, np.array([2.0, -2.0]), np.arange(2))
    assert before[1].tolist() == [0, 1, 0, 1]  # the user's offset is 2 / (1 + 1)
