"""Draws are functions of the seed, the batch and the process."""

import pytest
import torch

from matinee.batches.loading import mix_seed
from matinee.experiment import running
from matinee.experiment.run_folder import read_result
from matinee.training.callbacks import SeedEachStep


@pytest.mark.parametrize("accumulated", [1, 3])
def test_every_batch_has_draws_of_its_own(
    compose_train, tmp_path, monkeypatch: pytest.MonkeyPatch, accumulated: int
) -> None:
    seeds: list[int] = []
    steps: list[int] = []
    seed_step = SeedEachStep.on_train_batch_start

    def spied(self, trainer, pl_module, batch, batch_idx) -> None:
        seed_step(self, trainer, pl_module, batch, batch_idx)
        seeds.append(torch.default_generator.initial_seed())
        steps.append(trainer.global_step)

    monkeypatch.setattr(SeedEachStep, "on_train_batch_start", spied)
    folder = tmp_path / "run"
    config = compose_train(
        "model=mf", "trainer.max_epochs=2", f"+trainer.accumulate_grad_batches={accumulated}",
        "data.batch_size=128", f"run_folder={folder}", "callbacks.inspection=null", "logger=none",
    )  # fmt: skip
    running.train(config, [])
    assert seeds == [mix_seed(0, batch, 0) for batch in range(len(seeds))]
    assert (steps == list(range(len(seeds)))) == (accumulated == 1)
    assert read_result(folder)["fit"]["steps"] < len(seeds) + (accumulated == 1)
