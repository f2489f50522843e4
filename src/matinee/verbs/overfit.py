"""Overfitting: whether a model can learn one small batch by heart, as every sound one can.

The batch is the same for training and validation, see :mod:`matinee.verbs.one_batch`. Rating models are
judged by the squared error of their ratings, which means the same under any loss: classification of stars
is right long before its loss is near 0. Ranking models are judged by their loss, and by the ranks:
a sampled loss may be small when a model merely likes the batch's items, whatever the history.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig
from torch import Tensor
from torch.nn import functional as F

from matinee.batches import RankingBatch, RatingBatch
from matinee.config.checking import check_config
from matinee.config.parts import make_part
from matinee.errors import MatineeError
from matinee.experiment.building import build
from matinee.experiment.run_folder import CONFIG, claim_folder, write_json, write_yaml
from matinee.experiment.trainer import make_trainer, probe, refuse_several
from matinee.files import write_whole
from matinee.verbs.one_batch import OneBatch, fixed_batch

RECORD = "overfit.json"
HINDRANCES = {
    "dropout", "user_dropout", "weight_decay", "l2", "unknown_users", "unknown_items",
}  # fmt: skip
RATING_TOLERANCE = 1 / 40  # of the scale: a tenth of a star of five
RANKING_TOLERANCE = 0.05  # nats, margins or shares: a target gets 95 % of the softmax's probability
LAST = 10  # steps whose mean loss counts: sampled losses differ from step to step
OWN_KEYS = ("examples", "steps")  # of configs/overfit.yaml


@dataclass(frozen=True)
class Overfit:
    """What came of learning one batch by heart.

    Attributes:
        judged_by: What is meant by the losses here: ``squared error``, or the name of a ranking loss.
        losses: The loss of every step, shape (steps,).
        threshold: What the mean loss of the last steps must reach.
        unmoved: Names of the weights that are bit by bit where they started.
        metrics: Figures of validation, which is the same batch.
        seconds: Duration of the fit.
    """

    judged_by: str
    losses: list[float]
    threshold: float
    unmoved: list[str]
    metrics: dict[str, float]
    seconds: float

    @property
    def final(self) -> float:
        """Mean loss of the last steps."""
        return float(np.mean(self.losses[-LAST:]))

    @property
    def faults(self) -> list[str]:
        """What keeps the batch from being learnt by all the weights; nothing, if it was."""
        found = []
        if not self.final <= self.threshold:
            found.append("not at the threshold")
        if self.metrics.get("val/mrr", 1.0) < 1:
            found.append("targets not ranked first")
        if self.unmoved:
            found.append(f"{', '.join(self.unmoved)} did not move")
        return found

    @property
    def passed(self) -> bool:
        """Whether there are no faults."""
        return not self.faults


def overfit(config: DictConfig, loss: str | None = None) -> Overfit:
    """Train the model of a config on one batch until it is learnt or the steps are over.

    Args:
        config: A composed ``overfit`` config; what hinders learning by heart is switched off in it.
        loss: The choice of the group ``loss`` that is in it, for the outcome; None names its class.

    Raises:
        MatineeError: If the model is solved in closed form, the data offer no such batch, no
            gradient reaches a weight, or a part of the config cannot be built.
    """
    check_config(config, "overfit")
    for key in OWN_KEYS:
        if config[key] < 1:
            raise MatineeError(f"{key} is {config[key]!r}; give a whole number of at least 1.")
    for group in ("model", "task", "optimizer"):
        _switch_off(config[group])
    config.scheduler = {}
    config.trainer.max_epochs = 1
    refuse_several(config, "overfit")
    experiment = build(config)
    task: Any = experiment.task
    if task.closed_form:
        raise MatineeError(
            f"{type(task.network).__name__} is solved in closed form and learns no batch by heart; "
            "choose a model that is trained."
        )
    batch = fixed_batch(experiment.datamodule, config.examples)
    before = {name: weight.detach().clone() for name, weight in task.named_parameters()}
    until_learnt = _UntilLearnt(task)
    callbacks = make_part(config, "callbacks")
    watching = [callbacks[name] for name in ("metrics", "seed_each_step") if callbacks.get(name)]
    trainer = make_trainer(config, None, callbacks=[*watching, until_learnt])
    started = time.perf_counter()
    probe(trainer.fit, task, datamodule=OneBatch(batch, config.steps))
    metrics = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
    weights = {name: weight.detach().cpu() for name, weight in task.named_parameters()}
    judged_by = "squared error"
    if isinstance(batch, RankingBatch):
        judged_by = loss or type(task.loss).__name__
    return Overfit(
        judged_by=judged_by,
        losses=until_learnt.losses,
        threshold=until_learnt.threshold,
        unmoved=[name for name, weight in weights.items() if weight.equal(before[name])],
        metrics=metrics,
        seconds=time.perf_counter() - started,
    )


def record(config: DictConfig, result: Overfit) -> Path:
    """Write the config, the losses and the outcome into a new folder below ``log_dir/overfit``.

    Raises:
        MatineeError: If the folder is taken or cannot be written.
    """
    folder = claim_folder(config.run_folder, Path(config.log_dir) / "overfit" / config.name)
    steps = [f"{step},{loss:.9g}\n" for step, loss in enumerate(result.losses, start=1)]
    table = "".join(["step,loss\n", *steps]).encode()
    write_yaml(folder / CONFIG, config)
    write_whole(folder / "loss.csv", lambda file: file.write(table))
    write_json(
        folder / RECORD,
        {
            "name": config.name,
            "judged_by": result.judged_by,
            "examples": config.examples,
            "steps": len(result.losses),
            "start_loss": result.losses[0],
            "final_loss": result.final,
            "threshold": result.threshold,
            "metrics": result.metrics,
            "passed": result.passed,
            "faults": result.faults,
            "seconds": round(result.seconds, 3),
        },
    )
    return folder


def row(config: DictConfig, result: Overfit) -> dict[str, str]:
    """Return the outcome as a row of a table."""
    metric = next(name for name in ("val/rmse", "val/mrr") if name in result.metrics)
    outcome = "pass" if result.passed else f"FAIL: {'; '.join(result.faults)}"
    return {
        "model": Path(config.name).name,
        "judged by": result.judged_by,
        "start": f"{result.losses[0]:.4f}",
        "final": f"{result.final:.4f}",
        "threshold": f"{result.threshold:.4f}",
        "validation": f"{metric.removeprefix('val/').upper()} {result.metrics[metric]:.4f}",
        "steps": str(len(result.losses)),
        "seconds": f"{result.seconds:.1f}",
        "outcome": outcome,
    }


class _UntilLearnt(Callback):
    """Keeps the loss of every step and ends the fit when the threshold is reached."""

    def __init__(self, task: Any) -> None:
        self.task = task
        self.losses: list[float] = []
        self.threshold = 0.0

    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor
    ) -> None:
        if not loss.requires_grad:
            raise MatineeError(
                f"no gradient reaches a weight of {type(self.task.network).__name__}; its scores are "
                "cut off from its parameters."
            )

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self.losses.append(_wrong(self.task, outputs, batch))
        if len(self.losses) == 1:
            self.threshold = min(_tolerance(self.task, batch), self.losses[0] / 10)
        learnt = len(self.losses) >= LAST and np.mean(self.losses[-LAST:]) <= self.threshold
        if learnt and _targets_first(self.task, batch):
            trainer.should_stop = True


def _wrong(task: Any, outputs: Mapping[str, Tensor], batch: RatingBatch | RankingBatch) -> float:
    """Measure a step: mean squared error of the ratings in rating units, or the ranking loss."""
    if isinstance(batch, RankingBatch):
        return outputs["data_loss"].item()
    return F.mse_loss(task.loss.rating(outputs["scores"]), batch.ratings).item()


@torch.no_grad()
def _targets_first(task: Any, batch: RatingBatch | RankingBatch) -> bool:
    """Whether every target ranks first, outside training; of ratings nothing is asked here."""
    if isinstance(batch, RatingBatch):
        return True
    task.eval()
    ranks = task.predict_step(batch)["ranks"]
    task.train()
    return bool((ranks == 1).all())


def _tolerance(task: Any, batch: RatingBatch | RankingBatch) -> float:
    """Return how wrong is still learnt: 1/40 of the scale, squared; or 0.05 of a ranking loss."""
    if isinstance(batch, RankingBatch):
        return RANKING_TOLERANCE
    lowest, highest = task.rating_scale
    return float((RATING_TOLERANCE * (highest - lowest)) ** 2)


def _switch_off(node: DictConfig) -> None:
    for key in map(str, node):
        if isinstance(node[key], DictConfig):
            _switch_off(node[key])
        elif key in HINDRANCES:
            node[key] = 0.0
