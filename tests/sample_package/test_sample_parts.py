"""The sample package's own tests: one call of the kit per part."""

from sample_parts.data import in_time, ring
from sample_parts.encoders import MovingAverage
from sample_parts.losses import LogCosh, SmoothedSoftmax, SquaredHinge
from sample_parts.networks import Distance
from sample_parts.samplers import SmoothedSampler

from matinee import testing


def test_encoder() -> None:
    testing.check_encoder(MovingAverage)


def test_pair_network() -> None:
    testing.check_pair_network(Distance)


def test_losses() -> None:
    testing.check_ranking_loss(SquaredHinge)
    testing.check_ranking_loss(SmoothedSoftmax)
    testing.check_rating_loss(LogCosh)


def test_sampler() -> None:
    testing.check_sampler(SmoothedSampler)


def test_data() -> None:
    interactions = ring(num_users=4, num_items=3, length=5)
    assert len(interactions) == 20
    steps = interactions.item_ids[4:] - interactions.item_ids[:-4]
    assert set(steps % 3) <= {1, 2}
    split = in_time(interactions, validation_share=0.25, test_share=0.25)
    assert split.sizes == {"train": 10, "validation": 5, "test": 5}
    assert split.train.max() < split.validation.min() < split.test.min()
