"""Warm start: begin a training with the weights of another run, whose users and items may be others."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from matinee.batches.windows import item_seconds
from matinee.config.parts import make_part
from matinee.errors import MatineeError
from matinee.experiment.building import Experiment, load_run
from matinee.experiment.reading import read_checkpoint
from matinee.files import checkpoint_path

SIDES = ("users", "items")
Places = npt.NDArray[np.int64]  # rows of the parent, (num + 1,)
Axes = dict[int, str]  # which dimensions grow with users or items


class OptimizerState(Callback):
    """Gives the optimizer of a fit a state to begin with, except its learning rate and other options.

    Args:
        state: The state of each parameter, by its number.
    """

    def __init__(self, state: Mapping[int, Mapping[str, Any]]) -> None:
        self.state = state

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Load the state."""
        (optimizer,) = trainer.optimizers
        options = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": self.state, "param_groups": options})


def start_from(experiment: Experiment, folder: Path) -> list[OptimizerState]:
    """Give an experiment the weights of a finished run.

    A dimension that grows with the number of users, or of items, is mapped by raw id. A user or an item that
    the run has not trained begins as its unknown one, row 0. What the run has trained is warm, also where
    train of the experiment does not hold it.

    Args:
        experiment: A built experiment, whose data may be others with the same kind of ids.
        folder: The run folder; its data must be where its config says.

    Returns:
        A callback for the fit, if the config asks for the state of the run's optimizer.

    Raises:
        MatineeError: If the run cannot be loaded; if its model, or the optimizer whose state is asked for,
            is another one; if no id is the same; or if validation or test of the experiment hold rows that
            the run has learned from.
    """
    parent = load_run(folder)
    if experiment.task.closed_form:
        raise MatineeError(
            f"from={folder}: this model is solved anew from all of train; leave from out."
        )
    if type(parent.task) is not type(experiment.task):
        raise MatineeError(f"from={folder} is a run of another task; name one of the same task.")
    _check_unseen(experiment, parent, folder)
    places = {side: _places(experiment, parent, side) for side in SIDES}
    if not places["users"].any() and not places["items"].any():
        raise MatineeError(
            f"from={folder}: none of its users and items are in these data; write the ids alike."
        )
    axes = _axes(experiment)
    _copy(experiment, parent, places, axes, folder)
    for side, warm in (("users", "warm_users"), ("items", "warm_items")):
        getattr(experiment.task, warm).logical_or_(torch.from_numpy(places[side] > 0))
    known = (f"{(places[side] > 0).sum():,} of {len(places[side]) - 1:,} {side}" for side in SIDES)
    print(f"from={folder}: it has trained {' and '.join(known)}.", file=sys.stderr)
    if not experiment.config.optimizer_state:
        return []
    return [OptimizerState(_optimizer_state(experiment, parent, places, axes, folder))]


def freeze(experiment: Experiment, names: Sequence[str]) -> None:
    """Keep some parameters of a network as they are.

    Args:
        experiment: A built experiment.
        names: Names of parameters or of modules of the network, such as ``item_embeddings``.

    Raises:
        MatineeError: If the network has no such part, or nothing is left to train.
    """
    network: Any = experiment.task.network
    parameters = dict(network.named_parameters())
    for name in names:
        frozen = [key for key in parameters if key == name or key.startswith(f"{name}.")]
        if not frozen:
            known = ", ".join(dict.fromkeys(key.partition(".")[0] for key in parameters))
            raise MatineeError(
                f"freeze names {name!r}, which the model does not have; it has {known}."
            )
        for key in frozen:
            parameters[key].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in experiment.task.parameters()):
        raise MatineeError("freeze leaves nothing to train; name fewer parts.")


def _places(experiment: Experiment, parent: Experiment, side: str) -> Places:
    """Return the row of the parent for each user or item, (num + 1,); 0 where it has trained none."""
    here: pd.DataFrame = getattr(experiment.datamodule.interactions, side)
    there = parent.datamodule.interactions
    encode = there.encode_users if side == "users" else there.encode_items
    warm = getattr(parent.task, f"warm_{side}").numpy()
    rows = encode(here["raw_id"]).astype(np.int64)
    places: Places = np.concatenate(([0], rows * warm[rows]))
    return places


def _copy(
    experiment: Experiment,
    parent: Experiment,
    places: Mapping[str, Places],
    axes: Mapping[str, Axes],
    folder: Path,
) -> None:
    """Copy the weights of the network, and the parameters of the loss where they have the same shape."""
    old: Mapping[str, Tensor] = parent.task.state_dict()
    new: Mapping[str, Tensor] = experiment.task.state_dict()
    weights: dict[str, Tensor] = {}
    for name, tensor in new.items():
        if not name.startswith("network."):
            continue
        found = None if name not in old else _mapped(old[name], axes[name], places)
        if found is None or found.shape != tensor.shape:
            there = "lacks it" if found is None else f"has {tuple(old[name].shape)}"
            raise MatineeError(
                f"from={folder} does not fit this model: {name.removeprefix('network.')} is "
                f"{tuple(tensor.shape)} here, and that run {there}; give the model the options of that run."
            )
        weights[name] = found
    for name, _ in experiment.task.named_parameters():
        found = old.get(name)
        if name.startswith("loss.") and found is not None and found.shape == new[name].shape:
            weights[name] = found
    experiment.task.load_state_dict({**new, **weights})


def _mapped(tensor: Tensor, axes: Axes, places: Mapping[str, Places]) -> Tensor:
    """Take the places of users and items of a tensor, in the dimensions that it has."""
    for dimension, side in axes.items():
        if dimension < tensor.dim():
            tensor = tensor.index_select(dimension, torch.from_numpy(places[side]))
    return tensor


def _optimizer_state(
    experiment: Experiment,
    parent: Experiment,
    places: Mapping[str, Places],
    axes: Mapping[str, Axes],
    folder: Path,
) -> dict[int, dict[str, Any]]:
    """Return the state of the parent's optimizer, mapped as the parameters are."""
    here, there = experiment.config.optimizer["_target_"], parent.config.optimizer["_target_"]
    if here != there:
        raise MatineeError(
            f"optimizer_state=true: from={folder} was trained by {there}, not {here}; choose its optimizer."
        )
    (saved,) = read_checkpoint(checkpoint_path(folder, "last"))["optimizer_states"]
    old = dict(parent.task.named_parameters())
    state: dict[int, dict[str, Any]] = {}
    for number, name in enumerate(dict(experiment.task.named_parameters())):
        if number in saved["state"] and name.startswith("network."):
            state[number] = {
                key: _mapped(value, axes[name], places)
                if isinstance(value, Tensor) and value.shape == old[name].shape
                else value
                for key, value in saved["state"][number].items()
            }
    return state


def _axes(experiment: Experiment) -> dict[str, Axes]:
    """Find which dimensions of the weights grow with users or items, by networks of three sizes."""
    model: Any = make_part(experiment.config, "model")
    known = inspect.signature(getattr(model, "func", model)).parameters
    options = {"initial_score": 0.0} if "initial_score" in known else {}

    def shapes(num_users: int, num_items: int) -> dict[str, torch.Size]:
        network = model(num_users=num_users, num_items=num_items, **options)
        return {f"network.{name}": tensor.shape for name, tensor in network.state_dict().items()}

    small, users, items = shapes(3, 3), shapes(4, 3), shapes(3, 4)
    return {
        name: {
            dimension: "users" if users[name][dimension] != size else "items"
            for dimension, size in enumerate(shape)
            if users[name][dimension] != size or items[name][dimension] != size
        }
        for name, shape in small.items()
    }


def _check_unseen(experiment: Experiment, parent: Experiment, folder: Path) -> None:
    """Reject rows of validation or test that the parent has learned from, or was chosen by."""
    split, other = experiment.datamodule.split, parent.datamodule.split
    learned = _rows(parent, np.concatenate((other.train, other.validation)), experiment)
    for part, rows in (("validation", split.validation), ("test", split.test)):
        held_out = _rows(experiment, rows, experiment)
        count = len(held_out.merge(learned, how="inner"))
        if count:
            raise MatineeError(
                f"from={folder} has learned from {count:,} of the {len(rows):,} rows of {part}, which would "
                "make their metrics too good; choose a split whose validation and test are later than that "
                "run's data, such as split=global_timeline or split=given."
            )


def _rows(
    experiment: Experiment, rows: npt.NDArray[np.int64], named_by: Experiment
) -> pd.DataFrame:
    """Name rows by user, item and time, by the ids of an experiment; without times, by their turn."""
    here, names = experiment.datamodule.interactions, named_by.datamodule.interactions
    users = np.concatenate(([0], names.encode_users(here.users["raw_id"])))[here.user_ids]
    items = np.concatenate(([0], names.encode_items(here.items["raw_id"])))[here.item_ids]
    table = pd.DataFrame({"user": users, "item": items})
    timed = here.timestamps is not None and names.timestamps is not None
    table["when"] = (
        item_seconds(here, np.arange(len(here))).numpy()
        if timed
        else table.groupby(["user", "item"]).cumcount().to_numpy()
    )
    known = (users[rows] > 0) & (items[rows] > 0)
    return table.iloc[rows[known]].drop_duplicates()
