"""Published spaces: searches of sequence models with Spotlight, whose hashes are valid here."""

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import OmegaConf

from matinee.config.folders import config_dir
from matinee.networks.encoders.convolution import DILATION_PERIOD
from matinee.verbs.search.spaces import Choices, Hyperparameters, Space, written

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


def published_space(model: str, choices: Mapping[str, Sequence[Any]]) -> Space:
    """Make a space whose hyperparameters have their published names.

    Args:
        model: A choice of the config group ``model`` that has an ``encoder``.
        choices: Values by hyperparameter: all of :data:`KEYS`, and options of the encoder.

    Raises:
        ValueError: If a hyperparameter of :data:`KEYS` is missing, has no value or a value of the wrong
            type or out of range, or if a loss is unknown.
    """
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
    lists = {name: list(choices[name]) for name in sorted(choices)}
    for name in ("l2", "learning_rate"):  # 0 and 0.0 would have different hashes
        lists[name] = [float(value) for value in lists[name]]
    return Space(
        over={name: Choices(values) for name, values in lists.items()},
        identity={"model": model, "choices": lists},
        base=["experiment=search", f"model={model}"],
        overrides=published_overrides,
        completed=completed,
        model=model,
    )


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


def published_overrides(hyperparameters: Mapping[str, Any]) -> list[str]:
    """Write hyperparameters with their published names as overrides.

    Embeddings start with a standard deviation of 1 / embedding_dim, as in Spotlight.
    """
    overrides = [f"model.init_std={1 / hyperparameters['embedding_dim']}"]
    for name, value in hyperparameters.items():
        if name == "loss":
            overrides += LOSSES[value]
        else:
            overrides.append(f"{KEYS.get(name, f'model.encoder.{name}')}={written(value)}")
    return overrides


def published_rows(model: str | None) -> dict[str, dict[str, Any]]:
    """Return published results of a search for a model, by hash."""
    every: Any = OmegaConf.to_container(OmegaConf.load(config_dir() / "published_search.yaml"))
    rows: dict[str, dict[str, Any]] = every.get(model, {})
    return rows
