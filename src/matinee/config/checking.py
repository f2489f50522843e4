"""Configuration: what may stand in a config, and a helpful answer to what may not.

Hydra checks keys given on the command line, but adds a key of an experiment file silently, takes any
value for it, and calls whatever a ``_target_`` names. Here a key must be a parameter of its target,
a plain value must fit the parameter's annotation, and a target must be a part of matinee that is
meant for configs, or an optimizer, scheduler, callback, logger or Trainer of the libraries.
"""

import difflib
import inspect
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import hydra
from hydra.errors import HydraException
from hydra.utils import get_object
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from matinee.errors import MatineeError

ALLOWED_MODULES = (
    "matinee.data.sources.lastfm",
    "matinee.data.sources.movielens",
    "matinee.data.sources.subset",
    "matinee.data.sources.synthetic",
    "matinee.data.sources.table",
    "matinee.data.splits",
    "matinee.batches",
    "matinee.networks",
    "matinee.objectives.rating_losses",
    "matinee.objectives.ranking_losses",
    "matinee.objectives.sampling",
    "matinee.training.tasks",
    "matinee.training.optimizers",
    "matinee.training.callbacks",
    "matinee.training.loggers",
    "matinee.verbs.search.spaces",
    "torch.optim",
    "lightning.pytorch.callbacks",
    "lightning.pytorch.loggers",
    "lightning.pytorch.profilers",
    "lightning.pytorch.strategies",
    "lightning.pytorch.trainer.trainer",
)
INSTANTIATE_KEYS = {"_target_", "_partial_", "_convert_", "_recursive_"}
FILLED_IN = {  # parameters whose values come from the data or the run, not from a config
    "model": {"num_users", "num_items", "initial_score"},
    "trainer": {"default_root_dir", "logger", "callbacks", "plugins"},
}


def config_dir() -> Path:
    """Return the folder of configs: inside an installed package, at the top of a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parents[1] / "configs"


def compose(*overrides: str) -> DictConfig:
    """Compose, name and check a ``train`` config in Python as the command line does.

    Args:
        overrides: What would follow ``matinee train``.

    Returns:
        The config, for :func:`matinee.experiment.running.train` or :func:`matinee.experiment.building.build`.

    Raises:
        MatineeError: If an override is wrong.

    >>> compose("experiment=user_based/gru", "seed=1").name
    'ml-100k/user_based/gru'
    """
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        try:
            config = hydra.compose("train", [*overrides], return_hydra_config=True)
        except (HydraException, OmegaConfBaseException) as error:
            raise MatineeError(explain(error, dotted_keys(hydra.compose("train")))) from error
    with open_dict(config):
        choices = config.pop("hydra").runtime.choices
    if config.name is None:
        config.name = run_name(choices, overrides)
    check_config(config, "train")
    return config


def run_name(choices: Mapping[str, str], overrides: Sequence[str]) -> str:
    """Name a run after its experiment, or its split and model if these were overridden.

    Args:
        choices: The choice of every group, as Hydra tells them.
        overrides: What was given.
    """
    named = choices.get("experiment")
    if named is None or any(entry.startswith(("model=", "split=")) for entry in overrides):
        named = f"{choices.get('split')}/{choices.get('model')}"
    return f"{choices.get('dataset')}/{named}"


def check_config(config: DictConfig, verb: str) -> None:
    """Check a composed config: its keys and values, and the targets that are to be called.

    Args:
        config: The composed config.
        verb: The command whose file, ``configs/VERB.yaml``, says which top-level keys there are.

    Raises:
        MatineeError: At the first unknown key, unfit value or forbidden target, with its full path
            and, where one is near, the key that was probably meant.
    """
    groups, keys = top_level(verb)
    groups = [group for group in groups if group != "experiment"]
    _check_keys(config, {*groups, *keys}, "")
    missing = {*groups, *keys} - set(map(str, config))
    if missing:
        raise MatineeError(f"the config lacks {', '.join(sorted(missing))}; restore it.")
    for key in ("name", "run_folder", "log_dir"):
        if key in config and not isinstance(config[key], str | None):
            raise MatineeError(f"{key} is {config[key]!r}; give a text.")
    if "seed" in config:
        _check_seed(config.seed, "seed")
    for key in groups:
        node = config._get_node(key)
        if not isinstance(node, DictConfig) or node._is_none():
            raise MatineeError(
                f"{key}={config[key]} is no choice of the group {key}; see its choices."
            )
        _check_node(node, key)


def top_level(verb: str) -> tuple[list[str], list[str]]:
    """Return the groups and the plain keys of ``VERB.yaml``, with those of a verb it builds on."""
    root: Any = OmegaConf.to_container(OmegaConf.load(config_dir() / f"{verb}.yaml"))
    groups: list[str] = []
    keys: list[str] = []
    for entry in root.pop("defaults", []):
        if isinstance(entry, dict):
            group = re.sub(r"^(override )?/?", "", next(iter(entry)))
            if "/" not in group:
                groups.append(group)
        elif entry != "_self_":
            inherited = top_level(entry)
            groups += inherited[0]
            keys += inherited[1]
    return groups, [*keys, *(key for key in root if key != "hydra")]


def _check_node(node: DictConfig, path: str) -> None:
    if "_target_" in node:
        found = _callable(str(node._target_), path)
        _check_values(node, found, path)
    else:  # a group of named parts, such as callbacks; null switches one off
        known = [str(key) for key in node if _holds_target(node._get_node(key))]
        for key in map(str, node):
            if key not in known and not OmegaConf.is_missing(node, key) and node[key] is not None:
                raise MatineeError(_unknown(f"{path}.{key}", key, known))
    _check_children(node, path)


def _check_children(node: DictConfig | ListConfig, path: str) -> None:
    """Check whatever names a target, at any depth: all of it would be called."""
    keys: Iterable[Any] = node if isinstance(node, DictConfig) else range(len(node))
    for key in list(keys):
        child = node._get_node(key)
        if isinstance(child, DictConfig | ListConfig) and not child._is_none():
            if isinstance(child, DictConfig) and "_target_" in child:
                _check_node(child, f"{path}.{key}")
            else:
                _check_children(child, f"{path}.{key}")


def _holds_target(node: Any) -> bool:
    return isinstance(node, DictConfig) and not node._is_none() and "_target_" in node


def _check_keys(node: DictConfig, known: Iterable[str], path: str) -> None:
    known = set(known)
    for key in map(str, node):
        if key not in known:
            full_key = f"{path}.{key}" if path else key
            raise MatineeError(_unknown(full_key, key, known - INSTANTIATE_KEYS))


def _check_values(node: DictConfig, found: Any, path: str) -> None:
    parameters = inspect.signature(found).parameters.values()
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        names = {p.name for p in parameters if p.kind is not p.VAR_POSITIONAL} - FILLED_IN.get(
            path, set()
        )
        _check_keys(node, names | INSTANTIATE_KEYS, path)
    owner = found.__init__ if inspect.isclass(found) else found
    try:
        hints = typing.get_type_hints(owner)
    except (NameError, TypeError):  # annotations that cannot be read say nothing
        hints = {}
    for key in map(str, node):
        if key in INSTANTIATE_KEYS or OmegaConf.is_missing(node, key):
            continue
        value = node[key]
        if key == "seed":
            _check_seed(value, f"{path}.{key}")
        elif not _fits(value, hints.get(key, Any)):
            raise MatineeError(f"{path}.{key} is {value!r}; give {_described(hints[key])}.")


def _check_seed(seed: Any, path: str) -> None:
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise MatineeError(f"{path} is {seed!r}; give a whole number from 0 to 4294967295.")


def _fits(value: Any, hint: Any) -> bool:
    """Whether a plain value, or a node, can be what an annotation asks for."""
    origin = typing.get_origin(hint)
    if hint is Any or isinstance(value, DictConfig):
        return True
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in typing.get_args(hint))
    if origin is Literal:
        return value in typing.get_args(hint)
    if hint is None or hint is type(None):
        return value is None
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in (str, bool):
        return isinstance(value, hint)
    if isinstance(value, ListConfig):
        elements = (typing.get_args(hint) or (Any,))[0]
        return (
            inspect.isclass(origin or hint)
            and issubclass(origin or hint, Sequence | Iterable)
            and all(_fits(element, elements) for element in value)
        )
    return False if value is None else not inspect.isclass(origin or hint)


def _described(hint: Any) -> str:
    words = {
        int: "a whole number",
        float: "a number",
        str: "a text",
        bool: "true or false",
        type(None): "null",
    }
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(_described(option) for option in typing.get_args(hint)))
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, typing.get_args(hint)))
    if hint in words:
        return words[hint]
    return "a list" if typing.get_origin(hint) is not None else getattr(hint, "__name__", str(hint))


def _callable(target: str, path: str) -> Any:
    """Find an allowed target; where its object was defined counts, not where it was found."""
    prefixes = tuple(f"{module}." for module in (*ALLOWED_MODULES, "lightning.pytorch"))
    if not target.startswith(prefixes):
        raise MatineeError(_forbidden(target, path))
    try:
        found = get_object(target)
    except (ImportError, AttributeError, ValueError, HydraException) as error:
        raise MatineeError(
            f"{path}._target_={target} cannot be found; correct its name."
        ) from error
    home = getattr(found, "__module__", "") or ""
    if not callable(found) or not f"{home}.".startswith(tuple(f"{m}." for m in ALLOWED_MODULES)):
        raise MatineeError(_forbidden(target, path))
    return found


def _forbidden(target: str, path: str) -> str:
    return (
        f"{path}._target_={target} is not allowed to be called from a config; "
        f"allowed are classes and functions of {', '.join(ALLOWED_MODULES)}."
    )


def _unknown(full_key: str, key: str, known: Iterable[str]) -> str:
    known = sorted(known)
    hint = suggest(key, known) or (
        f"known here: {', '.join(known)}." if known else "nothing stands there."
    )
    return f"unknown key {full_key!r}; {hint}"


def suggest(word: str, known: Iterable[str]) -> str:
    """Return "did you mean X?" for the nearest known word, or "" if none is near.

    >>> suggest("optimiser", ["optimizer", "model"])
    "did you mean 'optimizer'?"
    """
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else ""


def explain(error: Exception, known_keys: Iterable[str] = ()) -> str:
    """Turn an error of Hydra or OmegaConf about a config into one sentence.

    Args:
        error: What was raised while a config was composed or read.
        known_keys: Dotted keys that could have been meant.
    """
    text = " ".join(str(error).split())
    if "Could not override ''" in text:
        return "'=' has no key before it; write key=value."
    if match := re.search(r"Could not override '([^']+)'", text):
        hint = _suggest_key(match[1], known_keys) or "see --cfg job for those there are."
        return f"unknown key {match[1]!r}; {hint}"
    if match := re.search(r"Missing mandatory value: (\S+)", text):
        return f"{match[1]}=... is missing; give it a value."
    if re.search(r"'hydra/launcher/(matinee_)?ray'", text):
        return "this launcher needs Ray; pip install 'matinee[ray]'."
    if match := re.search(r"Could not find '([^']+)'", text):
        group, _, choice = match[1].partition("/")
        choices = _choices(group)
        hint = suggest(choice, choices) or (
            f"choose one of {', '.join(choices)}." if choices else ""
        )
        return f"there is no {group}={choice}; {hint}"
    if "Exception" in text.split(":")[0] or "mismatched input" in text or "no viable" in text:
        return f"{text}; put a value with special characters in quotes: 'key=\"value\"'."
    return text or type(error).__name__


def _suggest_key(key: str, known_keys: Iterable[str]) -> str:
    """Suggest the nearest dotted key, or one whose last part is near."""
    by_last_part = {known.rsplit(".", 1)[-1]: known for known in known_keys if known != key}
    if near := difflib.get_close_matches(key, by_last_part.values(), n=1):
        return f"did you mean {near[0]!r}?"
    near = difflib.get_close_matches(key.rsplit(".", 1)[-1], by_last_part, n=1)
    return f"did you mean {by_last_part[near[0]]!r}?" if near else ""


def _choices(group: str) -> list[str]:
    folder = config_dir() / group
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml"))


def dotted_keys(config: DictConfig | ListConfig, prefix: str = "") -> list[str]:
    """Return every key of a config in dotted form, groups included."""
    keys = []
    if isinstance(config, DictConfig) and not config._is_none():
        for key in map(str, config):
            full_key = f"{prefix}{key}"
            child = config._get_node(key)
            keys.append(full_key)
            if isinstance(child, DictConfig):
                keys += dotted_keys(child, f"{full_key}.")
    return keys


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Name every leaf of nested mappings by its dotted path.

    >>> flatten({"a": {"b": 1, "c": [2]}})
    {'a.b': 1, 'a.c': [2]}
    """
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        nested = isinstance(value, Mapping) and value
        leaves |= flatten(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return leaves
