"""Configuration: what may stand in a config, and a helpful answer to what may not.

Hydra checks keys given on the command line, but adds a key of an experiment file silently and calls
whatever a ``_target_`` names. Here a key must be a parameter of its target, and a target must be a
class or function of matinee, or an optimizer, scheduler, callback, logger or Trainer of the libraries.
"""

import difflib
import inspect
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from hydra.utils import get_object
from omegaconf import DictConfig, ListConfig, OmegaConf

from matinee.errors import MatineeError

ALLOWED_MODULES = (
    "matinee",
    "torch.optim",
    "lightning.pytorch.callbacks",
    "lightning.pytorch.loggers",
    "lightning.pytorch.profilers",
    "lightning.pytorch.strategies",
    "lightning.pytorch.trainer.trainer",
)
INSTANTIATE_KEYS = {"_target_", "_partial_", "_convert_", "_recursive_"}


def config_dir() -> Path:
    """Return the folder of configs: inside an installed package, at the top of a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parents[1] / "configs"


def check_config(config: DictConfig, verb: str) -> None:
    """Check a composed config: its keys, and the targets that are to be called.

    Args:
        config: The composed config.
        verb: The command whose file, ``configs/VERB.yaml``, says which top-level keys there are.

    Raises:
        MatineeError: At the first unknown key or forbidden target, with its full path and, where
            one is near, the key that was probably meant.
    """
    root: Any = OmegaConf.to_container(OmegaConf.load(config_dir() / f"{verb}.yaml"))
    groups = [next(iter(entry)) for entry in root.pop("defaults", []) if isinstance(entry, dict)]
    groups = [re.sub(r"^(override )?/?", "", group) for group in groups]
    _check_keys(config, {*groups, *root} - {"experiment"}, "")
    for key in groups:
        node = config.get(key)
        if isinstance(node, DictConfig):
            _check_node(node, key)


def _check_node(node: DictConfig, path: str) -> None:
    children: dict[str, Any] = {str(key): node._get_node(key) for key in node}
    if "_target_" in node:
        parameters = _parameters(str(node._target_), path)
        if parameters is not None:
            _check_keys(node, {*parameters, *INSTANTIATE_KEYS}, path)
        nested = {key: child for key, child in children.items() if _holds_target(child)}
    else:  # a group of named parts, such as callbacks
        known = [key for key, child in children.items() if _holds_target(child)]
        for key, child in children.items():
            is_off = child is None or (not isinstance(child, DictConfig) and child._value() is None)
            if key not in known and not is_off:
                raise MatineeError(_unknown(f"{path}.{key}", str(key), map(str, known)))
        nested = {key: children[key] for key in known}
    for key, child in nested.items():
        _check_node(child, f"{path}.{key}")


def _holds_target(node: Any) -> bool:
    return isinstance(node, DictConfig) and not node._is_none() and "_target_" in node


def _check_keys(node: DictConfig, known: Iterable[str], path: str) -> None:
    known = set(known)
    for key in map(str, node):
        if key not in known:
            full_key = f"{path}.{key}" if path else key
            raise MatineeError(_unknown(full_key, key, known - INSTANTIATE_KEYS))


def _parameters(target: str, path: str) -> list[str] | None:
    """Parameter names of an allowed target; None if it takes any keyword."""
    if not target.startswith(
        tuple(f"{module}." for module in (*ALLOWED_MODULES, "lightning.pytorch"))
    ):
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
    parameters = inspect.signature(found).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return [
        parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_POSITIONAL
    ]


def _forbidden(target: str, path: str) -> str:
    return (
        f"{path}._target_={target} is not allowed to be called from a config; "
        f"allowed are classes and functions of {', '.join(ALLOWED_MODULES)}."
    )


def _unknown(full_key: str, key: str, known: Iterable[str]) -> str:
    known = sorted(known)
    return f"unknown key {full_key!r}; {suggest(key, known) or 'known here: ' + ', '.join(known) + '.'}"


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
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines)
    if match := re.search(r"Could not override '([^']+)'", text):
        key = match[1]
        return f"unknown key {key!r}; {suggest(key, known_keys) or 'see --cfg job for those there are.'}"
    if "Could not override ''" in text:
        return "'=' has no key before it; write key=value."
    if match := re.search(r"Could not find '([^']+)'", text):
        group, _, choice = match[1].partition("/")
        choices = _choices(group)
        hint = suggest(choice, choices) or f"choose one of {', '.join(choices)}."
        return f"there is no {group}={choice}; {hint}"
    if match := re.search(r"Could not (?:override|append|delete)[^']*'([^']+)'", text):
        return f"{match[1]!r} cannot be set; {lines[-1]}"
    return lines[0] if lines else type(error).__name__


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
