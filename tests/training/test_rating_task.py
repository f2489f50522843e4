from functools import partial
from typing import Any

import pytest
import torch

from matinee.batches import RatingBatch
from matinee.networks.pairs.factorization import BiasedMatrixFactorization, MatrixFactorization
from matinee.objectives.rating_losses import MSE
from matinee.training.tasks.rating import RatingTask, penalty


def make_task(network: Any = None, **options: Any) -> RatingTask:
    torch.manual_seed(0)
    network = network or BiasedMatrixFactorization(
        3, 4, initial_score=3.0, embedding_dim=2, init_std=0.5
    )
    warm = torch.tensor([False, True, True, False]), torch.tensor([False, True, True, True, False])
    optimizer = partial(torch.optim.SGD, lr=0.1)
    return RatingTask(network, MSE(), warm, rating_scale=(1.0, 5.0), optimizer=optimizer, **options)


BATCH = RatingBatch(
    torch.tensor([1, 2, 1], dtype=torch.int32),
    torch.tensor([3, 3, 1], dtype=torch.int32),
    torch.tensor([4.0, 2.0, 5.0]),
)


def test_penalty_counts_the_looked_up_rows_once_a_use() -> None:
    task = make_task(l2=0.7, unknown_users=0.0, unknown_items=0.0)
    step = task.training_step(BATCH, 0)
    assert step is not None
    users, items = task.network.user_factors.weight, task.network.item_factors.weight
    by_hand = 0.0
    for user, item in zip(BATCH.user_ids, BATCH.item_ids, strict=True):
        by_hand += (users[user].square().sum() + items[item].square().sum()).item() / 3
    assert (step["loss"] - step["data_loss"]).item() == pytest.approx(0.7 * by_hand, rel=1e-5)


def test_penalty_leaves_other_rows_alone() -> None:
    task = make_task(l2=0.7, unknown_users=0.0, unknown_items=0.0)
    step = task.training_step(BATCH, 0)
    assert step is not None
    step["loss"].backward()
    assert task.network.user_factors.weight.grad[[0, 3]].abs().sum() == 0
    assert penalty((torch.ones(4, 2), torch.zeros(4, 3))).item() == 2.0


def test_cold_and_unknown_ids_get_the_unknown_row() -> None:
    task = make_task().eval()
    unknown = task(torch.tensor([0]), torch.tensor([1]))
    assert torch.equal(task(torch.tensor([3]), torch.tensor([1])), unknown)
    assert not torch.equal(task(torch.tensor([1]), torch.tensor([1])), unknown)


def test_predictions_are_clamped_to_the_scale() -> None:
    task = make_task(MatrixFactorization(3, 4, initial_score=40.0, embedding_dim=2)).eval()
    assert task.predict_step(BATCH).tolist() == [5.0, 5.0, 5.0]


def test_one_path_for_validation_test_and_prediction() -> None:
    task = make_task().eval()
    predicted = task.predict_step(BATCH)
    for step in (task.validation_step, task.test_step):
        answer = step(BATCH, 0)
        assert torch.equal(answer["predictions"], predicted)
        assert torch.equal(answer["ratings"], BATCH.ratings)


def test_unknown_shares_train_row_zero() -> None:
    batch = RatingBatch(*(column.repeat(200) for column in BATCH))
    task = make_task(unknown_users=0.25, unknown_items=0.1)
    rows: list[torch.Tensor] = []
    lookup = task.network.lookup
    task.network.lookup = lambda users, items: rows.extend((users, items)) or lookup(users, items)  # type: ignore[func-returns-value]
    task.training_step(batch, 0)
    for ids, share in zip(rows, (0.25, 0.1), strict=True):
        assert (ids == 0).float().mean().item() == pytest.approx(share, abs=0.06)
    assert not torch.equal(rows[0] == 0, rows[1] == 0), "users and items are replaced independently"


def test_options_out_of_range_are_refused() -> None:
    for l2 in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"^l2 is {l2}; give a finite number"):
            make_task(l2=l2)
    with pytest.raises(ValueError, match="unknown_users"):
        make_task(unknown_users=1.0)
