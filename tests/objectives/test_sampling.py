"""Negative samplers pass the test kit; their probabilities, and the smallest catalogues."""

import math

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from matinee.config.folders import config_dir
from matinee.objectives import sampling
from matinee.objectives.sampling import InBatchSampler, PopularitySampler, UniformSampler
from matinee.testing import check_sampler

COUNTS = np.array([99, 1, 0, 5, 20, 74])  # entry 0 must not matter

SAMPLERS = [
    pytest.param(lambda **kw: UniformSampler(**kw), id="uniform"),
    pytest.param(lambda **kw: PopularitySampler(alpha=0.75, **kw), id="popularity"),
    pytest.param(lambda **kw: PopularitySampler(alpha=0.0, **kw), id="flat"),
]
ALL_SAMPLERS = [*SAMPLERS, pytest.param(lambda **kw: InBatchSampler(**kw), id="in_batch")]


@pytest.mark.parametrize("make", SAMPLERS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_negatives": 3, "exclude_target": False},
        {"shared": True, "num_negatives": 40},
        {"shared": True, "num_negatives": 40, "exclude_target": False},
    ],
)
def test_sampler_passes_the_kit(make, options):
    check_sampler(lambda: make(**options))


@pytest.mark.parametrize("options", [{}, {"num_negatives": 30, "uniform_share": 0.3}])
def test_in_batch_sampler_passes_the_kit(options):
    check_sampler(lambda: InBatchSampler(**options))


def test_negatives_of_a_batch_are_its_targets():
    sampler = InBatchSampler(num_negatives=4)
    sampler.fit(np.array([0, 1, 1, 1, 1, 1, 5]))
    torch.manual_seed(0)
    draws = torch.cat([sampler.sample(torch.tensor([1, 2, 3, 4, 5])) for _ in range(200)])
    assert all(len(set(row)) == 4 for row in draws.tolist()), "different positions"
    assert draws.unique().tolist() == [1, 2, 3, 4, 5], "never item 6"
    few = sampler.sample(torch.tensor([5, 6])).tolist()[0]
    assert sorted(few) == [5, 5, 6, 6], "each as often"
    assert sampler.sample(torch.tensor([3])).tolist() == [[3, 3, 3, 3]]


def test_probability_of_a_mixture():
    sampler = InBatchSampler(num_negatives=4, uniform_share=0.25)
    sampler.fit(np.array([0, 3, 0, 1, 0]))
    q = sampler.log_probability(torch.tensor([1, 2, 3, 4, 0])).exp()
    expected = [0.75 * 0.75 + 0.0625, 0.0625, 0.75 * 0.25 + 0.0625, 0.0625, 0]
    torch.testing.assert_close(q, torch.tensor(expected))
    draws = sampler.sample(torch.tensor([3] * 9))[0]
    assert draws[:3].tolist() == [3, 3, 3], "three of the batch, one of all items"


@pytest.mark.parametrize("share", [-0.1, 1.0, math.nan])
def test_refused_share(share):
    with pytest.raises(ValueError, match="uniform_share is"):
        InBatchSampler(uniform_share=share)


def test_popularity_is_the_count_to_the_power_of_alpha():
    sampler = PopularitySampler(alpha=0.5)
    sampler.fit(np.array([0, 4, 16, 0, 1]))
    q = sampler.log_probability(torch.tensor([1, 2, 3, 4, 0])).exp()
    torch.testing.assert_close(q, torch.tensor([2 / 7, 4 / 7, 0, 1 / 7, 0]))


def test_uniform_probability_keeps_the_shape():
    sampler = UniformSampler()
    sampler.fit(np.zeros(11))
    log_q = sampler.log_probability(torch.tensor([[1, 10], [0, 3]]))
    assert log_q[0, 1] == pytest.approx(-math.log(10))
    assert log_q[1, 0] == -math.inf
    assert log_q.shape == (2, 2)


@pytest.mark.parametrize("make", SAMPLERS)
def test_two_items_leave_one_choice(make):
    sampler = make(num_negatives=50)
    sampler.fit(np.array([0, 1_000_000, 1]))
    draws = sampler.sample(torch.tensor([1, 2], dtype=torch.int32))
    assert (draws[0] == 2).all()
    assert (draws[1] == 1).all()


@pytest.mark.parametrize("make", SAMPLERS)
def test_a_catalogue_of_one_item(make):
    with pytest.raises(
        ValueError, match="1 items to draw from and exclude_target=True needs at least 2"
    ):
        make().fit(np.array([0, 3]))
    sampler = make(exclude_target=False, num_negatives=3)
    sampler.fit(np.array([0, 3]))
    assert sampler.sample(torch.tensor([1])).tolist() == [[1, 1, 1]]
    assert sampler.log_probability(torch.tensor([1])).tolist() == [0]


@pytest.mark.parametrize("make", ALL_SAMPLERS)
def test_nothing_of_the_data_stands_in_a_checkpoint(make):
    sampler = make()
    sampler.fit(COUNTS)
    assert sampler.state_dict() == {}


@pytest.mark.parametrize("make", ALL_SAMPLERS)
def test_use_before_fit(make):
    for use in (make().sample, make().log_probability):
        with pytest.raises(RuntimeError, match="call fit"):
            use(torch.tensor([1]))


@pytest.mark.parametrize("make", ALL_SAMPLERS)
def test_refused_number_of_negatives(make):
    with pytest.raises(ValueError, match="num_negatives is 0"):
        make(num_negatives=0)


@pytest.mark.parametrize("alpha", [-1.0, math.nan, math.inf])
def test_refused_alpha(alpha):
    with pytest.raises(ValueError, match="alpha"):
        PopularitySampler(alpha=alpha)


def test_refused_counts():
    with pytest.raises(ValueError, match="item_counts has -1; give counts of at least 0"):
        PopularitySampler().fit(np.array([0, 3, -1]))
    with pytest.raises(ValueError, match="0 items"):
        PopularitySampler().fit(np.array([0, 0, 0]))
    with pytest.raises(ValueError, match="0 items"):
        UniformSampler().fit(np.array([0]))


def test_a_rare_item_of_a_large_catalogue_keeps_a_chance():
    counts = np.full(100_001, 10**9)
    counts[1] = 1
    sampler = PopularitySampler(alpha=1.0)
    sampler.fit(counts)
    assert sampler.log_probability(torch.tensor([1])).isfinite().all()
    assert (sampler.sample(torch.arange(1, 100_001)) != torch.arange(1, 100_001)[:, None]).all()


def test_the_ends_of_an_interval_belong_to_one_item(monkeypatch):
    """With weights of 2 each, half of the draws are an end."""
    monkeypatch.setattr(sampling, "_TOTAL", 6)
    torch.manual_seed(0)
    sampler = PopularitySampler(num_negatives=10_000)
    sampler.fit(np.array([0, 7, 7, 7]))
    for target, row in enumerate(sampler.sample(torch.arange(1, 4)), 1):
        shares = np.bincount(row.numpy(), minlength=4) / 10_000
        expected = [0 if item in (0, target) else 0.5 for item in range(4)]
        assert shares.tolist() == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("uniform", UniformSampler),
        ("popularity", PopularitySampler),
        ("in_batch", InBatchSampler),
    ],
)
def test_configs_hold_the_defaults(name, kind):
    config = OmegaConf.load(config_dir() / "sampler" / f"{name}.yaml")
    sampler, default = instantiate(config), kind()
    assert type(sampler) is kind
    for option in set(config) - {"_target_"}:
        assert getattr(sampler, option) == getattr(default, option)
