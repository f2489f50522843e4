"""Inspecting: what TensorBoard shows of a run beyond its curves, written when it is measured.

Text: the composed config, and sample recommendations by title. Figures: errors or ranks, by rating,
history and popularity. The projector: embeddings at the best epoch, labelled. HParams: what was chosen,
beside the figures of validation and test.
"""

import re
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from matinee.batches.loading import to_device
from matinee.data.catalogues import with_year
from matinee.display.markdown import as_markdown
from matinee.metrics import FloatArray
from matinee.training.loggers import TensorBoard
from matinee.training.tasks import RatingTask

HEADLINES = ("rmse", "mae", "mrr", "recall@10", "ndcg@10")
# keys of a config that say what was trained; the others say where and how
CHOSEN = re.compile(
    r"(split|model|loss|sampler|task|optimizer|scheduler)\b(?!.*(seed|fused|T_max))|dataset$"
    r"|data\.(?!eval_batch_size|segments|seed)|seed|trainer\.(max_epochs|precision)"
)
SHOWN = 10  # recommendations to one user or after one history
PROJECTED = 10_000  # rows; the projector grows slow beyond


class Inspection(Callback):
    """Shows a measured run in TensorBoard; without that logger it does nothing.

    Args:
        samples: Recommendations to show, at least 0.
        histograms: Whether to write histograms of weights and gradients each epoch, which takes time.
    """

    def __init__(self, samples: int = 5, histograms: bool = False) -> None:
        if samples < 0:
            raise ValueError(f"callbacks.inspection.samples is {samples}; give at least 0.")
        self.samples = samples
        self.histograms = histograms

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any
    ) -> None:
        """Write histograms of weights and gradients at the last step of an epoch."""
        if not self.histograms or not trainer.is_last_batch:
            return
        for logger in _boards(trainer):
            for name, parameter in pl_module.named_parameters():
                logger.experiment.add_histogram(f"weights/{name}", parameter, trainer.current_epoch)
                if parameter.grad is not None:
                    gradient = (
                        parameter.grad.coalesce().values()
                        if parameter.grad.is_sparse
                        else parameter.grad
                    )
                    logger.experiment.add_histogram(
                        f"gradients/{name}", gradient, trainer.current_epoch
                    )

    def on_measured(self, trainer: pl.Trainer, experiment: Any, result: Mapping[str, Any]) -> None:
        """Write everything that is shown once.

        Args:
            trainer: The Trainer that fitted.
            experiment: Its data and its task, with the weights of the best epoch.
            result: What ``result.json`` holds.
        """
        for logger in _boards(trainer):
            writer, epoch = logger.experiment, result["fit"]["best_epoch"]
            writer.add_text("config", f"```yaml\n{OmegaConf.to_yaml(experiment.config)}\n```")
            if self.samples:
                writer.add_text("recommendations", samples(experiment, self.samples), epoch)
            for name, figure in figures(experiment).items():
                writer.add_figure(f"test/{name}", figure, epoch, close=False)
            for name, (vectors, labels) in embeddings(experiment).items():
                written = Path(logger.log_dir) / f"{epoch:05d}" / name
                shutil.rmtree(written, ignore_errors=True)  # by a resumed run, once more
                writer.add_embedding(
                    vectors.astype(np.float64).round(4),  # they are written as decimals
                    metadata=labels.to_numpy().tolist(),
                    metadata_header=list(labels),
                    global_step=epoch,
                    tag=name,
                )
            finals = {
                f"final/{stage}/{metric}": result["metrics"][f"{stage}/{metric}"]
                for metric in HEADLINES
                for stage in ("val", "test")
                if f"{stage}/{metric}" in result["metrics"]
            }
            logger.log_hyperparams(hyperparameters(experiment.config), finals, epoch)
            logger.save()


def _boards(trainer: pl.Trainer) -> list[TensorBoard]:
    return [logger for logger in trainer.loggers if isinstance(logger, TensorBoard)]


def hyperparameters(config: DictConfig) -> dict[str, Any]:
    """Flatten what a config chooses: short names to plain values, targets by their last words.

    A name is the last word of its key, or the whole key where two have that word.
    """
    flat: dict[str, Any] = {}

    def visit(node: Any, name: str) -> None:
        if not isinstance(node, dict):
            flat[name] = node if isinstance(node, bool | int | float) else str(node)
            return
        for key, value in node.items():
            if key == "_target_":
                words = str(value).removesuffix(".load").removesuffix(".from_data")
                flat[name] = words.rpartition(".")[2]
            elif not str(key).startswith("_"):
                visit(value, f"{name}.{key}" if name else str(key))

    visit(OmegaConf.to_container(config, resolve=True), "")
    chosen = {key: value for key, value in flat.items() if CHOSEN.match(key)}
    words = Counter(key.rpartition(".")[2] for key in chosen)
    short = {k: k.rpartition(".")[2] if words[k.rpartition(".")[2]] == 1 else k for k in chosen}
    return {"experiment": config.name, **{short[key]: value for key, value in chosen.items()}}


@torch.no_grad()
def figures(experiment: Any) -> dict[str, Figure]:
    """Draw how a run does on test, by what it predicts, by history and by popularity."""
    from matinee.display import plotting  # needs matplotlib, which other runs need not wait for

    task, datamodule = experiment.task, experiment.datamodule
    table, evaluated = datamodule.interactions, datamodule.evaluated("test")
    counts = np.bincount(table.item_ids[datamodule.split.train], minlength=table.num_items + 1)
    answers = [
        task.predict_step(to_device(batch, task.device))
        for batch in datamodule.evaluation_dataloader("test")
    ]
    if isinstance(task, RatingTask):
        ratings = datamodule.columns("test").ratings.numpy()
        predictions = torch.cat(answers).cpu().numpy()
        values, label = np.abs(predictions - ratings), "absolute error (stars)"
        shown = {"error_by_rating": plotting.rating_errors(ratings, predictions)}
        history = "ratings of the user in train"
    else:
        ranks = torch.cat([answer["ranks"] for answer in answers]).cpu().numpy()
        values, label = 1 / ranks, "mean reciprocal rank"
        shown = {"ranks": plotting.rank_histogram(ranks, table.num_items)}
        history = "items of the user before the target"
    by_history = plotting.metric_by(evaluated.history_lengths, values, history, label)
    popularity = counts[evaluated.item_ids]
    by_popularity = plotting.metric_by(popularity, values, "times the item is in train", label)
    return {**shown, "by_history": by_history, "by_popularity": by_popularity}


def embeddings(experiment: Any) -> dict[str, tuple[FloatArray, pd.DataFrame]]:
    """Take the learned vectors of items and users with their labels.

    Returns:
        For every embedding of more than one dimension whose name begins with ``item_`` or ``user_``
        (where a factorization stores a bias, it is the last dimension): the vectors (n, dim) of the
        at most 10,000 ids that train holds most, and a row of labels for each: the columns of the
        item or user table, and how often train holds the id.
    """
    datamodule = experiment.datamodule
    table, train = datamodule.interactions, datamodule.split.train
    sides = {"item": (table.items, table.item_ids), "user": (table.users, table.user_ids)}
    found = {}
    for path, module in experiment.task.network.named_modules():
        name = path.rpartition(".")[2]
        side = name.partition("_")[0]
        if not isinstance(module, nn.Embedding) or module.embedding_dim == 1 or side not in sides:
            continue
        described, ids = sides[side]
        counts = np.bincount(ids[train], minlength=len(described) + 1)
        chosen = 1 + np.argsort(-counts[1:], kind="stable")[:PROJECTED]
        labels = described.loc[chosen].rename(columns={"raw_id": "id"})
        labels = labels[sorted(labels, key=lambda column: column != "title")]
        labels = labels.astype("string").fillna("").replace(r"\s+", " ", regex=True)
        labels["in train"] = counts[chosen].astype(str)
        found[name] = module.weight.detach().float().cpu().numpy()[chosen], labels
    return found


@torch.no_grad()
def samples(experiment: Any, count: int) -> str:
    """Recommend by title to some users or after some histories of test, the truth marked."""
    show = _rated_samples if isinstance(experiment.task, RatingTask) else _ranked_samples
    return "\n\n".join(show(experiment, count))


def _ranked_samples(experiment: Any, count: int) -> list[str]:
    task, datamodule = experiment.task, experiment.datamodule
    items, texts = datamodule.interactions.items, []
    loader = datamodule.evaluation_dataloader("test")
    num_windows = len(datamodule.evaluation("test")[1].starts)
    for place in np.linspace(0, num_windows - 1, count).astype(int).tolist():
        batch = to_device(loader.collate(slice(place, place + 1)), task.device)
        answer = task.rank(batch, best=min(SHOWN, len(items)))
        length, target = int(batch.lengths), int(batch.target_ids.sum())
        history = batch.histories[0, 1:length].tolist()
        seen = ", ".join(_title(items, item) for item in history) or "nothing"
        texts += [
            f"**After** {seen}",
            _top(answer["best_items"][0], items, {target: "the next item"}),
            f"The next item was {_title(items, target)}, at rank {answer['ranks'].item():g}.",
        ]
    return texts


def _rated_samples(experiment: Any, count: int) -> list[str]:
    task, table, split = (
        experiment.task,
        experiment.datamodule.interactions,
        experiment.datamodule.split,
    )
    users, tested = table.user_ids[split.train], table.user_ids[split.test]
    known, texts = np.intersect1d(users, tested), []
    every_item = torch.arange(table.num_items + 1, device=task.device)
    for place in np.linspace(0, len(known) - 1, min(count, len(known))).astype(int).tolist():
        user = int(known[place])
        rated, later = split.train[users == user], split.test[tested == user]
        best = rated[np.argsort(-table.ratings[rated], kind="stable")[:5]]
        scores = task(torch.full_like(every_item, user), every_item)
        scores[torch.from_numpy(table.item_ids[rated]).long()] = float("-inf")
        scores[0] = float("-inf")
        values, best_items = scores.topk(min(SHOWN, len(table.items)))
        best_items[values == float("-inf")] = 0  # fewer candidates
        truth = {
            item: f"later rated {rating:g}"
            for item, rating in zip(
                table.item_ids[later].tolist(), table.ratings[later], strict=True
            )
        }
        liked = ", ".join(_title(table.items, item) for item in table.item_ids[best])
        texts += [
            f"**User** {table.users.loc[user, 'raw_id']}, who liked {liked}",
            _top(best_items, table.items, truth),
        ]
    return texts


def _top(best_items: Tensor, items: pd.DataFrame, truth: Mapping[int, str]) -> str:
    rows = [
        {"rank": place, "recommended": _title(items, item), "truth": truth.get(item, "")}
        for place, item in enumerate(best_items.tolist(), start=1)
        if item  # 0 stands for no item
    ]
    return as_markdown(pd.DataFrame(rows))


def _title(items: pd.DataFrame, item: int) -> str:
    row: Any = items.loc[item]
    return " ".join(with_year(row).split())
