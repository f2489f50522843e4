"""What a config asks for that can change a figure, in one form for the configs of all versions."""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from matinee.config.composing import read_choices
from matinee.config.trees import flatten

SILENT = re.compile(  # keys that cannot change a figure, or that the protocol speaks for
    r"(name|log_dir|run_folder|logger|dataset)\b"  # of the data, their SHA-256
    r"|callbacks\.(metrics|epoch_table|progress_bar|inspection)\b"
    r"|trainer\.(accelerator|deterministic|benchmark|profiler|log_every_n_steps"
    r"|num_sanity_val_steps|enable_\w+)\b"
    r"|data\.(segments|eval_batch_size)\b"
    r"|.*\b_partial_$"
)


def work(config: Mapping[str, Any]) -> dict[str, Any]:
    """Reduce a resolved ``train`` config to the dotted keys that make its figures: equal ones, equal work.

    Three rules make configs comparable that were composed by different versions:

    - :data:`SILENT` keys are left out. Of the callbacks only those are silent that look on: when to stop
      and which epoch to keep change figures.
    - A key that a config lacks has the value of today's file of its group with the same ``_target_``
      at every place, as a new option's default leaves everything as it was before. Where several
      such files disagree, or there is none, lacking stays a difference of its own.
    - A key that those files let follow another, such as ``scheduler.T_max``, is left out where it does.

    So a config without ``data.drop_oldest`` equals one with 0.0, and none with 0.5.
    """
    given = {key: value for key, value in flatten(config).items() if _counts(key, value)}
    for group, node in config.items():
        if isinstance(node, Mapping):
            given = _completed(given, group)
    return given


def _counts(key: str, value: Any) -> bool:
    return not SILENT.match(key) and value != {}


def _completed(given: dict[str, Any], group: str) -> dict[str, Any]:
    """Apply today's files of a group: add defaults, drop what follows."""
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
    """Read today's files of a group that name a target, flat."""
    trees = read_choices(group)
    flat = [{f"{group}.{key}": value for key, value in flatten(tree).items()} for tree in trees]
    choices = [{key: value for key, value in c.items() if _counts(key, value)} for c in flat]
    return [choice for choice in choices if any(map(_names_target, choice))]


def _names_target(key: str) -> bool:
    return key.endswith("._target_")
