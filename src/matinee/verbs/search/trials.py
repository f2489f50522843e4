"""Trials of a search: each trains and measures one combination of hyperparameters."""

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

OMITTED = ("checkpoints", "epoch_table", "progress_bar")  # callbacks that a trial does not need


@dataclass(frozen=True)
class Search:
    """A prepared search: its space, its data and how to run a trial.

    Attributes:
        space: The space to draw from.
        trials: Number of distinct combinations, at least 1.
        seed: Seed of the draws and of every run.
        base: The first overrides of every run.
        folder: Folder of the results.
        device: Type of the device that trains, such as ``cpu`` or ``cuda``.
        identity: What all trials of the search have in common; results with another are not compared.
        headline: The metric that trials are compared by.
    """

    space: Space
    trials: int
    seed: int
    base: list[str]
    folder: Path
    device: str
    identity: Mapping[str, Any]
    headline: Headline

    @property
    def metric_names(self) -> tuple[str, str]:
        """Names of the two metrics of a trial, such as ``test_mrr`` and ``validation_mrr``."""
        return f"test_{self.headline.metric}", f"validation_{self.headline.metric}"

    @property
    def name(self) -> str:
        """Model and device, as in file names and headings."""
        return f"{self.space.model}-{self.device}"

    def command(self, hyperparameters: Mapping[str, Any]) -> list[str]:
        """Return the arguments of ``matinee`` that train with some hyperparameters."""
        name = f"name={self.folder.name}/search/{self.space.model}"
        return ["train", *self.base, *as_overrides(self.space.model, hyperparameters), name]

    def run(self, hyperparameters: Mapping[str, Any], *watchers: Callback) -> dict[str, Any]:
        """Train and measure with some hyperparameters, without writing to disk.

        Args:
            hyperparameters: As drawn and completed.
            watchers: Further callbacks of the fit.

        Returns:
            ``hash_ID``, the two metrics under :attr:`metric_names`, ``hyperparameters``, and ``failure``:
            None, or the reason why both metrics are None.

        Raises:
            Stopped: If a signal ended the run.
            MatineeError: If the run cannot be composed or built.
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
        measured = dict(zip(self.metric_names, map(metrics.get, names), strict=True))
        seconds = f"{time.perf_counter() - started:.1f} s"
        outcome = failure or ", ".join(f"{k} {decimal(value)}" for k, value in measured.items())
        print(f"{name}: {outcome}, {seconds}", file=sys.stderr)
        return {
            "hash_ID": name,
            **measured,
            "hyperparameters": dict(hyperparameters),
            "failure": failure,
        }


def _train(config: DictConfig, watchers: Sequence[Callback]) -> Mapping[str, float]:
    built = building.build(config)
    trainer = make_trainer(config, None)
    callbacks = make_part(config, "callbacks")
    others = [part for name, part in callbacks.items() if part and name not in OMITTED]
    trainer.callbacks.extend([*others, *watchers])  # type: ignore[attr-defined]
    fit(trainer, built.task, built.datamodule, Path(trainer.default_root_dir), None)
    return measuring.evaluate(built, make_trainer(config, None), ("test", "val")).metrics


def prepare(config: DictConfig, overrides: Sequence[str]) -> Search:
    """Prepare the search that a config describes: find its data, device and protocol.

    Args:
        config: A composed ``search`` config.
        overrides: Overrides of ``train`` for every run.

    Raises:
        MatineeError: If an option is wrong or the first run cannot be built.
    """
    if config.storage is not None and config.method != "tpe":
        raise MatineeError("storage=... is for method=tpe; add that, or leave storage out.")
    space: Space = make_part(config, "space")
    if not 1 <= config.trials <= space.size:
        raise MatineeError(
            f"trials is {config.trials}; give 1 to {space.size:,}, the size of the space."
        )
    _check_overrides(space, overrides)
    one = config.devices if isinstance(config.devices, int) else len(config.devices or [])
    if one != 1:
        raise MatineeError(
            f"devices is {config.devices}, but a trial runs on one; give 1 or a list of one number."
        )
    chosen = [entry.removeprefix("dataset=") for entry in overrides if entry.startswith("dataset=")]
    dataset = chosen[-1] if chosen else available_dataset()
    base = ["experiment=search", f"seed={config.seed}"]
    base += [f"trainer.accelerator={config.accelerator}", f"trainer.devices={config.devices}"]
    base += overrides if chosen else [f"dataset={dataset}", *overrides]
    first = compose(*base, *as_overrides(space.model, next(space.draws(config.seed))))
    built = building.build(first)
    identity = {
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
        identity=identity,
        headline=built.task.headline,
    )


def _check_overrides(space: Space, overrides: Sequence[str]) -> None:
    """Refuse overrides of what the search sets itself: the hash would not reflect them."""
    drawn = as_overrides(space.model, next(space.draws(0)))
    fixed = {"experiment", "name", "run_folder", "trainer"}
    fixed |= {"trainer.accelerator", "trainer.devices", "trainer.num_nodes"}
    fixed |= {entry.split("=")[0] for entry in drawn}
    for override in overrides:
        if override.lstrip("+~").split("=")[0] in fixed:
            raise MatineeError(
                f"{override} is set by the search itself; use its options (accelerator, devices) or "
                "space.choices."
            )


def available_dataset() -> str:
    """Return ``ml-1m``, or ``ml-100k`` if the former is not there and cannot be downloaded."""
    try:
        make_part(compose("dataset=ml-1m"), "dataset")
    except MatineeError as error:
        print(f"ml-100k instead of ml-1m: {error}", file=sys.stderr)
        return "ml-100k"
    return "ml-1m"
