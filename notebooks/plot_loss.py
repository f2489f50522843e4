# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # How to read the curves of a run
#
# **Purpose.** Every run writes one row per epoch into its `metrics.csv`. This notebook draws such
# curves for several models and seeds, shows a model overfit and how a penalty prevents it, and
# shows what a learning rate looks like that is too low or too high. Set `folders` to runs of your
# own to see theirs.
#
# For the curves of a run in progress: `tensorboard --logdir lightning_logs`.

# %%
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import torch
from matplotlib.ticker import MaxNLocator

import matinee
from matinee.display.plotting import COLOURS, save_figure

torch.set_num_threads(1)  # small models are fastest with one thread
sys.stderr = sys.stdout  # progress is no error
scratch = tempfile.TemporaryDirectory()  # deleted when the kernel ends


def train(name: str, *overrides: str, seed: int = 0) -> pd.DataFrame:
    """Train as `matinee train OVERRIDES` does, but without a logger; return the metrics by epoch."""
    quiet = ["callbacks.progress_bar=null", "callbacks.inspection=null", "logger=none"]
    words = [*overrides, *quiet, "trainer.accelerator=cpu", f"log_dir={scratch.name}"]
    history = matinee.train(f"name={name}", f"seed={seed}", *words).history()
    return history.assign(name=name, seed=seed, epoch=history.epoch + 1)  # epochs count from 1


# %% [markdown]
# ## Several models and seeds
#
# Three rating models on MovieLens 100K, split at random, with two seeds each. The seed determines
# the split, the initial weights and the order of the batches. On the command line: `matinee train
# -m experiment=random/mf,random/mf_bias,random/ncf seed=0,1`.

# %%
curves = pd.concat(
    [
        train(model, f"experiment=random/{model}", "trainer.max_epochs=15", seed=seed)
        for model in ("mf", "mf_bias", "ncf")
        for seed in (0, 1)
    ],
    ignore_index=True,
)
curves[curves.epoch.isin([1, 2, 15])].groupby(["name", "epoch"])[
    ["train/loss", "train/rmse", "val/rmse"]
].mean().round(3)


# %%
def draw(axes: plt.Axes, curves: pd.DataFrame, metric: str, **style: object) -> None:
    """Draw a metric by epoch: a line for the mean of a name's seeds, a band for their range."""
    for colour, (name, runs) in zip(COLOURS, curves.groupby("name", sort=False), strict=False):
        seeds = runs.pivot(index="epoch", columns="seed", values=metric)
        axes.plot(seeds.mean(axis=1), color=colour, label=name, **style)
        axes.fill_between(
            seeds.index, seeds.min(axis=1), seeds.max(axis=1), color=colour, alpha=0.15
        )
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)


figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
draw(left, curves, "train/loss")
left.set_ylabel("training loss (squared stars)")
left.set_title("Minimized: the training loss")
draw(right, curves, "val/rmse")
right.set_ylabel("validation RMSE (stars)")
right.set_title("Wanted: a low validation error")
figure.legend(
    *right.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False
)
plt.show()

# %% [markdown]
# **Left:** the loss that the optimizer minimizes. It falls in every healthy run, so it shows that
# training works, and little more. **Right:** what counts, errors on ratings that no weight was
# fitted to. The flat end comes from the scheduler: the learning rate follows half a cosine down
# to zero. Do not stop at a flat beginning like that of `mf`: without biases the rows must first
# find a direction.
#
# **Bands** are the range over seeds. Here each seed draws its own split, which moves a whole
# curve up or down. Compare two models seed by seed, and do not trust a lead that is thinner than
# a band.
#
# Metrics of train are measured during the epoch, with weights that still change and a share of
# the ids replaced. Validation can therefore be better than training in the first epochs; this is
# not an error.
#
# ## Overfitting: the gap
#
# The same factorization with no penalty, the configured one and a stronger one on its rows
# (`task.l2`).

# %%
penalties = {"no penalty": 0, "configured": 0.1, "too strong": 0.5}
penalised = pd.concat(
    [train(name, "experiment=random/mf_bias", f"task.l2={l2}") for name, l2 in penalties.items()],
    ignore_index=True,
)

# %%
figure, panels = plt.subplots(
    1, 3, figsize=(9, 3.4), sharex=True, sharey=True, layout="constrained"
)
panels[0].xaxis.set_major_locator(MaxNLocator(integer=True))
for axes, (name, run) in zip(panels, penalised.groupby("name", sort=False), strict=True):
    epochs, train_rmse, val_rmse = run["epoch"], run["train/rmse"], run["val/rmse"]
    axes.plot(epochs, train_rmse, color=COLOURS[0], linestyle="--", label="train")
    axes.plot(epochs, val_rmse, color=COLOURS[1], label="validation")
    axes.fill_between(
        epochs, train_rmse, val_rmse, where=val_rmse > train_rmse, color="0.9", label="gap"
    )
    best = val_rmse.idxmin()
    axes.plot(epochs[best], val_rmse[best], "o", color=COLOURS[1], label="best epoch (kept)")
    axes.set_title(f"{name}: task.l2={penalties[name]:g}", fontsize=11)
    axes.set_xlabel("epoch")
    axes.spines[["top", "right"]].set_visible(False)
panels[0].set_ylabel("RMSE (stars)")
figure.legend(
    *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False
)
save_figure(figure, Path(scratch.name) / "curves.png")
plt.show()

# %%
last = penalised.groupby("name", sort=False).last()
best = penalised.groupby("name", sort=False)["val/rmse"].min()
gaps = pd.DataFrame(
    {
        "best validation RMSE": best,
        "last validation RMSE": last["val/rmse"],
        "gap at the end": last["val/rmse"] - last["train/rmse"],
    }
)
assert gaps["best validation RMSE"].idxmin() == "configured"
assert gaps["gap at the end"].is_monotonic_decreasing
gaps.round(3)

# %% [markdown]
# **Left:** training keeps falling while validation turns and rises: the model memorizes its
# ratings. Watch for the turn, not for the gap. matinee keeps the weights of the best epoch and
# stops ten epochs after it, so such a run is not lost, but it is worse than it could be.
#
# **Middle:** there is still a gap, and that is fine. The best model is rarely the one with the
# smallest gap.
#
# **Right:** no gap, and both curves level off early at a higher error. This is underfitting: more
# epochs would not help; a weaker penalty or a larger model would.
#
# ## The learning rate
#
# The same factorization again, with learning rates that are too low, right and too high, and
# without the scheduler, which would hide the difference.

# %%
rates = {"too low": 0.0002, "right": 0.005, "too high": 0.2}
without_scheduler = ["experiment=random/mf_bias", "scheduler=none", "trainer.max_epochs=12"]
paced = pd.concat(
    [train(name, *without_scheduler, f"optimizer.lr={rate}") for name, rate in rates.items()],
    ignore_index=True,
)

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.9), layout="constrained")
draw(left, paced, "train/loss")
left.set_yscale("log")
left.set_yticks([1, 10, 100], ["1", "10", "100"])
left.set_ylabel("training loss (squared stars)")
left.set_title("Training loss, logarithmic")
draw(right, paced, "val/rmse")
right.set_ylabel("validation RMSE (stars)")
right.set_title("Validation error")
labels = [f"{name}: optimizer.lr={rate:g}" for name, rate in rates.items()]
figure.legend(left.lines, labels, loc="outside lower center", ncols=3, frameon=False)
plt.show()

# %%
ends = paced.groupby("name", sort=False)["val/rmse"].agg(["first", "min", "last"])
assert ends["min"].idxmin() == "right"
assert ends["last"].idxmax() == "too high"
ends.round(3)

# %% [markdown]
# **Too low:** everything falls evenly and slowly. A straight line that still falls when the run
# ends calls for a higher learning rate before it calls for more epochs.
#
# **Right:** steep first, then level.
#
# **Too high:** the loss is far above its initial value, because every step overshoots; more
# epochs do not help. `matinee find-lr` finds a good learning rate before you spend a run on it.
