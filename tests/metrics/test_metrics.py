import numpy as np
import pytest
import torch
from torchmetrics.functional import mean_absolute_error, mean_squared_error

from matinee.metrics import rating_metrics, rating_metrics_per_user


def test_against_torchmetrics() -> None:
    rng = np.random.default_rng(0)
    predictions, ratings = rng.normal(size=500), rng.normal(size=500)
    metrics = rating_metrics(predictions, ratings)
    ours, theirs = torch.tensor(predictions), torch.tensor(ratings)
    assert metrics["rmse"] == pytest.approx(mean_squared_error(ours, theirs, squared=False).item())
    assert metrics["mae"] == pytest.approx(mean_absolute_error(ours, theirs).item())


def test_segments_hold_their_rows_only_and_empty_ones_are_left_out() -> None:
    warm = np.array([True, True, False])
    metrics = rating_metrics(
        np.array([1.0, 2.0, 3.0]),
        np.array([1.0, 4.0, 0.0]),
        {"warm": warm, "cold": ~warm, "none": np.zeros(3, dtype=bool)},
    )
    assert metrics["rmse/warm"] == pytest.approx(2**0.5)
    assert metrics["mae/cold"] == 3.0
    assert "rmse/none" not in metrics


def test_sums_are_taken_in_double_precision() -> None:
    errors = np.full(3_000_000, 1e-3, dtype=np.float32)
    assert rating_metrics(errors, np.zeros_like(errors))["mae"] == pytest.approx(
        float(errors[0]), rel=1e-12
    )


def test_one_row() -> None:
    assert rating_metrics(np.array([2.0]), np.array([5.0])) == {"rmse": 3.0, "mae": 3.0}


def test_per_user_against_a_loop() -> None:
    rng = np.random.default_rng(1)
    users = rng.integers(1, 9, size=200).astype(np.int32)
    predictions, ratings = rng.normal(size=200), rng.normal(size=200)
    table = rating_metrics_per_user(predictions, ratings, users)
    assert table["count"].sum() == 200
    for user, count, rmse, mae in zip(*table.values(), strict=True):
        errors = (predictions - ratings)[users == user]
        assert count == len(errors)
        assert rmse == pytest.approx(np.sqrt(np.mean(errors**2)))
        assert mae == pytest.approx(np.mean(np.abs(errors)))
