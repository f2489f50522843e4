"""Searches: draws, hashes, and results that do not depend on kills, restarts and other processes."""

import itertools
import json
import multiprocessing
import os
import re
import shlex
import signal
import sys
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matinee.config.composing import compose
from matinee.config.folders import config_dir
from matinee.config.parts import make
from matinee.config.trees import read_yaml
from matinee.errors import MatineeError
from matinee.experiment import building, running
from matinee.experiment.run_folder import read_result
from matinee.training.tasks import NextItemTask, RatingTask
from matinee.verbs.search.command import print_rows, published_rows, search
from matinee.verbs.search.records import Records
from matinee.verbs.search.spaces import Space, as_overrides, hash_id
from matinee.verbs.search.tpe import GuidedSearch, Pruning
from matinee.verbs.search.trials import Search, prepare

MODELS = sorted(path.stem for path in (config_dir() / "space").glob("*.yaml"))
DATA = [
    "dataset=markov",
    "dataset.num_users=60",
    "dataset.num_items=15",
    "dataset.num_interactions=1500",
]
FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(["test_search", "matinee.verbs.search.command"])
TINY = ["space=pooling", "space.choices.n_iter=[1,2]", "space.choices.embedding_dim=[8,16]"]
TINY += ["space.choices.batch_size=[256]", "accelerator=cpu"]


def space_of(model: str) -> Space:
    return make(read_yaml(config_dir() / "space" / f"{model}.yaml"), "space")


def run_search(*options: str, overrides: list[str] = DATA) -> None:
    search(compose(*TINY, *options, verb="search"), overrides)


PLACES = {  # where a process can be killed: as one of these begins
    "training": (NextItemTask, "step"),
    "recording": (Records, "add"),
    "renaming": (os, "replace"),
}


def in_process(log: Path, *options: str, **arranged: Any) -> Any:
    """Start a search in a process of its own, its output in a file; imports are paid for once."""
    process = FORKSERVER.Process(target=_logged, args=(log, options), kwargs=arranged)
    process.start()
    return process


def _logged(
    log: Path, options: tuple[str, ...], kill_at: tuple[str, int] | None = None, meet: Any = None
) -> None:
    """Run a search that kills itself at the n-th call of a place, or first meets another one."""
    sys.stdout = sys.stderr = log.open("w", buffering=1)
    if kill_at is not None:
        place, number = kill_at
        owner, name = PLACES[place]
        original, calls = getattr(owner, name), itertools.count(1)

        def counted(*arguments: Any, **options: Any) -> Any:
            if next(calls) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **options)

        setattr(owner, name, counted)
    if meet is not None:
        run, met = Search.run, iter([meet.wait])

        def together(self: Search, *arguments: Any) -> Any:
            for wait in met:
                wait()  # until the other one has claimed a trial, too
            return run(self, *arguments)

        Search.run = together  # type: ignore[method-assign]
    run_search(*options)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the results of a search of 20 that nobody disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    run_search("trials=20", f"log_dir={folder}")
    return (folder / "markov" / "pooling-cpu.jsonl").read_bytes()


def test_hashes_are_those_published() -> None:
    rows = published_rows("cnn")
    assert len(rows) == 5
    for name, row in rows.items():
        assert hash_id(row["hyperparameters"]) == name
        whole = {**space_of("cnn").choices, "dilation": [row["hyperparameters"]["dilation"]]}
        assert row["hyperparameters"].keys() == whole.keys()
        assert all(value in whole[key] for key, value in row["hyperparameters"].items())


@pytest.mark.parametrize("model", MODELS)
@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_draws_are_distinct_members_and_a_function_of_the_seed(model: str, seed: int) -> None:
    space = space_of(model)
    drawn = list(islice(space.draws(seed), 10))
    assert drawn == list(islice(space_of(model).draws(seed), 10))
    assert len({hash_id(h) for h in drawn}) == 10
    for h in drawn:
        assert all(h[name] in values for name, values in space.choices.items())
        if model == "cnn":
            dilation = [h["dilation_multiplier"] ** (i % 8) for i in range(h["num_layers"])]
            assert h.pop("dilation") == dilation
        assert h.keys() == space.choices.keys()
        assert isinstance(h["l2"], float) and isinstance(h["learning_rate"], float)


def test_another_seed_draws_differently_and_a_small_space_is_drawn_whole() -> None:
    space = space_of("lstm")
    assert next(space.draws(0)) != next(space.draws(1))
    few = {name: values[:1] for name, values in space.choices.items()}
    few |= {"n_iter": [5, 6], "l2": [0, 1e-6, 1e-5]}
    assert len(list(Space("lstm", few).draws(0))) == Space("lstm", few).size == 6


@pytest.mark.parametrize("model", MODELS)
def test_every_space_composes_a_run_of_what_was_drawn(model: str) -> None:
    for h in islice(space_of(model).draws(1), 3):
        config = compose("experiment=search", *as_overrides(model, h))
        losses = {
            "bpr": "SaturatingBPR",
            "pointwise": "SaturatingPointwise",
            "hinge": "Hinge",
            "adaptive_hinge": "AdaptiveHinge",
        }
        assert config.loss._target_.endswith(f".{losses[h['loss']]}")
        assert config.sampler.num_negatives == (5 if h["loss"] == "adaptive_hinge" else 1)
        assert config.trainer.max_epochs == h["n_iter"]
        assert config.optimizer.weight_decay == h["l2"]
        assert config.model.init_std == 1 / h["embedding_dim"]
        assert config.model.dropout == 0
        if model == "cnn":
            assert config.model.encoder.dilation == h["dilation"]
            assert config.model.encoder.residual is h["residual"]


def test_windows_shorter_than_20_are_left_out() -> None:
    rows = "dataset.num_interactions"
    built = building.build(compose("experiment=search", *DATA, f"{rows}=1185"))
    lengths = [
        built.datamodule.evaluation(stage).windows.lengths for stage in ("train", "val", "test")
    ]
    assert all(
        set(found.tolist()) == {20} for found in (*lengths, built.datamodule.windows.lengths)
    )
    assert built.datamodule.protocol["windows"] == {"length": 200, "stride": 200, "min_length": 20}
    with pytest.raises(MatineeError, match="no user of train has 20 items"):
        building.build(compose("experiment=search", *DATA, f"{rows}=600"))


@pytest.mark.slow
def test_a_search_killed_five_times_ends_like_an_undisturbed_one(
    undisturbed: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "markov" / "pooling-cpu.jsonl"
    options = ("trials=20", f"log_dir={tmp_path}")
    kills = [("training", 3), ("training", 6), ("recording", 3), ("renaming", 4), ("training", 1)]
    known = 0
    for kill_at in kills:
        process = in_process(tmp_path / "log", *options, kill_at=kill_at)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert known <= len(lines(path)) < 21
        known = len(lines(path))
    assert known > 1 + 5
    run_search(*options)
    names = [json.loads(line)["hash_ID"] for line in lines(path)[1:]]
    assert len(names) == len(set(names)) == 20
    assert path.read_bytes() == undisturbed


@pytest.mark.slow
def test_two_at_once_share_the_work(undisturbed: bytes, tmp_path: Path) -> None:
    logs = [tmp_path / "a.log", tmp_path / "b.log"]
    meet = FORKSERVER.Barrier(2)
    processes = [in_process(log, "trials=8", f"log_dir={tmp_path}", meet=meet) for log in logs]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    ran = [[line for line in lines(log) if line.startswith("trial ")] for log in logs]
    assert all(ran)
    assert len(ran[0]) + len(ran[1]) == len({line.split()[1] for log in ran for line in log}) == 8
    shared = (tmp_path / "markov" / "pooling-cpu.jsonl").read_bytes()
    assert shared.splitlines() == undisturbed.splitlines()[: 1 + 8]


def test_a_half_written_line_is_dropped_and_a_broken_one_refused(
    undisturbed: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "markov" / "pooling-cpu.jsonl"
    path.parent.mkdir()
    path.write_bytes(undisturbed[:-40])
    run_search("trials=20", f"log_dir={tmp_path}")
    assert "the last line is incomplete" in capsys.readouterr().err
    assert path.read_bytes() == undisturbed
    path.write_bytes(undisturbed.replace(b'"trial": 3', b'"trial" 3'))
    with pytest.raises(MatineeError, match=r"pooling-cpu\.jsonl, line 5: not a record of a search"):
        run_search("trials=20", f"log_dir={tmp_path}")
    path.write_bytes(re.sub(rb'"test_mrr": [^,]+', b'"test_mrr": NaN', undisturbed, count=1))
    with pytest.raises(MatineeError, match="test_mrr is nan, not a finite number"):
        run_search("trials=20", f"log_dir={tmp_path}")


def test_the_table_ends_with_a_command_that_makes_the_best_run(
    undisturbed: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "markov" / "pooling-cpu.jsonl"
    path.parent.mkdir()
    path.write_bytes(undisturbed)
    run_search("trials=3", f"log_dir={tmp_path}")
    output = capsys.readouterr().out.splitlines()
    rows = [json.loads(line) for line in undisturbed.decode().splitlines()[1:]]
    best = max(rows, key=lambda row: row["validation_mrr"])
    table = [line.split("|")[1].strip() for line in output if line.count("|") == 4]
    assert table[0] == "hash_ID" and table[2] == best["hash_ID"] and len(table) == 22
    assert output[-1] == str(path)
    program, verb, *overrides = shlex.split(output[-2])
    assert (program, verb) == ("matinee", "train")
    config = compose(*overrides, f"run_folder={tmp_path / 'run'}", "logger=none")
    metrics = read_result(running.train(config, overrides))["metrics"]
    assert metrics["val/mrr"] == best["validation_mrr"]
    assert metrics["test/mrr"] == best["test_mrr"]

    run_search("trials=3", f"log_dir={tmp_path}", f"hash={best['hash_ID']}")
    assert "identical to the record" in capsys.readouterr().out


def test_a_published_hash_can_be_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_search(
        "space=cnn", "hash=945213785f1412f8282351c34195d526", f"log_dir={tmp_path}",
        overrides=[*DATA, "+trainer.limit_train_batches=1"],
    )  # fmt: skip
    printed = capsys.readouterr()
    assert "| validation_mrr |" in printed.out and " 0.0190 |" in printed.out
    told = r"945213785f1412f8282351c34195d526: test_mrr 0\.\d{4}, validation_mrr 0\.\d{4}, [\d.]+ s"
    assert re.search(told, printed.err)


def test_a_diverged_run_is_a_result_without_metrics(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hopeless = ["learning_rate=[1e30]", "loss=[hinge]", "n_iter=[2,3]"]
    options = ["trials=2", f"log_dir={tmp_path}", *(f"space.choices.{one}" for one in hopeless)]
    run_search(*options)
    printed = capsys.readouterr()
    assert ": 2 combinations on markov" in printed.out
    path = tmp_path / "markov" / "pooling-cpu.jsonl"
    before = path.read_bytes()
    for row in map(json.loads, lines(path)[1:]):
        assert row["test_mrr"] is None and row["validation_mrr"] is None
        assert "NaN" in row["failure"] or "nan" in row["failure"]
    assert printed.err.count("trial ") == 2
    names = ("test_mrr", "validation_mrr")
    shown = SimpleNamespace(folder=path.parent, metric_names=names, headline=NextItemTask.headline)
    print_rows(shown, "pooling", [row])
    assert "pooling: 1 combination on markov" in capsys.readouterr().out
    run_search(*options)
    assert capsys.readouterr().err.count("trial ") == 0
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "overrides", "sentence"),
    [
        (["trials=0"], DATA, "trials is 0; give 1 to"),
        (["trials=99999"], DATA, "trials is 99999; give 1 to 384"),
        (["trials=many"], DATA, "trials is 'many'; give a whole number"),
        (["method=grid"], DATA, "method is 'grid'; give one of random, tpe"),
        (["storage=sqlite:///x.db"], DATA, "storage=... is for method=tpe"),
        (["method=tpe", "storage=no://url"], DATA, "the database no://url cannot be used"),
        (
            ["method=tpe", "storage=mssql+pymssql://me:secret@host/db"],
            DATA,
            r"mssql\+pymssql://me:\*\*\*@host/db cannot be used \(install pymssql\)",
        ),
        (["space.choices.loss=[mse]"], DATA, "space.choices.loss holds 'mse'"),
        (["space.choices.l2=[]"], DATA, "space.choices.l2 is "),
        (["space.choices.l2=[abc]"], DATA, "space.choices.l2 holds 'abc'; give numbers."),
        (
            ["space.choices.n_iter=[1.5]"],
            DATA,
            "space.choices.n_iter holds 1.5; give whole numbers.",
        ),
        (["space.choices.loss=[[bpr]]"], DATA, "space.choices.loss holds "),
        ([], [*DATA, "optimizer.lr=1"], "optimizer.lr=1 is set by the search itself"),
        ([], [*DATA, "data.lenght=3"], r"unknown key 'data\.lenght'; did you mean 'data\.length'"),
        (["hash=35e3ad94"], DATA, "hash=35e3ad94 is unknown for pooling"),
        (["space=cnn", "hash=945213785f1412f8282351c34195d525"], DATA, "did you mean '9452"),
        (["space.model=mf"], DATA, r"unknown key 'model\.dropout'"),
    ],
)
def test_mistakes_are_reported_in_one_sentence(
    options: list[str], overrides: list[str], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(MatineeError, match=sentence):
        run_search(*options, f"log_dir={tmp_path}", overrides=overrides)
    assert not list(tmp_path.rglob("*.jsonl"))


def test_results_of_another_search_are_not_mixed(undisturbed: bytes, tmp_path: Path) -> None:
    path = tmp_path / "markov" / "pooling-cpu.jsonl"
    path.parent.mkdir()
    path.write_bytes(undisturbed)
    for option, difference in (
        ("seed=1", r"another seed \(0 there, 1 here\)"),
        ("space.choices.n_iter=[1]", r"another space\.choices\.n_iter"),
    ):
        with pytest.raises(MatineeError, match=difference):
            run_search(option, "trials=3", f"log_dir={tmp_path}")
    with pytest.raises(MatineeError, match="another overrides"):
        run_search("trials=3", f"log_dir={tmp_path}", overrides=[*DATA, "data.filter_seen=true"])
    assert path.read_bytes() == undisturbed


@pytest.mark.slow
def test_a_killed_guided_search_resumes_and_repeats_the_lost_trial(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("method=tpe", "trials=8", f"log_dir={tmp_path}")
    process = in_process(tmp_path / "log", *options, kill_at=("training", 4))
    process.join()
    assert process.exitcode == -signal.SIGKILL
    others = [in_process(tmp_path / f"log{i}", *options) for i in (1, 2)]
    for other in others:
        other.join()
        assert other.exitcode == 0
    run_search(*options)
    assert "best on validation" in capsys.readouterr().out
    path = tmp_path / "markov" / "pooling-cpu.tpe.db"
    (study,) = optuna.get_all_study_names(f"sqlite:///{path}")
    trials = optuna.load_study(study_name=study, storage=f"sqlite:///{path}").trials
    done = [trial for trial in trials if trial.state.name in ("COMPLETE", "PRUNED")]
    assert len(done) == 8
    assert len({trial.user_attrs["row"]["hash_ID"] for trial in done}) == 8
    lost = [trial for trial in trials if trial.state.name == "FAIL" and "place" in trial.user_attrs]
    assert len(lost) == 1
    assert any(lost[0].params == again.params for again in done)
    with pytest.raises(MatineeError, match="another seed"):
        run_search(*options, "seed=1")


def test_a_hopeless_trial_ends_early(tmp_path: Path) -> None:
    options = [*TINY, "method=tpe", f"log_dir={tmp_path}", "space.choices.n_iter=[6]"]
    config = compose(*options, verb="search")
    study = GuidedSearch(prepare(config, DATA), None)
    for value in (2.0, 3.0, 4.0, 5.0, 6.0):  # no MRR is so high
        good = study.study.ask(study.distributions)
        for epoch in range(6):
            good.report(value, epoch)
        study.study.tell(good, value)
    trial = study.study.ask(study.distributions)
    watcher = Pruning(trial, study.prepared.headline.monitor)
    study.prepared.run(trial.params, watcher)
    assert watcher.pruned
    reported = study.study.trials[-1].intermediate_values
    assert list(reported) == [0, 1, 2, 3]
    assert all(0 < value <= 1 for value in reported.values())


def test_a_search_for_errors_prefers_the_lower_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = SimpleNamespace(
        folder=tmp_path, metric_names=("test_rmse", "validation_rmse"), headline=RatingTask.headline,
        command=lambda hyperparameters: ["train"],
    )  # fmt: skip
    rows = [
        {"hash_ID": name, "test_rmse": 1.0, "validation_rmse": value, "hyperparameters": {}, "failure": None}
        for name, value in (("worse", 2.0), ("better", 1.0))
    ]  # fmt: skip
    print_rows(shown, "mf", rows)
    assert "best on validation, better" in capsys.readouterr().out
