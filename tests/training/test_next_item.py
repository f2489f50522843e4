"""Next-item recommendation from config to recommendation."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from matinee.batches import SequenceDataModule
from matinee.config.composing import compose
from matinee.data import splits
from matinee.data.interactions import Interactions
from matinee.errors import MatineeError
from matinee.experiment import building, measuring, running
from matinee.experiment.run_folder import read_result
from matinee.experiment.trainer import make_trainer
from matinee.metrics import ranking_metrics
from matinee.training.tasks import next_item
from matinee.verbs.recommend import recommend

SEQUENCE = [
    "data=sequence",
    "task=next_item",
    "loss=softmax",
    "split=user_based",
]
ENCODERS = [
    "pooling",
    "lstm",
    "gru",
    "cnn",
    "attention",
    "dnc",
    "implicit_mf",
    "user_gru",
    "user_lstm",
]
SMALL = ["model.embedding_dim=64", "model.dropout=0.0", "model.init_std=0.05"]
SAMPLED = [
    "pointwise", "saturating_pointwise", "bpr", "saturating_bpr", "hinge", "adaptive_hinge",
    "sampled_softmax", "gbce",
]  # fmt: skip


def in_order(users: list[int], items: list[int]) -> Interactions:
    """Make one row a second."""
    columns = {"user": users, "item": items, "timestamp": list(range(len(users)))}
    return Interactions.from_table(columns, duplicates="keep")


def small() -> Interactions:
    return in_order([1, 1, 1, 1, 1, 2, 2, 3], [5, 6, 7, 5, 8, 6, 5, 9])


def targets(datamodule: SequenceDataModule, stage: str) -> list[tuple[list[int], int]]:
    """Every evaluated (history, target), in raw ids."""
    raw = datamodule.interactions.items["raw_id"]
    pairs = []
    for batch in datamodule.evaluation_dataloader(stage):
        for history, wanted, length in zip(
            batch.histories, batch.target_ids, batch.lengths, strict=True
        ):
            assert history[0] == 0
            assert (wanted != 0).sum() == 1
            items = [int(raw[i]) for i in history[1:length].tolist()]
            pairs.append((items, int(raw[wanted[length - 1].item()])))
    return pairs


def test_leave_last_out_shows_all_that_came_before() -> None:
    datamodule = SequenceDataModule(
        small(), splits.leave_last_out(small()), eval_stride=1, eval_length=4
    )
    assert targets(datamodule, "val") == [([5, 6, 7], 5)]
    assert targets(datamodule, "test") == [([6, 7, 5], 8)]


def test_held_out_users_are_cut_from_the_end() -> None:
    everyone = np.arange(8)
    split = splits.Split("s", {}, everyone[5:], everyone[7:], everyone[:5])
    datamodule = SequenceDataModule(small(), split, eval_length=3, eval_stride=3)
    assert targets(datamodule, "test") == [([5], 6), ([7, 5], 8)]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("first", [([1, 2], 3), ([], 7)]),
        ("last", [([1, 2, 3, 4], 5), ([7], 8)]),
        ("all", [([1, 2], 3), ([1, 2], 4), ([1, 2], 5), ([], 7), ([], 8)]),
        ("successive", [([1, 2], 3), ([1, 2, 3], 4), ([1, 2, 3, 4], 5), ([], 7), ([7], 8)]),
    ],
)
def test_targets_of_a_part(kind: str, expected: list[tuple[list[int], int]]) -> None:
    """One user has 1 to 5, of which 3 to 5 are test; another has 7 and 8, both test."""
    log = in_order([3, 3, 1, 1, 2, 1, 1, 2, 1], [1, 2, 1, 2, 7, 3, 4, 8, 5])
    split = splits.Split("s", {}, np.array([0, 1, 2]), np.array([3]), np.arange(4, 9))
    options = {"eval_targets": kind, "eval_stride": 1, "filter_seen": True}
    datamodule = SequenceDataModule(log, split, **options)
    assert sorted(targets(datamodule, "test")) == sorted(expected)
    assert [*datamodule.evaluated("test").history_lengths] == sorted(len(h) for h, _ in expected)
    (batch,) = datamodule.evaluation_dataloader("test")
    for row, length in enumerate(batch.lengths.tolist()):
        seen = batch.seen_items[batch.seen_from[row] : batch.seen_to[row]]
        assert set(seen.tolist()) == set(batch.histories[row, 1:length].tolist())
    assert datamodule.protocol["windows"] != SequenceDataModule(log, split).protocol["windows"]


def test_random_targets_depend_on_the_user_alone() -> None:
    users = np.repeat(np.arange(200), 10)
    log = in_order(users.tolist(), np.tile(np.arange(10), 200).tolist())
    rows = np.arange(2000)
    split = splits.Split("s", {}, rows[rows % 10 < 2], rows[rows % 10 == 2], rows[rows % 10 > 2])
    drawn = [
        SequenceDataModule(log, split, eval_targets="random", seed=seed).evaluated("test")
        for seed in (0, 1)
    ]
    assert drawn[0].user_ids.tolist() == drawn[1].user_ids.tolist()
    assert drawn[0].item_ids.tolist() == drawn[1].item_ids.tolist()
    counts = np.bincount(drawn[0].item_ids)[4:]  # items 3 to 9 have the ids 4 to 10
    assert len(counts) == 7
    assert counts.sum() == 200
    assert counts.min() >= 12  # of 28.6 expected


def test_filter_seen_lists_what_came_before_the_target_only() -> None:
    split = splits.leave_last_out(small())
    datamodule = SequenceDataModule(
        small(), split, eval_stride=1, eval_length=2, filter_seen=True, eval_batch_size=1
    )
    (batch,) = datamodule.evaluation_dataloader("test")
    raw = datamodule.interactions.items["raw_id"]
    seen = batch.seen_items[batch.seen_from[0] : batch.seen_to[0]]
    assert [int(raw[i]) for i in seen.tolist()] == [5, 6, 7], "not only the window"


@pytest.mark.parametrize(
    ("options", "measured"),
    [
        ({"eval_stride": 1}, False),  # 6 windows to evaluate
        ({"eval_stride": 3}, True),  # 3, as many as are trained on
        ({"eval_stride": 1, "measure_train": True}, True),
        ({"eval_stride": 3, "measure_train": False}, False),
    ],
)
def test_train_is_measured_unless_it_has_more_windows_than_are_trained_on(
    options: dict[str, Any], measured: bool
) -> None:
    split = splits.leave_last_out(small())
    datamodule = SequenceDataModule(small(), split, length=3, stride=1, **options)
    assert ("train" in datamodule.measured) is measured
    assert {"val", "test"} < {*datamodule.measured, "one more"}


def test_a_run_measures_train_or_not(run) -> None:
    options = [*SEQUENCE, "model=popularity", "data.filter_seen=true", "data.eval_stride=1"]
    whole = read_result(run(*options, "data.measure_train=true"))["metrics"]
    part = read_result(run(*options, "data.measure_train=false", folder="part"))["metrics"]
    assert part == {name: value for name, value in whole.items() if name[:5] != "train"}
    assert len(part) < len(whole)


def test_training_never_sees_held_out_users() -> None:
    interactions = small()
    split = splits.Split("s", {}, np.arange(5), np.array([5, 6]), np.array([7]))
    datamodule = SequenceDataModule(interactions, split, length=3, stride=1)
    seen = torch.cat([batch.user_ids for batch in datamodule.train_dataloader()])
    assert set(seen.tolist()) == {1}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"length": 1}, "at least 2"),
        ({"stride": 0}, "^stride is 0"),
        ({"eval_length": 0}, "^eval_length is 0"),
        ({"batch_size": 0}, "^batch_size is 0"),
    ],
)
def test_windows_of_nothing_are_refused(options: dict[str, int], sentence: str) -> None:
    with pytest.raises(MatineeError, match=sentence):
        SequenceDataModule(small(), splits.leave_last_out(small()), **options)


def test_train_without_a_second_item_is_refused() -> None:
    split = splits.Split("s", {}, np.array([0, 7]), np.arange(1, 4), np.array([4]))
    with pytest.raises(MatineeError, match="no user of train has 2 items"):
        SequenceDataModule(small(), split)


@pytest.mark.parametrize("model", [*ENCODERS, "popularity"])
def test_every_model_trains_evaluates_and_recommends(run, model: str) -> None:
    folder = run(*SEQUENCE, f"model={model}", "data.length=10", "trainer.max_epochs=1")
    recorded = read_result(folder)
    assert {"val/mrr", "test/mrr", "test/recall@10", "test/ndcg@10", "test/coverage@10"} <= set(
        recorded["metrics"]
    )
    assert recorded["protocol"]["ties"] == "average rank"
    loaded = building.load_run(folder)
    metrics = measuring.evaluate(loaded, make_trainer(loaded.config, None)).metrics
    assert metrics == recorded["metrics"]
    table = recommend(loaded, user="u3", top_k=5)
    assert table["score"].is_monotonic_decreasing
    assert (
        len(recommend(loaded, history=[], top_k=10**6)) == loaded.datamodule.interactions.num_items
    )


PAIRS = [  # the quick ones have every encoder and every loss
    pytest.param(model, loss, marks=[] if n % len(SAMPLED) == m else pytest.mark.slow)
    for n, model in enumerate(ENCODERS)
    for m, loss in enumerate(SAMPLED)
]


@pytest.mark.parametrize(("model", "loss"), PAIRS)
def test_every_loss_goes_with_every_model(run, model: str, loss: str) -> None:
    sampler = "uniform" if loss == "gbce" else "popularity"
    folder = run(
        *SEQUENCE, f"model={model}", f"loss={loss}", f"sampler={sampler}", "sampler.num_negatives=3",
        "data.length=10", "trainer.max_epochs=1", "+trainer.limit_train_batches=2", "logger=none",
    )  # fmt: skip
    assert 0 < read_result(folder)["metrics"]["test/mrr"] < 1


@pytest.mark.parametrize("sampler", ["uniform", "popularity", "in_batch", "mixed"])
def test_negatives_shared_by_a_batch_train_the_same_again(run, sampler: str) -> None:
    shared = ["sampler.shared=true"] * (sampler in ("uniform", "popularity"))
    options = [
        *SEQUENCE, "model=gru", "loss=sampled_softmax", f"sampler={sampler}",
        "sampler.num_negatives=8", *shared, "logger=none",
    ]  # fmt: skip
    metrics = read_result(run(*options))["metrics"]
    assert 0 < metrics["test/mrr"] < 1
    assert read_result(run(*options, folder="again"))["metrics"] == metrics


@pytest.mark.parametrize("split", ["leave_last_out", "user_tail", "chronological"])
def test_every_split_serves_sequences(run, split: str) -> None:
    shares = ["split.validation_share=0.2", "split.test_share=0.2"] if split == "user_tail" else []
    folder = run(
        *SEQUENCE,
        f"split={split}",
        "model=gru",
        "data.eval_stride=1",
        "data.eval_length=30",
        *shares,
    )
    assert read_result(folder)["metrics"]["test/mrr"] > 0


def test_metrics_do_not_depend_on_the_evaluation_batch(run) -> None:
    options = [*SEQUENCE, "model=attention", "data.filter_seen=true"]
    whole = read_result(run(*options))["metrics"]
    single = read_result(run(*options, "data.eval_batch_size=1", folder="single"))["metrics"]
    assert whole == pytest.approx(single, abs=2e-3), "a float's last bit may break or make a tie"


def test_a_batch_is_ranked_the_same_in_blocks_of_rows(
    compose_train, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [*SEQUENCE, "model=gru", "data.filter_seen=true", "data.eval_stride=1"]
    experiment = building.build(compose_train(*options))
    task = experiment.task.eval()
    batch = next(iter(experiment.datamodule.evaluation_dataloader("test")))
    assert len(batch.seen_items) > 0
    with torch.no_grad():
        whole = task.rank(batch, best=5)
        monkeypatch.setattr(next_item, "RANKED_AT_ONCE", 7 * len(task.warm_items))
        blocks = task.rank(batch, best=5)
    assert torch.equal(whole["ranks"], blocks["ranks"])
    assert torch.equal(whole["best_items"], blocks["best_items"])


def test_recommendations_are_the_scores_of_evaluation(run) -> None:
    """The item ranked n-th for a user is the one that evaluation would rank n-th."""
    loaded = building.load_run(
        run(*SEQUENCE, "split=leave_last_out", "model=gru", "data.eval_stride=1")
    )
    interactions = loaded.datamodule.interactions
    batch = next(iter(loaded.datamodule.evaluation_dataloader("test")))
    with torch.no_grad():
        target_ranks = loaded.task.predict_step(batch)["ranks"]
    raw_items = interactions.items["raw_id"]
    for row in range(5):
        length = int(batch.lengths[row])
        history = [raw_items[i] for i in batch.histories[row, 1:length].tolist()]
        table = recommend(loaded, history=history, top_k=interactions.num_items, repeat=True)
        target = raw_items[batch.target_ids[row, length - 1].item()]
        place = table["rank"][table["item"] == target].item()
        assert place == pytest.approx(target_ranks[row].item(), abs=0.5)


def test_per_user_file_adds_up_to_the_metric(run) -> None:
    folder = run(*SEQUENCE, "model=popularity")
    with np.load(folder / "per_user.npz") as values:
        assert (
            ranking_metrics(values["rank"], [10])["mrr"]
            == read_result(folder)["metrics"]["test/mrr"]
        )
        assert len(values["user"]) == len(values["rank"]) == len(values["history_length"])


def test_unknown_items_of_a_history_are_reported(finished) -> None:
    loaded = building.load_run(finished(*SEQUENCE, "model=gru"))
    with pytest.raises(MatineeError, match="item 999 is not in the data"):
        recommend(loaded, history=[999])
    with pytest.raises(MatineeError, match="cannot use ratings"):
        recommend(loaded, ratings={100: 5})


def test_history_of_items_that_train_never_held_is_the_empty_one(finished) -> None:
    loaded = building.load_run(finished(*SEQUENCE, "model=gru"))
    task = loaded.task
    task.warm_items[7:9] = False
    unknown = task(torch.tensor([[0, 7, 8]]), torch.tensor([3]), torch.tensor([0]))
    assert unknown[0, 1:].isfinite().all()
    assert torch.equal(
        unknown, task(torch.tensor([[0, 0, 0]]), torch.tensor([3]), torch.tensor([0]))
    )


@pytest.mark.parametrize("model", ["user_gru", "user_lstm"])
@pytest.mark.parametrize(("split", "known"), [("user_based", False), ("leave_last_out", True)])
def test_users_of_train_have_rows_and_others_share_row_0(
    run, model: str, split: str, known: bool
) -> None:
    loaded = building.load_run(
        run(*SEQUENCE, f"model={model}", f"split={split}", "data.eval_stride=1")
    )
    task, batch = loaded.task, next(iter(loaded.datamodule.evaluation_dataloader("test")))
    assert task.warm_users[batch.user_ids].tolist() == [known] * len(batch.user_ids)
    with torch.no_grad():
        before = task(batch.histories, batch.lengths, batch.user_ids)
        unknown = task(batch.histories, batch.lengths, torch.zeros_like(batch.user_ids))
        task.network.encoder.users.weight[1:] += 1.0
        after = task(batch.histories, batch.lengths, batch.user_ids)
    assert torch.equal(before, unknown) is not known
    assert torch.equal(before, after) is not known


def test_a_share_of_the_users_is_unknown_in_training(compose_train) -> None:
    overrides = [*SEQUENCE, "model=user_gru", "task.unknown_users=0.25"]
    experiment = building.build(compose_train(*overrides))
    task, seen = experiment.task, []
    represent = task.network.represent

    def spied(histories: torch.Tensor, user_ids: torch.Tensor) -> torch.Tensor:
        seen.append(user_ids)
        return represent(histories, user_ids)

    task.network.represent = spied
    batch = next(iter(experiment.datamodule.train_dataloader()))
    torch.manual_seed(0)
    for _ in range(40):
        task.training_step(batch, 0)
    user_ids = torch.stack(seen)
    replaced = user_ids == 0
    assert torch.equal(
        torch.where(replaced, batch.user_ids, user_ids), batch.user_ids.expand(40, -1)
    )
    assert replaced.float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert not torch.equal(replaced[0], replaced[1]), "drawn anew in every step"


@pytest.mark.parametrize("loss", ["loss=softmax", "loss=bpr"])
def test_a_step_takes_every_target_and_no_padding(compose_train, loss: str) -> None:
    sampler = ["sampler=uniform"] * (loss == "loss=bpr")
    overrides = [*SEQUENCE, "model=gru", "model.dropout=0", loss, *sampler]
    experiment = building.build(compose_train(*overrides))
    task = experiment.task.train()
    batches = list(experiment.datamodule.train_dataloader())
    batches += experiment.datamodule.evaluation_dataloader("val")  # one target a row
    assert any((batch.target_ids == 0).any() for batch in batches), "some are padded"
    for batch in batches:
        torch.manual_seed(0)
        task.zero_grad()
        outputs = task.step(batch)
        outputs["loss"].backward()
        gradients = [p.grad.clone() for p in task.parameters()]
        torch.manual_seed(0)
        task.zero_grad()
        torch.rand(len(batch.user_ids))  # which users are unknown
        here = batch.target_ids != 0
        represented = task.network.represent(batch.histories, batch.user_ids)
        expected = task.objective(represented[here], batch.target_ids[here])
        expected.backward()
        assert outputs["loss"].item() == expected.item()
        assert outputs["count"].item() == here.sum().item()
        same = map(torch.equal, gradients, (p.grad for p in task.parameters()))
        assert all(same)


def test_negatives_are_drawn_by_their_counts_in_train(compose_train) -> None:
    overrides = [*SEQUENCE, "split=leave_last_out", "model=gru", "loss=bpr", "sampler=popularity"]
    experiment = building.build(compose_train(*overrides, "sampler.alpha=1"))
    interactions, train = experiment.datamodule.interactions, experiment.datamodule.split.train
    counts = Counter(interactions.item_ids[train].tolist())
    items = torch.arange(interactions.num_items + 1)
    shares = experiment.task.sampler.log_probability(items).exp()
    expected = [counts[item] / len(train) for item in items.tolist()]
    assert shares.tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["loss=bpr"], "add sampler=uniform"),
        (["loss=mse"], "MSE is no ranking loss"),
        (["task.top_k=[0]"], r"top_k is \[0\]"),
        (["task.top_k=[]"], r"top_k is \[\]"),
        (["task.top_k=[1.5]"], "task.top_k"),
        (["task.unknown_users=1"], "unknown_users is 1"),
        (["sampler=uniform"], "sampler=none"),
        (["loss=gbce", "sampler=popularity"], "sampler=uniform"),
        (
            ["loss=sampled_softmax", "sampler=uniform", "sampler.exclude_target=false"],
            "exclude_target=true",
        ),
        (["model.sparse=true"], "optimizer=row_adam"),
        (["model=attention", "model.encoder.max_length=5"], r"model\.encoder\.max_length is 5"),
        (
            ["model=user_attention", "model.encoder.encoder.max_length=5"],
            r"model\.encoder\.encoder\.max_length is 5",
        ),
        (
            [
                "model=cnn",
                "model.encoder.dilation_multiplier=1000000",
                "model.encoder.num_layers=3",
            ],
            "look back",
        ),
        (["data.eval_length=1" + 30 * "0"], "data.eval_length"),
        (["model.encoder.num_heads=7"], "num_heads"),
    ],
)
def test_parts_that_do_not_fit_are_refused(run, overrides: list[str], sentence: str) -> None:
    with pytest.raises(MatineeError, match=sentence):
        run(*SEQUENCE, "model=attention", *overrides)


def test_a_ranking_loss_rates_nothing(run) -> None:
    with pytest.raises(MatineeError, match="FullSoftmax is no RatingLoss"):
        run("loss=softmax")


def test_negatives_of_a_catalogue_of_one(compose_train, tmp_path: Path) -> None:
    path = tmp_path / "one.csv"
    path.write_text("who,what,stars,moment\n" + "\n".join(f"u{n // 4},1,3,{n}" for n in range(80)))
    config = compose_train(
        f"dataset.path={path}", "dataset.duplicates=keep", *SEQUENCE, "model=gru", "loss=bpr",
        "sampler=uniform", f"run_folder={tmp_path / 'run'}",
    )  # fmt: skip
    with pytest.raises(MatineeError, match="1 items to draw from"):
        running.train(config, [])


def slow(*models: str) -> list[Any]:
    return [pytest.param(model, marks=pytest.mark.slow) for model in models]


@pytest.mark.parametrize("model", ["cnn", *slow("gru", "attention")])
def test_counting_is_learned(run, compose_train, tmp_path: Path, model: str) -> None:
    mrr = synthetic(
        compose_train, tmp_path, "dataset=counting", "dataset.num_rows=300", f"model={model}"
    )
    assert mrr >= 0.99


@pytest.mark.parametrize("model", ["gru", "attention", *slow("lstm", "cnn", "dnc")])
def test_markov_chains_are_learned_only_where_order_matters(
    compose_train, tmp_path: Path, model: str
) -> None:
    """Two sides: far above popularity on a nearly deterministic chain, at chance on noise."""
    options = [
        "dataset=markov",
        "dataset.num_users=300",
        "dataset.num_items=50",
        "dataset.num_interactions=9000",
    ]
    order, noise = ["dataset.concentration=0.001"], ["dataset.concentration=100"]
    learnt = synthetic(compose_train, tmp_path / "a", *options, *order, f"model={model}", *SMALL)
    popular = synthetic(compose_train, tmp_path / "b", *options, *order, "model=popularity")
    chance = synthetic(compose_train, tmp_path / "c", *options, *noise, f"model={model}", *SMALL)
    assert learnt > 0.9
    assert learnt > 3 * popular
    harmonic = np.mean(1 / np.arange(1, 51))  # the mean reciprocal rank of a random order
    assert chance == pytest.approx(harmonic, abs=0.05)


def synthetic(compose_train, folder: Path, dataset: str, *overrides: str) -> float:
    config = compose(
        dataset, *SEQUENCE, "name=test", "trainer.max_epochs=10", "optimizer.lr=0.005",
        "data.length=20", "data.eval_length=20", "data.batch_size=32",
        "logger=none", "trainer.accelerator=cpu", f"run_folder={folder / 'run'}", *overrides,
    )  # fmt: skip
    return read_result(running.train(config, []))["metrics"]["test/mrr"]


def test_items_that_are_no_candidates_are_no_recommendations(tmp_path: Path) -> None:
    """One unseen item is left after the whole catalogue but the target: coverage counts it alone."""
    words = [
        "experiment=counting/popularity", "split=leave_last_out", "data.filter_seen=true",
        "data.eval_length=20", "logger=none", "name=test", f"run_folder={tmp_path / 'run'}",
        "trainer.accelerator=cpu",
    ]  # fmt: skip
    folder = running.train(compose(*words), words)
    metrics = read_result(folder)["metrics"]
    num_items = building.load_run(folder).datamodule.interactions.num_items
    assert metrics["test/coverage@10"] == 1 / num_items
    assert metrics["test/mrr"] == 1


def test_a_model_of_users_reads_no_history(run) -> None:
    loaded = building.load_run(run(*SEQUENCE, "model=implicit_mf", "split=leave_last_out"))
    item = loaded.datamodule.interactions.items["raw_id"].iloc[0]
    with pytest.raises(MatineeError, match="reads no history"):
        recommend(loaded, history=[item])
    assert len(recommend(loaded, history=[], top_k=3)) == 3


def test_a_run_resumes_only_under_its_own_protocol(finished) -> None:
    folder = finished(*SEQUENCE, "model=gru")
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(config.replace("filter_seen: false", "filter_seen: true"))
    with pytest.raises(MatineeError, match="filter_seen"):
        building.load_run(folder)


def test_dropping_the_oldest_leaves_the_evaluation(compose_train) -> None:
    """Fewer rows are learned from; windows, targets, segments and fingerprint are those of all."""
    options = [
        *SEQUENCE,
        "model=gru",
        "split=leave_last_out",
        "data.segments=[popularity,history,warmth]",
    ]
    whole = building.build(compose_train(*options)).datamodule
    part = building.build(compose_train(*options, "data.drop_oldest=0.9")).datamodule
    for stage in ("train", "val", "test"):
        assert targets(part, stage) == targets(whole, stage)
        masks = zip(part.segments(stage).values(), whole.segments(stage).values(), strict=True)
        assert all(np.array_equal(*pair) for pair in masks)
    assert part.protocol == whole.protocol
    learned = np.bincount(part.histories.rows, minlength=len(part.interactions)) > 0
    for user in range(1, part.interactions.num_users + 1):
        mine = [row for row in part.split.train if part.interactions.user_ids[row] == user]
        dropped = int(len(mine) * 0.9 + 1e-9)
        assert learned[mine].tolist() == [False] * dropped + [True] * (len(mine) - dropped)
    warm = np.unique(part.interactions.item_ids[learned])
    assert np.flatnonzero(part.warm[1].numpy()).tolist() == warm.tolist()
    for override, sentence in [
        ("data.drop_oldest=1.0", "drop_oldest is 1"),
        (
            "data.drop_oldest=0.999",
            r"no user of train has 2 items after drop_oldest=0\.999",
        ),
        ("data.min_length=99", r"min_length is 99 and windows have at most length="),
    ]:
        with pytest.raises(MatineeError, match=sentence):
            building.build(compose_train(*options, override))
