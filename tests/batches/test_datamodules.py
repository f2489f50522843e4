from collections import Counter

import numpy as np
import pytest
import torch

from matinee.batches import RatingBatch, RatingDataModule
from matinee.batches.loading import BatchLoader, in_order, mix_seed, shuffled
from matinee.data.interactions import Interactions
from matinee.data.splits import Split
from matinee.errors import MatineeError


def rows(count: int) -> RatingBatch:
    ids = torch.arange(count, dtype=torch.int32)
    return RatingBatch(ids, ids + 100, ids.float() / 10)


def rating_loader(
    columns: RatingBatch,
    batch_size: int,
    shuffle_seed: int | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> BatchLoader:
    count = len(columns.ratings)
    share = -(-count // world_size)
    if shuffle_seed is None:
        plan = in_order(count, batch_size)
    else:
        plan = shuffled(count, batch_size, shuffle_seed, rank, world_size)
    collate = lambda chosen: RatingBatch(*(column[chosen] for column in columns))  # noqa: E731
    return BatchLoader(plan, collate, -(-share // batch_size))


def epoch(loader: BatchLoader, number: int = 0) -> list[list[int]]:
    loader.set_epoch(number)
    return [batch.user_ids.tolist() for batch in loader]


def test_every_row_once_and_columns_stay_together() -> None:
    loader = rating_loader(rows(23), batch_size=5, shuffle_seed=1)
    batches = list(loader)
    assert [len(batch.ratings) for batch in batches] == [5, 5, 5, 5, 3] and len(loader) == 5
    whole = RatingBatch(*(torch.cat(column) for column in zip(*batches, strict=True)))
    assert sorted(whole.user_ids.tolist()) == list(range(23))
    assert torch.equal(whole.item_ids, whole.user_ids + 100)
    assert torch.equal(whole.ratings, whole.user_ids.float() / 10)


def test_order_is_a_function_of_seed_and_epoch() -> None:
    loader, twin = (rating_loader(rows(50), 8, shuffle_seed=1) for _ in range(2))
    first = epoch(loader, 0)
    assert first != epoch(loader, 1)
    assert epoch(twin, 1) == epoch(loader, 1) and epoch(twin, 0) == first
    assert epoch(rating_loader(rows(50), 8, shuffle_seed=2), 0) != first


def test_unshuffled_order_is_that_of_the_rows() -> None:
    assert epoch(rating_loader(rows(5), batch_size=2)) == [[0, 1], [2, 3], [4]]


def test_continues_in_the_middle_of_an_epoch() -> None:
    loader = rating_loader(rows(50), 8, shuffle_seed=1)
    loader.set_epoch(4)
    iterator = iter(loader)
    seen = [next(iterator).user_ids.tolist() for _ in range(3)]
    resumed = rating_loader(rows(50), 8, shuffle_seed=1)
    resumed.load_state_dict(loader.state_dict())
    assert seen + epoch(resumed, 4) == epoch(rating_loader(rows(50), 8, shuffle_seed=1), 4)
    assert len(epoch(resumed, 5)) == len(resumed), "only the first epoch after loading is shorter"


def test_state_at_the_end_of_an_epoch_starts_the_next_one_whole() -> None:
    loader = rating_loader(rows(10), 5, shuffle_seed=1)
    list(loader)
    assert loader.state_dict() == {"next_batch": 0}


@pytest.mark.parametrize("count", [1, 7, 8, 9])
def test_processes_share_an_epoch_evenly(count: int) -> None:
    loaders = [
        rating_loader(rows(count), 2, shuffle_seed=0, rank=rank, world_size=4) for rank in range(4)
    ]
    parts = [[row for batch in epoch(loader) for row in batch] for loader in loaders]
    assert len({len(part) for part in parts}) == 1
    assert len({len(loader) for loader in loaders}) == 1
    seen = Counter(row for part in parts for row in part)
    assert set(seen) == set(range(count)) and max(seen.values()) <= 4


def interactions(**columns: list[float]) -> Interactions:
    return Interactions.from_table({"user": [7, 7, 8, 9], "item": [1, 2, 1, 3], **columns})


def test_parts_are_those_of_the_split_and_warmth_that_of_train() -> None:
    split = Split("s", {}, np.array([0, 1]), np.array([2]), np.array([3]))
    datamodule = RatingDataModule(interactions(rating=[1, 2, 3, 4]), split)
    assert datamodule.columns("val").user_ids.tolist() == [2]
    assert datamodule.columns("test").ratings.tolist() == [4]
    users, items = datamodule.warm
    assert users.tolist() == [False, True, False, False]
    assert items.tolist() == [False, True, True, False]
    assert datamodule.protocol["split"]["rows"] == {"train": 2, "validation": 1, "test": 1}


def test_a_pair_is_warm_if_train_holds_its_user_and_its_item() -> None:
    users, items = [1, 2, 1, 2, 1, 3, 3], [1, 2, 2, 1, 3, 1, 3]
    table = Interactions.from_table({"user": users, "item": items, "rating": [3.0] * 7})
    split = Split("s", {}, np.array([0, 1]), np.array([2]), np.array([3, 4, 5, 6]))
    datamodule = RatingDataModule(table, split, segments=["warmth"])
    assert datamodule.evaluated("test").warm.tolist() == [True, False, False, False]
    assert datamodule.segments("test")["cold"].tolist() == [False, True, True, True]


def test_refuses_data_without_ratings_and_batches_of_nothing() -> None:
    split = Split("s", {}, np.array([0, 1]), np.array([2]), np.array([3]))
    with pytest.raises(MatineeError, match=r"dataset\.rating"):
        RatingDataModule(interactions(), split)
    with pytest.raises(MatineeError, match=r"batch_size is 0"):
        RatingDataModule(interactions(rating=[1, 2, 3, 4]), split, batch_size=0)


def test_mixed_seeds_do_not_collide() -> None:
    seeds = {
        mix_seed(seed, step, rank)
        for seed in range(10)
        for step in range(1000)
        for rank in range(2)
    }
    assert len(seeds) == 20_000
