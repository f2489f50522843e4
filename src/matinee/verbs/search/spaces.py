"""Search spaces: the values to draw from, the hash of a combination, and the overrides that run it."""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from matinee.networks.encoders.convolution import DILATION_PERIOD

Hyperparameters = dict[str, Any]

LOSSES = {  # published name -> overrides; Spotlight's pointwise and bpr are the saturating forms
    "pointwise": ["loss=saturating_pointwise"],
    "bpr": ["loss=saturating_bpr"],
    "hinge": ["loss=hinge"],
    "adaptive_hinge": ["loss=adaptive_hinge", "sampler.num_negatives=5"],
}
KEYS = {  # hyperparameters of every model; any other one is an option of its encoder
    "embedding_dim": "model.embedding_dim",
    "n_iter": "trainer.max_epochs",
    "batch_size": "data.batch_size",
    "learning_rate": "optimizer.lr",
    "l2": "optimizer.weight_decay",
    "loss": "loss",
}
NUMBERS: dict[str, Any] = {  # types of the hyperparameters that are numbers in every model
    "embedding_dim": int,
    "n_iter": int,
    "batch_size": int,
    "learning_rate": int | float,
    "l2": int | float,
    "num_layers": int,
    "dilation_multiplier": int,
}


class Space:
    """Lists of values, one for each hyperparameter; a search draws from them uniformly.

    Args:
        model: A choice of the config group ``model`` that has an ``encoder``.
        choices: Values by hyperparameter: all of :data:`KEYS`, and options of the encoder.

    Attributes:
        size: Number of distinct combinations.

    Raises:
        ValueError: If a hyperparameter of :data:`KEYS` is missing, has no value or a value of the wrong
            type or out of range, or if a loss is unknown.
    """

    def __init__(self, model: str, choices: Mapping[str, Sequence[Any]]) -> None:
        self.model = model
        for name in KEYS.keys() | choices.keys():
            if not isinstance(choices.get(name), list) or not choices[name]:
                raise ValueError(f"choices.{name} is {choices.get(name)!r}; give a list of values.")
            for value in choices[name]:
                if isinstance(value, list | Mapping):
                    raise ValueError(f"choices.{name} holds {value!r}; give single values.")
        for name, kind in NUMBERS.items():
            for value in choices.get(name, ()):
                whole = kind is int
                if isinstance(value, bool) or not isinstance(value, kind) or (whole and value < 1):
                    wanted = "whole numbers of at least 1" if whole else "numbers"
                    raise ValueError(f"choices.{name} holds {value!r}; give {wanted}.")
        if unknown := [loss for loss in choices["loss"] if loss not in list(LOSSES)]:
            raise ValueError(f"choices.loss holds {unknown[0]!r}; choose from {', '.join(LOSSES)}.")
        self.choices = {name: list(choices[name]) for name in sorted(choices)}
        for name in ("l2", "learning_rate"):  # 0 and 0.0 would have different hashes
            self.choices[name] = [float(value) for value in self.choices[name]]
        distinct = ({json.dumps(value) for value in values} for values in self.choices.values())
        self.size = math.prod(map(len, distinct))

    def draws(self, seed: int) -> Iterator[Hyperparameters]:
        """Draw all combinations without repetition, in an order that depends only on the seed."""
        generator = np.random.default_rng(seed)
        known: set[str] = set()
        while len(known) < self.size:
            drawn = {
                name: values[generator.integers(len(values))]
                for name, values in self.choices.items()
            }
            hyperparameters = completed(drawn)
            name = hash_id(hyperparameters)
            if name not in known:
                known.add(name)
                yield hyperparameters


def completed(drawn: Mapping[str, Any]) -> Hyperparameters:
    """Add the list of dilations, which follows from the drawn values, as published.

    >>> completed({"num_layers": 3, "dilation_multiplier": 2})["dilation"]
    [1, 2, 4]
    """
    hyperparameters = dict(drawn)
    if {"num_layers", "dilation_multiplier"} <= drawn.keys():
        multiplier = drawn["dilation_multiplier"]
        hyperparameters["dilation"] = [
            multiplier ** (layer % DILATION_PERIOD) for layer in range(drawn["num_layers"])
        ]
    return hyperparameters


def hash_id(hyperparameters: Mapping[str, Any]) -> str:
    """Return the MD5 of hyperparameters written as JSON with sorted keys, as published.

    >>> hash_id({"b": [1, 2], "a": 1e-06})
    'b9ed20ecf6f09abb11369efaf7b116d6'
    """
    text = json.dumps(hyperparameters, sort_keys=True)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def as_overrides(model: str, hyperparameters: Mapping[str, Any]) -> list[str]:
    """Translate hyperparameters to overrides of ``matinee train experiment=search``.

    Embeddings start with a standard deviation of 1 / embedding_dim, as in Spotlight.

    Args:
        model: A choice of the config group ``model``.
        hyperparameters: A combination as :meth:`Space.draws` yields it.
    """
    overrides = [f"model={model}", f"model.init_std={1 / hyperparameters['embedding_dim']}"]
    for name, value in hyperparameters.items():
        if name == "loss":
            overrides += LOSSES[value]
        else:
            overrides.append(f"{KEYS.get(name, f'model.encoder.{name}')}={_written(value)}")
    return overrides


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
