"""Refitting: train the model of a finished run on all of its data, to put it to work."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from matinee.data.interactions import Interactions
from matinee.experiment import running
from matinee.experiment.building import check_data_dir, move_dataset
from matinee.experiment.parents import record_of
from matinee.experiment.run_folder import load_config

EARLY_STOPPING = "lightning.pytorch.callbacks.EarlyStopping"


def refit(
    run: str | os.PathLike[str],
    run_folder: str | None = None,
    log_dir: str = "lightning_logs",
    dataset: Interactions | Mapping[str, str | None] | None = None,
) -> Path:
    """Train the model of a finished run on train, validation and test together, and record it.

    The hyperparameters are those of the run. It trains as many epochs as validation chose, so the number of
    steps grows with the data. Nothing is left to measure it on: the metrics to report are those of the
    run, its parent.

    Args:
        run: The run folder of the parent.
        run_folder: The folder of the new run; None names it by the time.
        log_dir: Parent of a folder that is named by the time.
        dataset: The data, or where its files are now, see :func:`matinee.load_run`.

    Returns:
        The new run folder.

    Raises:
        Stopped: If a signal ended the training; it can be resumed.
        MatineeError: If the run has not finished, was refitted itself, or its data have changed.
    """
    folder = Path(run)
    config, parent = load_config(folder), record_of(folder, "refit")
    handed_over = dataset if isinstance(dataset, Interactions) else None
    if handed_over is None:
        places: Any = {} if dataset is None else dataset
        move_dataset(config, places)
        check_data_dir(config.dataset, places.get("data_dir"))
    best_epoch = parent["best_epoch"]
    epochs = int(config.trainer.max_epochs) if best_epoch is None else best_epoch + 1
    new = _config(config, epochs, run_folder, log_dir)
    return running.train(new, [f"refit={folder.absolute()}"], handed_over, parent)


def _config(config: DictConfig, epochs: int, run_folder: str | None, log_dir: str) -> DictConfig:
    tree: Any = OmegaConf.to_container(config)
    tree["split"] = {
        "_target_": "matinee.data.splits.everything",
        "_partial_": True,
        "split": tree["split"],
    }
    tree["trainer"]["max_epochs"] = epochs
    for name, callback in tree["callbacks"].items():
        if callback and callback["_target_"] == EARLY_STOPPING:
            tree["callbacks"][name] = None
    tree["callbacks"]["checkpoints"]["monitor"] = None  # the last epoch
    place = {"name": f"{tree['name']}/refit", "run_folder": run_folder, "log_dir": log_dir}
    return OmegaConf.create({**tree, **place})
