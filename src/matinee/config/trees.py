"""Trees: configs as plain mappings, lists and values, read and resolved within limits.

A config that somebody else wrote is data. Its size and depth are limited, and only three forms of
interpolation are supported: ``${key}`` for another value of the same config, ``${hydra:...}`` for what
Hydra knows about the run, and ``${now:...}`` for the time. After :func:`resolve` there are plain values
only, which no library interprets again.
"""

import datetime
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf._utils import get_yaml_loader

from matinee.errors import MatineeError

MAX_CHARACTERS = 1_000_000
MAX_TEXT = 10_000  # characters of one value or key
MAX_NODES = 10_000  # values of one config, with aliases expanded
MAX_DEPTH = 30
MAX_INTEGER = 1 << 63
MISSING = "???"  # the value of a required key
INTERPOLATION = re.compile(r"\$\{\s*(?:(hydra|now):([^${}]+)|([\w@-]+(?:\.[\w@-]+)*))\s*\}")
Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(path: Path, text: str | None = None) -> Any:
    """Read a YAML file as plain values.

    Args:
        path: The file.
        text: The content of the file, if it is already known; the path is then used in messages only.

    Returns:
        The content, with interpolations as text; an empty mapping if the file is empty.

    Raises:
        MatineeError: If the file cannot be read, is not YAML, or is too large or too deeply nested.
    """
    try:
        if text is None:
            with path.open(encoding="utf-8") as file:
                text = file.read(MAX_CHARACTERS + 1)
        check_size(text)
        tree = yaml.load(text, Loader=get_yaml_loader())  # reads numbers as OmegaConf does
        _check_kinds(tree)
        return {} if tree is None else tree
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise MatineeError(f"{path} cannot be read ({reason}); restore it.") from error


def parse_json(text: str) -> Any:
    """Parse JSON within the limits of a config.

    Raises:
        ValueError: If it is not JSON, or is too large or too deeply nested.
    """
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"it has more than {MAX_CHARACTERS:,} characters")
    try:
        tree = json.loads(text)
    except RecursionError as error:
        raise ValueError(f"it is nested more than {MAX_DEPTH} levels deep") from error
    _check_kinds(tree)
    return tree


def check_size(text: str) -> None:
    """Reject YAML that would take much time or memory to load, without loading it.

    Raises:
        ValueError: If it has too many characters, values or levels.
        yaml.YAMLError: If it is not YAML.
    """
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"it has more than {MAX_CHARACTERS:,} characters")
    sizes, names = [0], [""]  # of the document and of the mappings and lists that are open
    anchors: dict[str, int] = {}
    for event in yaml.parse(text, Loader=Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            sizes.append(1)
            names.append(event.anchor or "")
        elif isinstance(event, yaml.CollectionEndEvent):
            size = sizes.pop()
            anchors[names.pop()] = size
            sizes[-1] += size
        elif isinstance(event, yaml.ScalarEvent):
            if len(event.value) > MAX_TEXT:
                raise ValueError(f"it holds a text of more than {MAX_TEXT:,} characters")
            anchors[event.anchor or ""] = 1
            sizes[-1] += 1
        elif isinstance(event, yaml.AliasEvent):
            sizes[-1] += anchors.get(event.anchor, MAX_NODES + 1)  # an unknown one contains itself
        if sizes[-1] > MAX_NODES:
            raise ValueError(f"it has more than {MAX_NODES:,} values")
        if len(sizes) > MAX_DEPTH:
            raise ValueError(f"it is nested more than {MAX_DEPTH} levels deep")


def _check_kinds(tree: Any, depth: int = 0) -> None:
    if depth > MAX_DEPTH:
        raise ValueError(f"it is nested more than {MAX_DEPTH} levels deep")
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            if not isinstance(key, str | int | float | bool):
                raise ValueError(f"{key!r} cannot be a key")
            _check_kinds(value, depth + 1)
    elif isinstance(tree, list):
        for value in tree:
            _check_kinds(value, depth + 1)
    elif isinstance(tree, int) and abs(tree) > MAX_INTEGER:
        raise ValueError("it holds a number of more than 64 bits")
    elif not isinstance(tree, str | int | float | bool | None):
        raise ValueError(f"a value of type {type(tree).__name__} cannot be in a config")


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted path and the value of every leaf; items of a list are numbered from 0."""
    if isinstance(tree, Mapping | list):
        for key, value in tree.items() if isinstance(tree, Mapping) else enumerate(tree):
            yield from leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, tree


def check_plain(tree: Any) -> None:
    """Reject interpolations of any form.

    Raises:
        MatineeError: At the first one, with its key.
    """
    for path, value in leaves(tree):
        if "${" in path or (isinstance(value, str) and "${" in value):
            raise MatineeError(
                f"{path} is {value!r}, but only plain values are allowed here; write the value itself."
            )


def check_interpolations(tree: Any) -> None:
    """Reject interpolations that :func:`resolve` does not support.

    Raises:
        MatineeError: At the first one, with its key.
    """
    for path, value in leaves(tree):
        if isinstance(value, str) and "${" in INTERPOLATION.sub("", value):
            raise MatineeError(
                f"{path} is {value!r}, but the only interpolations are ${{key}}, ${{hydra:...}} and "
                "${now:...}; write the value itself."
            )


def origins(tree: Any) -> dict[str, str]:
    """Return the keys whose value is an interpolation of another key, with that key."""
    found = {
        path: INTERPOLATION.fullmatch(value)
        for path, value in leaves(tree)
        if isinstance(value, str)
    }
    return {path: match[3] for path, match in found.items() if match and match[3]}


def resolve(tree: Mapping[str, Any], hydra: Any = None) -> dict[str, Any]:
    """Replace interpolations by their values.

    Args:
        tree: A config as plain values.
        hydra: The config of Hydra itself, for ``${hydra:...}``.

    Returns:
        A new tree without interpolations.

    Raises:
        MatineeError: If an interpolation has an unsupported form or no value, if it refers to itself, or if
            the result is too large.
    """
    check_interpolations(tree)
    room, characters = MAX_NODES, MAX_CHARACTERS
    now = datetime.datetime.now()

    def resolved(value: Any, path: str, above: tuple[str, ...]) -> Any:
        nonlocal room, characters
        room -= 1
        if isinstance(value, Mapping):
            return {key: resolved(item, f"{path}.{key}", above) for key, item in value.items()}
        if isinstance(value, list):
            return [resolved(item, f"{path}.{n}", above) for n, item in enumerate(value)]
        if isinstance(value, str) and (match := INTERPOLATION.fullmatch(value)):
            value = meaning(match, path, above)
        elif isinstance(value, str):
            value = INTERPOLATION.sub(lambda match: text(match, path, above), value)
        characters -= len(value) if isinstance(value, str) else 0
        if room < 0 or characters < 0:
            raise MatineeError(f"{path} makes the config too large; write shorter values.")
        return value

    def meaning(match: re.Match[str], path: str, above: tuple[str, ...]) -> Any:
        key = match[3]
        if match[1] == "now":
            return now.strftime(match[2])
        if match[1] == "hydra":
            found = None if hydra is None else OmegaConf.select(hydra, match[2])
            if found is None or OmegaConf.is_config(found):
                raise MatineeError(
                    f"{path} is {match[0]!r}, but Hydra has no such value; correct it."
                )
            return found
        if key in above:
            raise MatineeError(f"{path} refers to itself through {key}; write a value.")
        return resolved(_at(tree, key, path), key, (*above, key))

    def text(match: re.Match[str], path: str, above: tuple[str, ...]) -> str:
        return str(meaning(match, path, above))

    plain: dict[str, Any] = {str(key): resolved(value, str(key), ()) for key, value in tree.items()}
    check_plain(plain)
    return plain


def _at(tree: Any, key: str, path: str) -> Any:
    for part in key.split("."):
        if isinstance(tree, Mapping) and part in tree:
            tree = tree[part]
        elif isinstance(tree, list) and part.isdigit() and int(part) < len(tree):
            tree = tree[int(part)]
        else:
            raise MatineeError(f"{path} is ${{{key}}}, but there is no key {key}; correct it.")
    return tree


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


def differences(
    recorded: Mapping[str, Any], now: Mapping[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    """Yield each dotted key whose values differ, with the recorded value and that of now.

    A value that is missing counts as None.

    >>> list(differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 2}))
    [('a.b', 1, 3)]
    """
    there, here = flatten(recorded), flatten(now)
    for key in dict.fromkeys((*here, *there)):
        if there.get(key) != here.get(key):
            yield key, there.get(key), here.get(key)


def dotted_keys(tree: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return every key of nested mappings in dotted form, including the keys of mappings.

    >>> dotted_keys({"a": {"b": 1, "_target_": "x"}, "c": 2})
    ['a', 'a.b', 'c']
    """
    keys = []
    for key, value in tree.items():
        if key in ("_target_", "_partial_"):
            continue
        keys.append(f"{prefix}{key}")
        if isinstance(value, Mapping):
            keys += dotted_keys(value, f"{prefix}{key}.")
    return keys
