"""A run does its expensive work once, however many of its parts need the result."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from matinee.batches.windows import Histories
from matinee.training.tasks import NextItemTask, RatingTask

NEXT_ITEM = ["experiment=user_based/gru", "model.embedding_dim=8", "trainer.max_epochs=1"]
SHOWN = "callbacks.inspection.samples=1"


def test_histories_are_sorted_once_per_stage(
    run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    sorts: list[int] = []
    from_rows = Histories.from_rows.__func__  # type: ignore[attr-defined]

    def counted(cls: type[Histories], interactions: object, rows: object) -> Histories:
        sorts.append(len(rows))  # type: ignore[arg-type]
        return from_rows(cls, interactions, rows)  # type: ignore[no-any-return]

    monkeypatch.setattr(Histories, "from_rows", classmethod(counted))
    run(*NEXT_ITEM, SHOWN, "data.segments=[popularity,history]")
    assert len(sorts) <= 6, "train, and for each stage its own rows and those it may see"


@pytest.mark.parametrize(
    ("task", "overrides"), [(RatingTask, ["trainer.max_epochs=1"]), (NextItemTask, NEXT_ITEM)]
)
def test_tensorboard_shows_the_predictions_of_the_measurement(
    run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, task: type, overrides: list[str]
) -> None:
    predicted: list[int] = []
    predict_step = task.predict_step  # type: ignore[attr-defined]

    def counted(self: object, batch: tuple[torch.Tensor, ...], batch_idx: int = 0) -> object:
        predicted.append(batch_idx)
        return predict_step(self, batch, batch_idx)

    monkeypatch.setattr(task, "predict_step", counted)
    calls = {}
    for name, shown in (("plain", "callbacks.inspection=null"), ("shown", SHOWN)):
        predicted.clear()
        run(*overrides, shown, folder=name)
        calls[name] = len(predicted)
    assert calls["shown"] == calls["plain"] > 0
