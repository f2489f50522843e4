"""A multirun whose runs are in other processes: by Ray, and by a stand-in that pickles as Ray does."""

import os
import pickle
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from matinee.errors import Diverged, Stopped

LAUNCHER = "hydra/launcher=matinee_ray"
STAND_IN = '''\
"""The contract of Hydra's Ray launcher without Ray: every run is unpickled by a fresh process."""
import pickle, subprocess, sys
from dataclasses import dataclass, field
from typing import Any

import cloudpickle
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import run_job, setup_globals
from hydra.plugins.launcher import Launcher
from omegaconf import OmegaConf, open_dict

@dataclass
class RayConf:
    init: dict[str, Any] = field(default_factory=lambda: {"address": None})
    remote: dict[str, Any] = field(default_factory=dict)

@dataclass
class RayLauncherConf:
    _target_: str = "hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher"
    ray: RayConf = field(default_factory=RayConf)

ConfigStore.instance().store(group="hydra/launcher", name="ray", node=RayLauncherConf)

WORKER = """
import pickle, sys
import cloudpickle  # as Ray: Hydra's plugins have classes that pickle cannot find
from hydra_plugins.hydra_ray_launcher._core import run
job, out = pickle.load(sys.stdin.buffer), sys.argv[1]
cloudpickle.dump(run(*job), open(out, "wb"))
"""

def run(context, config, task, state):
    setup_globals()
    Singleton.set_state(state)
    HydraConfig.instance().set_config(config)
    return run_job(task, config, "hydra.sweep.dir", "hydra.sweep.subdir", context)

class Base(Launcher):
    def __init__(self, ray):
        self.ray = OmegaConf.to_container(ray, resolve=True)

    def setup(self, *, hydra_context, task_function, config):
        self.context, self.task, self.config = hydra_context, task_function, config

    def launch(self, job_overrides, initial_job_idx):
        assert self.ray["init"]["object_store_memory"] is None, self.ray
        assert self.ray["remote"]["runtime_env"]["env_vars"]["OMP_NUM_THREADS"] == "1", self.ray
        if self.ray["init"]["address"]:
            raise ConnectionError("nobody answers")
        setup_globals()
        workers = []
        for number, overrides in enumerate(job_overrides, initial_job_idx):
            config = self.context.config_loader.load_sweep_config(self.config, list(overrides))
            with open_dict(config):
                config.hydra.job.id, config.hydra.job.num = str(number), number
            job = cloudpickle.dumps((self.context, config, self.task, Singleton.get_state()))
            out = f"{config.hydra.sweep.dir}/{number}.pickle"
            worker = subprocess.Popen([sys.executable, "-c", WORKER, out], stdin=subprocess.PIPE)
            worker.stdin.write(job)
            worker.stdin.close()
            workers.append((worker, out))
        assert not any(worker.wait() for worker, _ in workers)
        return [pickle.load(open(out, "rb")) for _, out in workers]
'''


@pytest.fixture(params=["stand-in", "ray"])
def environment(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """Return the variables under which ``hydra/launcher=matinee_ray`` is the one or the other."""
    variables = {**os.environ, "OMP_NUM_THREADS": "1"}
    variables.pop("RAY_ADDRESS", None)
    if request.param == "ray":
        pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="Ray is an optional extra")
        return variables
    pytest.importorskip("cloudpickle", reason="it comes with scikit-learn")
    package = tmp_path / "plugins" / "hydra_plugins" / "hydra_ray_launcher"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "_core.py").write_text(STAND_IN)  # Hydra imports names without _ a second time
    (package / "ray_launcher.py").write_text(
        "from hydra_plugins.hydra_ray_launcher._core import Base\n\n\nclass RayLauncher(Base): ..."
    )
    paths = [str(tmp_path / "plugins"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**variables, "PYTHONPATH": os.pathsep.join(paths)}


def matinee(
    *arguments: str, environment: dict[str, str], cwd: Path
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "matinee", *arguments],
        capture_output=True, text=True, cwd=cwd, env=environment,
    )  # fmt: skip


@pytest.mark.slow
def test_a_run_that_fails_in_a_worker_is_reported_and_the_others_finish(
    environment: dict[str, str], table_overrides: list[str], tmp_path: Path
) -> None:
    done = matinee(
        "train", "-m", LAUNCHER, *table_overrides, "model=bias", "model.item_damping=1,-1,2",
        "callbacks.inspection=null", "logger=none", f"log_dir={tmp_path / 'logs'}",
        environment=environment, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    # a worker's lines come through with a prefix, at any time
    last = [line for line in done.stderr.splitlines() if line.startswith("matinee: ")][-1]
    assert "model.item_damping=-1 " in last
    assert "item_damping is -1" in last
    folders = [path.parent for path in (tmp_path / "logs").rglob("result.json")]
    assert len(folders) == 2
    for folder in folders:
        assert folder.parent == tmp_path / "logs" / "table" / "chronological" / "bias"
        assert str(folder) in done.stdout, "the run's last line comes through"
        assert "model.item_damping=" in (folder / "overrides.yaml").read_text()
    rules = [line for line in done.stdout.splitlines() if "|---" in line]
    assert len(rules) == 2, "equal lines of two runs are both there"


@pytest.mark.slow
def test_launcher_errors_are_reported_in_one_sentence(
    environment: dict[str, str], table_overrides: list[str], tmp_path: Path
) -> None:
    address = "hydra.launcher.ray.init.address=127.0.0.1:1"
    if "plugins" in environment.get("PYTHONPATH", ""):  # Ray itself tries for a minute
        lost = matinee(
            "train", "-m", LAUNCHER, address, *table_overrides, "seed=0,1",
            environment=environment, cwd=tmp_path,
        )  # fmt: skip
        assert lost.returncode == 1
        assert "Traceback" not in lost.stderr
        assert "the launcher finds no cluster: nobody answers" in lost.stderr
    other = matinee(
        "overfit", "-m", LAUNCHER, *table_overrides, "seed=0", environment=environment, cwd=tmp_path
    )
    assert other.returncode == 1
    assert "overfit takes no hydra/launcher=...; only train does" in other.stderr.splitlines()[-1]


@pytest.mark.skipif(find_spec("hydra_plugins") is not None, reason="Ray is installed")
@pytest.mark.parametrize("launcher", ["ray", "matinee_ray"])
def test_without_ray_a_sentence_says_what_to_install(launcher: str, tmp_path: Path) -> None:
    done = matinee(
        "train", "-m", f"hydra/launcher={launcher}", "seed=0,1",
        environment=dict(os.environ), cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "matinee: this launcher needs Ray; pip install 'matinee[ray]'.\n"


@pytest.mark.parametrize("raised", [Stopped("matinee train resume=x", 143), Diverged("the loss")])
def test_exceptions_survive_pickling(raised: Exception) -> None:
    again = pickle.loads(pickle.dumps(raised))
    assert type(again) is type(raised)
    assert str(again) == str(raised)
    assert vars(again) == vars(raised)
