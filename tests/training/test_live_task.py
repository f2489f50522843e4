"""Live rating prediction: no prediction sees the future, and every way to ask gives the same answer."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch.nn.functional import cross_entropy

from matinee.batches import LiveDataModule
from matinee.batches.queries import Queries
from matinee.config.composing import compose
from matinee.data.interactions import Interactions
from matinee.data.splits import Split
from matinee.errors import MatineeError
from matinee.experiment.building import load_run
from matinee.experiment.measuring import evaluate
from matinee.experiment.run_folder import read_result
from matinee.experiment.trainer import make_trainer
from matinee.networks.encoders.attention import Attention
from matinee.networks.encoders.hstu import HSTU
from matinee.networks.encoders.recurrent import GRU
from matinee.networks.encoders.user_gru import UserGRU
from matinee.networks.listening import FoldedPairs, JointNetwork, ListeningNetwork, RunningBias
from matinee.networks.pairs.factorization import BiasedMatrixFactorization, MatrixFactorization
from matinee.networks.pairs.ncf import NeuMF
from matinee.objectives.rating_losses import MSE, Huber, StarClassification
from matinee.training.tasks.joint import JointTask
from matinee.training.tasks.live import LiveRatingTask, score_scale
from matinee.verbs.overfit import overfit
from matinee.verbs.predict import predict_ratings
from matinee.verbs.recommend import recommend
from matinee.verbs.serve.sources import Asked, RunSource

Columns = dict[str, npt.NDArray[Any]]
LISTENING = partial(ListeningNetwork, embedding_dim=8, init_std=0.5)
NETWORKS = {
    "running_bias": RunningBias,
    "gru": partial(LISTENING, encoder=GRU),
    "attention": partial(LISTENING, encoder=partial(Attention, max_length=50)),
    "hstu": partial(LISTENING, encoder=HSTU),
    "user_gru": partial(LISTENING, encoder=UserGRU),
    "joint": partial(JointNetwork, embedding_dim=8, init_std=0.5, encoder=GRU),
    "mf_bias": partial(
        FoldedPairs, pair=partial(BiasedMatrixFactorization, embedding_dim=4, init_std=0.5)
    ),
    "ncf": partial(FoldedPairs, pair=NeuMF),
}


def made_up(seed: int = 0, rows: int = 300) -> Columns:
    """Ratings by 12 users of 15 items at 80 times, so that many rows share their time."""
    rng = np.random.default_rng(seed)
    return {
        "user": rng.integers(1, 13, rows),
        "item": rng.integers(1, 16, rows),
        "rating": rng.integers(1, 6, rows).astype(float),
        "timestamp": np.sort(rng.integers(0, 80, rows)),
    }


def module(columns: Columns, **options: Any) -> LiveDataModule:
    table = Interactions.from_table(columns, duplicates="keep")
    times = np.asarray(columns["timestamp"])
    bounds = ((0, 40), (40, 60), (60, 99))
    parts = [np.flatnonzero((times >= low) & (times < high)) for low, high in bounds]
    return LiveDataModule(table, Split("in_time", {}, *parts), **options)


def task_for(data: LiveDataModule, network: str, **options: Any) -> LiveRatingTask:
    torch.manual_seed(0)
    made: Any = NETWORKS[network]
    optimizer = partial(torch.optim.SGD, lr=0.1)
    kind = JointTask if network == "joint" else LiveRatingTask
    task = kind.from_data(data, made, MSE(), optimizer, **options)
    with torch.no_grad():
        for name, weight in task.named_parameters():
            if "bias" in name or "trust" in name:  # what starts at 0 has to count as well
                weight.add_(torch.randn_like(weight) * 0.1)
    if isinstance(task.network, FoldedPairs):
        task.network.trained[1:] = True
    return task.eval()


@torch.no_grad()
def predictions(
    data: LiveDataModule, task: LiveRatingTask, stage: str = "test"
) -> dict[Any, float]:
    """Predict a stage, by row of the table."""
    parts = [task(batch) for batch in data.evaluation_dataloader(stage)]
    rows = data.listened(stage).targets.tolist()
    return dict(zip(rows, torch.cat(parts).tolist(), strict=True))


@pytest.mark.parametrize("order", ["time", "file"])
@pytest.mark.parametrize("network", NETWORKS)
def test_the_future_changes_no_prediction(network: str, order: str) -> None:
    columns = made_up()
    data = module(columns, order=order)
    task = task_for(data, network)
    before = predictions(data, task)
    rng = np.random.default_rng(1)
    test_rows = np.flatnonzero(columns["timestamp"] >= 60)
    changed_once = False
    for row in rng.choice(test_rows[:-1], 4, replace=False).tolist():
        later = np.arange(len(columns["user"])) >= row
        if order == "time":  # rows of the same time, this one among them, are no past either
            later = columns["timestamp"] >= columns["timestamp"][row]
        changed = {name: column.copy() for name, column in columns.items()}
        changed["rating"][later] = rng.integers(1, 6, later.sum())
        if order == "file":
            changed["item"][np.flatnonzero(later)[1:]] = rng.integers(1, 16, later.sum() - 1)
        again = module(changed, order=order)
        after = predictions(again, task)
        seen = [r for r in test_rows.tolist() if r <= row or not later[r]]
        if order == "time":
            seen += np.flatnonzero(columns["timestamp"] == columns["timestamp"][row]).tolist()
        assert [after[r] for r in seen] == [before[r] for r in seen]
        changed_once |= any(after[r] != before[r] for r in test_rows.tolist())
    assert changed_once


@pytest.mark.parametrize("network", ["running_bias", "gru", "mf_bias"])
def test_the_order_of_a_file_within_a_time_changes_nothing(network: str) -> None:
    columns = made_up()
    data = module(columns)
    task = task_for(data, network)
    order = np.lexsort(
        (np.random.default_rng(2).random(len(columns["user"])), columns["timestamp"])
    )
    shuffled = module({name: column[order] for name, column in columns.items()})
    before, after = predictions(data, task), predictions(shuffled, task)
    assert sorted(order[row] for row in after) == sorted(before)
    keys = ("user", "item", "rating", "timestamp")
    by_key = sorted((*(columns[key][row] for key in keys), value) for row, value in before.items())
    again = sorted(
        (*(columns[key][order[row]] for key in keys), value) for row, value in after.items()
    )
    assert by_key == again
    filed = (
        module(columns, order="file"),
        module({k: c[order] for k, c in columns.items()}, order="file"),
    )
    values = [sorted(predictions(each, task).values()) for each in filed]
    assert values[0] != values[1]


@pytest.mark.parametrize("network", ["running_bias", "gru", "mf_bias"])
def test_frozen_histories_end_with_train(network: str) -> None:
    columns = made_up()
    data = module(columns, histories="frozen")
    task = task_for(data, network)
    changed = {name: column.copy() for name, column in columns.items()}
    changed["rating"][columns["timestamp"] >= 40] = 5.0
    assert predictions(module(changed, histories="frozen"), task) == predictions(data, task)
    assert predictions(module(changed), task) != predictions(module(columns), task)


@pytest.mark.parametrize("network", NETWORKS)
def test_predictions_depend_neither_on_the_batch_nor_on_padding(network: str) -> None:
    columns = made_up()
    together, alone = (module(columns, eval_batch_size=size) for size in (32, 1))
    task = task_for(together, network)
    values, others = predictions(together, task), predictions(alone, task)
    np.testing.assert_allclose(list(values.values()), [others[row] for row in values], atol=1e-5)


def newcomer(item_ids: list[int], ratings: list[float]) -> Queries:
    return Queries.of_histories([item_ids], torch.tensor(ratings))


@pytest.mark.parametrize("network", [name for name in NETWORKS if name != "user_gru"])
def test_a_history_given_by_hand_is_predicted_as_in_evaluation(network: str) -> None:
    columns = made_up()
    last = {
        "user": 13,
        "item": [3, 9, 4, 3],
        "rating": [5, 1, 2, 4],
        "timestamp": [96, 97, 97.5, 98],
    }
    own = {name: np.broadcast_to(np.array(values, float), 4) for name, values in last.items()}
    columns["timestamp"], own["timestamp"] = columns["timestamp"] * 2, own["timestamp"] * 2
    whole = {name: np.concatenate((columns[name], own[name])).astype(int) for name in columns}

    def split_in_half_seconds(columns: Columns) -> LiveDataModule:
        table, times = Interactions.from_table(columns, duplicates="keep"), columns["timestamp"]
        parts = [
            np.flatnonzero((times >= a) & (times < b)) for a, b in ((0, 80), (80, 120), (120, 999))
        ]
        return LiveDataModule(table, Split("in_time", {}, *parts))

    evaluated = split_in_half_seconds(whole)
    task = task_for(evaluated, network)
    expected = predictions(evaluated, task)[len(whole["user"]) - 1]
    data = split_in_half_seconds({name: column.astype(int) for name, column in columns.items()})
    with torch.no_grad():
        scores = task.score_items(data, newcomer([3, 9, 4], [5.0, 1.0, 2.0]))[0]
    times_are_read = network == "hstu"  # no times are given by hand
    assert scores[3].item() == pytest.approx(expected, abs=0.2 if times_are_read else 1e-5)
    with torch.no_grad():
        other = task.score_items(data, newcomer([4, 9, 3], [2.0, 1.0, 5.0]))[0]
    if network in (
        "gru",
        "joint",
        "attention",
        "hstu",
    ):  # ratings in another order are another history
        assert not torch.equal(scores, other)


def test_folding_is_a_ridge_regression_after_each_rating() -> None:
    data = module(made_up())
    for pair in (BiasedMatrixFactorization, MatrixFactorization):
        torch.manual_seed(1)
        scale = score_scale(MSE(), 0.0, 1.0)._replace(mean=3.0, initial_score=3.0)
        network = FoldedPairs(12, 15, scale, partial(pair, embedding_dim=3, init_std=0.5)).eval()
        network.trained[1:10] = True
        network.noise.fill_(0.7)
        users = network.pair.tables()["users"].detach().double().numpy()
        items = network.pair.tables()["items"].detach().double().numpy()
        variance = ((users[1:10] - users[0]) ** 2).mean(0).clip(1e-8)
        if pair is BiasedMatrixFactorization:
            design = np.concatenate((items[:, :-1], np.ones((16, 1))), 1)
            start = 3.0 + users[0, -1] + items[:, -1] + items[:, :-1] @ users[0, :-1]
        else:
            design = items + network.pair.item_center
            start = design @ (users[0] + network.pair.user_center)
        for batch in data.evaluation_dataloader("test"):
            with torch.inference_mode():
                scores = network.read(batch).numpy()
            for row, known, item, score in zip(
                batch.rows, batch.known, batch.target_ids, scores, strict=True
            ):
                read = batch.item_ids[row, :known].numpy()
                errors = batch.ratings[row, :known].double().numpy() - start[read]
                normal = design[read].T @ design[read] / 0.7 + np.diag(1 / variance)
                estimate = np.linalg.solve(normal, design[read].T @ errors / 0.7)
                assert score == pytest.approx(start[item] + design[item] @ estimate, abs=1e-4)


@pytest.mark.parametrize("loss", [MSE(), Huber(0.5), StarClassification()])
def test_every_loss_starts_at_the_running_offsets(loss: Any) -> None:
    data = module(made_up())
    torch.manual_seed(0)
    made = partial(ListeningNetwork, encoder=GRU, init_std=0.0)
    task = LiveRatingTask.from_data(data, made, loss, partial(torch.optim.SGD, lr=0.1))
    bias = task_for(data, "running_bias")
    with torch.no_grad():
        task.network.level.weight.zero_()
        task.network.level.bias.zero_()
        task.network.trust[-1].bias.zero_()
    expected = predictions(data, bias)
    found = predictions(data, task.eval())
    tolerance = 0.1 if isinstance(loss, StarClassification) else 1e-5  # it is no straight line
    np.testing.assert_allclose(list(found.values()), list(expected.values()), atol=tolerance)


def test_cold_items_have_the_unknown_row() -> None:
    columns = made_up()
    columns["item"][columns["timestamp"] < 40] %= 10  # items 10 to 15 are cold
    columns["item"][columns["item"] == 0] = 1
    data = module(columns)
    task = task_for(data, "gru")
    before = predictions(data, task)
    with torch.no_grad():
        task.network.inputs.weight[11] += 1
        task.network.outputs.weight[11] += 1
    assert predictions(data, task) == before


def test_data_and_parts_must_fit() -> None:
    optimizer = partial(torch.optim.SGD, lr=0.1)
    data: Any = module(made_up())
    with pytest.raises(ValueError, match=r"is no LiveNetwork.*model=listening"):
        LiveRatingTask.from_data(data, BiasedMatrixFactorization, MSE(), optimizer)
    with pytest.raises(ValueError, match="scores of this loss are no ratings"):
        LiveRatingTask.from_data(data, NETWORKS["mf_bias"], StarClassification(), optimizer)
    with pytest.raises(ValueError, match=r"is no JointLiveNetwork, it lacks choose; .*model=joint"):
        JointTask.from_data(data, NETWORKS["gru"], MSE(), optimizer)
    with pytest.raises(ValueError, match=r"weight is 1\.5; give a number in \[0, 1\]"):
        JointTask.from_data(data, NETWORKS["joint"], MSE(), optimizer, weight=1.5)


def test_a_live_run_is_trained_measured_and_asked(run: Any, table_overrides: list[str]) -> None:
    folder = run("experiment=live/gru", "trainer.max_epochs=3", "optimizer.lr=0.01")
    result = read_result(folder)
    assert "test/rmse/known=20-49" in result["metrics"]
    assert result["protocol"]["histories"] == {"kind": "live", "earlier": "time"}
    loaded = load_run(folder)
    measured = evaluate(loaded, make_trainer(loaded.config, None))
    assert measured.metrics == result["metrics"]
    first = recommend(loaded, ratings={100: 5.0, 101: 1.0, 102: 1.0}, top_k=5)
    other = recommend(loaded, ratings={102: 1.0, 101: 1.0, 100: 5.0}, top_k=5)
    values = (
        first.set_index("item")["predicted_rating"],
        other.set_index("item")["predicted_rating"],
    )
    assert not values[0].equals(values[1])  # a history has an order
    nothing = recommend(loaded)  # of a newcomer who rated nothing
    assert len(nothing) == 10
    assert nothing.equals(recommend(loaded, ratings={}))
    asked = recommend(loaded, user="u1", top_k=40, repeat=True).set_index("item")[
        "predicted_rating"
    ]
    rated = predict_ratings(loaded, ["u2", "u1"], [105, 105])
    assert rated[1] == pytest.approx(asked[105], abs=1e-5)
    with pytest.raises(MatineeError, match=r"cannot use history=\.\.\.; give ratings"):
        recommend(loaded, history=[100])
    assert loaded.task.samples(loaded.datamodule, 2)[0].startswith("**User** u")
    figures = loaded.task.figures(measured.predictions, loaded.datamodule)
    assert set(figures) == {"error_by_rating", "by_history", "by_popularity"}


def joint_task(data: LiveDataModule, **options: Any) -> JointTask:
    task = task_for(data, "joint", **options)
    assert isinstance(task, JointTask)
    return task


@pytest.mark.parametrize("order", ["time", "file"])
def test_no_next_item_is_scored_from_the_future(order: str) -> None:
    columns = made_up()
    data = module(columns, order=order)
    task = joint_task(data)

    @torch.no_grad()
    def scores(data: LiveDataModule) -> dict[int, list[float]]:
        batches = [task.with_warm(batch) for batch in data.evaluation_dataloader("test")]
        found = torch.cat([task.score_next(task.network.known(batch)) for batch in batches])
        return dict(zip(data.listened("test").targets.tolist(), found.tolist(), strict=True))

    before = scores(data)
    for row in (200, 250):
        first = columns["timestamp"][row] if order == "time" else None
        later = np.arange(300) >= row if first is None else columns["timestamp"] >= first
        changed = {name: column.copy() for name, column in columns.items()}
        changed["rating"][later] = 6 - changed["rating"][later]
        changed["item"][later] = 16 - changed["item"][later]
        after = scores(module(changed, order=order))
        seen = [r for r in before if r <= row or not later[r] or columns["timestamp"][r] == first]
        assert len(seen) < len(before)
        assert [after[r] for r in seen] == [before[r] for r in seen]
        assert after != before


def test_the_joint_loss_weighs_the_losses_of_both_tasks() -> None:
    data = module(made_up())
    batch = next(iter(data.evaluation_dataloader("train")))
    options = {"unknown_users": 0.0, "unknown_items": 0.0, "l2": 0.0}
    rating = task_for(data, "joint", **options).train()
    rating.network.dropout.p = 0.0
    scores = torch.addmm(
        rating.network.choice_biases.weight.T,
        rating.network.choice(rating.network.known(batch)),
        rating.network.outputs.weight.T,
    )
    losses = [
        (rating.network.read(batch) - batch.target_ratings).square().mean(),
        cross_entropy(scores[:, 1:], batch.target_ids - 1),
    ]
    weights = dict(rating.network.named_parameters())
    gradients = [
        torch.autograd.grad(part, list(weights.values()), retain_graph=True, allow_unused=True)
        for part in losses
    ]
    assert all(
        found[0] is not None or found[1] is not None for found in zip(*gradients, strict=True)
    )
    for weight in (0.0, 0.3, 1.0):
        task = joint_task(data, weight=weight, **options).train()
        task.network.dropout.p = 0.0
        outputs = task.step(batch)
        expected = (1 - weight) * losses[0] + weight * losses[1]
        torch.testing.assert_close(outputs["loss"], expected)
        torch.testing.assert_close(outputs["data_loss"], expected.detach())
        outputs["loss"].backward()
        for (name, found), *parts in zip(task.network.named_parameters(), *gradients, strict=True):
            rated, chosen = (torch.zeros_like(found) if part is None else part for part in parts)
            mixed = (1 - weight) * rated + weight * chosen
            torch.testing.assert_close(found.grad, mixed, msg=lambda text, at=name: f"{at}: {text}")


def test_at_weight_0_a_joint_run_is_that_of_its_ratings(run: Any) -> None:
    few = ("trainer.max_epochs=2", "optimizer.lr=0.01")
    alone = read_result(run("experiment=live/gru", *few, folder="alone"))["metrics"]
    joint = read_result(run("experiment=live/joint", "task.weight=0", *few))["metrics"]
    assert {name: joint[name] for name in alone} == alone


def test_a_joint_run_is_measured_and_asked_by_its_headline(run: Any) -> None:
    options = ("trainer.max_epochs=2", "optimizer.lr=0.01", "task.headline=mrr")
    folder = run("experiment=live/joint", *options)
    result = read_result(folder)
    assert result["headline"]["metric"] == "mrr"
    assert {"test/rmse/known=20-49", "test/mrr/known=20-49"} <= set(result["metrics"])
    per_user = np.load(folder / "per_user.npz")
    mean = np.average(per_user["mrr"], weights=per_user["count"])
    assert mean == pytest.approx(result["metrics"]["test/mrr"])
    loaded = load_run(folder)
    measured = evaluate(loaded, make_trainer(loaded.config, None))
    assert measured.metrics == result["metrics"]
    ranks = torch.cat([part["ranks"] for part in measured.predictions]).double()
    assert (1 / ranks).mean().item() == pytest.approx(result["metrics"]["test/mrr"])
    task: Any = loaded.task
    batch = next(iter(loaded.datamodule.evaluation_dataloader("test")))
    with torch.no_grad():
        scores = task.score_next(task.network.known(task.with_warm(batch)))
        targets = scores.gather(1, batch.target_ids.unsqueeze(1))
        above = (scores > targets).sum(1) + 1
    torch.testing.assert_close(task.predict_step(batch)["ranks"], above.float())
    first = recommend(loaded, ratings={100: 5.0, 101: 1.0}, top_k=5, repeat=True)
    assert first.columns[-1] == "score"
    rated = [loaded.datamodule.interactions.encode_items([item])[0] for item in (100, 101)]
    asked = task.score_items(loaded.datamodule, newcomer(rated, [5.0, 1.0]))[0]
    assert first["score"].tolist() == asked.topk(5).values.tolist()
    best = asked.argmax().item()
    without = [
        task.score_items(loaded.datamodule, newcomer(rated[kept], [stars]))[0][best]
        for kept, stars in ((slice(1, 2), 1.0), (slice(0, 1), 5.0))
    ]
    falls = np.maximum([(asked[best] - score).item() for score in without], 0)
    shares = RunSource(loaded).shares(Asked(0, np.array(rated), (5.0, 1.0)), best)
    np.testing.assert_allclose(shares, falls / falls.sum(), atol=1e-4)
    assert 1 <= predict_ratings(loaded, ["u1"], [105])[0] <= 5
    figures = loaded.task.figures(measured.predictions, loaded.datamodule)
    assert {"by_history", "ranks", "ranks_by_history"} <= set(figures)


@pytest.mark.parametrize("learnable", [True, False])
def test_a_joint_model_learns_what_and_how(run: Any, tmp_path: Path, learnable: bool) -> None:
    rng, lines = np.random.default_rng(0), ["who,what,stars,moment"]
    for user in range(150):  # items come in a circle, and even ones please one half of the users
        taste, items = rng.integers(2), (rng.integers(20) + np.arange(12)) % 20
        for place, item in enumerate(items if learnable else rng.permutation(20)[:12]):
            likes = (item + taste) % 2 if learnable else rng.integers(2)
            lines.append(f"u{user},{item},{1 + 4 * likes},{100 * user + place}")
    (tmp_path / "circle.csv").write_text("\n".join(lines) + "\n")
    options = [
        "trainer.max_epochs=12",
        "optimizer.lr=0.01",
        "model.dropout=0.2",
        "task.headline=mrr",
    ]
    folder = run("experiment=live/joint", f"dataset.path={tmp_path / 'circle.csv'}", *options)
    metrics = read_result(folder)["metrics"]
    found = metrics["test/rmse"], metrics["test/mrr"]
    if learnable:
        assert found[0] < 1.2, found  # of 2 for the mean
        assert found[1] > 0.8, found
    else:
        assert found[0] > 1.9, found
        assert abs(found[1] - 0.18) < 0.04, found  # chance among 20 items


@pytest.mark.parametrize("learnable", [True, False])
def test_listening_learns_what_offsets_cannot_tell(
    run: Any, tmp_path: Path, learnable: bool
) -> None:
    rng, lines = np.random.default_rng(0), ["who,what,stars,moment"]
    for user in range(150):  # one after the other; a user likes the even items or the odd ones
        taste = rng.integers(2)
        for place, item in enumerate(rng.permutation(20)[:12]):
            likes = (item + taste) % 2 if learnable else rng.integers(2)
            lines.append(f"u{user},{item},{1 + 4 * likes},{100 * user + place}")
    (tmp_path / "tastes.csv").write_text("\n".join(lines) + "\n")
    errors = {}
    for model, few in {
        "online_bias": [],
        "gru": ["trainer.max_epochs=12", "optimizer.lr=0.01", "model.dropout=0.2"],
        "mf_bias": ["trainer.max_epochs=12", "optimizer.lr=0.02", "task.l2=0.01"],
    }.items():
        data = f"dataset.path={tmp_path / 'tastes.csv'}"
        folder = run(f"experiment=live/{model}", data, *few, folder=model)
        errors[model] = read_result(folder)["metrics"]["test/rmse"]
    for model in ("gru", "mf_bias"):
        better = errors[model] < 0.7 * errors["online_bias"]
        assert better if learnable else errors[model] > 0.97 * errors["online_bias"], errors


@pytest.mark.parametrize("model", ["gru", "mf_bias", "joint"])
def test_one_batch_can_be_overfitted(table_overrides: list[str], model: str) -> None:
    config = compose(
        *table_overrides, f"experiment=live/{model}", "name=test", "examples=16", verb="overfit"
    )
    result = overfit(config)
    assert result.passed, (result.faults, result.final)
