"""The schedule of the warm-up, against PyTorch's own parts, and across a restart."""

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

from matinee.experiment.run_folder import read_result
from matinee.training.schedulers import WarmUp


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)


def rates(scheduler: torch.optim.lr_scheduler.LRScheduler, epochs: int) -> list[float]:
    found = []
    for _ in range(epochs):
        found.append(scheduler.get_last_lr()[0])
        scheduler.optimizer.step()
        scheduler.step()
    return found


def test_warm_up_then_constant() -> None:
    assert rates(WarmUp(optimizer(), 3), 6) == pytest.approx([0.125, 0.25, 0.375, 0.5, 0.5, 0.5])
    assert rates(WarmUp(optimizer(), 0), 2) == [0.5, 0.5]


def test_warm_up_then_cosine_as_pytorch_composes_it() -> None:
    sgd = optimizer()
    parts = [LinearLR(sgd, 1 / 4, 1.0, 3), CosineAnnealingLR(sgd, 7)]
    expected = rates(SequentialLR(sgd, parts, [3]), 10)
    assert rates(WarmUp(optimizer(), 3, 10), 10) == pytest.approx(expected)


def test_the_state_continues_the_schedule() -> None:
    whole = rates(WarmUp(optimizer(), 3, 9), 9)
    first = WarmUp(optimizer(), 3, 9)
    rates(first, 2)
    second = WarmUp(optimizer(), 3, 9)
    second.load_state_dict(first.state_dict())
    assert rates(second, 7) == whole[2:]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [((-1,), "warmup_epochs is -1"), ((5, 5), "T_max is 5 and warmup_epochs is 5")],
)
def test_refused_options(options: tuple[int, ...], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        WarmUp(optimizer(), *options)


def test_a_run_warms_up(run) -> None:
    """In its first epoch, at half of the rate, a run learns less."""
    options = ["model=mf", "logger=none", "trainer.max_epochs=1", "optimizer.lr=0.001"]
    plain = read_result(run(*options, "scheduler=none"))["metrics"]["train/rmse"]
    warmed = run(*options, "scheduler=warmup", "scheduler.warmup_epochs=1", folder="warmed")
    assert read_result(warmed)["metrics"]["train/rmse"] > plain
