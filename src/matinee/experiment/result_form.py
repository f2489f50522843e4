"""The form of ``result.json``, which may come from somebody else: the kind of each value that is read."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Kind(NamedTuple):
    """A kind of value, in words and as a test."""

    words: str
    fits: Callable[[Any], bool]


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


TEXT = Kind("a text", lambda value: isinstance(value, str))
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
COUNT = Kind("a whole number of at least 0", lambda value: _is_whole(value) and value >= 0)
POSITIVE = Kind("a whole number of at least 1", lambda value: _is_whole(value) and value >= 1)
NUMBER = Kind(
    "a finite number",
    lambda value: (_is_whole(value) or isinstance(value, float)) and math.isfinite(value),
)
ANYTHING = Kind("a value", lambda value: True)
EVERY = "*"  # stands for every key
PARENT_FORM: dict[str, Any] = {
    "kind": TEXT,
    "run": TEXT,
    "config_sha256": TEXT,
    "dataset_sha256": TEXT,
    "split_fingerprint": TEXT,
    "best_epoch?": COUNT,
    "metrics": {EVERY: NUMBER},
}
FORM: dict[str, Any] = {  # a key that ends in "?" may be missing or null
    "metrics": {EVERY: NUMBER},
    "headline": {"metric": TEXT, "higher_is_better": FLAG, "power?": POSITIVE},
    "fit?": {"best_epoch?": COUNT, "epochs": COUNT, "steps?": COUNT, "parameters": COUNT},
    "protocol": {
        "dataset": {"sha256": TEXT, "rows": COUNT, "users?": COUNT, "items?": COUNT},
        "split": {
            "name": TEXT,
            "options": {EVERY: ANYTHING},
            "fingerprint": TEXT,
            "rows?": {EVERY: COUNT},
            "cold?": {EVERY: {EVERY: COUNT}},
        },
        "windows?": {"length": POSITIVE, "stride?": POSITIVE, "targets?": TEXT},
        "evaluated_windows?": {EVERY: COUNT},
        "candidates?": TEXT,
    },
    "parent?": PARENT_FORM,
    "environment": {
        "seconds": {"fit": NUMBER},
        "finished?": TEXT,
        "commit?": TEXT,
        "accelerator?": TEXT,
        "peak_memory_bytes?": POSITIVE,
    },
}


def misfit(result: Any) -> str | None:
    """Say what first differs from the form of ``result.json``; None if nothing does.

    >>> misfit({"metrics": {"test/rmse": float("nan")}})
    'metrics: test/rmse is nan, not a finite number'
    """
    found = _misfit(result, FORM, ())
    if found is None and not all("/" in name for name in result["metrics"]):
        found = "metrics: a name is not STAGE/METRIC"
    is_refit = found is None and (result.get("parent") or {}).get("kind") == "refit"
    return found or (None if result["metrics"] or is_refit else "it holds no metrics")


def parent_misfit(parent: Any) -> str | None:
    """Say what first differs from the form of ``parent.json``; None if nothing does."""
    return _misfit(parent, PARENT_FORM, ())


def _misfit(value: Any, form: Any, path: tuple[str, ...]) -> str | None:
    if isinstance(form, Kind):
        if form.fits(value):
            return None
        shown = repr(value) if len(repr(value)) < 40 else f"{repr(value)[:40]}..."
        return f"{' '.join([*(f'{key}:' for key in path[:-1]), path[-1]])} is {shown}, not {form.words}"
    if not isinstance(value, Mapping):
        return f"{': '.join(path) or 'it'} is not a mapping"
    every = form.get(EVERY)
    parts = dict.fromkeys(value, every) if every is not None else form
    for name, inner in parts.items():
        key = name.removesuffix("?") if every is None else name
        if key not in value and key == name:
            return f"{': '.join((*path, key))} is missing"
        if value.get(key) is None and key != name:
            continue
        if found := _misfit(value[key], inner, (*path, key)):
            return found
    return None
