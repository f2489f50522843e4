"""HSTU against NumPy, one pair of positions at a time, and the times that reach it."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from matinee.batches import SequenceDataModule
from matinee.batches.queries import Queries
from matinee.data import splits
from matinee.data.interactions import Interactions
from matinee.experiment import building, measuring
from matinee.experiment.run_folder import read_result
from matinee.experiment.trainer import make_trainer
from matinee.networks.encoders.hstu import HSTU
from matinee.networks.encoders.user_conditioned import UserConditioned
from matinee.networks.sequence_recommender import SequenceRecommender
from matinee.verbs.recommend import recommend

TIMES = [0, 0, 3, 70, 70, 4000, 10**9]


def silu(x):
    return x / (1 + np.exp(-x))


def linear(x: np.ndarray, layer: nn.Linear) -> np.ndarray:
    return x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()


def normalise(x: np.ndarray, norm: nn.LayerNorm) -> np.ndarray:
    scaled = (x - x.mean()) / math.sqrt(x.var() + 1e-5)
    return scaled * norm.weight.detach().numpy() + norm.bias.detach().numpy()


def loop(encoder: HSTU, row: np.ndarray, times: list[int], num_heads: int) -> list[np.ndarray]:
    stream = list(row)
    for layer in encoder.layers:
        by_distance = layer.distance_biases[:, 0].tolist()
        by_time = layer.time_biases[:, 0].tolist()
        parts = [
            np.split(silu(linear(normalise(x, layer.norm), layer.projection)), 4) for x in stream
        ]
        out = []
        for t, x in enumerate(stream):
            mixed = np.zeros_like(x)
            for head in np.split(np.arange(len(x)), num_heads):
                for s in range(t + 1):
                    bucket = math.floor(math.log(max(times[t] - times[s], 1)) / 0.301)
                    bias = by_distance[min(t - s, len(by_distance) - 1)]
                    bias += by_time[min(bucket, len(by_time) - 1)]
                    weight = silu(parts[t][2][head] @ parts[s][3][head] + bias)
                    mixed[head] += weight * parts[s][1][head] / (t + 1)
            out.append(x + linear(normalise(mixed, layer.mixed_norm) * parts[t][0], layer.output))
        stream = out
    return [normalise(x, encoder.norm) for x in stream]


def sharp_encoder(**options) -> HSTU:
    torch.manual_seed(0)
    encoder = HSTU(8, **options).double().eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return encoder


@pytest.mark.parametrize("num_heads", [1, 2])
@pytest.mark.parametrize("options", [{}, {"num_layers": 1, "max_distance": 3, "num_buckets": 5}])
def test_agrees_with_numpy(num_heads: int, options: dict) -> None:
    encoder = sharp_encoder(num_heads=num_heads, **options)
    inputs = torch.randn(2, len(TIMES), 8, dtype=torch.float64)
    times = torch.tensor([TIMES, TIMES]) * torch.tensor([[1], [3]])
    rows = zip(inputs.numpy(), times.tolist(), strict=True)
    expected = [loop(encoder, row, moments, num_heads) for row, moments in rows]
    np.testing.assert_allclose(encoder(inputs, times).detach().numpy(), expected, atol=1e-10)


def test_later_times_change_nothing_earlier() -> None:
    encoder = sharp_encoder()
    inputs = torch.randn(1, len(TIMES), 8, dtype=torch.float64)
    before = encoder(inputs, torch.tensor([TIMES]))
    for end in range(1, len(TIMES) - 1):
        changed = torch.tensor([[*TIMES[:end], *(time + 12345 for time in TIMES[end:])]])
        after = encoder(inputs, changed)
        assert torch.equal(after[:, :end], before[:, :end])
        assert not torch.allclose(after[:, end], before[:, end])


def test_users_and_times_are_not_combined() -> None:
    with pytest.raises(ValueError, match="encoder is HSTU, which needs times"):
        UserConditioned(8, 3, HSTU)


def test_without_times_all_items_are_met_at_once() -> None:
    torch.manual_seed(0)
    network = SequenceRecommender(9, HSTU, 8).eval()
    histories = torch.randint(10, (2, 4))
    nothing = network.represent(histories)
    assert torch.equal(network.represent(histories, None, torch.zeros_like(histories)), nothing)


def log() -> Interactions:
    table = {
        "user": [1, 1, 1, 1, 1, 2, 2],
        "item": [5, 6, 7, 8, 9, 6, 5],
        "timestamp": [100, 105, 105, 200, 1000, 110, 300],
    }
    return Interactions.from_table(table, time_unit="s")


def test_batches_carry_the_times_of_items_and_none_of_targets() -> None:
    datamodule = SequenceDataModule(log(), splits.leave_last_out(log()), eval_length=4)
    assert next(iter(datamodule.evaluation_dataloader("test"))).times.shape == (1, 0)
    datamodule.carries_times = True
    batch = next(iter(datamodule.evaluation_dataloader("test")))
    assert batch.times.tolist() == [[0, 0, 0, 95]], "from the first item of the window on"
    (train,) = datamodule.train_dataloader()
    rows = dict(zip(train.user_ids.tolist(), train.times.tolist(), strict=True))
    assert rows == {1: [0, 0, 5], 2: [0, 0, 0]}
    datamodule.perturb("last_2")
    batch = next(iter(datamodule.evaluation_dataloader("test")))
    assert batch.times.tolist() == [[0, 0, 95]]
    queries = Queries.of_users(log(), np.array([1]), times=True)
    assert [queries.histories(newest)[2].tolist() for newest in (3, 0)] == [
        [[0, 0, 95, 895]],
        [[0]],
    ]


def test_a_run_uses_times(run, tmp_path: Path) -> None:
    options = ["data=sequence", "task=next_item", "loss=softmax", "split=leave_last_out"]
    folder = run(*options, "model=hstu", "model.embedding_dim=16", "logger=none")
    loaded = building.load_run(folder)
    metrics = measuring.evaluate(loaded, make_trainer(loaded.config, None), ("val", "test")).metrics
    recorded = read_result(folder)["metrics"]
    assert all(recorded[name] == value for name, value in metrics.items())
    with torch.no_grad():
        for layer in loaded.task.network.encoder.layers:
            layer.time_biases.normal_(0, 10)
    batch = next(iter(loaded.datamodule.evaluation_dataloader("test")))
    given = batch.histories, batch.lengths, batch.user_ids
    with torch.no_grad():
        assert not torch.allclose(loaded.task(*given, batch.times), loaded.task(*given))
    user = loaded.datamodule.interactions.users["raw_id"].iloc[0]
    assert len(recommend(loaded, user=user, top_k=3)) == 3
    assert len(recommend(loaded, history=[], top_k=3)) == 3
