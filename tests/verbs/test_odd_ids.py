"""Users and items with odd names are answered for as they are typed, in a run of their own."""

import csv
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from command_line import matinee
from matinee.errors import MatineeError
from matinee.experiment import building
from matinee.verbs.predict import predict_ratings
from matinee.verbs.recommend import recommend

USERS = ["1000", "1_000", "1.10", "1.1", "true", "True", "1e3", "null", "x", "y", "z"]
ITEMS = [f"i{number}" for number in range(12)]


@pytest.fixture(scope="module")
def odd(tmp_path_factory, compose_train) -> tuple[Path, dict[str, set[str]]]:
    """Train a model of users with odd ids; return its folder and what each user has met."""
    from matinee.experiment import running

    folder = tmp_path_factory.mktemp("odd")
    draw = random.Random(0)
    met = {user: set(draw.sample(ITEMS, 8)) for user in USERS}
    with (folder / "odd.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["user", "item", "rating"])
        writer.writerows(
            [user, item, draw.randint(1, 5)] for user in USERS for item in sorted(met[user])
        )
    overrides = ["dataset=table", f"dataset.path={folder / 'odd.csv'}", "dataset.user=user"]
    overrides += ["dataset.item=item", "dataset.rating=rating", "dataset.timestamp=null"]
    overrides += [
        "split=random",
        "model=mf_bias",
        "trainer.max_epochs=1",
        "callbacks.inspection=null",
    ]
    config = compose_train(*overrides, f"run_folder={folder / 'run'}")
    return running.train(config, overrides), met


@pytest.mark.parametrize("user", USERS)
def test_the_user_that_is_typed_is_answered(odd, user):
    folder, met = odd
    out = matinee("recommend", f"run={folder}", f"user={user}", "top_k=20").stdout
    answered = {line.split("|")[2].strip() for line in out.splitlines()[2:]}
    assert answered == set(ITEMS) - met[user]


def test_nobody(odd):
    folder, _ = odd
    for arguments in ([], ["user="]):
        out = matinee("recommend", f"run={folder}", *arguments, "top_k=20").stdout
        assert len(out.splitlines()) == 2 + len(ITEMS)


def test_numpy_and_pandas_arguments(odd):
    loaded = building.load_run(odd[0])
    plain = recommend(loaded, ratings={"i1": 3.0}, top_k=2)
    for rating in (np.float32(3), np.int64(3), 3):
        assert recommend(loaded, ratings={"i1": rating}, top_k=np.int64(2)).equals(plain)
    one = predict_ratings(loaded, np.array(["x", "y"]), pd.Series(["i1", "i2"]))
    assert one.tolist() == predict_ratings(loaded, ["x", "y"], ["i1", "i2"]).tolist()
    for users, items in (
        (["x"], ["i1", "i2", "i3"]),
        (["x", "y"], ["i1", "i2", "i3"]),
        ([], ["i1"]),
    ):
        with pytest.raises(MatineeError, match=r"users and .* items; give one user and one item"):
            predict_ratings(loaded, users, items)
