"""Trials: one combination of hyperparameters becomes one run of ``matinee train``, and its figures."""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig

from matinee.config.composing import compose
from matinee.config.parts import make_part
from matinee.contracts import Headline
from matinee.display.markdown import decimal
from matinee.errors import Diverged, MatineeError, Stopped
from matinee.experiment import building, measuring
from matinee.experiment.trainer import fit, make_trainer
from matinee.verbs.search.spaces import Space, as_overrides, hash_id

KEEPING = ("checkpoints", "epoch_table", "progress_bar")  # callbacks that a trial does without


@dataclass(frozen=True)
class Search:
    """What is searched, where, and how.

    Attributes:
        space: What is drawn from.
        trials: How many distinct combinations, at least 1.
        seed: Of the draws and of every run.
        base: Overrides that every run begins with.
        folder: Where the results are.
        device: Type of the device that runs train on, such as ``cpu`` or ``cuda``.
        about: What must be equal for two trials to stand side by side.
        headline: The metric that trials are compared by.
    """

    space: Space
    trials: int
    seed: int
    base: list[str]
    folder: Path
    device: str
    about: Mapping[str, Any]
    headline: Headline

    @property
    def figures(self) -> tuple[str, str]:
        """Names of the two metrics of a trial, such as ``test_mrr`` and ``validation_mrr``."""
        return f"test_{self.headline.metric}", f"validation_{self.headline.metric}"

    @property
    def name(self) -> str:
        """Model and device, for files and headings."""
        return f"{self.space.model}-{self.device}"

    def command(self, hyperparameters: Mapping[str, Any]) -> list[str]:
        """Return the arguments of ``matinee`` that make the run of some hyperparameters."""
        name = f"name={self.folder.name}/search/{self.space.model}"
        return ["train", *self.base, *as_overrides(self.space.model, hyperparameters), name]

    def run(self, hyperparameters: Mapping[str, Any], *watchers: Callback) -> dict[str, Any]:
        """Train and measure some hyperparameters; nothing is kept on disk.

        Returns:
            ``hash_ID``, the two :attr:`figures`, ``hyperparameters``, and ``failure``:
            None, or why the two figures are None.

        Raises:
            Stopped: If a signal ended it.
            MatineeError: If it cannot be composed or built.
        """
        started = time.perf_counter()
        name = hash_id(hyperparameters)
        config = compose(*self.command(hyperparameters)[1:])
        metrics: Mapping[str, float] = {}
        failure = None
        try:
            metrics = _train(config, watchers)
        except Diverged as error:
            failure = str(error).split(";")[0]
        except Stopped as stopped:
            raise Stopped("the same command", stopped.status) from stopped
        names = (f"test/{self.headline.metric}", self.headline.monitor)
        figures = dict(zip(self.figures, map(metrics.get, names), strict=True))
        seconds = f"{time.perf_counter() - started:.1f} s"
        told = failure or ", ".join(f"{key} {decimal(value)}" for key, value in figures.items())
        print(f"{name}: {told}, {seconds}", file=sys.stderr)
        return {
            "hash_ID": name,
            **figures,
            "hyperparameters": dict(hyperparameters),
            "failure": failure,
        }


def _train(config: DictConfig, watchers: Sequence[Callback]) -> Mapping[str, float]:
    built = building.build(config)
    trainer = make_trainer(config, None)
    callbacks = make_part(config, "callbacks")
    around = [part for name, part in callbacks.items() if part and name not in KEEPING]
    trainer.callbacks.extend([*around, *watchers])  # type: ignore[attr-defined]
    fit(trainer, built.task, built.datamodule, Path(trainer.default_root_dir), None)
    return measuring.evaluate(built, make_trainer(config, None), ("test", "val")).metrics


def prepare(config: DictConfig, overrides: Sequence[str]) -> Search:
    """Make the search of a composed ``search`` config: find its data, its device and its protocol.

    Args:
        config: A composed ``search`` config.
        overrides: Further ones of ``train``, for every run.

    Raises:
        MatineeError: If an option is wrong or the first run cannot be built.
    """
    if config.storage is not None and config.method != "tpe":
        raise MatineeError("storage=... is for method=tpe; add that, or leave storage out.")
    space: Space = make_part(config, "space")
    if not 1 <= config.trials <= space.size:
        raise MatineeError(
            f"trials={config.trials} cannot be; give 1 to {space.size:,}, the size of the space."
        )
    _check_overrides(space, overrides)
    one = config.devices if isinstance(config.devices, int) else len(config.devices or [])
    if one != 1:
        raise MatineeError(
            f"devices is {config.devices}; a trial runs on one: give 1, or a list of one number."
        )
    chosen = [entry.removeprefix("dataset=") for entry in overrides if entry.startswith("dataset=")]
    dataset = chosen[-1] if chosen else available_dataset()
    base = ["experiment=search", f"seed={config.seed}"]
    base += [f"trainer.accelerator={config.accelerator}", f"trainer.devices={config.devices}"]
    base += overrides if chosen else [f"dataset={dataset}", *overrides]
    first = compose(*base, *as_overrides(space.model, next(space.draws(config.seed))))
    built = building.build(first)
    about = {
        "space": {"model": space.model, "choices": space.choices},
        "seed": config.seed,
        "overrides": list(overrides),
        "protocol": {**built.datamodule.protocol, **built.task.protocol},
    }
    return Search(
        space=space,
        trials=config.trials,
        seed=config.seed,
        base=base,
        folder=Path(config.log_dir) / dataset,
        device=make_trainer(first, None).strategy.root_device.type,
        about=about,
        headline=built.task.headline,
    )


def _check_overrides(space: Space, overrides: Sequence[str]) -> None:
    """Refuse what the search sets itself: the hash would not tell it."""
    drawn = as_overrides(space.model, next(space.draws(0)))
    fixed = {"experiment", "name", "run_folder", "trainer"}
    fixed |= {"trainer.accelerator", "trainer.devices", "trainer.num_nodes"}
    fixed |= {entry.split("=")[0] for entry in drawn}
    for override in overrides:
        if override.lstrip("+~").split("=")[0] in fixed:
            raise MatineeError(
                f"{override} is what the search sets itself; use its own options (accelerator, devices) "
                "or space.choices."
            )


def available_dataset() -> str:
    """Return ``ml-1m``, or ``ml-100k`` where the former is not there and cannot be downloaded."""
    try:
        make_part(compose("dataset=ml-1m"), "dataset")
    except MatineeError as error:
        print(f"ml-100k instead of ml-1m: {error}", file=sys.stderr)
        return "ml-100k"
    return "ml-1m"
