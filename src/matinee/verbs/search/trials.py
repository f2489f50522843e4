"""Trials of a search: each trains and measures one combination of hyperparameters."""

import math
import re
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig, OmegaConf

from matinee.config.composing import compose, compose_unchecked
from matinee.config.parts import make_part
from matinee.config.targets import find_target
from matinee.config.trees import differences, flatten
from matinee.contracts import Headline
from matinee.data.interactions import Interactions
from matinee.display.markdown import decimal
from matinee.display.metrics import metric_title
from matinee.errors import Diverged, MatineeError, Stopped
from matinee.experiment import building, measuring
from matinee.experiment.trainer import fit, make_trainer
from matinee.files import checkpoint_path
from matinee.verbs.search.spaces import (
    Hyperparameters,
    Space,
    as_overrides,
    hash_id,
    read_space,
    written,
)

OMITTED = ("epoch_table", "progress_bar")  # callbacks that a trial does not need
DATA = ("dataset", "split", "data")  # groups that decide which rows are read, and how
TRIALS = 100  # unless they are given
SHOWN_HASH = 8  # characters of a hash in what is printed


@dataclass(frozen=True)
class Search:
    """A prepared search: its space, its data and how to run a trial.

    Attributes:
        space: The space to search.
        method: How to choose combinations, ``random``, ``tpe`` or ``grid``.
        trials: Number of distinct combinations; the default is not among them.
        seed: Seed of the draws and of every run.
        base: The first overrides of every run.
        default: The values that the config has without the search; None for a published space.
        interactions: The data of every run.
        folder: Folder of the results.
        name: Name of the results: model or experiment, method and device.
        identity: What all trials of the search have in common; results with another are not compared.
        headline: The metric that trials are compared by.
    """

    space: Space
    method: str
    trials: int
    seed: int
    base: list[str]
    default: Hyperparameters | None
    interactions: Interactions
    folder: Path
    name: str
    identity: Mapping[str, Any]
    headline: Headline

    @property
    def stages(self) -> dict[str, str]:
        """What is measured of a trial, by the name of its metric, that of validation last.

        Published searches report test as well. Any other measures validation alone, so that nothing is
        selected on test.
        """
        metric = self.headline.metric
        test = {f"test_{metric}": f"test/{metric}"} if self.space.model else {}
        return test | {f"validation_{metric}": self.headline.monitor}

    @property
    def metric_names(self) -> list[str]:
        """Names of the metrics of a trial, such as ``validation_rmse``; that of validation is last."""
        return list(self.stages)

    def goodness(self, row: Mapping[str, Any]) -> float:
        """Return the metric of a trial on validation with the sign for which higher is better."""
        return self.headline.goodness(row[self.metric_names[-1]])

    def combinations(self) -> list[Hyperparameters]:
        """Return what is run, in order: the default, then all drawn combinations or the whole grid."""
        grid = self.method == "grid"
        found = self.space.grid() if grid else self.space.draws(self.seed)
        if self.default is None:
            return list(islice(found, self.trials))
        others = (one for one in found if one != self.default)
        return [self.default, *islice(others, self.trials)]

    def command(self, hyperparameters: Mapping[str, Any]) -> list[str]:
        """Return the arguments of ``matinee`` that train with some hyperparameters."""
        if hyperparameters == self.default:
            return ["train", *self.base]
        model = self.space.model
        name = [f"name={self.folder.name}/search/{model}"] if model else []
        return ["train", *self.base, *self.space.overrides(hyperparameters), *name]

    def run(self, hyperparameters: Mapping[str, Any], *watchers: Callback) -> dict[str, Any]:
        """Train and measure with some hyperparameters, without keeping a file.

        Args:
            hyperparameters: As drawn and completed.
            watchers: Further callbacks of the fit.

        Returns:
            ``hash_ID``, the metrics under :attr:`metric_names`, ``hyperparameters``, and ``failure``:
            None, or the reason why the metrics are None.

        Raises:
            Stopped: If a signal ended the run.
            MatineeError: If training fails for another reason than these hyperparameters.
        """
        started = time.perf_counter()
        name = hash_id(hyperparameters)
        metrics: Mapping[str, float] = {}
        failure = None
        try:
            metrics = self._train(hyperparameters, watchers)
        except (Diverged, Rejected) as error:
            failure = str(error).split(";")[0]
        except Stopped as stopped:
            raise Stopped("the same command", stopped.status) from stopped
        measured = {name: metrics.get(metric) for name, metric in self.stages.items()}
        seconds = f"{time.perf_counter() - started:.1f} s"
        shown = [f"{metric_title(self.stages[k])} {decimal(measured[k])}" for k in measured]
        outcome = failure or ", ".join(reversed(shown))  # that of validation first, as in the table
        print(f"{name[:SHOWN_HASH]}: {outcome}, {seconds}", file=sys.stderr)
        return {
            "hash_ID": name,
            **measured,
            "hyperparameters": dict(hyperparameters),
            "failure": failure,
        }

    def _train(
        self, hyperparameters: Mapping[str, Any], watchers: Sequence[Callback]
    ) -> Mapping[str, float]:
        try:
            config = compose(*self.command(hyperparameters)[1:])
            built = building.build(config, self.interactions)
        except MatineeError as error:
            raise Rejected(str(error)) from error
        callbacks = make_part(config, "callbacks")
        others = [part for name, part in callbacks.items() if part and name not in OMITTED]
        others.sort(key=lambda part: part is callbacks.get("checkpoints"))  # as Lightning does
        with tempfile.TemporaryDirectory() as folder:
            trainer = make_trainer(config, None, default_root_dir=folder)
            trainer.callbacks.extend([*watchers, *others])  # type: ignore[attr-defined]
            fit(trainer, built.task, built.datamodule, Path(folder), None)
            building.load_weights(built.task, checkpoint_path(folder, "best"))
        stages = [metric.split("/")[0] for metric in self.stages.values()]
        return measuring.evaluate(built, make_trainer(config, None), stages).metrics


class Rejected(MatineeError):  # noqa: N818 - the name says what happened
    """A combination that cannot be built, such as heads that do not divide the dimensions."""


def prepare(config: DictConfig, overrides: Sequence[str]) -> Search:
    """Prepare the search that a config describes: find its data, device and protocol.

    Args:
        config: A composed ``search`` config.
        overrides: Overrides of ``train`` for every run.

    Raises:
        MatineeError: If an option or a value of the space is wrong, or the first run cannot be built.
    """
    if config.storage is not None and config.method != "tpe":
        raise MatineeError("storage=... is for method=tpe; add that, or leave storage out.")
    space = _space(config)
    trials = _number_of_trials(config, space)
    _check_overrides(space, overrides)
    one = config.devices if isinstance(config.devices, int) else len(config.devices or [])
    if one != 1:
        raise MatineeError(
            f"devices is {config.devices}, but a trial runs on one; give 1 or a list of one number."
        )
    base = [*space.base, f"seed={config.seed}"]
    base += [f"trainer.accelerator={config.accelerator}", f"trainer.devices={config.devices}"]
    if space.model and not any(entry.startswith("dataset=") for entry in overrides):
        base.append(f"dataset={available_dataset()}")
    base += overrides
    if space.model is None:
        space = _with_samplers(space, base)
    drawn = space.overrides(next(space.draws(config.seed))) if space.model else ()
    built = building.build(compose(*base, *drawn))
    if not built.config.callbacks.get("checkpoints"):
        raise MatineeError("callbacks.checkpoints cannot be left out: the best epoch needs it.")
    default = None if space.model else _default(space, base, built)
    others = space.size - (default is not None and space.holds(default))
    identity = {
        "space": space.identity,
        "seed": config.seed,
        "overrides": list(overrides),
        "protocol": {**built.datamodule.protocol, **built.task.protocol},
    }
    dataset = _choices(base)["dataset"]
    label = built.config.name.removeprefix(f"{dataset}/").replace("/", "-")
    mark = hash_id({key: value for key, value in identity.items() if key != "protocol"})[:8]
    words = [space.model or f"{label}-{mark}", *["grid"] * (config.method == "grid")]
    return Search(
        space=space,
        method=config.method,
        trials=int(min(trials, others)),
        seed=config.seed,
        base=base,
        default=default,
        interactions=built.datamodule.interactions,
        folder=Path(config.log_dir) / dataset,
        name="-".join([*words, make_trainer(built.config, None).strategy.root_device.type]),
        identity=identity,
        headline=built.task.headline,
    )


def _space(config: DictConfig) -> Space:
    published: Space | None = make_part(config, "space") if "space" in config else None
    if (config.over is None) == (published is None):
        begin = (
            "name what to search"
            if published is None
            else "over=... and space=... exclude each other"
        )
        raise MatineeError(
            f"{begin}; give 'over={{KEY: VALUES, ...}}', over=FILE.yaml or one of the published spaces, "
            "space=..."
        )
    return published or read_space(config.over)


def _number_of_trials(config: DictConfig, space: Space) -> int:
    size = space.size
    if config.method == "grid":
        next(space.grid())  # rejects ranges of real numbers
        if config.trials not in (None, size):
            raise MatineeError(
                f"trials is {config.trials}, but method=grid runs all {size:,} combinations; leave it out."
            )
        return int(size)
    trials = min(TRIALS, size) if config.trials is None else config.trials
    if not 1 <= trials <= size:
        most = "or more" if math.isinf(size) else f"to {size:,}, the size of the space"
        raise MatineeError(f"trials is {trials}; give 1 {most}.")
    return int(trials)


def _default(space: Space, base: Sequence[str], built: building.Experiment) -> Hyperparameters:
    """Return the values of the config itself, after checking every value of the space against it.

    Each list and both ends of each range are composed and built once, beside the first values of the
    other hyperparameters.

    Raises:
        MatineeError: If a key is unknown, a value is rejected, or one changes what is measured.
    """
    first = {name: one.examples[0] for name, one in space.over.items()}
    rules = _rules(space, base, first, built, "over")
    for name, one in space.over.items():
        for value in one.examples[1:]:
            where = f"over, {name}={written(value)}"
            others = _rules(space, base, {**first, name: value}, built, where)
            _check_equal(name, rules, others)
    whole: Any = OmegaConf.to_container(built.config)
    values, groups = flatten(whole), _choices(base)
    keys = {name: name.lstrip("+") for name in space.over}
    default = {name: groups.get(key, values.get(key)) for name, key in keys.items()}
    _check_equal(", ".join(space.over), _rules_of(built), rules)
    return {name: value for name, value in default.items() if keys[name] in (*groups, *values)}


def _choices(base: Sequence[str]) -> dict[str, str]:
    """Return the choice of each config group."""
    choices = compose_unchecked(*base).hydra.runtime.choices
    return {group: str(choice) for group, choice in choices.items()}


def _with_samplers(space: Space, base: Sequence[str]) -> Space:
    """Let each loss of a space come with a sampler that it accepts, if the space has none of its own.

    A loss that compares all items needs no sampler. One that compares sampled items keeps the sampler of
    the config, or gets the uniform one if there is none.
    """
    if "loss" not in space.over or any(re.match(r"\+?sampler\b", name) for name in space.over):
        return space
    current = _choices(base)["sampler"]
    wanted = {"catalogue": "none", "negatives": "uniform" if current == "none" else current}
    needed: dict[str, list[str]] = {}
    for loss in space.over["loss"].examples:
        try:
            target = compose(*base, *as_overrides({"loss": loss})).loss._target_
        except MatineeError as error:
            raise MatineeError(f"over, loss={written(loss)}: {error}") from error
        sampler = wanted.get(getattr(find_target(target, "loss"), "compares", ""), current)
        if sampler != current:
            options = compose_unchecked(*base, f"sampler={sampler}").sampler
            unused = list(options or ()) if sampler == "none" else []  # set by the experiment
            needed[loss] = [f"sampler={sampler}", *(f"~sampler.{option}" for option in unused)]

    def overrides(hyperparameters: Mapping[str, Any]) -> list[str]:
        return [*as_overrides(hyperparameters), *needed.get(hyperparameters.get("loss", ""), ())]

    return replace(space, overrides=overrides)


def _rules(
    space: Space,
    base: Sequence[str],
    hyperparameters: Hyperparameters,
    built: building.Experiment,
    where: str,
) -> Mapping[str, Any]:
    """Build a combination, with the data at hand if it reads them in the same way."""
    try:
        config = compose(*base, *space.overrides(hyperparameters))
        if any(config[group] != built.config[group] for group in DATA):
            return _rules_of(building.build(config, built.datamodule.interactions))
        task = building.make_task(config, built.datamodule)
        return _rules_of(building.Experiment(config, built.datamodule, task))
    except MatineeError as error:
        raise MatineeError(f"{where}: {error}") from error


def _rules_of(built: building.Experiment) -> Mapping[str, Any]:
    headline = {"headline": built.task.headline.monitor}
    return {**built.datamodule.protocol, **built.task.protocol, **headline}


def _check_equal(name: str, rules: Mapping[str, Any], others: Mapping[str, Any]) -> None:
    for key, one, other in differences(rules, others):
        raise MatineeError(
            f"over: {name} changes what is measured ({key} is {one} or {other}), so its trials cannot be "
            "compared; leave it out."
        )


def _check_overrides(space: Space, overrides: Sequence[str]) -> None:
    """Refuse overrides of what the search sets itself: the hash would not reflect them."""
    fixed = {"name", "run_folder", "trainer"}
    fixed |= {"trainer.accelerator", "trainer.devices", "trainer.num_nodes"}
    drawn = space.overrides(next(space.draws(0)))
    fixed |= {entry.lstrip("+").split("=")[0] for entry in (*space.base, *drawn)}
    for override in overrides:
        if override.lstrip("+~").split("=")[0] in fixed:
            raise MatineeError(
                f"{override} is set by the search itself; use its options (accelerator, devices) or "
                f"{'space.choices' if space.model else 'over'}."
            )


def available_dataset() -> str:
    """Return ``ml-1m``, or ``ml-100k`` if the former is not there and cannot be downloaded."""
    try:
        make_part(compose("dataset=ml-1m"), "dataset")
    except MatineeError as error:
        print(f"ml-100k instead of ml-1m: {error}", file=sys.stderr)
        return "ml-100k"
    return "ml-1m"
