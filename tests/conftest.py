"""A small learnable table, and short ways to compose and run."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from matinee import experiment
from matinee.configuration import config_dir

Compose = Callable[..., DictConfig]
collect_ignore = ["host_npu.py"]  # importing it changes PyTorch


def make_ratings(path: Path, noise: float = 0.3, num_users: int = 60, num_items: int = 40) -> Path:
    """Write stars of users with tastes: rank-2 structure plus biases, half stars on 1..5."""
    rng = np.random.default_rng(0)
    tastes, traits = rng.normal(size=(num_users, 2)), rng.normal(size=(num_items, 2))
    expected = 3 + 0.8 * tastes @ traits.T / np.sqrt(2) + rng.normal(0, 0.4, (num_users, 1))
    chosen = np.argwhere(rng.random((num_users, num_items)) < 0.6)
    chosen = chosen[rng.permutation(len(chosen))]
    stars = expected[chosen[:, 0], chosen[:, 1]] + rng.normal(0, noise, len(chosen))
    stars = np.clip(np.round(2 * stars) / 2, 1, 5)
    lines = ["who,what,stars,moment"]
    lines += [
        f"u{u},{100 + i},{s},{t}" for t, ((u, i), s) in enumerate(zip(chosen, stars, strict=True))
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


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
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            return compose("train", [*table_overrides, "name=test", *overrides])

    return composed


@pytest.fixture
def run(compose_train: Compose, tmp_path: Path) -> Callable[..., Path]:
    """Train on the small table from further overrides and return the run folder."""

    def trained(*overrides: str, folder: str = "run") -> Path:
        every = ["trainer.max_epochs=2", f"run_folder={tmp_path / folder}", *overrides]
        return experiment.train(compose_train(*every), every)

    return trained
