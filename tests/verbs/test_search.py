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

import numpy as np
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
from matinee.verbs.search.command import print_rows, rerun, search
from matinee.verbs.search.importance import LEAST_TRIALS, importances, slices
from matinee.verbs.search.published import published_rows, published_space
from matinee.verbs.search.records import Records
from matinee.verbs.search.spaces import Choices, Range, Space, hash_id, read_space
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
OVER = "{optimizer.lr: log(1e-3,1e-1), model.embedding_dim: [4,8], loss: [softmax,bpr]}"
RANKING = ["experiment=user_based/pooling", *DATA, "trainer.max_epochs=2"]


def space_of(model: str) -> Space:
    return make(read_yaml(config_dir() / "space" / f"{model}.yaml"), "space")


def run_search(*options: str, overrides: list[str] = DATA) -> None:
    search(compose(*TINY, *options, verb="search"), overrides)


PLACES = {  # where a process can be killed: as one of these begins
    "training": (NextItemTask, "step"),
    "recording": (Records, "add"),
    "renaming": (os, "replace"),
}


def search_over(over: str | Path, *options: str, overrides: list[str]) -> None:
    """Run a search over keys, as the command line does."""
    config = compose("accelerator=cpu", *options, verb="search")
    config.over = str(over)
    search(config, overrides)


def in_process(log: Path, *options: str, **arranged: Any) -> Any:
    """Start a search in a process of its own, its output in a file; imports are paid for once."""
    process = FORKSERVER.Process(target=_logged, args=(log, options), kwargs=arranged)
    process.start()
    return process


def _logged(
    log: Path,
    options: tuple[str, ...],
    kill_at: tuple[str, int] | None = None,
    meet: Any = None,
    own: bool = False,
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
    if own:
        search_over(OVER, *options, overrides=RANKING)
    else:
        run_search(*options)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the results of a search of 20 that nobody disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    run_search("trials=20", f"log_dir={folder}")
    return (folder / "markov" / "pooling-cpu.jsonl").read_bytes()


@pytest.fixture(scope="module")
def ratings(table_overrides: list[str]) -> list[str]:
    """Return overrides of a small experiment that predicts ratings."""
    data = [entry for entry in table_overrides if not entry.startswith("trainer.")]
    return ["experiment=random/mf_bias", *data, "data.batch_size=64", "trainer.max_epochs=4"]


def rows_of(folder: Path) -> list[dict[str, Any]]:
    (path,) = folder.rglob("*.jsonl")
    return [json.loads(line) for line in lines(path)[1:]]


def test_hashes_are_those_published() -> None:
    rows = published_rows("cnn")
    assert len(rows) == 5
    for name, row in rows.items():
        assert hash_id(row["hyperparameters"]) == name
        lists = {key: one.values for key, one in space_of("cnn").over.items()}
        whole = {**lists, "dilation": [row["hyperparameters"]["dilation"]]}
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
        assert all(h[name] in one.values for name, one in space.over.items())
        if model == "cnn":
            dilation = [h["dilation_multiplier"] ** (i % 8) for i in range(h["num_layers"])]
            assert h.pop("dilation") == dilation
        assert h.keys() == space.over.keys()
        assert isinstance(h["l2"], float) and isinstance(h["learning_rate"], float)


def test_another_seed_draws_differently_and_a_small_space_is_drawn_whole() -> None:
    space = space_of("lstm")
    assert next(space.draws(0)) != next(space.draws(1))
    lists = {name: list(one.values)[:1] for name, one in space.over.items()}
    few = published_space("lstm", lists | {"n_iter": [5, 6], "l2": [0, 1e-6, 1e-5]})
    assert len(list(few.draws(0))) == few.size == len(list(few.grid())) == 6


@pytest.mark.parametrize("model", MODELS)
def test_every_space_composes_a_run_of_what_was_drawn(model: str) -> None:
    for h in islice(space_of(model).draws(1), 3):
        config = compose(*space_of(model).base, *space_of(model).overrides(h))
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
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in output if line[:1] == "|"]
    assert table[0][-3:] == ["validation MRR", "test MRR", "hash"]
    assert table[2][-1] == best["hash_ID"][:8] and table[22][0] == "hyperparameter"
    assert str(path) in output and str(path.with_suffix(".png")) in output
    program, verb, *overrides = shlex.split(output[-1])
    assert (program, verb) == ("matinee", "train")
    config = compose(*overrides, f"run_folder={tmp_path / 'run'}", "logger=none")
    metrics = read_result(running.train(config, overrides))["metrics"]
    assert metrics["val/mrr"] == best["validation_mrr"]
    assert metrics["test/mrr"] == best["test_mrr"]

    run_search("trials=3", f"log_dir={tmp_path}", f"hash={best['hash_ID'][:6]}")
    assert "identical to the record" in capsys.readouterr().out


def test_a_published_hash_can_be_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_search(
        "space=cnn", "hash=945213785f1412f8282351c34195d526", f"log_dir={tmp_path}",
        overrides=[*DATA, "+trainer.limit_train_batches=1"],
    )  # fmt: skip
    printed = capsys.readouterr()
    assert "| validation MRR |" in printed.out
    assert "0.0190" not in printed.out and "not shown, because it is on other data" in printed.out
    told = r"(?m)^94521378: validation MRR 0\.\d{4}, test MRR 0\.\d{4}, [\d.]+ s$"
    assert re.search(told, printed.err)


def test_published_metrics_stand_beside_the_same_data_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "945213785f1412f8282351c34195d526"
    row = {"test_mrr": 0.5, "validation_mrr": 0.25}
    prepared = SimpleNamespace(
        space=SimpleNamespace(model="cnn"),
        metric_names=list(row),
        stages={"test_mrr": "test/mrr", "validation_mrr": "val/mrr"},
        run=lambda _: row,
        folder=tmp_path / "ml-1m",
        identity={"overrides": ["seed=1"]},
    )
    for override, is_shown in (("seed=1", True), ("data.length=50", False)):
        prepared.identity["overrides"] = [override]
        rerun(prepared, name, [])  # type: ignore[arg-type]
        assert (" 0.0190 |" in capsys.readouterr().out) is is_shown


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
    stages = {name: name.replace("_", "/") for name in names}
    shown = SimpleNamespace(folder=path.parent, metric_names=names, stages=stages, default=None)
    shown.space = SimpleNamespace(over={})
    print_rows(shown, "pooling", [row])  # type: ignore[arg-type]
    assert "pooling: 1 combination on markov" in capsys.readouterr().out
    run_search(*options)
    assert capsys.readouterr().err.count("trial ") == 0
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "overrides", "sentence"),
    [
        (["trials=0"], DATA, "trials is 0; give 1 to"),
        (["trials=99999"], DATA, "trials is 99999; give 1 to 384"),
        (["trials=many"], DATA, "trials is 'many'; give a whole number or null"),
        (["method=genetic"], DATA, "method is 'genetic'; give one of tpe, random, grid"),
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
    study.prepared.run(study.prepared.space.from_optuna(trial.params), watcher)
    assert watcher.pruned
    reported = study.study.trials[-1].intermediate_values
    assert list(reported) == [0, 1, 2, 3]
    assert all(0 < value <= 1 for value in reported.values())


def test_a_space_is_read_as_it_is_written(tmp_path: Path) -> None:
    space = read_space(
        "{optimizer.lr: log(1e-4, 1e-1), loss:[mse, huber], model.dims: [[8,4],[4]], "
        "task.l2: uniform(0, 1), +optimizer.eps: [1e-8], data.batch_size:int(1,3), n.x: logint(1,9)}"
    )
    assert space.over == {
        "optimizer.lr": Range(1e-4, 1e-1, log=True, whole=False),
        "loss": Choices(["mse", "huber"]),
        "model.dims": Choices([[8, 4], [4]]),
        "task.l2": Range(0, 1, log=False, whole=False),
        "+optimizer.eps": Choices([1e-8]),
        "data.batch_size": Range(1, 3, log=False, whole=True),
        "n.x": Range(1, 9, log=True, whole=True),
    }
    assert space.size == float("inf")
    file = tmp_path / "space.yaml"
    file.write_text("# mine\noptimizer.lr: log(1e-4, 1e-1)  # a rate\nloss: [mse, huber]\n")
    over = dict(list(space.over.items())[:2])
    assert read_space(str(file)).over == over


@pytest.mark.parametrize(
    ("over", "sentence"),
    [
        ("{}", "holds no hyperparameter"),
        ("{a.b: 3}", "over: a.b is 3; give a list of values, log"),
        ("{a.b: []}", "a.b is []; give a list"),
        ("{a.b: {c: 1}}", "a.b is {'c': 1}; give a list"),
        ("{a.b: [{c: 1}]}", "a.b holds {'c': 1}; give single values"),
        ("{a.b: [1, 1]}", "a.b is [1, 1]; give each value once"),
        ("{a.b: [.nan]}", "a.b holds nan; give finite numbers"),
        ("{a.b: lgo(1,2)}", "there is no lgo(...); did you mean 'log'?"),
        ("{a.b: __import__(1)}", "there is no __import__(...); give"),
        ("{a.b: log(1)}", "a.b is log(1); give two numbers"),
        ("{a.b: log(1,2,3)}", "give two numbers"),
        ("{a.b: log(1,x)}", "give two numbers"),
        ("{a.b: log(2,1)}", "give the lower number first"),
        ("{a.b: log(1,1e999)}", "give the lower number first"),
        ("{a.b: log(0,1)}", "a logarithm needs numbers above 0"),
        ("{a.b: int(1,2.5)}", "give two whole numbers"),
        ("{a b: [1]}", "'a b' is no key"),
        ("{dataset.path: [x, y]}", "trials on different data cannot be compared"),
        ("{split: [random]}", "trials on different data cannot be compared"),
        ("{seed: [1, 2]}", "seed is no hyperparameter: give seed=... to the search"),
        ("{trainer.devices: [1, 2]}", "use the options accelerator and devices"),
        ("{a.b: [1]", "over cannot be read"),
        ("nowhere.yaml", "over is 'nowhere.yaml', but that file cannot be read"),
    ],
)
def test_a_space_that_is_not_understood_is_refused(over: str, sentence: str) -> None:
    with pytest.raises(MatineeError, match=re.escape(sentence)):
        read_space(over)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_drawn_numbers_are_in_their_range_and_short(seed: int) -> None:
    over = "{a: log(1e-4,1e-1), b: uniform(-1,1), c: int(3,5), d: logint(1,4), e: [[1],[2]]}"
    drawn = list(islice(read_space(over).draws(seed), 5))
    assert drawn == list(islice(read_space(over).draws(seed), 5))
    for one in drawn:
        assert read_space(over).holds(one)
        assert read_space(over).holds(read_space(over).from_optuna(read_space(over).to_optuna(one)))
        assert all(float(f"{one[name]:.4g}") == one[name] for name in "ab")
        assert not read_space(over).holds(one | {"c": 6}) and type(one["d"]) is int


def test_whole_numbers_are_equally_likely_up_to_both_ends() -> None:
    generator = np.random.default_rng(0)
    one = Range(3, 5, log=False, whole=True)
    counts = np.bincount([one.draw(generator) for _ in range(3000)])
    assert len(counts) == 6 and counts[3:].min() > 900 and counts[:3].sum() == 0
    low = Range(1, 100, log=True, whole=True)
    drawn = np.array([low.draw(generator) for _ in range(2000)])
    assert drawn.min() == 1 and drawn.max() == 100 and 0.4 < (drawn <= 10).mean() < 0.6


def test_a_grid_is_run_whole_and_its_best_can_be_trained(
    ratings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ratings = [*ratings, "callbacks.checkpoints.mode=max"]  # the best epoch is not the last
    over = "{optimizer.lr: [0.001, 0.03], loss: [mse, huber]}"
    options = ("method=grid", f"log_dir={tmp_path}")
    search_over(over, *options, overrides=ratings)
    output = capsys.readouterr().out.splitlines()
    rows = rows_of(tmp_path)
    assert [row["trial"] for row in rows] == [0, 1, 2, 3, 4]
    assert [tuple(row["hyperparameters"].values()) for row in rows] == [
        (0.005, "mse"), (0.001, "mse"), (0.001, "huber"), (0.03, "mse"), (0.03, "huber")
    ]  # fmt: skip
    assert all(row["failure"] is None and not any("test" in key for key in row) for row in rows)
    best = min(rows, key=lambda row: row["validation_rmse"])  # a lower error is better
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in output if line[:1] == "|"]
    assert table[0] == ["optimizer.lr", "loss", "validation RMSE", "hash"]
    assert table[2][-1].startswith(best["hash_ID"][:8]) and len(table) == 2 + 5
    assert sum(cells[-1].endswith("(default)") for cells in table) == 1
    assert f"the default has {rows[0]['validation_rmse']:.4f}" in "\n".join(output)

    commands = {0: [], best["trial"]: shlex.split(output[-1])[2:]}
    for number, command in commands.items():
        config = compose(
            *ratings,
            *command,
            "trainer.accelerator=cpu",
            f"run_folder={tmp_path}/{number}",
            "logger=none",
        )
        result = read_result(running.train(config, command))
        assert result["metrics"]["val/rmse"] == rows[number]["validation_rmse"]
        assert result["fit"]["best_epoch"] + 1 < result["fit"]["epochs"]

    before = (next(tmp_path.rglob("*.jsonl"))).read_bytes()
    search_over(over, *options, overrides=ratings)
    assert "trial" not in capsys.readouterr().err
    assert next(tmp_path.rglob("*.jsonl")).read_bytes() == before


def test_the_default_is_printed_where_no_trial_is_better(
    ratings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    over = "{optimizer.lr: [0.005, 1e-7]}"  # the former is the default
    search_over(over, f"log_dir={tmp_path}", overrides=ratings)
    output = capsys.readouterr().out.splitlines()
    assert len(rows_of(tmp_path)) == 2
    assert output[-2] == "this is the default: no trial was better"
    assert "optimizer.lr" not in output[-1]


@pytest.mark.parametrize(
    ("over", "options", "sentence"),
    [
        ("{optimizer.lrr: [0.1]}", [], "unknown key 'optimizer.lrr'; did you mean 'optimizer.lr'?"),
        ("{optimzer: [adam]}", [], "unknown key 'optimzer'; did you mean 'optimizer'?"),
        ("{loss: [mse, mes]}", [], "over, loss=mes: there is no loss=mes; did you mean 'mse'?"),
        ("{model.embedding_dim: [8, 0]}", [], "model.embedding_dim is 0"),
        ("{model.embedding_dim: [8, 2.5]}", [], "model.embedding_dim is 2.5; give a whole number"),
        ("{optimizer.lr: uniform(-1,1)}", [], "over: optimizer cannot be built: Invalid learning rate"),
        ("{model: [mf, gru]}", [], "over, model=gru: "),
        ("{data.segments: [[], [warmth]], task: [rating, next_item]}", [], "over"),
        ("{optimizer.lr: log(1e-3,1e-1)}", ["method=grid"], "optimizer.lr is a range of real numbers"),
        ("{loss: [mse, mae]}", ["method=grid", "trials=1"], "method=grid runs all 2 combinations"),
        ("{loss: [mse, mae]}", ["trials=3"], "trials is 3; give 1 to 2, the size of the space"),
        ("{loss: [mse, mae]}", ["space=cnn"], "over=... and space=... exclude each other"),
        ("{trainer.max_epochs: [3]}", [], "trainer.max_epochs=4 is set by the search itself"),
    ],
)  # fmt: skip
def test_a_space_that_cannot_be_run_is_refused_before_anything_trains(
    over: str, options: list[str], sentence: str, ratings: list[str], tmp_path: Path
) -> None:
    with pytest.raises(MatineeError, match=re.escape(sentence)):
        search_over(over, *options, f"log_dir={tmp_path}", overrides=ratings)
    assert not list(tmp_path.iterdir())


def test_a_key_that_changes_what_is_measured_is_refused(tmp_path: Path) -> None:
    for values in ("[true, false]", "[true]"):
        over = f"{{data.filter_seen: {values}}}"
        with pytest.raises(MatineeError, match=r"data\.filter_seen changes what is measured"):
            search_over(over, f"log_dir={tmp_path}", overrides=RANKING)


@pytest.mark.parametrize("experiment", ["user_based", "leave_last_out"])
def test_each_loss_comes_with_a_sampler_that_it_accepts(experiment: str, tmp_path: Path) -> None:
    config = compose("accelerator=cpu", f"log_dir={tmp_path}", verb="search")
    config.over = "{loss: [softmax, gbce]}"
    prepared = prepare(config, [f"experiment={experiment}/attention", *DATA])
    for loss, sampler in (("softmax", "NoneType"), ("gbce", "UniformSampler")):
        task: Any = building.build(compose(*prepared.command({"loss": loss})[1:])).task
        assert type(task.sampler).__name__ == sampler


def test_a_combination_that_cannot_be_built_fails_alone(tmp_path: Path) -> None:
    config = compose("accelerator=cpu", f"log_dir={tmp_path}", verb="search")
    config.over = "{model.embedding_dim: [8, 12], model.encoder.num_heads: [1, 8]}"
    prepared = prepare(config, ["experiment=user_based/attention", *DATA])
    row = prepared.run({"model.embedding_dim": 12, "model.encoder.num_heads": 8})
    assert row["failure"].startswith("model.encoder") and row["validation_mrr"] is None


def test_a_guided_search_over_keys_has_one_table_with_the_default(
    ratings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    over = "{optimizer.lr: log(1e-3,1e-1), model.embedding_dim: int(2,6), loss: [mse, huber]}"
    options = ("method=tpe", "trials=4", f"log_dir={tmp_path}")
    search_over(over, *options, overrides=ratings)
    first = capsys.readouterr()
    rows = rows_of(tmp_path)
    assert [row["trial"] for row in rows] == [0, 1, 2, 3, 4]
    assert rows[0]["hyperparameters"] == {
        "optimizer.lr": 0.005,
        "model.embedding_dim": 64,
        "loss": "mse",
    }
    assert all(read_space(over).holds(row["hyperparameters"]) for row in rows[1:])
    search_over(over, *options, overrides=ratings)
    again = capsys.readouterr()
    assert again.out == first.out and "trial" not in again.err


def finished(number: int) -> list[dict[str, Any]]:
    """Return trials whose error depends on one of three hyperparameters, the last not at all."""
    drawn = list(
        islice(
            read_space("{lr: log(1e-4,1e-1), loss: [mse,mae], x: uniform(0,1)}").draws(0), number
        )
    )
    return [
        {
            "hash_ID": hash_id(one), "hyperparameters": one, "failure": None,
            "validation_rmse": 1 + abs(np.log10(one["lr"]) + 2) + 0.01 * one["x"],
        }
        for one in drawn
    ]  # fmt: skip


def test_importances_and_slices_show_what_decides() -> None:
    shown: Any = SimpleNamespace(
        space=read_space("{lr: log(1e-4,1e-1), loss: [mse,mae], x: uniform(0,1)}"),
        metric_names=["validation_rmse"], default=None, goodness=lambda row: -row["validation_rmse"],
        headline=RatingTask.headline, stages={"validation_rmse": "val/rmse"},
    )  # fmt: skip
    rows = sorted(finished(60), key=lambda row: row["validation_rmse"])
    found = importances(shown, rows)
    assert next(iter(found)) == "lr" and found["lr"] > 0.6
    assert sum(found.values()) == pytest.approx(1)
    figure = slices(shown, rows, found)
    assert [axes.get_xlabel() for axes in figure.axes] == list(found)
    assert figure.axes[0].get_xscale() == "log"
    assert figure.axes[0].get_ylabel() == "validation RMSE"
    low, high = figure.axes[0].get_ylim()
    assert low < rows[0]["validation_rmse"] < high < rows[-1]["validation_rmse"] + 0.5
    assert importances(shown, rows[: LEAST_TRIALS - 1]) == {}


@pytest.mark.slow
def test_a_search_over_keys_killed_five_times_ends_like_an_undisturbed_one(tmp_path: Path) -> None:
    options = ("trials=9",)
    search_over(OVER, *options, f"log_dir={tmp_path / 'whole'}", overrides=RANKING)
    (whole,) = (tmp_path / "whole").rglob("*.jsonl")
    rng = np.random.default_rng(0)
    for _ in range(5):
        place = ("training", "recording", "renaming")[rng.integers(3)]
        kill_at = (place, int(rng.integers(1, 4)))
        process = in_process(
            tmp_path / "log", *options, f"log_dir={tmp_path / 'cut'}", kill_at=kill_at, own=True
        )
        process.join()
        assert process.exitcode == -signal.SIGKILL
    search_over(OVER, *options, f"log_dir={tmp_path / 'cut'}", overrides=RANKING)
    (cut,) = (tmp_path / "cut").rglob("*.jsonl")
    assert len(lines(whole)) == 1 + 1 + 9
    assert cut.name == whole.name and cut.read_bytes() == whole.read_bytes()
