"""What TensorBoard shows of a run besides its curves.

Text: the composed config, final metrics, and sample recommendations by title. Figures: errors or ranks by
rating, history and popularity. Projector: the embeddings of the best epoch with labels and a map. HParams:
what the config chooses, beside the metrics of validation and test.
"""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from textwrap import indent
from typing import Any

import lightning.pytorch as pl
import pandas as pd

from matinee.display.markdown import as_markdown, decimal
from matinee.display.metrics import metric_title, shown_metrics
from matinee.training.callbacks.measured_run import MeasuredRun, RunCallback
from matinee.training.callbacks.projector import write_projector
from matinee.training.loggers import TensorBoard

# keys of a config that say what was trained; the others say where, how fast and what else to measure
CHOSEN = re.compile(
    r"(split|model|loss|sampler|task|optimizer|scheduler)\b(?!.*(seed|fused|T_max|sparse|chunk_size))|seed"
    r"|data\.(?!eval_|segments|seed|measure_train|item_column)|trainer\.(max_epochs|precision)"
)
MEASURING = re.compile(r"task\.(top_k|list_metrics|item_column)|task$")
FIRST = ("model", "experiment", "lr", "embedding_dim", "seed")  # columns of the HParams tab
FINAL = (
    "with_best_epoch"  # begins the tags of what is shown once, below the curves of train and val
)
HEADLINES = ("rmse", "mrr")  # of the tasks, which may share a table


class Inspection(RunCallback):
    """Shows a measured run in TensorBoard; without that logger it does nothing.

    Args:
        samples: Number of users or histories to show recommendations for, at least 0.
        histograms: Whether to write histograms of weights and gradients each epoch, which takes time.
    """

    def __init__(self, samples: int = 5, histograms: bool = False) -> None:
        if samples < 0:
            raise ValueError(f"samples is {samples}; give a whole number of at least 0.")
        self.samples = samples
        self.histograms = histograms

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any
    ) -> None:
        """Write histograms of weights and gradients at the last step of an epoch."""
        if not self.histograms or not trainer.is_last_batch:
            return
        for logger in _boards(trainer):
            write, epoch = logger.experiment.add_histogram, trainer.current_epoch
            for name, parameter in pl_module.named_parameters():
                write(f"weights/{name}", parameter, epoch)
                gradient = parameter.grad
                if gradient is not None:
                    dense = gradient.coalesce().values() if gradient.is_sparse else gradient
                    write(f"gradients/{name}", dense, epoch)

    def on_measured(self, trainer: pl.Trainer, run: MeasuredRun) -> None:
        """Write everything that is shown once."""
        for logger in _boards(trainer):
            writer, epoch = logger.experiment, run.result["fit"]["best_epoch"]
            # indented, because no line of the config can end such a block
            writer.add_text("config", indent(run.config_text, "    "))
            if self.samples:
                texts = run.task.samples(run.datamodule, self.samples)
                writer.add_text("recommendations", "\n\n".join(texts), epoch)
            for name, figure in run.task.figures(run.predictions, run.datamodule).items():
                writer.add_figure(f"{FINAL}/{name}", figure, epoch, close=False)
            write_projector(Path(logger.log_dir), epoch, run.task.network, run.datamodule)
            metrics = run.result["metrics"]
            shown = shown_metrics(run.task.headline)
            names = [f"{stage}/{name}" for name in shown for stage in ("val", "test")]
            names = [name for name in names if name in metrics]
            logger.log_metrics({f"{FINAL}/{name}": metrics[name] for name in names}, epoch)
            others = [f"{stage}/{name}" for name in HEADLINES for stage in ("val", "test")]
            columns = [f"{FINAL}/{name}" for name in dict.fromkeys([*names, *others])]
            logger.log_trial(hyperparameters(run.config), FIRST, columns, epoch)
            finals = {
                "": [metric_title(n) for n in names],
                "best epoch": [decimal(metrics[n]) for n in names],
            }
            writer.add_text("metrics", as_markdown(pd.DataFrame(finals)), epoch)
            logger.save()


def _boards(trainer: pl.Trainer) -> list[TensorBoard]:
    return [logger for logger in trainer.loggers if isinstance(logger, TensorBoard)]


def hyperparameters(config: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten what a config chooses: short names to plain values, targets by their last words.

    A name is the last word of its key, or the whole key where two have that word. ``model`` is the last
    part of the config's name, ``experiment`` is what stands between the data set and it, because TensorBoard
    cuts long texts, and ``network`` is the class. What is null or empty is left out.

    Args:
        config: A config as plain values.
    """
    flat: dict[str, Any] = {}

    def visit(node: Any, name: str) -> None:
        if not isinstance(node, Mapping):
            flat[name] = node if isinstance(node, bool | int | float) else str(node)
            return
        for key, value in node.items():
            if key == "_target_":
                words = str(value).removesuffix(".load").removesuffix(".from_data")
                flat[name] = words.rpartition(".")[2]
            elif not str(key).startswith("_"):
                visit(value, f"{name}.{key}" if name else str(key))

    visit(config, "")
    chosen = {
        "network" if key == "model" else key: value
        for key, value in flat.items()
        if CHOSEN.match(key) and not MEASURING.match(key) and value not in ("None", "[]", "{}", "")
    }
    words = Counter(key.rpartition(".")[2] for key in chosen)
    short = {k: k.rpartition(".")[2] if words[k.rpartition(".")[2]] == 1 else k for k in chosen}
    dataset = flat.get("dataset.name") or flat["dataset"]
    group, _, model = str(config["name"]).removeprefix(f"{dataset}/").rpartition("/")
    named = {"model": model, "experiment": group or model, "dataset": dataset}
    return named | {short[key]: chosen[key] for key in chosen}
