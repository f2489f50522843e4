"""Search spaces: the values of each hyperparameter, how they are written, drawn and tried.

A space is written as ``{KEY: VALUES, ...}``. A key is a key of the config or a group. Values are a list, or a
range: ``uniform(low, high)`` and ``log(low, high)`` of real numbers, ``int(low, high)`` and
``logint(low, high)`` of whole numbers, both ends included; the logarithm of the second of each is uniform.
"""

import hashlib
import itertools
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from matinee.config.suggesting import suggest
from matinee.config.trees import read_yaml
from matinee.errors import MatineeError

Hyperparameters = dict[str, Any]

DIGITS = 4  # significant digits of a drawn real number
FORM = "a list of values, log(low,high), uniform(low,high), int(low,high) or logint(low,high)"
RANGES = {
    "uniform": (False, False),
    "log": (True, False),
    "int": (False, True),
    "logint": (True, True),
}
RANGE = re.compile(r"\s*(\w*)\s*\((.*)\)\s*", re.DOTALL)
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
KEY = re.compile(r"\+?[A-Za-z_][\w/]*(@?[.\w]+)?")
PLAIN = re.compile(
    r"(?!(?i:true|false|null|nan|inf)$)[A-Za-z_][\w./-]*"
)  # needs no quotation marks
HARDWARE = {"trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy"}
FIXED = {  # the first part of a key, and why it is not a hyperparameter
    "dataset": "trials on different data cannot be compared",
    "split": "trials on different data cannot be compared",
    "experiment": "give experiment=... to the search",
    "seed": "give seed=... to the search",
    "name": "it changes no metric",
    "log_dir": "it changes no metric",
    "run_folder": "it changes no metric",
    "logger": "it changes no metric",
}  # fmt: skip


@dataclass(frozen=True)
class Choices:
    """A list of values, all equally likely."""

    values: Sequence[Any]

    @property
    def size(self) -> float:
        """The number of distinct values."""
        return len({json.dumps(value) for value in self.values})

    @property
    def examples(self) -> Sequence[Any]:
        """Every value."""
        return self.values

    def holds(self, value: Any) -> bool:
        """Return whether this is one of the values."""
        return json.dumps(value) in map(json.dumps, self.values)

    def draw(self, generator: np.random.Generator) -> Any:
        """Draw a value."""
        return self.values[int(generator.integers(len(self.values)))]

    def for_optuna(self) -> BaseDistribution:
        """Return it in Optuna's form, which has no lists among the values; here they are JSON."""
        return CategoricalDistribution(list(map(json.dumps, self.values)))

    def from_optuna(self, value: Any) -> Any:
        """Return the value that Optuna means."""
        return json.loads(value)

    def to_optuna(self, value: Any) -> Any:
        """Return Optuna's form of a value."""
        return json.dumps(value)


@dataclass(frozen=True)
class Range:
    """The numbers from ``low`` to ``high``, uniform in their value or in its logarithm.

    Real numbers are rounded to four significant digits, so that a command repeats them exactly.
    """

    low: float
    high: float
    log: bool
    whole: bool

    @property
    def size(self) -> float:
        """The number of distinct values, infinite for real numbers."""
        return self.high - self.low + 1 if self.whole else math.inf

    @property
    def examples(self) -> Sequence[Any]:
        """Both ends."""
        return self.low, self.high

    @property
    def values(self) -> Sequence[int]:
        """All whole numbers of the range."""
        return range(int(self.low), int(self.high) + 1)

    def holds(self, value: Any) -> bool:
        """Return whether this is a number of the range."""
        kind = int if self.whole else (int, float)
        is_number = isinstance(value, kind) and not isinstance(value, bool)
        return is_number and self.low <= value <= self.high

    def draw(self, generator: np.random.Generator) -> Any:
        """Draw a number."""
        half = 0.5 if self.whole else 0  # a whole number stands for all that are rounded to it
        low, high = self.low - half, self.high + half
        share = generator.random()
        if self.log:
            return self.from_optuna(low * (high / low) ** share)
        return self.from_optuna(low + (high - low) * share)

    def for_optuna(self) -> BaseDistribution:
        """Return it in Optuna's form."""
        if self.whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)

    def from_optuna(self, value: Any) -> Any:
        """Return the value that Optuna means."""
        rounded = round(value) if self.whole else float(f"{value:.{DIGITS}g}")
        return min(max(rounded, self.low), self.high)

    def to_optuna(self, value: Any) -> Any:
        """Return Optuna's form of a value."""
        return value


Distribution = Choices | Range


def as_overrides(hyperparameters: Mapping[str, Any]) -> list[str]:
    """Write hyperparameters, which are keys and groups of a config, as overrides.

    >>> as_overrides({"optimizer.lr": 0.01, "loss": "mse", "model.dims": [8, 4], "data.x": "a b"})
    ['optimizer.lr=0.01', 'loss=mse', 'model.dims=[8,4]', 'data.x="a b"']
    """
    return [f"{name}={written(value)}" for name, value in hyperparameters.items()]


def written(value: Any) -> str:
    """Write a value as in an override."""
    if isinstance(value, str) and PLAIN.fullmatch(value):
        return value
    return json.dumps(value, separators=(",", ":"))


@dataclass(frozen=True)
class Space:
    """What a search searches.

    Attributes:
        over: The distribution of each hyperparameter.
        identity: The space as it was given, for the record.
        base: Overrides of every trial.
        overrides: Writes hyperparameters as overrides of a trial.
        completed: Adds what follows from the drawn values.
        model: The published model that the space is for; None for a space of one's own, whose search
            begins with the default of the config.
    """

    over: Mapping[str, Distribution]
    identity: Mapping[str, Any]
    base: Sequence[str] = ()
    overrides: Callable[[Mapping[str, Any]], list[str]] = as_overrides
    completed: Callable[[Mapping[str, Any]], Hyperparameters] = dict
    model: str | None = None

    @property
    def size(self) -> float:
        """The number of distinct combinations."""
        return math.prod(one.size for one in self.over.values())

    def holds(self, hyperparameters: Mapping[str, Any]) -> bool:
        """Return whether a combination has a value for each hyperparameter, and is in the space."""
        return all(
            name in hyperparameters and one.holds(hyperparameters[name])
            for name, one in self.over.items()
        )

    def to_optuna(self, hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return a combination in Optuna's form."""
        return {name: one.to_optuna(hyperparameters[name]) for name, one in self.over.items()}

    def from_optuna(self, values: Mapping[str, Any]) -> Hyperparameters:
        """Return the combination that Optuna means."""
        return self.completed({name: self.over[name].from_optuna(values[name]) for name in values})

    def draws(self, seed: int) -> Iterator[Hyperparameters]:
        """Draw all combinations without repetition, in an order that depends only on the seed."""
        generator = np.random.default_rng(seed)
        known: set[str] = set()
        while len(known) < self.size:
            drawn = {name: self.over[name].draw(generator) for name in sorted(self.over)}
            hyperparameters = self.completed(drawn)
            name = hash_id(hyperparameters)
            if name not in known:
                known.add(name)
                yield hyperparameters

    def grid(self) -> Iterator[Hyperparameters]:
        """Yield all combinations in order, the last key changing fastest.

        Raises:
            MatineeError: If there are infinitely many.
        """
        for name, one in self.over.items():
            if math.isinf(one.size):
                raise MatineeError(
                    f"over: {name} is a range of real numbers, which method=grid cannot run; give a list, or "
                    "use method=random or tpe."
                )
        lists = [dict.fromkeys(map(json.dumps, one.values)) for one in self.over.values()]
        for values in itertools.product(*lists):
            yield self.completed(dict(zip(self.over, map(json.loads, values), strict=True)))


def hash_id(hyperparameters: Mapping[str, Any]) -> str:
    """Return the MD5 of hyperparameters written as JSON with sorted keys, as published.

    >>> hash_id({"b": [1, 2], "a": 1e-06})
    'b9ed20ecf6f09abb11369efaf7b116d6'
    """
    text = json.dumps(hyperparameters, sort_keys=True)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def read_space(text: str) -> Space:
    """Read a space from the command line or from a YAML file.

    Args:
        text: ``{KEY: VALUES, ...}``, or the path of a file with one ``KEY: VALUES`` on each line.

    Raises:
        MatineeError: If the file cannot be read, or a key or its values are not understood.

    >>> read_space("{optimizer.lr: log(1e-4,1e-1), loss: [softmax, gbce]}").over["optimizer.lr"]
    Range(low=0.0001, high=0.1, log=True, whole=False)
    """
    path = Path(text)
    if text.lstrip().startswith("{"):
        path = Path("over")
    else:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise MatineeError(
                f"over is {str(path)!r}, but that file cannot be read ({error}); write "
                "'over={KEY: VALUES, ...}' or name a YAML file."
            ) from error
    # a comma in parentheses would end a value, and a colon before brackets needs a blank
    spaced = re.sub(r":\s*(?=\[|\w+\()", ": ", text)
    quoted = re.sub(r"(?<=: )(\w+\([^()\"'\n]*\))", r'"\1"', spaced)
    found = read_yaml(path, quoted)
    if not isinstance(found, Mapping) or not found:
        raise MatineeError(
            f"{path} holds no hyperparameter; write '{{KEY: VALUES, ...}}', where VALUES is {FORM}."
        )
    over = {str(name): _distribution(str(name), values) for name, values in found.items()}
    return Space(over, {"over": {str(name): values for name, values in found.items()}})


def _distribution(name: str, values: Any) -> Distribution:
    first = re.split(r"[.@/]", name.lstrip("+"))[0]
    if not KEY.fullmatch(name):
        raise MatineeError(f"over: {name!r} is no key of a config; write KEY: VALUES.")
    if first in FIXED:
        raise MatineeError(f"over: {name} is no hyperparameter: {FIXED[first]}; remove it.")
    if name == "trainer" or name in HARDWARE:
        raise MatineeError(
            f"over: {name} is no hyperparameter; use the options accelerator and devices of the search."
        )
    if isinstance(values, str) and (match := RANGE.fullmatch(values)):
        return _range(name, values, match[1], match[2].split(","))
    if not isinstance(values, list) or not values:
        raise MatineeError(f"over: {name} is {values!r}; give {FORM}.")
    for value in values:
        inner = value if isinstance(value, list) else [value]
        if any(isinstance(one, list | Mapping) for one in inner):
            raise MatineeError(
                f"over: {name} holds {value!r}; give single values or lists of them."
            )
        if any(isinstance(one, float) and not math.isfinite(one) for one in inner):
            raise MatineeError(f"over: {name} holds {value!r}; give finite numbers.")
    choices = Choices(values)
    if choices.size < len(values):
        raise MatineeError(f"over: {name} is {values!r}; give each value once.")
    return choices


def _range(name: str, given: str, kind: str, ends: Sequence[str]) -> Range:
    if kind not in RANGES:
        hint = suggest(kind, RANGES) or f"give {FORM}."
        raise MatineeError(f"over: {name} is {given}, and there is no {kind}(...); {hint}")
    log, whole = RANGES[kind]
    ends = [end.strip() for end in ends]
    pattern = re.compile(r"[-+]?\d+") if whole else NUMBER
    if len(ends) != 2 or not all(map(pattern.fullmatch, ends)):
        wanted = "two whole numbers" if whole else "two numbers"
        raise MatineeError(f"over: {name} is {given}; give {wanted}, {kind}(low,high).")
    low, high = (int(end) if whole else float(end) for end in ends)
    if not -math.inf < low < high < math.inf:
        raise MatineeError(f"over: {name} is {given}; give the lower number first.")
    if log and low <= 0:
        raise MatineeError(f"over: {name} is {given}; a logarithm needs numbers above 0.")
    return Range(low, high, log, whole)
