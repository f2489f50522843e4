"""Composing: make configs from overrides, in Python and on the command line."""

import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from tqdm import tqdm

from matinee.config.checking import check_config, parameters_of
from matinee.config.folders import config_dir
from matinee.config.search_path import check_own_configs
from matinee.config.suggesting import explain, missing_key, suggest
from matinee.config.trees import dotted_keys, read_yaml
from matinee.errors import MatineeError, Stopped
from matinee.texts import visible

UNCOMPOSED = (  # raised for wrong overrides
    HydraException,
    OmegaConfBaseException,
    ValueError,
    RecursionError,
)
IN_PROCESS = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"  # other launchers pickle
IN_ORDER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
REFUSED = (
    "config_name",
    "config_path",
    "experimental_rerun",
)  # options of Hydra without a use here


def compose(*overrides: str, verb: str = "train") -> DictConfig:
    """Compose and check a config, as the command line does.

    Args:
        overrides: The arguments that would follow ``matinee VERB``.
        verb: The verb that the config is for.

    Returns:
        The config, with plain values only, for :func:`matinee.experiment.building.build`.

    Raises:
        MatineeError: If an override is wrong.

    >>> compose("experiment=user_based/gru", "seed=1").name
    'ml-100k/user_based/gru'
    """
    check_choices(overrides)
    with _hydra():
        try:
            everything = hydra.compose(verb, [*overrides], return_hydra_config=True)
        except UNCOMPOSED as error:
            raise _explained(error, verb, overrides) from error
        config = OmegaConf.masked_copy(
            everything, [str(key) for key in everything if key != "hydra"]
        )
        _name_run(config, everything.hydra.runtime.choices, overrides)
        return check_config(config, verb, everything.hydra)


def compose_unchecked(*overrides: str) -> DictConfig:
    """Compose a config of ``train`` without a check, with what Hydra knows about it under ``hydra``.

    >>> compose_unchecked("experiment=user_based/gru").hydra.runtime.choices["loss"]
    'softmax'
    """
    with _hydra():
        return hydra.compose("train", [*overrides], return_hydra_config=True)


def read_choices(group: str) -> list[dict[str, Any]]:
    """Return matinee's own choices of a config group, with interpolations as text."""
    choices = []
    for path in sorted((config_dir() / group).glob("*.yaml")):
        choice = read_yaml(path)
        if "defaults" in choice:
            with _hydra():
                composed: Any = OmegaConf.to_container(hydra.compose(f"{group}/{path.stem}"))
            choice = composed[group]
        choices.append(choice)
    return choices


def _name_run(config: DictConfig, choices: Mapping[str, str], overrides: Sequence[str]) -> None:
    """Name a run without a name after its experiment, or after its split and model if one is overridden.

    Args:
        config: A config, whose name is set.
        choices: The choice of each group.
        overrides: The overrides that composed the config.
    """
    if (
        "name" not in config
        or OmegaConf.is_interpolation(config, "name")
        or config.name is not None
    ):
        return
    named = choices.get("experiment")
    if named is None or any(entry.startswith(("model=", "split=")) for entry in overrides):
        named = f"{choices.get('split')}/{choices.get('model')}"
    config.name = f"{choices.get('dataset')}/{named}"


def _place(done: int, overrides: Sequence[str], seconds: float) -> str:
    """Say which run of a multirun starts, and how long the rest takes if it is like the runs so far."""
    parser = OverridesParser.create(GlobalHydra.instance().config_loader())
    parsed = parser.parse_overrides(list(overrides))
    total = sum(map(len, BasicSweeper.split_arguments(parsed, None)))
    left = seconds / done * (total - done) if done else None
    rest = "" if left is None else f", about {tqdm.format_interval(left)} left"
    return f"run {done + 1} of {total}{rest}"


def with_config(verb: str, argv: list[str], task: Callable[[DictConfig], None]) -> None:
    """Compose ``configs/VERB.yaml`` with the overrides and call ``task`` with each config.

    Args:
        verb: The verb.
        argv: The overrides, and options of Hydra.
        task: Called with the config; in a multirun once for each run, also after a run has failed.

    Raises:
        MatineeError: If a config cannot be composed or a task has failed.
        Stopped: If a signal ended a task; the following runs are not started.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises exceptions instead of printing them
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")  # else Ray hides equal lines of several tables
    multirun = [entry for entry in argv if entry in ("-m", "--multirun")]
    argv = [*multirun[:1], *(entry for entry in argv if entry not in multirun)]
    overrides = _overrides(verb, argv)
    check_own_configs()
    called_as, sys.argv = sys.argv, [f"matinee {verb}", *argv]
    failures: list[MatineeError] = []
    stopped: list[Stopped] = []
    composed = False
    started = 0.0

    def run(config: DictConfig) -> None:
        nonlocal composed, started
        composed, started = True, started or time.perf_counter()
        sys.argv = called_as  # starts the other processes of a distributed run
        its_hydra = HydraConfig.get()
        elsewhere = its_hydra.launcher._target_ != IN_PROCESS
        if multirun and not elsewhere and its_hydra.sweeper._target_ == IN_ORDER:
            place = _place(its_hydra.job.num, overrides, time.perf_counter() - started)
            print(place, file=sys.stderr, flush=True)
        try:
            if elsewhere and verb != "train":
                raise MatineeError(f"{verb} takes no hydra/launcher=...; only train does.")
            _name_run(config, its_hydra.runtime.choices, its_hydra.overrides.task)
            task(check_config(config, verb, its_hydra))
        except (MatineeError, HydraException, OmegaConfBaseException) as error:
            failure = error if isinstance(error, MatineeError) else MatineeError(explain(error))
            failures.append(failure)  # a multirun continues
            if multirun:
                words = " ".join(its_hydra.overrides.task)
                print(visible(f"matinee: {words}: {failure}"), file=sys.stderr, flush=True)
                if elsewhere:  # the list is a copy there, but Hydra returns the exception
                    raise MatineeError(f"{words}: {failure}") from error
        except Stopped as stop:
            stopped.append(stop)  # raised below, as Hydra would print it
            if multirun:
                raise SystemExit from stop  # after an Exception Hydra would start the next run

    try:
        hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=verb)(run)()
    except (MatineeError, Stopped, BrokenPipeError):
        raise
    except SystemExit:
        if not stopped:
            raise
    except (HydraException, OmegaConfBaseException) as error:
        raise _explained(error, verb, overrides) from error
    except Exception as error:  # Hydra raises many types for invalid configs
        launched = any(entry.startswith("hydra/launcher=") for entry in argv)
        if launched and isinstance(error, ConnectionError):
            raise MatineeError(f"the launcher finds no cluster: {error}") from error
        if composed or launched:
            raise
        raise _explained(error, verb, overrides) from error
    finally:
        sys.argv = called_as
    if stopped:
        raise stopped[0]
    if multirun and failures:
        raise MatineeError(f"{len(failures)} of the runs failed; see above.")
    if failures:
        raise failures[0]


def _overrides(verb: str, argv: list[str]) -> list[str]:
    """Return the overrides among the arguments, and ``--config-dir`` as one of them."""

    def refuse(message: str) -> NoReturn:
        raise MatineeError(f"{message}; see matinee {verb} --help.")

    parser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]
    options = parser.parse_args(argv)
    for option in REFUSED:
        if getattr(options, option) is not None:
            refuse(f"--{option.replace('_', '-')} cannot be used here")
    check_choices(options.overrides)
    folder = options.config_dir
    found = [f"hydra.searchpath=[{os.path.abspath(folder)}]"] if folder is not None else []
    return [*found, *options.overrides]


def check_choices(overrides: Sequence[str]) -> None:
    """Reject overrides that Hydra would accept as something else.

    Raises:
        MatineeError: If one has no key, or a group is given several choices, which Hydra would merge, or
            none, which it would ignore.
    """
    for override in overrides:
        key, equals, value = override.partition("=")
        if equals and not key.strip("+~ "):
            raise MatineeError(f"{override!r} has no key before '='; write key=value.")
        group = key.partition("@")[0]
        is_group = re.fullmatch(r"\w+(/\w+)*", group) and (config_dir() / group).is_dir()
        if is_group and value.startswith(("[", "{")):
            raise MatineeError(
                f"{override} is no choice of the group {group}; give one name, or several with -m "
                f"{key}=ONE,OTHER for a run of each."
            )


@contextmanager
def _hydra() -> Iterator[None]:
    """Initialize Hydra, unless it is running a verb, which may compose further configs."""
    check_own_configs()
    if GlobalHydra.instance().is_initialized():
        yield
    else:
        with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
            yield


def _explained(error: Exception, verb: str, overrides: Sequence[str]) -> MatineeError:
    """Explain in one sentence why the overrides cannot be composed."""
    if isinstance(error, RecursionError):
        return MatineeError("a config includes itself, maybe through others; correct its defaults.")
    try:
        parsed = OverridesParser.create().parse_overrides([*overrides])
    except HydraException:
        return MatineeError(explain(error))
    with _hydra():
        loader: Any = GlobalHydra.instance().config_loader()
        places = [entry for entry in overrides if entry.startswith("hydra.searchpath=")]

        def choices(group: str) -> list[str]:
            inner = loader.get_group_options(group, ObjectType.GROUP, None, places)
            deeper = [f"{name}/{choice}" for name in inner for choice in choices(f"{group}/{name}")]
            return [*loader.get_group_options(group, ObjectType.CONFIG, None, places), *deeper]

        chosen = list(places)
        for entry in parsed:
            if entry.is_hydra_override() or not (known := choices(entry.key_or_group)):
                continue
            if entry.is_delete():
                chosen.append(str(entry.input_line))
                continue
            if entry.is_choice_sweep():
                value: Any = next(iter(entry.sweep_iterator()))
                given = str(value)
            else:
                value, given = entry.value(), entry.get_value_string()
            if not isinstance(value, str | list):
                hint = suggest(given, known) or f"choose one of {', '.join(known)}."
                return MatineeError(f"there is no {entry.key_or_group}={given}; {hint}")
            chosen.append(f"{entry.get_key_element()}={given}")
        for tried in (chosen, places):
            try:
                config: Any = OmegaConf.to_container(hydra.compose(verb, tried))
            except UNCOMPOSED:
                continue
            return MatineeError(
                explain(error, dotted_keys(config), _addable(config, missing_key(error)), choices)
            )
        return MatineeError(explain(error, choices_of=choices))


def _addable(config: Any, key: str | None) -> list[str]:
    """Return the parameters of the part that a missing key belongs to which are not in the config."""
    path = (key or "").rpartition(".")[0]
    node = config
    for part in path.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    if not isinstance(node, dict) or "_target_" not in node:
        return []
    known, _ = parameters_of(node["_target_"], path)
    return sorted(f"{path}.{name}" for name in known - node.keys())
