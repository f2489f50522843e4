import numpy as np
import pytest
import torch

from matinee.batches.queries import Queries
from matinee.errors import MatineeError
from matinee.experiment import building
from matinee.training.tasks.folding import fold_in
from matinee.verbs.predict import predict_ratings
from matinee.verbs.recommend import recommend


@pytest.fixture(params=["bias", "mf", "mf_bias", "ncf"])
def loaded(request, finished):
    folder = finished(
        f"model={request.param}", "trainer.max_epochs=8", "split=random", "data.batch_size=64"
    )
    return building.load_run(folder)


def test_best_unseen_items_with_the_scores_of_evaluation(loaded) -> None:
    interactions = loaded.datamodule.interactions
    table = recommend(loaded, "u7", top_k=5)
    user = int(interactions.encode_users(["u7"])[0])
    seen = set(interactions.item_ids[interactions.user_ids == user])
    unseen = [item for item in range(1, interactions.num_items + 1) if item not in seen]
    with torch.no_grad():
        predicted = loaded.task(torch.full((len(unseen),), user), torch.tensor(unseen)).numpy()
    best = sorted(predicted.tolist(), reverse=True)[:5]
    assert table["predicted_rating"].tolist() == pytest.approx(best, abs=5e-4)
    assert not set(interactions.encode_items(table["item"].tolist())) & seen
    assert table["rank"].tolist() == [1, 2, 3, 4, 5]


def test_newcomer_without_ratings_gets_the_unknown_row(loaded) -> None:
    interactions = loaded.datamodule.interactions
    table = recommend(loaded, top_k=interactions.num_items + 10)
    assert len(table) == interactions.num_items
    with torch.no_grad():
        items = torch.arange(1, interactions.num_items + 1)
        predicted = loaded.task(torch.zeros_like(items), items).max().item()
    assert float(table["predicted_rating"][0]) == pytest.approx(predicted, abs=5e-4)


def test_folding_in_moves_towards_the_ratings(loaded) -> None:
    interactions = loaded.datamodule.interactions
    low, high = {100: 5.0, 101: 5.0, 102: 5.0}, {100: 1.0, 101: 1.0, 102: 1.0}
    everything = interactions.num_items
    likes = (
        recommend(loaded, ratings=low, top_k=everything)["predicted_rating"].astype(float).mean()
    )
    hates = (
        recommend(loaded, ratings=high, top_k=everything)["predicted_rating"].astype(float).mean()
    )
    assert likes > hates
    table = recommend(loaded, ratings=low, top_k=everything)
    assert not {100, 101, 102} & set(table["item"])


def test_folding_in_is_ridge_regression_where_the_score_is_linear(run) -> None:
    """For matrix factorization the posterior's maximum has a closed form."""
    loaded = building.load_run(run("model=mf", "trainer.max_epochs=8", "split=random"))
    task, network = loaded.task, loaded.task.network
    items, ratings = torch.tensor([1, 5, 9, 20]), torch.tensor([5.0, 2.0, 4.0, 3.0])
    (row,) = fold_in(task, loaded.datamodule, Queries.of_histories([items.tolist()], ratings))
    columns = loaded.datamodule.columns("train")
    with torch.no_grad():
        noise = (
            (task(columns.user_ids, columns.item_ids) - columns.ratings).double().square().mean()
        )
        users = network.user_factors.weight.double()
        warm = task.warm_users.nonzero().squeeze(-1)
        variance = (users[warm] - users[0]).square().mean(0).clamp_min(1e-8)
        q = (network.item_factors.weight[items] + network.item_center).double()
        center = users[0] + network.user_center
        precision = q.T @ q / noise + torch.diag(1 / variance)
        step = torch.linalg.solve(precision, q.T @ (ratings.double() - q @ center) / noise)
    torch.testing.assert_close(row[0].double(), users[0] + step, atol=2e-3, rtol=2e-3)


def test_refusals(finished) -> None:
    loaded = building.load_run(finished("model=bias"))
    for ratings, sentence in (
        ({1: 5}, "item 1 is not"),
        ({100: 9}, "outside the scale"),
        ({100: "x"}, "outside the scale"),
    ):
        with pytest.raises(MatineeError, match=sentence):
            recommend(loaded, ratings=ratings)
    everything = dict.fromkeys(loaded.datamodule.interactions.items["raw_id"].tolist(), 3.0)
    with pytest.raises(MatineeError, match="met every item"):
        recommend(loaded, ratings=everything)


def test_ties_go_to_the_lower_id(run) -> None:
    loaded = building.load_run(run("model=global_mean"))
    table = recommend(loaded, top_k=6)
    assert np.array_equal(table["item"], np.arange(100, 106))


def test_titles_are_as_good_as_ids(finished) -> None:
    loaded = building.load_run(finished("model=bias"))
    title = loaded.datamodule.interactions.items["title"].loc[3]
    by_title = recommend(loaded, ratings={title: 5.0})
    raw_id = loaded.datamodule.interactions.items["raw_id"].loc[3]
    assert by_title.equals(recommend(loaded, ratings={raw_id: 5.0}))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"top_k": 0}, "top_k is 0"),
        ({"user": "u1", "ratings": {100: 5}}, "cannot be combined"),
        ({"history": [100]}, "cannot use history"),
        ({"user": "nobody"}, "'nobody' is not in the data"),
    ],
)
def test_calls_that_make_no_sense(finished, given: dict, sentence: str) -> None:
    with pytest.raises(MatineeError, match=sentence):
        recommend(building.load_run(finished("model=bias")), **given)


def test_ratings_by_raw_id(run) -> None:
    loaded = building.load_run(run("model=mf_bias"))
    predicted = predict_ratings(loaded, ["u3", "u4", "nobody"], [100, "101", 102])
    table = recommend(loaded, user="u3", top_k=100, repeat=True)
    assert predicted[0] == pytest.approx(table.set_index("item")["predicted_rating"][100])
    assert predicted.shape == (3,)
