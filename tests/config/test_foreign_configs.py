"""Run folders, experiments and folders of configs that somebody else made are data: nothing in them runs.

Every test says what must not exist afterwards: a marker that code, a resolver or a path would have left.
"""

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from command_line import failed, matinee
from matinee.config.checking import check_config
from matinee.config.composing import compose
from matinee.config.parts import make_part
from matinee.errors import MatineeError
from matinee.experiment.building import build, load_run
from matinee.experiment.run_folder import load_config

VERBS = {
    "evaluate": lambda folder: ["evaluate", f"run={folder}"],
    "recommend": lambda folder: ["recommend", f"run={folder}"],
    "resume": lambda folder: ["train", f"resume={folder}"],
}
RESULT = {
    "metrics": {"test/rmse": 1.0},
    "headline": {"metric": "rmse", "higher_is_better": False},
    "protocol": {
        "dataset": {"sha256": "a", "rows": 1},
        "split": {"name": "random", "options": {}, "fingerprint": "b"},
    },
    "environment": {"seconds": {"fit": 1.0}},
}
WriteRun = Callable[..., Path]
WriteConfigs = Callable[[dict[str, str]], list[str]]


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "marker"


@pytest.fixture(scope="module")
def plain() -> dict[str, Any]:
    config: Any = OmegaConf.to_container(compose("dataset=markov", "logger=none", "trainer=cpu"))
    return config


def changed(plain: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return a config with other values at some dotted keys."""
    config: dict[str, Any] = copy.deepcopy(plain)
    for key, value in changes.items():
        *parents, last = key.split(".")
        node = config
        for parent in parents:
            node = node[parent]
        node[last] = value
    return config


@pytest.fixture
def foreign_run(plain: dict[str, Any], tmp_path: Path) -> WriteRun:
    """Write the folder of a run that claims to have finished, with changed keys in its config."""

    def written(changes: dict[str, Any], name: str = "theirs") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.yaml").write_text(yaml.safe_dump(changed(plain, changes)))
        (folder / "result.json").write_text(json.dumps(RESULT))
        return folder

    return written


@pytest.fixture
def own_configs(tmp_path: Path) -> WriteConfigs:
    """Write files into a folder of configs; return the arguments that make matinee look there."""

    def written(files: dict[str, str]) -> list[str]:
        folder = tmp_path / "configs"
        for name, text in files.items():
            path = folder / f"{name}.yaml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return ["--config-dir", str(folder)]

    return written


INTERPOLATIONS = [
    "${oc.create:{_target_: pathlib.Path.touch, self: MARKER}}",
    "${oc.env:HOME}",
    "${oc.decode:'{_target_: os.mkdir, path: MARKER}'}",
    "${oc.select:dataset}",
    "${run_folder}",
    "${seed}",
    "${.item}",
    "a text around ${now:%Y} it",
    "\\${escaped}",
    "${",
]


@pytest.mark.parametrize("value", INTERPOLATIONS)
@pytest.mark.parametrize("key", ["model.init_std", "model._target_", "name", "dataset", "foo"])
def test_an_interpolation_in_a_run_is_refused(
    foreign_run: WriteRun, marker: Path, key: str, value: str
) -> None:
    folder = foreign_run({key: value.replace("MARKER", str(marker))})
    with pytest.raises(MatineeError, match="only plain values are allowed here"):
        load_config(folder)
    assert not marker.exists()


@pytest.mark.parametrize("verb", VERBS)
def test_no_verb_follows_an_interpolation(
    foreign_run: WriteRun, marker: Path, tmp_path: Path, verb: str
) -> None:
    bait = f"${{oc.create:{{_target_: os.mkdir, path: {marker}}}}}"
    folder = foreign_run({"model": {"_target_": "x", "inner": [bait]}})
    before = sorted(tmp_path.rglob("*"))
    done = matinee(*VERBS[verb](folder), cwd=tmp_path)
    assert "model.inner.0 is '${oc.create" in failed(done)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_named_like_an_interpolation_is_refused(foreign_run: WriteRun) -> None:
    folder = foreign_run({}, "${oc.env:HOME}")
    with pytest.raises(MatineeError, match="run_folder"):
        load_run(folder)


TARGETS = [
    "os.system",
    "builtins.exec",
    "pathlib.Path.touch",
    "pandas.read_pickle",
    "numpy.load",
    "torch.load",
    "torch.hub.load",
    "torch.optim.adam.torch.hub.load",
    "torch.optim.lr_scheduler.LambdaLR",
    "hydra.utils.instantiate",
    "omegaconf.OmegaConf.load",
    "lightning.pytorch.strategies.strategy.Strategy.load_checkpoint",
    "lightning.pytorch.strategies.strategy.Strategy.remove_checkpoint",
    "lightning.pytorch.strategies.DDPStrategy.remove_checkpoint",
    "lightning.pytorch.loggers.csv_logs.ExperimentWriter",
    "lightning.pytorch.loggers.CSVLogger.save",
    "lightning.pytorch.callbacks.ModelCheckpoint",
    "lightning.pytorch.callbacks.LambdaCallback",
    "lightning.pytorch.callbacks.model_checkpoint.shutil.rmtree",
    "lightning.pytorch.Trainer.save_checkpoint",
    "lightning.pytorch.trainer.trainer.Trainer",
    "matinee.files.write_whole",
    "matinee.files.remove_parts",
    "matinee.config.packages.os.system",
    "matinee.data.sources.fetch.fetch",
    "matinee.data.sources.movielens.Path.unlink",
    "matinee.training.callbacks.AtomicCheckpointIO.save_checkpoint",
    "matinee.training.callbacks.AtomicCheckpointIO.remove_checkpoint",
    "matinee.training.tasks.RatingTask.load_from_checkpoint",
    "matinee.verbs.search.published.published_space",
    "matinee.experiment.running.train",
    "matinee.cli.main",
    "matinee.files.os.system",
    "matinee.config.trees.yaml.unsafe_load",
    "torch.nn.Module.register_forward_hook",
    "torch.optim.Adam.load_state_dict",
    "torch..optim.Adam",
    "os.mkdir ",
    "",
]
PLACES = [
    "model",
    "dataset",
    "callbacks.bait",
    "logger.bait",
    "trainer.profiler",
    "trainer.strategy",
]


@pytest.mark.parametrize("place", PLACES)
def test_a_target_that_is_not_listed_is_refused(plain: dict[str, Any], place: str) -> None:
    for target in TARGETS:
        config = changed(plain, {place: {"_target_": target, "path": "MARKER"}})
        with pytest.raises(MatineeError, match=f"{place}._target_={target} is not allowed"):
            check_config(OmegaConf.create(config), "train")


@pytest.mark.parametrize(
    "target",
    [
        "matinee.data.sources.table.load",  # leaves a copy of the data in its data_dir
        "matinee.data.sources.movielens.load",
        "lightning.pytorch.Trainer",
        "lightning.pytorch.loggers.CSVLogger",
        "lightning.pytorch.profilers.SimpleProfiler",
    ],
)
@pytest.mark.parametrize("place", ["model.embedding_dim", "optimizer.lr", "callbacks.metrics.x"])
def test_a_part_that_writes_files_is_no_argument_of_another(
    plain: dict[str, Any], place: str, target: str
) -> None:
    config = changed(plain, {place: {"_target_": target, "data_dir": "/tmp/outside"}})
    with pytest.raises(MatineeError, match=r"is not allowed there|unknown key"):
        check_config(OmegaConf.create(config), "train")


@pytest.mark.parametrize("nested", [False, True])
def test_a_data_folder_that_only_the_run_names_gets_no_copies(
    finished: Callable[..., Path], tmp_path: Path, nested: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, outside = finished(), tmp_path / "outside"
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["dataset"]["data_dir"] = str(outside)
    if nested:
        reader = "matinee.data.sources.subset.load"
        config["dataset"] = {"_target_": reader, "source": config["dataset"]}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    for verb in VERBS:
        if verb == "resume":
            (folder / "result.json").unlink()
        assert f"the run names {outside}" in failed(matinee(*VERBS[verb](folder)))
    assert not outside.exists()
    assert matinee("recommend", f"run={folder}", f"dataset.data_dir={outside}").returncode == nested
    monkeypatch.setenv("MATINEE_DATA", str(outside))
    assert matinee("recommend", f"run={folder}").returncode == 0


def test_what_was_never_checked_is_not_built_either(marker: Path) -> None:
    bait = {"_target_": "os.mkdir", "path": str(marker)}
    with pytest.raises(MatineeError, match="not allowed"):
        make_part(OmegaConf.create({"model": bait}), "model")
    with pytest.raises(MatineeError, match="not allowed"):
        build(OmegaConf.create({"seed": 1, "dataset": {"_target_": "x.y", "deep": [{"er": bait}]}}))
    indirect = {"model": {"_target_": "${bait}", "path": str(marker)}, "bait": "os.mkdir"}
    with pytest.raises(MatineeError, match="only plain values"):
        make_part(OmegaConf.create(indirect), "model")
    assert not marker.exists()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"name": "../../outside"}, "name is '../../outside'"),
        ({"name": "/tmp/outside"}, "name is '/tmp/outside'"),
        ({"name": "a\x1b[2J"}, "name is"),
        ({"trainer.default_root_dir": "/tmp/outside"}, "unknown key 'trainer.default_root_dir'"),
        ({"trainer.profiler": {"_target_": "SimpleProfiler", "dirpath": "/tmp"}}, "profiler.dirpath"),
        ({"trainer.profiler": {"_target_": "SimpleProfiler", "filename": "../x"}}, "profiler.filename"),
        ({"logger": {"x": {"_target_": "CSVLogger", "save_dir": "/tmp"}}}, "logger.x.save_dir"),
        ({"logger": {"x": {"_target_": "CSVLogger", "name": "../../x"}}}, "logger.x.name is '../../x'"),
        ({"logger": {"x": {"_target_": "CSVLogger", "version": "/tmp/x"}}}, "logger.x.version is '/tmp/x'"),
        ({"logger": {"x": {"_target_": "TensorBoardLogger", "sub_dir": ".."}}}, "logger.x.sub_dir is '..'"),
        ({"logger": {"x": {"_target_": "TensorBoardLogger", "filename_suffix": "/../x"}}}, "filename_suffix"),
        ({"logger": {"x": {"_target_": "WandbLogger", "dir": "/tmp"}}}, "logger.x.dir"),
        ({"logger": {"x": {"_target_": "WandbLogger", "settings": {"a": 1}}}}, "logger.x.settings"),
        ({"logger": {"x": {"_target_": "MLFlowLogger", "tracking_uri": "file:/tmp"}}}, "x.tracking_uri"),
        ({"logger": {"x": {"_target_": "MLFlowLogger", "artifact_location": "/tmp"}}}, "artifact_location"),
        ({"_target_": "os.system"}, "unknown key '_target_'"),
        ({"model": {}}, "model has no _target_"),
        ({"model": [1]}, "model="),
        ({"model": None}, "model="),
        ({"model._args_": [1]}, "unknown key 'model._args_'"),
        ({"model._partial_": "yes"}, "model._partial_ is 'yes'"),
        ({"model.embedding_dim": {"a": 1}}, "model.embedding_dim is"),
        ({"seed": "???"}, "seed=... is missing"),
    ],
)  # fmt: skip
def test_a_run_that_would_write_elsewhere_or_is_no_config_is_refused(
    foreign_run: WriteRun, tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    for part in (changes.get("trainer.profiler"), (changes.get("logger") or {}).get("x")):
        if part:
            kind = "profilers" if "Profiler" in part["_target_"] else "loggers"
            part["_target_"] = f"lightning.pytorch.{kind}.{part['_target_']}"
    folder = foreign_run(changes)
    before = sorted(tmp_path.rglob("*"))
    for arguments in (verb(folder) for verb in VERBS.values()):
        assert sentence in failed(matinee(*arguments, cwd=tmp_path))
    assert sorted(tmp_path.rglob("*")) == before


BAIT = "{_target_: builtins.open, file: MARKER, mode: x}"
IN_A_CONFIG = {  # experiments that would make Hydra run, write or find something
    "callbacks": f"# @package _global_\nhydra:\n  callbacks:\n    bait: {BAIT}\n",
    "package": f"# @package hydra.callbacks\nbait: {BAIT}\n",
    "environment": "# @package _global_\nhydra: {job: {env_set: {LD_PRELOAD: MARKER}}}\n",
    "logging": f"# @package _global_\nhydra: {{job_logging: {{handlers: {{x: {{(): {BAIT}}}}}}}}}\n",
    "folder": "# @package _global_\nhydra: {run: {dir: MARKER}}\n",
    "sweep folder": "# @package _global_\nhydra: {sweep: {dir: MARKER}}\n",
    "chdir": "# @package _global_\nhydra: {job: {chdir: true}, run: {dir: MARKER}}\n",
    "subfolder": "# @package _global_\nhydra: {output_subdir: ../MARKER}\n",
    "search path": "# @package _global_\nhydra: {searchpath: [file://MARKER]}\n",
    "sweeper": f"# @package _global_\nhydra: {{sweeper: {BAIT}}}\n",
    "escaped": f'# @package _global_\n"\\x68ydra": {{callbacks: {{bait: {BAIT}}}}}\n',
    "defaults": "# @package _global_\ndefaults: [override /hydra/callbacks: bait]\n",
    "placed": "# @package _global_\ndefaults: ['/bait@hydra.callbacks.bait': x]\n",
    "placed globally": "# @package _global_\ndefaults: ['/bait@_global_': global]\n",
    "log_dir": "# @package _global_\nlog_dir: MARKER\n",
    "run_folder": "# @package _global_\nrun_folder: MARKER\n",
    "name": "# @package _global_\nname: ../../MARKER\n",
    "data_dir": "# @package _global_\ndataset: {data_dir: MARKER}\n",
    "data_dir of a source": "# @package dataset.source\ndata_dir: MARKER\n",
    "interpolated group": "# @package _global_\ndefaults: ['/${name}/callbacks: bait']\nname: hydra\n",
    "interpolated package": "# @package ${name}.callbacks\nbait: MARKER\n",
    "merged key": f"# @package _global_\na: &a {{hydra: {{callbacks: {{bait: {BAIT}}}}}}}\n<<: *a\n",
    "another file": "# @package _global_\ndefaults: ['file://MARKER']\n",
    "itself": "# @package _global_\ndefaults: [bait]\n",
    "many defaults": f"# @package _global_\ndefaults: [{', '.join(['/bait: x'] * 3000)}]\n",
    "defaults of defaults": "# @package _global_\ndefaults: [/deep/a0]\n",
    "environment value": "# @package _global_\nname: ${oc.env:HOME}\n",
    "resolver": "# @package _global_\nmodel: '${oc.create:{_target_: os.mkdir, path: MARKER}}'\n",
    "target": "# @package _global_\nmodel: {_target_: os.mkdir, path: MARKER}\n",
    "indirect target": "# @package _global_\nmodel: {_target_: '${name}'}\nname: os.mkdir\n",
    "interpolated text": "# @package _global_\nmodel: {_target_: 'os.${name}'}\nname: mkdir\n",
    "nothing": "# @package _global_\nname: ${nothing.here}\n",
    "choice": "# @package _global_\ndefaults: [override /model: '${oc.env:HOME}']\n",
}


@pytest.mark.parametrize(
    ("kind", "several"),
    [
        *((kind, False) for kind in IN_A_CONFIG),
        ("callbacks", True),
        ("logging", True),
        ("target", True),
    ],
)
def test_an_experiment_file_neither_configures_hydra_nor_calls_anything(
    own_configs: WriteConfigs,
    marker: Path,
    tmp_path: Path,
    kind: str,
    several: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(
        "HYDRA_INSTANTIATE_ALLOWLIST_OVERRIDE", "builtins.open"
    )  # else Hydra objects
    files = {
        "experiment/bait": IN_A_CONFIG[kind],
        "experiment/other": "# @package _global_\nseed: 3\n",
        "bait/x": "_target_: builtins.open\nfile: MARKER\nmode: x\n",
        "bait/global": f"hydra: {{callbacks: {{bait: {BAIT}}}}}\n",
        "hydra/callbacks/bait": f"bait: {BAIT}\n",
        **{f"deep/a{n}": f"defaults: [{', '.join(f'{{/deep@p{k}: a{n + 1}}}' for k in range(8))}]\n"
           for n in range(9)},
        "deep/a9": "x: 1\n",
    }  # fmt: skip
    arguments = own_configs({n: text.replace("MARKER", str(marker)) for n, text in files.items()})
    before = sorted(tmp_path.rglob("*"))
    chosen = ["-m", "experiment=bait,other"] if several else ["experiment=bait"]
    done = matinee(
        "train", *arguments, *chosen, "dataset=counting", "data.batch_size=-1", cwd=tmp_path
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    left = set(tmp_path.rglob("*")) - set(before)
    if several:  # Hydra has made its folder before it composes a run
        left = {path for path in left if "lightning_logs" not in path.parts}
    assert not left
    assert "LD_PRELOAD" not in os.environ
    if not several:
        assert len([line for line in done.stderr.splitlines() if "matinee: " in line]) == 1


def test_what_is_no_danger_in_an_experiment_file_is_composed(own_configs: WriteConfigs) -> None:
    text = "# @package _global_\ndefaults: [override /model: mf]\nseed: 7\nname: mine/${seed}\n"
    text += "trainer: {max_epochs: 4}\nsplit: {quantile: 0.7}\n"
    _, folder = own_configs({"experiment/mine": text})
    config = compose("experiment=mine", f"hydra.searchpath=[{folder}]")
    assert (config.name, config.seed, config.scheduler.T_max) == ("mine/7", 7, 4)
    assert "MatrixFactorization" in config.model._target_


ALIASES = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)
)
BOMBS = {
    "aliases": ALIASES,
    "merged": "m0: &m0 {a: 1, b: 2}\n"
    + "".join(
        f"m{n}: &m{n} {{{', '.join(f'k{k}: *m{n - 1}' for k in range(9))}}}\n" for n in range(1, 9)
    ),
    "itself": "a: &a [*a]\n",
    "deep list": "a: " + "[" * 20_000 + "]" * 20_000,
    "deep mapping": "a: " + "{b: " * 20_000 + "1" + "}" * 20_000,
    "deep indentation": "\n".join(" " * n + "a:" for n in range(900)),
    "many values": "a: [" + "1, " * 300_000 + "1]",
    "long text": "a: " + "x" * 3_000_000,
    "long value": "name: '${now:" + "%Y" * 10_000 + "}'",
    "no end": "a: [1, 2\n",
    "python": "a: !!python/object/apply:os.mkdir [MARKER]",
    "control characters": "a: \x00\x01",
    "binary": "a: !!binary aGVsbG8=",
    "a set": "a: !!set {b, c}",
    "a date": "a: !!timestamp 2001-01-01",
    "a key that is a list": "? [a]\n: 1",
    "no key": "? null\n: 1",
    "a giant number": "a: " + "9" * 6000,
    "twice the same key": "a: 1\na: 2",
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_is_refused_in_a_run(
    foreign_run: WriteRun, marker: Path, tmp_path: Path, kind: str
) -> None:
    folder = foreign_run({})
    (folder / "config.yaml").write_text(BOMBS[kind].replace("MARKER", str(marker)))
    for verb in VERBS:
        assert "config.yaml cannot be read" in failed(matinee(*VERBS[verb](folder), cwd=tmp_path))
    assert not marker.exists()


@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_is_refused_in_an_experiment(
    own_configs: WriteConfigs, marker: Path, tmp_path: Path, kind: str
) -> None:
    text = "# @package _global_\n" + BOMBS[kind].replace("MARKER", str(marker))
    done = matinee(
        "train", *own_configs({"experiment/bomb": text}), "experiment=bomb", cwd=tmp_path
    )
    assert "bomb.yaml cannot be read" in failed(done)
    assert not marker.exists()


def test_interpolations_that_double_each_other_are_refused(
    own_configs: WriteConfigs, tmp_path: Path
) -> None:
    lines = [f"    x{n}: ${{model.x{n - 1}}}${{model.x{n - 1}}}\n" for n in range(1, 60)]
    text = "# @package _global_\nmodel:\n    x0: boom\n" + "".join(lines)
    done = matinee(
        "train", *own_configs({"experiment/bomb": text}), "experiment=bomb", cwd=tmp_path
    )
    assert "makes the config too large" in failed(done)
    circle = "# @package _global_\nmodel: {embedding_dim: '${data.batch_size}'}\n"
    circle += "data: {batch_size: '${model.embedding_dim}'}\n"
    done = matinee(
        "train", *own_configs({"experiment/circle": circle}), "experiment=circle", cwd=tmp_path
    )
    assert "refers to itself" in failed(done)


def test_a_foreign_run_is_read_in_a_process_of_its_own_without_a_trace(
    foreign_run: WriteRun, marker: Path, tmp_path: Path
) -> None:
    """As a user meets it, and with Hydra's and OmegaConf's own resolvers registered as they are."""
    folder = foreign_run({"dataset.seed": f"${{oc.create:{marker}}}"})
    done = subprocess.run(
        [sys.executable, "-m", "matinee", "evaluate", f"run={folder}"],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert "only plain values are allowed here" in failed(done)
    assert not marker.exists()
