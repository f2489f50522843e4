"""Segments against slow, obvious loops over the rows."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

from matinee.data.interactions import Interactions
from matinee.data.segments import Evaluated, check_segments, segment_masks
from matinee.errors import MatineeError
from matinee.experiment import building, measuring
from matinee.experiment.run_folder import read_result
from matinee.experiment.trainer import make_trainer


@pytest.fixture(scope="module")
def interactions() -> Interactions:
    rng = np.random.default_rng(0)
    table = {
        "user": rng.integers(0, 30, 400),
        "item": (rng.zipf(1.5, 400) % 25),
        "timestamp": np.arange(400),
    }
    items = pd.DataFrame({"raw_id": range(25)})
    items["genres"] = [("Drama|War", "Comedy", "", "War")[i % 4] for i in range(25)]
    items["year"] = pd.array([1900 + i if i != 3 else None for i in range(25)], dtype="Int16")
    users = pd.DataFrame({"raw_id": range(30), "gender": ["F", "M"] * 15})
    return Interactions.from_table(table, items=items, users=users, duplicates="keep")


def evaluated_of(interactions: Interactions, rows: np.ndarray) -> Evaluated:
    users, items = interactions.user_ids[rows], interactions.item_ids[rows]
    return Evaluated(users, items, np.arange(len(rows)) * 3, items % 2 == 0)


def test_popularity_counts_train_alone(interactions: Interactions) -> None:
    train, rows = np.arange(200), np.arange(200, 400)
    masks = segment_masks(["popularity"], evaluated_of(interactions, rows), interactions, train)
    counts = Counter(interactions.item_ids[train].tolist())
    ordered = sorted(counts.values())
    first = ordered[-(-len(ordered) // 3) - 1]
    second = ordered[-(-2 * len(ordered) // 3) - 1]
    for place, row in enumerate(rows):
        count = counts[int(interactions.item_ids[row])]
        expected = "low" if count <= first else "middle" if count <= second else "high"
        held = [name for name, mask in masks.items() if mask[place]]
        assert held == [f"popularity={expected}"]


def test_history_and_warmth(interactions: Interactions) -> None:
    evaluated = evaluated_of(interactions, np.arange(100))
    masks = segment_masks(["history", "warmth"], evaluated, interactions, np.arange(10))
    bounds = {"0": range(1), "1-9": range(1, 10), "10-49": range(10, 50), "50-199": range(50, 200)}
    for label, span in bounds.items():
        assert masks[f"history={label}"].tolist() == [3 * i in span for i in range(100)]
    assert masks["history=200+"].tolist() == [3 * i >= 200 for i in range(100)]
    assert masks["warm"].tolist() == evaluated.warm.tolist()
    assert masks["cold"].tolist() == (~evaluated.warm).tolist()


def test_columns_of_the_tables(interactions: Interactions) -> None:
    evaluated = evaluated_of(interactions, np.arange(100))
    names = ["item.genres", "user.gender", "item.year"]
    masks = segment_masks(names, evaluated, interactions, np.arange(10))
    for place, (user, item) in enumerate(zip(evaluated.user_ids, evaluated.item_ids, strict=True)):
        genres = interactions.items.loc[item, "genres"]
        assert {g for g in ("Drama", "War", "Comedy") if masks[f"genres={g}"][place]} == (
            set(genres.split("|")) - {""}
        )
        gender = interactions.users.loc[user, "gender"]
        assert masks[f"gender={gender}"][place]
        assert masks["gender=F"][place] != masks["gender=M"][place]
        thirds = sum(masks[f"year={third}"][place] for third in ("low", "middle", "high"))
        assert thirds == (not pd.isna(interactions.items.loc[item, "year"]))
    assert "genres=" not in masks


def test_numbers_are_cut_into_thirds_of_the_table(interactions: Interactions) -> None:
    """Whatever a stage holds: the oldest films alone are low, and no stage has other names."""
    years = sorted(interactions.items["year"].dropna())
    first, second = years[-(-len(years) // 3) - 1], years[-(-2 * len(years) // 3) - 1]
    year = interactions.items["year"].reindex(interactions.item_ids).to_numpy(float, na_value=0)
    old = np.flatnonzero((year > 0) & (year <= first))[:9]
    for rows in (old, np.arange(400)):
        evaluated = evaluated_of(interactions, rows)
        masks = segment_masks(["item.year"], evaluated, interactions, np.arange(10))
        assert masks["year=low"].tolist() == ((year[rows] > 0) & (year[rows] <= first)).tolist()
        assert masks["year=high"].tolist() == (year[rows] > second).tolist()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("popular", "choose of warmth, popularity"),
        ("item.genre", "item.genres"),
        ("item.raw_id", "columns of these data"),
        ("user.", "user.gender"),
    ],
)
def test_an_unknown_segment_is_refused(
    interactions: Interactions, name: str, sentence: str
) -> None:
    with pytest.raises(MatineeError, match=sentence):
        check_segments([name], interactions)


@pytest.mark.parametrize("names", ["nonsense", [5], {"a": 1}, ["warmth", ["history"]], None])
def test_segments_that_are_no_list_of_names_are_refused(
    interactions: Interactions, names: object
) -> None:
    with pytest.raises(MatineeError, match=r"data\.segments is .*; give a list of names"):
        check_segments(OmegaConf.create({"names": names}).names, interactions)


def test_a_finished_run_is_measured_for_other_segments(run: Callable[..., Path]) -> None:
    folder = run("model=bias")
    recorded = read_result(folder)["metrics"]
    assert "test/rmse/warm" in recorded
    loaded = building.load_run(folder, segments=["history", "popularity"])
    metrics = measuring.evaluate(loaded, make_trainer(loaded.config, None)).metrics
    assert metrics["test/rmse"] == recorded["test/rmse"]
    assert "test/rmse/warm" not in metrics
    rows = loaded.datamodule.segments("test")
    parts = [name for name, mask in rows.items() if name.startswith("history") and mask.any()]
    squares = sum(metrics[f"test/rmse/{name}"] ** 2 * rows[name].sum() for name in parts)
    total = len(loaded.datamodule.columns("test").ratings)
    assert np.sqrt(squares / total) == pytest.approx(metrics["test/rmse"], rel=1e-9)


def test_next_items_by_segment(run: Callable[..., Path]) -> None:
    folder = run(
        "experiment=user_based/pooling", "data.segments=[history,popularity,warmth]",
        "split=leave_last_out", "data.eval_stride=1", "model.embedding_dim=4",
    )  # fmt: skip
    loaded = building.load_run(folder)
    metrics = read_result(folder)["metrics"]
    evaluated, rows = loaded.datamodule.evaluated("test"), loaded.datamodule.segments("test")
    table, test = loaded.datamodule.interactions, loaded.datamodule.split.test
    targets = dict(zip(table.user_ids[test].tolist(), table.item_ids[test].tolist(), strict=True))
    counts = np.bincount(table.user_ids)
    for user, item, before in zip(*evaluated[:3], strict=True):
        assert targets[int(user)] == item
        assert before == counts[user] - 1  # leave-last-out: all but the last
    for kind in ("history", "popularity"):
        names = [name for name in rows if name.startswith(kind) and rows[name].any()]
        mean = sum(metrics[f"test/mrr/{name}"] * rows[name].mean() for name in names)
        assert mean == pytest.approx(metrics["test/mrr"], rel=1e-9)
