"""What is logged of an epoch of training is a mean over its targets, not over its steps."""

import csv
from typing import Any

import numpy as np
import pytest

from matinee.training.tasks import NextItemTask, RatingTask

FITS = {
    RatingTask: ["model=ncf", "loss=mae", "data.batch_size=64"],
    NextItemTask: ["experiment=user_based/gru", "data.batch_size=16"],
}


@pytest.mark.parametrize("task", FITS, ids=lambda task: task.__name__)
def test_the_loss_of_train_is_a_mean_over_targets(
    run, monkeypatch: pytest.MonkeyPatch, task: type
) -> None:
    losses: list[tuple[float, int]] = []
    step = task.step

    def spied(self: Any, batch: Any) -> dict[str, Any]:
        outputs = step(self, batch)
        count = outputs["count"] if "count" in outputs else len(batch.ratings)
        losses.append((float(outputs["data_loss"]), int(count)))
        return outputs

    monkeypatch.setattr(task, "step", spied)
    folder = run(*FITS[task], "logger=none", "trainer.max_epochs=2")
    with (folder / "metrics.csv").open() as file:
        logged = [float(row["train/loss"]) for row in csv.DictReader(file)]
    epochs = np.split(np.array(losses), 2)
    expected = [np.average(values, weights=counts) for values, counts in (e.T for e in epochs)]
    assert logged == pytest.approx(expected, rel=1e-6)
    assert logged != pytest.approx([epoch[:, 0].mean() for epoch in epochs], rel=1e-4)
