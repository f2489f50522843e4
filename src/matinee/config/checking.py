"""Checking: keys, values and targets of a config.

Hydra checks the keys of command-line overrides, but accepts any key in an experiment file and any
value. Here each key must be a parameter of its target, each value must match the annotation of the
parameter, and each target must be allowed (:mod:`matinee.config.targets`).
"""

import inspect
import math
import os
import re
import types
import typing
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import PurePath
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf

from matinee.config.folders import config_dir
from matinee.config.headline import follow_headline
from matinee.config.suggesting import suggest_key
from matinee.config.targets import find_target, group_of
from matinee.config.trees import MISSING, dotted_keys, leaves, origins, read_yaml, resolve
from matinee.errors import MatineeError

OPEN = {"callbacks", "logger"}  # groups of any number of named parts; null switches one off
OPTIONAL = {"sampler", "scheduler"}  # groups that may be empty
LEFT_OUT = {("describe", "split"), ("search", "space")}  # optional groups of a verb
ADDED = {  # keys that configs of earlier runs lack, and what they mean then
    "from": None,
    "freeze": None,
    "optimizer_state": False,
}
MARKS = {"_target_", "_partial_"}  # keys that are not parameters
FILLED_IN = {  # parameters that the data, the run or the environment determine
    "model": {"num_users", "num_items", "initial_score"},
    "trainer": {"default_root_dir", "logger", "callbacks", "plugins"},
    "logger": {"save_dir", "dir", "experiment", "tracking_uri", "artifact_location"},
    "profiler": {"dirpath", "filename"},
}
FURTHER = {  # allowed keywords of library classes that take **kwargs
    "WandbLogger": {"entity", "group", "job_type", "notes", "tags"},
    "DDPStrategy": {"find_unused_parameters", "gradient_as_bucket_view", "static_graph"},
    "PyTorchProfiler": {"profile_memory", "record_shapes", "with_flops", "with_stack"},
}
INFINITE = {"item_damping", "user_damping"}  # parameters that may be infinite
KEYS: dict[str, Any] = {  # types of the keys of all verbs that are not in a group
    "name": str | None,
    "log_dir": str,
    "run_folder": str | None,
    "from": str | None,
    "freeze": list[str] | None,
    "optimizer_state": bool,
    "checkpoint": Literal["best", "last"],
    "examples": int,
    "steps": int,
    "min_lr": float,
    "max_lr": float,
    "train": bool,
    "top_k": int,
    "repeat": bool,
    "by": Literal["cosine", "score"] | None,
    "table": Literal["items", "users"],
    "trials": int | None,
    "method": Literal["tpe", "random", "grid"],
    "over": str | None,
    "accelerator": str,
    "hash": str | None,
    "storage": str | None,
    "output": str | None,
    "checks": int,
    "artefact": str | None,
    "host": str,
    "port": int,
    "tolerance": float,
    "user_histories": bool,
}


def check_config(config: DictConfig, verb: str, hydra: Any = None) -> DictConfig:
    """Resolve a config and check its keys, values and targets.

    Args:
        config: A composed config, or that of a run folder.
        verb: The verb, whose file ``configs/VERB.yaml`` defines the top-level keys.
        hydra: The config of Hydra itself, for ``${hydra:...}``.

    Returns:
        The config to use: plain values without interpolations.

    Raises:
        MatineeError: At the first unknown key, wrong value or target that is not allowed, with its full
            path and, if there is a similar one, the key that was probably meant.
    """
    raw: Any = OmegaConf.to_container(config, resolve=False)
    tree = resolve(raw, hydra)
    groups, keys = top_level(verb)
    for key in ADDED.keys() & set(keys):
        tree.setdefault(key, ADDED[key])
    present = [group for group in groups if group in tree or (verb, group) not in LEFT_OUT]
    _Check(tree, origins(raw)).check(present, keys)
    follow_headline(tree)
    checked = OmegaConf.create(tree)
    OmegaConf.set_struct(checked, True)
    return checked


@cache
def top_level(verb: str) -> tuple[list[str], list[str]]:
    """Return the groups and the other keys of ``VERB.yaml``, including those of the verb it extends."""
    root = read_yaml(config_dir() / f"{verb}.yaml")
    groups: list[str] = []
    keys: list[str] = []
    for entry in root.pop("defaults", []):
        if isinstance(entry, dict):
            group = re.sub(r"^(override )?/?", "", next(iter(entry)))
            if "/" not in group and group != "experiment":
                groups.append(group)
        elif entry != "_self_":
            inherited = top_level(entry)
            groups += inherited[0]
            keys += inherited[1]
    return groups, [*keys, *(key for key in root if key != "hydra")]


def parameters_of(target: Any, path: str) -> tuple[set[str], bool]:
    """Return the parameters of a target that a config may set, and whether it takes others as well.

    Raises:
        MatineeError: If the target is not allowed at that path.
    """
    try:
        parameters = inspect.signature(find_target(target, path)).parameters.values()
    except ValueError:  # a function written in C may have no signature
        return set(), True
    known = {
        parameter.name
        for parameter in parameters
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }
    is_open = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    if target.startswith(("torch.", "lightning.")):
        known |= FURTHER.get(target.rsplit(".", 1)[-1], set())
        is_open = False
    return known - FILLED_IN.get(group_of(path), set()), is_open


class _Check:
    """Checks one tree.

    Args:
        tree: A config as plain values.
        origins: Keys whose value was an interpolation, with the key it came from; errors name that one.
    """

    def __init__(self, tree: Mapping[str, Any], origins: Mapping[str, str]) -> None:
        self.tree = tree
        self.origins = origins

    def check(self, groups: list[str], keys: list[str]) -> None:
        """Check the whole tree."""
        self.check_known("", self.tree, {*groups, *keys})
        for key in (*groups, *keys):
            if key not in self.tree:
                raise MatineeError(f"{key} cannot be left out; set {key}=...")
        for path, value in leaves(self.tree):
            if value == MISSING:
                raise MatineeError(f"{path}=... is missing; give it a value.")
            if isinstance(value, float) and math.isnan(value):
                self.refuse(path, value, "a number")
        for key in keys:
            self.check_value(key, self.tree[key], KEYS.get(key, Any))
            if isinstance(self.tree[key], float) and math.isinf(self.tree[key]):
                self.refuse(key, self.tree[key], "a finite number")
        if "name" in keys:
            self.check_relative("name", self.tree["name"])
        for group in groups:
            self.check_group(group, self.tree[group])

    def check_group(self, group: str, node: Any) -> None:
        if not isinstance(node, Mapping):
            raise MatineeError(
                f"{group}={node} is not a choice of the group {group}; --help lists the choices."
            )
        if group in OPEN:
            for name, part in node.items():
                if part is not None and not isinstance(part, Mapping):
                    self.refuse(
                        f"{group}.{name}", part, "null, which switches it off, or leave it out"
                    )
                if part is not None and not _has_target(part):
                    named = [
                        key for key, other in node.items() if other is None or _has_target(other)
                    ]
                    self.unknown(f"{group}.{name}", [f"{group}.{key}" for key in named])
        elif not _has_target(node) and (node or group not in OPTIONAL):
            raise MatineeError(
                f"{group} has no _target_; choose one with {group}=... (--help lists the choices)."
            )
        self.check_nodes(group, node)

    def check_nodes(self, path: str, node: Any) -> None:
        """Check every node with a target, at any depth: all of them are called."""
        if _has_target(node):
            self.check_part(path, node)
        if isinstance(node, Mapping | list):
            for key, child in node.items() if isinstance(node, Mapping) else enumerate(node):
                self.check_nodes(f"{path}.{key}", child)

    def check_part(self, path: str, node: Mapping[str, Any]) -> None:
        found = find_target(node["_target_"], path)
        known, is_open = parameters_of(node["_target_"], path)
        if is_open:
            known |= set(map(str, node)) - FILLED_IN.get(group_of(path), set())
        self.check_known(path, node, known | MARKS)
        try:
            hints = typing.get_type_hints(found.__init__ if inspect.isclass(found) else found)
        except (NameError, TypeError):  # annotations that cannot be evaluated are ignored
            hints = {}
        for key, value in node.items():
            hint = {"_target_": str, "_partial_": bool}.get(key, hints.get(key, Any))
            self.check_value(f"{path}.{key}", value, hint)
            if isinstance(value, float) and math.isinf(value) and key not in INFINITE:
                self.refuse(f"{path}.{key}", value, "a finite number")
            if group_of(path) == "logger":
                self.check_relative(f"{path}.{key}", value)

    def check_known(self, path: str, node: Mapping[str, Any], known: Iterable[str]) -> None:
        known = set(known)
        for key in map(str, node):
            if key not in known:
                prefix = f"{path}." if path else ""
                self.unknown(f"{prefix}{key}", [f"{prefix}{name}" for name in known - MARKS])

    def unknown(self, full_key: str, siblings: Iterable[str]) -> typing.NoReturn:
        parent = full_key.rpartition(".")[0]
        others = [key for key in dotted_keys(self.tree) if key.rpartition(".")[0] != parent]
        hint = suggest_key(full_key, [*sorted(siblings), *others])
        raise MatineeError(f"unknown key {full_key!r}; {hint}")

    def check_value(self, path: str, value: Any, hint: Any) -> None:
        if path.rsplit(".", 1)[-1] == "seed":
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**32:
                self.refuse(path, value, "a whole number from 0 to 4294967295")
        elif not _fits(value, hint):
            self.refuse(path, value, _described(hint))

    def check_relative(self, path: str, value: Any) -> None:
        """Check a text that becomes part of a path, which must stay inside its folder."""
        if not isinstance(value, str):
            return
        if (
            not value.strip()
            or ".." in PurePath(value).parts
            or PurePath(value).is_absolute()
            or not value.isprintable()
        ):
            self.refuse(path, value, "a name without '..' that does not begin with a slash")

    def refuse(self, path: str, value: Any, wanted: str) -> typing.NoReturn:
        raise MatineeError(f"{self.origins.get(path, path)} is {value!r}; give {wanted}.")


def _has_target(node: Any) -> bool:
    return isinstance(node, Mapping) and "_target_" in node


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value, or the object that a node describes, can match an annotation."""
    origin = typing.get_origin(hint)
    kind = origin or hint
    if hint is Any or _has_target(value):
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
    if isinstance(value, list):
        elements = (typing.get_args(hint) or (Any,))[0]
        return (
            inspect.isclass(kind)
            and issubclass(kind, Iterable)
            and kind.__module__ in ("builtins", "collections.abc")  # a tensor is no list
            and all(_fits(element, elements) for element in value)
        )
    if isinstance(value, Mapping):
        return not inspect.isclass(kind) or issubclass(kind, Mapping)
    if isinstance(value, str) and inspect.isclass(kind) and issubclass(kind, os.PathLike):
        return True
    return value is not None and not inspect.isclass(kind)


def _described(hint: Any) -> str:
    words = {
        int: "a whole number",
        float: "a number",
        str: "a text",
        bool: "true or false",
        type(None): "null",
    }
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        options = typing.get_args(hint)
        plain = [option for option in options if option in words or not inspect.isclass(option)]
        return " or ".join(dict.fromkeys(_described(option) for option in plain or options))
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, typing.get_args(hint)))
    if hint in words:
        return words[hint]
    return "a list" if typing.get_origin(hint) is not None else getattr(hint, "__name__", str(hint))
