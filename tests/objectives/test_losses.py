"""Rating losses pass the test kit and agree with values computed by hand."""

import math

import numpy as np
import pytest
import torch

from matinee.objectives.rating_losses import MAE, MSE, Huber, StarClassification
from matinee.testing import check_rating_loss

RATINGS = np.array([1, 1, 2, 4, 5, 5, 5, 5], dtype=np.float32)


@pytest.mark.parametrize("loss", [MSE, MAE, Huber, StarClassification])
def test_loss_passes_the_kit(loss) -> None:
    check_rating_loss(loss)


def test_direct_losses_by_hand() -> None:
    scores, ratings = torch.tensor([1.0, 4.0]), torch.tensor([2.0, 1.0])
    assert MSE()(scores, ratings).item() == pytest.approx((1 + 9) / 2)
    assert MAE()(scores, ratings).item() == pytest.approx((1 + 3) / 2)
    assert Huber(delta=2.0)(scores, ratings).item() == pytest.approx((0.5 * 1 + 2 * (3 - 1)) / 2)


def test_direct_losses_start_at_the_mean_and_keep_scores() -> None:
    loss = MSE()
    loss.fit(RATINGS)
    assert loss.initial_score == pytest.approx(RATINGS.mean())
    assert loss.rating(torch.tensor([2.5])).item() == 2.5


def test_huber_refuses_a_delta_of_nothing() -> None:
    with pytest.raises(ValueError, match="delta"):
        Huber(delta=0)


def fitted() -> StarClassification:
    loss = StarClassification()
    loss.fit(RATINGS)
    return loss


def test_star_classification_starts_at_the_base_rates() -> None:
    loss = fitted()
    assert loss.rating(torch.zeros(1)).item() == pytest.approx(RATINGS.mean())
    shares = np.array([2, 1, 1, 4]) / 8
    entropy = -(shares * np.log(shares)).sum()
    assert loss(torch.zeros(8), torch.from_numpy(RATINGS)).item() == pytest.approx(entropy)


def test_star_classification_against_a_loop() -> None:
    loss = fitted()
    scores = torch.tensor([-1.5, 0.3, 2.0])
    levels, shares = [1.0, 2.0, 4.0, 5.0], [2 / 8, 1 / 8, 1 / 8, 4 / 8]
    mean = sum(level * share for level, share in zip(levels, shares, strict=True))
    deviation = math.sqrt(sum(s * (v - mean) ** 2 for v, s in zip(levels, shares, strict=True)))
    nats = 0.0
    for score, rating in zip(scores.tolist(), [4.0, 1.0, 5.0], strict=True):
        weights = [
            math.exp(score * (v - mean) / deviation) * s
            for v, s in zip(levels, shares, strict=True)
        ]
        nats -= math.log(weights[levels.index(rating)] / sum(weights)) / 3
        expected = sum(w * v for w, v in zip(weights, levels, strict=True)) / sum(weights)
        assert loss.rating(torch.tensor([score])).item() == pytest.approx(expected, rel=1e-5)
    assert loss(scores, torch.tensor([4.0, 1.0, 5.0])).item() == pytest.approx(nats, rel=1e-5)


def test_star_classification_rises_with_the_score_and_stays_on_the_scale() -> None:
    predicted = fitted().rating(torch.linspace(-20, 20, 101))
    assert (predicted.diff() >= 0).all()
    assert predicted[0].item() == pytest.approx(1, abs=1e-3)
    assert predicted[-1].item() == pytest.approx(5, abs=1e-3)


def test_star_classification_needs_levels() -> None:
    with pytest.raises(ValueError, match="takes 2 to 100"):
        StarClassification().fit(np.ones(5, dtype=np.float32))
    with pytest.raises(ValueError, match="takes 2 to 100"):
        StarClassification().fit(np.random.default_rng(0).random(500).astype(np.float32))
