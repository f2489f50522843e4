"""The command line: its output, its exit status, and what it leaves behind."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import failed, matinee, matinee_process
from matinee.experiment import running
from matinee.experiment.run_folder import read_result

# fmt: off
VERBS = [
    "train", "overfit", "find-lr", "evaluate", "refit", "recommend", "predict", "similar", "embeddings",
    "report", "search", "describe",
]
# fmt: on


def test_help_teaches_and_imports_nothing_heavy() -> None:
    program = (
        "import sys\nfrom matinee import cli\n"
        "try: cli.main(['--help'])\nexcept SystemExit as exit: assert exit.code == 0\n"
        "heavy = {'torch', 'lightning', 'hydra', 'pandas', 'numpy', 'omegaconf'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for verb in VERBS:
        assert f"  {verb} " in done.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str) -> None:
    done = matinee(verb, "--help")
    assert done.returncode == 0, done.stderr
    assert f"matinee {verb}" in done.stdout
    assert "Hydra" not in done.stdout.split("\n")[0]


def test_train_help_lists_the_choices() -> None:
    done = matinee("train", "--help")
    for word in ("mf_bias", "chronological", "star_classification", "ml-100k", "chronological/mf"):
        assert word in done.stdout


def test_train_ends_with_its_folder_and_the_others_take_it(
    table_overrides: list[str], tmp_path: Path
) -> None:
    done = matinee_process("train", *table_overrides, "trainer.max_epochs=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = done.stdout.splitlines()[-1]
    assert (tmp_path / folder / "result.json").is_file()
    assert "rmse" in done.stdout

    again = matinee("evaluate", f"run={folder}", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    recorded = read_result(tmp_path / folder)["metrics"]["test/rmse"]
    assert again.stdout.count(f"{recorded:.6f}") >= 2
    assert "identical to the record" in again.stdout

    known = matinee("recommend", f"run={folder}", "user=u3", "top_k=4", cwd=tmp_path)
    assert known.returncode == 0, known.stderr
    assert len(known.stdout.splitlines()) == 2 + 4

    newcomer = matinee("recommend", f"run={folder}", "ratings={100: 5, 101: 1}", cwd=tmp_path)
    assert newcomer.returncode == 0, newcomer.stderr
    assert len(newcomer.stdout.splitlines()) == 2 + 10

    table = matinee("report", folder, cwd=tmp_path)
    assert table.returncode == 0, table.stderr
    assert f"{recorded:.4f}" in table.stdout

    assert "user 'nobody' is not in the data" in failed(
        matinee("recommend", f"run={folder}", "user=nobody", cwd=tmp_path)
    )
    assert "item '9' is not in the data" in failed(
        matinee("recommend", f"run={folder}", "ratings={9: 5}", cwd=tmp_path)
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lightning_logs"], "no stray files"


def test_a_multirun_runs_all_and_fails_if_one_does(
    table_overrides: list[str], tmp_path: Path
) -> None:
    done = matinee(
        "train", "-m", *table_overrides, "model=bias", "model.item_damping=1,-1,2", cwd=tmp_path
    )
    assert done.returncode == 1
    assert "item_damping is -1" in done.stderr
    assert len(list(tmp_path.rglob("result.json"))) == 2
    started = re.findall(r"^run (\d) of 3(, about [\d:]+ left)?$", done.stderr, re.MULTILINE)
    assert [number for number, _ in started] == ["1", "2", "3"]
    assert [bool(left) for _, left in started] == [False, True, True]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["trian"], "there is no verb 'trian'; try 'matinee train'"),
        (
            ["train", "optimizer.lrr=0.1"],
            "unknown key 'optimizer.lrr'; did you mean 'optimizer.lr'",
        ),
        (["train", "modle=mf"], "unknown key 'modle'; did you mean 'model'"),
        (["train", "model=mf_bais"], "there is no model=mf_bais; did you mean 'mf_bias'"),
        (["train", "experiment=chronologcal/mf"], "did you mean 'chronological/mf'"),
        (["train", "model=mf", "="], "'='"),
        (["train", "resume=nowhere"], "nowhere is no run folder"),
        (["train", "resume=nowhere", "seed=1"], "leave other overrides out"),
        (["train", "dataset=table"], "dataset.path"),
        (["train", "model=null"], "there is no model=null; choose one of attention, bayesian_mf"),
        (["train", "seed=-1"], "seed is -1"),
        (["train", "seed=1.5"], "seed is 1.5"),
        (["train", "optimizer.lr=abc"], "optimizer.lr is 'abc'; give a number"),
        (["train", "split.quantile=null"], "split.quantile is None; give a number"),
        (["train", "data.batch_size=1.5"], "data.batch_size is 1.5; give a whole number"),
        (["train", "loss=bpr"], "loss of ratings"),
        (["train", "model=gru"], "experiment=user_based/gru"),
        (["train", "+model.num_users=3"], "unknown key 'model.num_users'"),
        (["train", "+dataset.x=[{_target_: os.mkdir, path: PWN}]"], "unknown key"),
        (["train", "dataset.duplicates={_target_: os.mkdir, path: PWN}"], "not allowed"),
        (["evaluate", "run=nowhere", "trainer.profiler._target_=os.mkdir"], "not allowed"),
        (["recommend", "run=nowhere", "+foo=1"], "foo"),
        (["find-lr", "minlr=1"], "unknown key 'minlr'; did you mean 'min_lr'"),
        (["overfit", "optimizer.lrr=1"], "did you mean 'optimizer.lr'"),
        (
            ["train", "dataset=table", "dataset.path=no.csv", "dataset.user=a", "dataset.item=b"],
            "no.csv",
        ),
        (["evaluate", "run=nowhere"], "nowhere is no run folder"),
        (["evaluate"], "run=... is missing"),
        (["recommend", "run=nowhere", "user=1"], "nowhere is no run folder"),
        (["recommend", "run=1_000"], "1_000 is no run folder"),
        (["evaluate", "run=1.10"], "1.10 is no run folder"),
        (["recommend", "run=x", "history=50"], "history is '50'; write 'history=[ITEM, ...]'"),
        (["recommend", "run=x", "history=[1,,2]"], "write 'history=[ITEM, ...]'"),
        (["recommend", "run=x", "ratings={50}"], "write 'ratings={ITEM: RATING, ...}'"),
        (["recommend", "run=x", "ratings={1: good}"], "write 'ratings={ITEM: RATING, ...}'"),
        (["recommend", "run=x", "ratings={1: 2, 1: 3}"], "ratings names '1' twice"),
        (["report", "nowhere"], "there is no folder nowhere"),
    ],
)
def test_mistakes_get_one_sentence(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    done = matinee(*arguments, cwd=tmp_path)
    assert sentence in failed(done, status=2 if arguments == ["trian"] else 1)
    assert not list(tmp_path.iterdir()), "nothing is left behind"


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["trainer.accelerator=abacus"], "abacus"),
        (["trainer.accelerator=gpu"], "gpu"),
        (["model=mf", "model.embedding_dim=0"], "embedding_dim is 0"),
        (["model.embedding_dim=many"], "model.embedding_dim is 'many'"),
        (["data.batch_size=0"], "data.batch_size is 0"),
        (["task.l2=-1"], "task.l2 is -1"),
        (["optimizer.lr=-1"], "learning rate"),
        (["split.quantile=2"], "split.quantile is 2"),
        (["dataset.rating_scale=[4,5]"], "line "),
    ],
)
def test_bad_values_get_one_sentence(
    table_overrides: list[str], tmp_path: Path, overrides: list[str], sentence: str
) -> None:
    arguments = [entry for entry in table_overrides if "accelerator" not in entry]
    done = matinee("train", *arguments, *overrides, cwd=tmp_path)
    assert sentence in failed(done)
    assert not list(tmp_path.rglob("*.yaml")), "nothing is left behind"


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ("", "table is empty|no rows|holds no"),
        ("a,1,3,1\na,2,4,2\nb,1,nan,3\n", "line 4"),
        ("a,1,3,1\na,2\nb,1,5,3\n", "line 3"),
        ("a,1,3,1\na,1,4,2\n", "line 3|line 2"),
    ],
)
def test_bad_tables_get_one_sentence(tmp_path: Path, rows: str, sentence: str) -> None:
    import re

    path = tmp_path / "bad.csv"
    path.write_text("who,what,stars,moment\n" + rows)
    done = matinee(
        "train", "dataset=table", f"dataset.path={path}", "dataset.user=who", "dataset.item=what",
        "dataset.rating=stars", "dataset.timestamp=moment", cwd=tmp_path,
    )  # fmt: skip
    assert re.search(sentence, failed(done))


@pytest.mark.parametrize("rows", ["one user", "one item"])
def test_one_user_or_one_item_trains(tmp_path: Path, compose_train, rows: str) -> None:
    path = tmp_path / "one.csv"
    lines = [
        f"u{0 if rows == 'one user' else n},{0 if rows == 'one item' else n},{n % 5 + 1},{n}"
        for n in range(40)
    ]
    path.write_text("who,what,stars,moment\n" + "\n".join(lines))
    config = compose_train(
        f"dataset.path={path}",
        "model=mf_bias",
        f"run_folder={tmp_path / 'run'}",
        "trainer.max_epochs=2",
    )
    assert read_result(running.train(config, []))["metrics"]["test/rmse"] > 0
