"""Parts of a table: against a slow loop, and by the names that the command line takes."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest

from matinee.config.composing import compose
from matinee.data.interactions import Interactions
from matinee.data.sources import subset
from matinee.errors import MatineeError
from matinee.experiment import building


def table(seed: int = 0, texts: bool = False) -> Interactions:
    rng = np.random.default_rng(seed)
    users, items = rng.integers(1, 8, 97), rng.integers(1, 20, 97)
    return Interactions.from_table(
        {
            "user": [f"u{user}" for user in users] if texts else users,
            "item": [f"i{item}" for item in items] if texts else items,
            "rating": rng.integers(1, 6, 97).astype(float),
            "timestamp": rng.integers(0, 50, 97),
        },
        rating_scale=[0, 10],
        duplicates="keep",
    )


def raw_rows(interactions: Interactions) -> list[tuple]:
    users, items = interactions.users["raw_id"], interactions.items["raw_id"]
    columns = zip(
        interactions.user_ids,
        interactions.item_ids,
        interactions.ratings,
        interactions.timestamps,
        strict=True,
    )
    return [(users[user], items[item], rating, time) for user, item, rating, time in columns]


@pytest.mark.parametrize("texts", [False, True])
@pytest.mark.parametrize(("folds", "least"), [(1, 1), (3, 1), (4, 2), (1, 6)])
def test_parts_against_a_loop(folds: int, least: int, texts: bool) -> None:
    source = table(texts=texts)
    every = raw_rows(source)
    sizes = []
    for fold in range(folds):
        part = subset.load(source, fold, folds, least)
        first, last = len(every) * fold // folds, len(every) * (fold + 1) // folds
        wanted = [row for n, row in enumerate(every) if first <= n < last]
        counts = Counter(row[1] for row in wanted)
        assert raw_rows(part) == [row for row in wanted if counts[row[1]] >= least]
        assert set(part.items["raw_id"]) == {i for i, count in counts.items() if count >= least}
        assert part.rating_scale == source.rating_scale
        sizes.append(len(wanted))
    assert sum(sizes) == len(every) and max(sizes) - min(sizes) <= 1


def test_what_is_known_of_items_and_the_source_stays() -> None:
    source = Interactions.from_table(
        {"user": [1, 1, 2], "item": ["a", "b", "b"], "timestamp": [1, 2, 3]},
        items=pd.DataFrame({"raw_id": ["a", "b"], "title": ["A", "B"]}),
    )
    part = subset.load(source, fold=1, folds=2)
    assert part.items["title"].tolist() == ["B"]
    assert part.users["raw_id"].tolist() == [1, 2]
    assert part.ratings is None
    assert subset.load(source).fingerprint == source.fingerprint


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"fold": 2, "folds": 2}, "fold is 2"),
        ({"fold": -1}, "fold is -1"),
        ({"folds": 0}, "folds is 0"),
        ({"min_item_count": 0}, "min_item_count is 0"),
        ({"min_item_count": 98}, "no item with 98 rows"),
        ({"folds": 98}, "no item with 1 rows"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, int], sentence: str) -> None:
    with pytest.raises(MatineeError, match=sentence):
        subset.load(table(), **options)


def test_any_dataset_can_be_cut_from_the_command_line() -> None:
    config = compose(
        "dataset=subset", "dataset@dataset.source=markov", "dataset.folds=4", "dataset.fold=3",
        "dataset.source.num_interactions=2000", "dataset.source.num_users=20",
        "experiment=user_tail", "name=test",
    )  # fmt: skip
    built = building.build(config)
    assert len(built.datamodule.interactions) == 500
