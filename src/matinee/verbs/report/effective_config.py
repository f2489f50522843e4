"""The part of a config that can change a result, in one form for the configs of all versions."""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from matinee.config.checking import ADDED
from matinee.config.composing import read_choices
from matinee.config.trees import flatten

IGNORED = re.compile(  # keys that cannot change a result, or that the protocol records
    r"(name|log_dir|run_folder|logger|dataset)\b"  # the protocol has the SHA-256 of the data
    r"|callbacks\.(metrics|epoch_table|progress_bar|inspection)\b"
    r"|trainer\.(accelerator|deterministic|benchmark|profiler|log_every_n_steps"
    r"|num_sanity_val_steps|enable_\w+)\b"
    r"|data\.(segments|eval_batch_size)\b"
    r"|.*\b_partial_$"
)


def effective_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Reduce a resolved ``train`` config to the dotted keys that can change its results.

    Two runs did the same if their effective configs are equal. Three rules make configs comparable
    that were composed by different versions:

    - :data:`IGNORED` keys are left out. Callbacks that only observe are among them; those that decide
      when to stop and which epoch to keep are not.
    - A missing key gets the value from the current file of its group with the same ``_target_`` at
      every level, because the default of a new option keeps the earlier behaviour. If several such
      files disagree, or there is none, the key stays missing, which is a difference.
    - A key that these files set to the value of another, such as ``scheduler.T_max``, is left out
      where it has that value.

    So a config without ``data.drop_oldest`` equals one with 0.0, but not one with 0.5.
    """
    given = {key: value for key, value in flatten(config).items() if _counts(key, value)}
    for group, node in config.items():
        if isinstance(node, Mapping):
            given = _completed(given, str(group))
    return given


def _counts(key: str, value: Any) -> bool:
    is_as_before = key in ADDED and value == ADDED[key]
    return not IGNORED.match(key) and value != {} and not is_as_before


def _completed(given: dict[str, Any], group: str) -> dict[str, Any]:
    """Apply the current files of a group: add defaults, drop keys that follow others."""
    fitting = [
        choice
        for choice in _choices(group)
        if all(given.get(key) == value for key, value in choice.items() if _names_target(key))
    ]
    completed = dict(given)
    for key in dict.fromkeys(key for choice in fitting for key in choice):
        values = [choice[key] for choice in fitting if key in choice]
        if len(values) < len(fitting) or values != values[:1] * len(values):
            continue
        followed = re.fullmatch(r"\$\{([\w.]+)\}", str(values[0]))
        if not followed:
            completed.setdefault(key, values[0])
        elif key in given and given[key] == given.get(followed[1]):
            del completed[key]
    return completed


@cache
def _choices(group: str) -> list[dict[str, Any]]:
    """Read the current files of a group that name a target, as dotted keys."""
    trees = read_choices(group) if group.isidentifier() else []
    flat = [{f"{group}.{key}": value for key, value in flatten(tree).items()} for tree in trees]
    choices = [{key: value for key, value in c.items() if _counts(key, value)} for c in flat]
    return [choice for choice in choices if any(map(_names_target, choice))]


def _names_target(key: str) -> bool:
    return key.endswith("._target_")
