"""A small learnable table, and fixtures that compose configs and train on it."""

import json
import shutil
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from omegaconf import DictConfig, OmegaConf

from matinee.config.composing import compose
from matinee.experiment import running
from ratings import make_ratings

Compose = Callable[..., DictConfig]
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")  # a busy machine is no failure
collect_ignore = ["training/host_npu.py"]  # importing it changes PyTorch


@pytest.fixture(scope="session")
def ratings_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_ratings(tmp_path_factory.mktemp("ratings") / "ratings.csv")


@pytest.fixture(autouse=True, scope="session")
def _quiet_session(tmp_path_factory: pytest.TempPathFactory) -> None:
    """One thread: the tables are tiny, and test processes share the machine."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def table_overrides(ratings_csv: Path) -> list[str]:
    """Overrides that put the small table in place of MovieLens."""
    return [
        "dataset=table",
        f"dataset.path={ratings_csv}",
        "dataset.user=who",
        "dataset.item=what",
        "dataset.rating=stars",
        "dataset.timestamp=moment",
        "trainer.accelerator=cpu",
    ]


@pytest.fixture(scope="session")
def compose_train(table_overrides: list[str]) -> Compose:
    """Compose a train config on the small table from further overrides."""

    def composed(*overrides: str) -> DictConfig:
        return compose(*table_overrides, "name=test", *overrides)

    return composed


@pytest.fixture
def run(compose_train: Compose, tmp_path: Path) -> Callable[..., Path]:
    """Train on the small table from further overrides and return the run folder."""

    def trained(*overrides: str, folder: str = "run") -> Path:
        return _train(compose_train, tmp_path / folder, overrides)

    return trained


@pytest.fixture(scope="session")
def _trained_once(
    compose_train: Compose, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    @cache
    def trained(*overrides: str) -> Path:
        return _train(compose_train, tmp_path_factory.mktemp("finished") / "run", overrides)

    return trained


@pytest.fixture
def finished(_trained_once: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """Return a run folder like that of ``run``, a copy of one that is trained once a session."""

    def copied(*overrides: str) -> Path:
        return Path(shutil.copytree(_trained_once(*overrides), tmp_path / "run"))

    return copied


def _train(compose_train: Compose, folder: Path, overrides: Sequence[str]) -> Path:
    every = ["trainer.max_epochs=2", f"run_folder={folder}", *overrides]
    if not any(entry.startswith("callbacks") for entry in overrides):
        every.append("callbacks.inspection=null")  # its figures take longer than such a fit
    return running.train(compose_train(*every), every)


@pytest.fixture
def write_run(tmp_path: Path) -> Callable[..., Path]:
    """Write the folder of a finished run that nobody trained, from its squared errors a user."""

    def written(
        folder: str,
        model: str = "mf",
        seed: int = 0,
        errors: dict[str, list[float]] | None = None,
        validation: float = 1.0,
        overrides: tuple[str, ...] = (),
        protocol: dict[str, object] | None = None,
        draw: str | None = None,
        **config: object,
    ) -> Path:
        errors = errors or {"ann": [1.0, 4.0], "bob": [0.25], "eve": [2.25]}
        split = {
            "name": "random",
            "options": {"test_share": 0.2},
            "fingerprint": draw or f"draw {seed}",
        }
        rows = [error for user in errors.values() for error in user]
        result = {
            "metrics": {"val/rmse": validation, "test/rmse": float(np.sqrt(np.mean(rows)))},
            "headline": {"metric": "rmse", "higher_is_better": False, "power": 2},
            "fit": {"best_epoch": 0, "epochs": 1, "steps": 1, "parameters": 10},
            "protocol": {
                "dataset": {"sha256": "abc", "rows": 9, "users": 3, "items": 4},
                "split": split,
                "ties": "none",
                **(protocol or {}),
            },
            "environment": {
                "seconds": {"fit": 1.0},
                "finished": f"{len(list(tmp_path.rglob('result.json'))):03}",
            },
        }
        made = {
            "dataset": {"name": "toy"},
            "split": {"seed": seed},
            "model": {"_target_": model},
            "seed": seed,
            "name": f"toy/{model}",
            **config,
        }
        path = tmp_path / folder
        path.mkdir(parents=True)
        (path / "config.yaml").write_text(OmegaConf.to_yaml(made))
        (path / "overrides.yaml").write_text(OmegaConf.to_yaml(list(overrides)))
        (path / "result.json").write_text(json.dumps(result))
        np.savez_compressed(
            path / "per_user.npz",
            user=np.array(list(errors)),
            count=np.array([len(user) for user in errors.values()]),
            rmse=np.sqrt([np.mean(user) for user in errors.values()]),
        )
        return path

    return written
