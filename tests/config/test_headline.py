"""Callbacks monitor what the task says."""

import pytest

from matinee.config.composing import compose
from matinee.contracts import Headline
from matinee.errors import MatineeError
from matinee.training.tasks.rating import BaseRatingTask


@pytest.mark.parametrize(
    ("overrides", "monitor", "mode"),
    [
        ([], "val/rmse", "min"),
        (["experiment=user_based/gru"], "val/mrr", "max"),
        (["experiment=live/joint"], "val/rmse", "min"),
        (["experiment=live/joint", "task.headline=mrr"], "val/mrr", "max"),
    ],
)
def test_callbacks_follow_the_task(overrides: list[str], monitor: str, mode: str) -> None:
    callbacks = compose(*overrides).callbacks
    named = (callbacks.progress_bar, callbacks.early_stopping, callbacks.checkpoints)
    assert [callback.monitor for callback in named] == [monitor] * 3
    assert callbacks.early_stopping.mode == callbacks.checkpoints.mode == mode


def test_a_monitor_of_ones_own_stays() -> None:
    checkpoints = compose("callbacks.checkpoints.monitor=val/mae").callbacks.checkpoints
    assert (checkpoints.monitor, checkpoints.mode) == ("val/mae", "min")
    assert compose("callbacks.checkpoints.monitor=null").callbacks.checkpoints.monitor is None


def test_another_headline_needs_no_other_callbacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BaseRatingTask, "headline", Headline("accuracy", higher_is_better=True))
    assert compose().callbacks.early_stopping.monitor == "val/accuracy"
    assert compose().callbacks.checkpoints.mode == "max"
    monkeypatch.delattr(BaseRatingTask, "headline")
    with pytest.raises(MatineeError, match="declares no headline metric"):
        compose()
