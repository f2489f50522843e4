"""Suggesting: hints for a key or a choice that does not exist."""

import difflib
import re
from collections.abc import Callable, Iterable


def suggest(word: str, known: Iterable[str]) -> str:
    """Return "did you mean X?" for the most similar known word, or "" if none is similar.

    >>> suggest("optimiser", ["optimizer", "model"])
    "did you mean 'optimizer'?"
    """
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else ""


def suggest_key(key: str, known: Iterable[str], addable: Iterable[str] = ()) -> str:
    """Return a hint for an unknown dotted key.

    It names the most similar key of the same group; else the key of the same name elsewhere; else the most
    similar dotted key; else the key with the most similar name; else the keys of the group.

    Args:
        key: A dotted key.
        known: The dotted keys of a config.
        addable: Dotted keys that could be added to the config.

    >>> known = ["data", "data.eval_batch_size", "data.eval_stride", "optimizer", "optimizer.lr"]
    >>> suggest_key("data.eval_strde", known), suggest_key("lr", known)
    ("did you mean 'data.eval_stride'?", "did you mean 'optimizer.lr'?")
    >>> suggest_key("optimizer.learning_rate", known, ["optimizer.eps"])
    'optimizer has lr.'
    """
    known, addable = list(known), list(addable)
    if key in known:
        return "another override leaves its part out."
    if key in addable:
        return f"add it with +{key}=..."
    parent, _, name = key.rpartition(".")
    siblings: dict[str, str] = {}
    elsewhere: dict[str, str] = {}
    for other in [*known, *addable]:
        group, _, last = other.rpartition(".")
        if group == parent:
            siblings[last] = other
        elif other in known:
            elsewhere.setdefault(last, other)
    for word, candidates in (
        (name, siblings),
        (name, {last: other for last, other in elsewhere.items() if last == name}),
        (key, {other: other for other in known if not _is_near_by_place(other, key)}),
        (name, elsewhere),
    ):
        if near := difflib.get_close_matches(word, candidates, n=1, cutoff=0.7):
            found = candidates[near[0]]
            return f"did you mean '{'+' * (found in addable)}{found}'?"
    if not parent:
        return "--cfg job prints all keys."
    if parent not in known:
        return f"there is no {parent} either: {suggest_key(parent, known)}"
    here = [last for last, other in siblings.items() if other in known]
    return f"{parent} has {', '.join(here)}." if here else f"{parent} has no keys."


def _is_near_by_place(other: str, key: str) -> bool:
    """Whether two dotted keys are similar only because one is in the other or both are in one group."""
    return key.startswith(f"{other}.") or other.rpartition(".")[0] == key.rpartition(".")[0]


def missing_key(error: Exception) -> str | None:
    """Return the dotted key of an override that is not in the config, if that is the error."""
    match = re.search(r"Could not override '([^']+)'", str(error))
    return match[1] if match else None


def explain(
    error: Exception,
    known: Iterable[str] = (),
    addable: Iterable[str] = (),
    choices_of: Callable[[str], list[str]] = lambda group: [],
) -> str:
    """Turn an error of Hydra or OmegaConf about a config into one sentence.

    Args:
        error: The error raised while a config was composed.
        known: Dotted keys of the config without the wrong override.
        addable: Dotted keys that could be added to it.
        choices_of: Returns the choices of a config group.
    """
    text = " ".join(str(error).split())
    if "Could not override ''" in text:
        return "'=' has no key before it; write key=value."
    parsing = re.search(r"Error parsing override '([^']*?)' ", text)
    if parsing and "=" not in parsing[1]:
        return f"{parsing[1]!r} is no override; write key=value."
    if key := missing_key(error):
        return f"unknown key {key!r}; {suggest_key(key, known, addable)}"
    if re.search(r"'hydra/launcher/(matinee_)?ray'", text):
        return "this launcher needs Ray; pip install 'matinee[ray]'."
    if match := re.search(r"Could not find '([^']+)'", text):
        group, _, choice = match[1].partition("/")
        choices = choices_of(group)
        hint = suggest(choice, choices) or f"choose one of {', '.join(choices) or 'none'}."
        return f"there is no {group}={choice}; {hint}"
    if "Exception" in text.split(":")[0] or "mismatched input" in text or "no viable" in text:
        return f"{text}; put a value with special characters in quotes: 'key=\"value\"'."
    return text or type(error).__name__
