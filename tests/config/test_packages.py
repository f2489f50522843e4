"""Parts of a package of one's own: used where the user allows the package, refused where not."""

import importlib
import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import matinee
from matinee.config.composing import compose
from matinee.errors import MatineeError
from matinee.experiment import running
from matinee.experiment.building import load_run
from matinee.testing import check_encoder

CODE = """
import os
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger
from torch import nn

from matinee.data import splits
from matinee.data.sources import synthetic
from matinee.networks.encoders.pooling import Pooling
from matinee.objectives.ranking_losses import BPR
from matinee.objectives.sampling import UniformSampler

__version__ = "0.3"


def chain(num_users: int = 40):
    return synthetic.markov(num_users=num_users, num_items=12, num_interactions=800)


def halves(interactions, share: float = 0.2):
    return splits.user_based(interactions, seed=0, validation_share=share, test_share=share)


class Doubled(Pooling):
    def __init__(self, embedding_dim: int, factor: float = 2.0) -> None:
        super().__init__(embedding_dim)
        if factor <= 0:
            raise ValueError(f"factor is {factor}; give a number greater than 0.")
        self.factor = factor

    def forward(self, inputs):
        return self.factor * super().forward(inputs)


class MyBPR(BPR):
    pass


class MySampler(UniformSampler):
    pass


class MySGD(torch.optim.SGD):
    pass


class MyStep(torch.optim.lr_scheduler.StepLR):
    pass


class Noting(Callback):
    def on_fit_start(self, trainer, pl_module):
        open(os.path.join(trainer.default_root_dir, "noted"), "x").close()


class MyLogger(CSVLogger):
    pass
"""
FILES = {
    "dataset/chain.yaml": "_target_: {name}.parts.chain\nnum_users: 30\n",
    "split/halves.yaml": "_target_: {name}.parts.halves\n_partial_: true\n",
    "model/doubled.yaml": """# Items, doubled.
_target_: matinee.networks.sequence_recommender.SequenceRecommender
_partial_: true
embedding_dim: 8
encoder:
  _target_: {name}.parts.Doubled
  _partial_: true
  factor: 2.0
""",
    "loss/my_bpr.yaml": "_target_: {name}.parts.MyBPR\n",
    "sampler/mine.yaml": "_target_: {name}.parts.MySampler\n",
    "optimizer/my_sgd.yaml": "_target_: {name}.parts.MySGD\n_partial_: true\nlr: 0.1\n",
    "scheduler/my_step.yaml": "_target_: {name}.parts.MyStep\n_partial_: true\nstep_size: 1\n",
    "logger/mine.yaml": "mine:\n  _target_: {name}.parts.MyLogger\n  _partial_: true\n",
    "experiment/own.yaml": """# @package _global_
# Everything of one's own.
defaults:
  - override /dataset: chain
  - override /split: halves
  - override /data: sequence
  - override /task: next_item
  - override /model: doubled
  - override /loss: my_bpr
  - override /sampler: mine
  - override /optimizer: my_sgd
  - override /scheduler: my_step
  - override /logger: mine
callbacks:
  inspection: null
  noting:
    _target_: {name}.parts.Noting
trainer:
  max_epochs: 1
  accelerator: cpu
""",
}


class Writer:
    """Writes packages into the current folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: list[str] = []

    def __call__(self, name: str = "mylab") -> str:
        name = f"{name}_{len(self.folder.parts)}_{self.folder.name}"  # no two tests import the same
        package = self.folder / name
        package.mkdir()
        (package / "__init__.py").write_text('__version__ = "0.3"\n')
        (package / "parts.py").write_text(CODE)
        for file, text in FILES.items():
            path = package / "configs" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.format(name=name))
        importlib.invalidate_caches()
        self.names.append(name)
        return name


@pytest.fixture
def write_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Writer]:
    monkeypatch.chdir(tmp_path)
    writer = Writer(tmp_path)
    yield writer
    for module in [key for key in sys.modules if key.split(".")[0] in writer.names]:
        del sys.modules[module]


@pytest.fixture
def mylab(write_package: Writer, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a package that is allowed by the environment."""
    name = write_package()
    monkeypatch.setenv("MATINEE_PACKAGES", f" {name} ,")
    return name


def test_every_kind_of_part_trains_and_is_recorded_and_needs_the_permission_again(
    mylab: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = compose("experiment=own", f"run_folder={tmp_path / 'run'}")
    folder = running.train(config, ["experiment=own"])
    assert (folder / "noted").is_file()
    assert list(folder.rglob("lightning_logs/version_0/metrics.csv"))
    result = json.loads((folder / "result.json").read_text())
    assert result["environment"]["versions"][mylab] == "0.3"
    assert result["metrics"]["test/mrr"] > 0
    assert load_run(folder).task.network.encoder.factor == 2.0

    monkeypatch.delenv("MATINEE_PACKAGES")
    with pytest.raises(MatineeError, match=f"set MATINEE_PACKAGES={mylab} in the environment"):
        load_run(folder)
    with pytest.raises(MatineeError, match="entry point group"):
        running.resume(folder)


def test_a_run_without_parts_of_a_package_does_not_name_it(mylab: str, run) -> None:
    result = json.loads((run("trainer.max_epochs=1") / "result.json").read_text())
    assert mylab not in result["environment"]["versions"]


def test_an_installed_entry_point_is_a_permission(
    write_package: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = write_package()
    with pytest.raises(MatineeError, match="there is no model=doubled"):
        compose("model=doubled")
    record = tmp_path / f"{name}-1.2.dist-info"
    record.mkdir()
    (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    (record / "entry_points.txt").write_text(f"[matinee.parts]\nmine = {name}\n")
    monkeypatch.syspath_prepend(tmp_path)
    config = compose("experiment=own", f"run_folder={tmp_path / 'run'}")
    result = json.loads((running.train(config, []) / "result.json").read_text())
    assert result["environment"]["versions"][name] == "1.2"


def test_an_error_of_a_part_names_its_config_path(mylab: str, tmp_path: Path) -> None:
    config = compose("experiment=own", "model.encoder.factor=-1", f"run_folder={tmp_path / 'run'}")
    with pytest.raises(MatineeError, match=r"^model\.encoder\.factor is -1; give a number greater"):
        running.train(config, [])
    with pytest.raises(MatineeError, match=r"did you mean 'model\.encoder\.factor'"):
        compose("experiment=own", "model.encoder.facotr=1")


def test_only_named_packages_are_found_in_the_current_folder(mylab: str, tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_mylab.py").write_text("raise SystemExit('imported')")
    compose("experiment=own")  # looks into the current folder
    assert importlib.util.find_spec("neighbour_of_mylab") is None


@pytest.mark.parametrize(
    "target",
    [
        "parts.os.system",  # what the package merely imported
        "parts.nn.Linear",
        "parts.torch.hub.load",
        "parts",  # a module
        "__version__",
        "parts.MyBPR.load_state_dict",  # an inherited method
    ],
)
def test_of_a_package_only_what_it_defines_itself_may_be_named(mylab: str, target: str) -> None:
    with pytest.raises(MatineeError, match=r"is not a class or function that|cannot be found"):
        compose(f"model._target_={mylab}.{target}")


def test_other_packages_stay_refused_and_are_not_imported(mylab: str, tmp_path: Path) -> None:
    (tmp_path / f"{mylab}_too").mkdir()
    marker = tmp_path / "imported"
    (tmp_path / f"{mylab}_too" / "__init__.py").write_text(f"open({str(marker)!r}, 'x')")
    with pytest.raises(MatineeError, match=f"MATINEE_PACKAGES={mylab}_too"):
        compose(f"model._target_={mylab}_too.Net")
    with pytest.raises(MatineeError, match="not allowed to be called from a config"):
        compose("model._target_=os.system")
    assert not marker.exists()


def test_a_config_with_the_name_of_ours_is_refused_not_shadowed(mylab: str, tmp_path: Path) -> None:
    theirs = tmp_path / mylab / "configs" / "model" / "gru.yaml"
    theirs.write_text("# Not matinee's.\n")
    with pytest.raises(MatineeError, match=r"model/gru\.yaml has the name of a config of matinee"):
        compose("experiment=user_based/lstm")


def test_two_packages_with_a_config_of_one_name_are_refused(
    write_package: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = write_package("one"), write_package("two")
    monkeypatch.setenv("MATINEE_PACKAGES", f"{first},{second}")
    with pytest.raises(MatineeError, match=f"{second}.*has the name of a config of .*{first}"):
        compose()


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (
            "no_such_package_here",
            "package no_such_package_here is allowed .* but is neither installed",
        ),
        ("a-b", "MATINEE_PACKAGES holds 'a-b'; give the names of packages"),
        ("./mylab", "MATINEE_PACKAGES holds './mylab'"),
    ],
)
def test_a_wrong_name_gets_one_sentence(
    value: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MATINEE_PACKAGES", value)
    with pytest.raises(MatineeError, match=sentence):
        compose()


@pytest.mark.parametrize("logger", ["WandbLogger", "MLFlowLogger"])
def test_loggers_of_lightning_may_be_named(logger: str, run) -> None:
    """Their packages are not among ours: what is missing is said in one sentence."""
    target = f"lightning.pytorch.loggers.{logger}"
    package = {"WandbLogger": "wandb", "MLFlowLogger": "mlflow"}[logger]
    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed")
    with pytest.raises(MatineeError, match=f"^logger.remote cannot be built: .*{package}"):
        run(f"+logger.remote={{_target_: {target}, _partial_: true}}")


def test_lightnings_csv_logger_writes_into_the_run_folder(run) -> None:
    folder = run(
        "+logger.csv={_target_: lightning.pytorch.loggers.CSVLogger, _partial_: true, name: csv}"
    )
    assert "train/loss" in (folder / "csv" / "version_0" / "metrics.csv").read_text()


def test_the_package_of_the_docs_trains(
    write_package: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "own-parts.md"
    blocks = re.findall(r"^```(python|yaml)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    assert [kind for kind, _ in blocks] == ["python", "yaml", "yaml", "yaml"]
    names = [
        "encoders.py",
        *(f"configs/{f}.yaml" for f in ("model/ema", "experiment/ema", "logger/tracked")),
    ]
    for name, (_, text) in zip(["__init__.py", *names], [("", ""), *blocks], strict=True):
        path = tmp_path / "mylab" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    write_package.names.append("mylab")
    importlib.invalidate_caches()
    monkeypatch.setenv("MATINEE_PACKAGES", "mylab")
    data = ["dataset=markov", "dataset.num_users=60", "dataset.num_interactions=900"]
    small = ["trainer=cpu", "trainer.max_epochs=1", "callbacks.inspection=null", "logger=none"]
    run = matinee.train("experiment=ema", *data, *small, f"run_folder={tmp_path / 'run'}")
    check_encoder(importlib.import_module("mylab.encoders").EMA)
    assert matinee.load_run(run).task.network.encoder.decay == 0.5
    assert set(compose("experiment=ema", "logger=tracked").logger) == {"tensorboard", "wandb"}
    with pytest.raises(MatineeError, match=r"^model\.encoder\.decay is 2; give a number between"):
        matinee.train("experiment=ema", *data, *small, "model.encoder.decay=2")
