"""Metrics of lists in a run: by name, for every window, from what train holds."""

import math

import numpy as np
import pandas as pd
import pytest

from matinee.batches import SequenceDataModule
from matinee.data import splits
from matinee.data.interactions import Interactions
from matinee.errors import MatineeError
from matinee.experiment.runs import Run
from matinee.training.tasks.recommended_lists import ListMetrics, item_labels, shown_labels

SEQUENCE = ["data=sequence", "task=next_item", "loss=softmax", "split=leave_last_out"]


@pytest.fixture
def films() -> SequenceDataModule:
    """One user of four films; the last two are validation and test."""
    items = pd.DataFrame({"item": [1, 2, 3, 4], "genres": ["drama", "drama|war", None, "war"]})
    log = pd.DataFrame({"user": [1] * 4, "item": [1, 2, 3, 4], "time": [1, 2, 3, 4]})
    log = Interactions.from_frame(log, user="user", item="item", timestamp="time", items=items)
    return SequenceDataModule(log, splits.leave_last_out(log), eval_stride=1)


def test_labels_are_shares(films: SequenceDataModule) -> None:
    labels = item_labels(films.interactions, "genres")
    assert labels.tolist() == [[0, 0], [1, 0], [0.5, 0.5], [0, 0], [0, 1]]
    assert shown_labels(films, "test", labels).tolist() == [[1.5, 0.5]]


def test_all_metrics_of_one_list(films: SequenceDataModule) -> None:
    names = ["novelty", "popularity", "diversity", "serendipity", "gini", "miscalibration"]
    lists = ListMetrics(names, "genres")
    lists.check(films.interactions, {})
    metrics, values = lists.measure(np.array([[4, 2]]), films, "test", [1, 2], {})
    # train holds items 1 and 2 once each; the target is item 4
    assert metrics["novelty@2"] == 1.0
    assert metrics["popularity@2"] == 0.5
    assert metrics["diversity@2"] == pytest.approx(1 - 1 / math.sqrt(2))
    assert metrics["serendipity@1"] == 1.0
    assert metrics["gini@1"] == 0.75
    assert metrics["miscalibration@1"] > metrics["miscalibration@2"] > 0
    assert "diversity@1" not in metrics, "one item has no pair"
    assert set(values) == set(metrics) - {"gini@1", "gini@2"}


def test_a_run_records_them_for_every_window(run) -> None:
    names = ["novelty", "popularity", "diversity", "serendipity", "gini"]
    chosen = f"task.list_metrics=[{','.join(names)}]"
    trained = Run(run(*SEQUENCE, "model=gru", "model.embedding_dim=8", "task.top_k=[5]", chosen))
    metrics, windows = trained.metrics().loc["test"], trained.per_user()
    for name in names[:-1]:
        assert windows[f"{name}@5"].mean() == pytest.approx(metrics[f"{name}@5"])
    assert 0 <= metrics["gini@5"] < 1
    hits = windows["rank"] <= 5
    assert (windows["serendipity@5"] <= hits).all()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["task.list_metrics=[fame]"], "list_metrics holds 'fame'; choose of novelty"),
        (["task.list_metrics=[miscalibration]"], "set .*item_column to a column of the items"),
        (["task.item_column=colour"], "item_column is 'colour'; the columns of the items are"),
        (["task.list_metrics=[diversity]", "model=popularity"], "has no item embeddings"),
    ],
)
def test_what_cannot_be_measured_is_refused(run, options: list[str], sentence: str) -> None:
    with pytest.raises(MatineeError, match=sentence):
        run(*SEQUENCE, "model=gru", *options)
