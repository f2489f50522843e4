"""Values of the command line as they are typed, which Hydra would read as numbers or null.

``user=1_000``, ``user=1.10``, ``user=true`` and ``user=null`` are the ids 1_000, 1.10, true and null;
``user=``, like no ``user`` at all, is nobody. In a list or a mapping, entries are separated by commas. One
that holds commas, or blanks at its ends, stands between quotation marks, in which a backslash makes a
quotation mark or a backslash part of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from omegaconf import DictConfig

from matinee.errors import MatineeError

Parser = Callable[[str], Any]

_QUOTED = r""""(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'"""
_WORD = re.compile(rf"\s*({_QUOTED}|[^,]*?)\s*(?=,|$)")
_RATED = re.compile(rf"\s*({_QUOTED}|[^,]*?)\s*:\s*([^\s:,]+)\s*(?=,|$)")


def word(text: str) -> str | None:
    """Return a text as it is; an empty one is nobody."""
    return text or None


def words(text: str) -> list[str]:
    """Read a list of ids or titles.

    Raises:
        ValueError: If the text is no list.

    >>> words("[50, 1_000, 'Crouching Tiger, Hidden Dragon']")
    ['50', '1_000', 'Crouching Tiger, Hidden Dragon']
    """
    return [_unquoted(entry[1]) for entry in _entries(text, "[]", _WORD)]


def words_or_file(text: str) -> list[str] | str | None:
    """Read a list of ids or titles, or the name of a file; an empty text is neither.

    Raises:
        ValueError: If the text begins as a list and is none.
    """
    return words(text) if text.strip().startswith("[") else text or None


def ratings(text: str) -> dict[str, float]:
    """Read the ratings of ids or titles.

    Raises:
        ValueError: If the text is no mapping to numbers.

    >>> ratings("{50: 5, 'Se7en: the film': 4.5}")
    {'50': 5.0, 'Se7en: the film': 4.5}
    """
    found: dict[str, float] = {}
    for entry in _entries(text, "{}", _RATED):
        name = _unquoted(entry[1])
        if name in found:
            raise MatineeError(f"ratings names {name!r} twice; give one rating for each item.")
        found[name] = float(entry[2])
    return found


def take_typed(
    argv: Sequence[str], parsers: Mapping[str, tuple[Parser, str]]
) -> tuple[list[str], dict[str, Any]]:
    """Take some keys out of the arguments before Hydra reads them.

    Args:
        argv: The arguments.
        parsers: For each key, what reads its value, and what the value should look like.

    Returns:
        The other arguments, and the values by key, the last one of each.

    Raises:
        MatineeError: If a value does not look as it should.
    """
    others, values = [], {}
    for argument in argv:
        key, equals, text = argument.lstrip("+").partition("=")
        if not equals or key not in parsers:
            others.append(argument)
            continue
        parse, form = parsers[key]
        try:
            values[key] = parse(text)
        except ValueError as error:
            raise MatineeError(f"{key} is {text!r}; write '{key}={form}'.") from error
    return others, values


def with_values(config: DictConfig, values: Mapping[str, Any]) -> SimpleNamespace:
    """Return the keys of a checked config with some values in place of others."""
    return SimpleNamespace(**{str(key): config[key] for key in config} | dict(values))


def _entries(text: str, brackets: str, pattern: re.Pattern[str]) -> list[re.Match[str]]:
    text = text.strip()
    if len(text) < 2 or text[0] != brackets[0] or text[-1] != brackets[1]:
        raise ValueError("no brackets")
    inside, place = text[1:-1], 0
    entries: list[re.Match[str]] = []
    while inside.strip() and place <= len(inside):
        entry = pattern.match(inside, place)
        if entry is None or not entry[1]:
            raise ValueError("an entry is empty or not readable")
        entries.append(entry)
        place = entry.end() + 1
    return entries


def _unquoted(entry: str) -> str:
    if re.fullmatch(_QUOTED, entry):
        return re.sub(r"\\(.)", r"\1", entry[1:-1])
    return entry
