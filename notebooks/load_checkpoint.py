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
# # From a run folder to predictions
#
# **Purpose.** Get predictions from a run folder in three ways: in plain PyTorch, with the
# Trainer, and as one file for a service. The notebook shows that all three give the same numbers
# and the metrics that `matinee evaluate` prints. Then it looks at where the model is right and
# where it is wrong.
#
# To use a run of your own, set `run = matinee.Run(FOLDER)` and skip the training.

# %%
import json
import subprocess
import sys
import tempfile

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from torch import nn

import matinee
from matinee.data.catalogues import with_year
from matinee.display import plotting
from matinee.experiment.trainer import make_trainer, without_advice
from matinee.networks.pairs.factorization import BiasedMatrixFactorization

# %matplotlib inline
sys.stderr = sys.stdout  # progress is no error
torch.set_num_threads(1)  # small models are fastest with one thread

# %% [markdown]
# ## A run
#
# On the command line this is `matinee train experiment=random/mf_bias`: a biased matrix
# factorization of MovieLens 100K, with the ratings split at random.

# %%
scratch = tempfile.TemporaryDirectory()  # deleted when the kernel ends
quiet = ["callbacks.progress_bar=null", "callbacks.inspection=null", "logger=none"]
overrides = ["experiment=random/mf_bias", "name=mf_bias", f"log_dir={scratch.name}", *quiet]
run = matinee.train(*overrides, "trainer.accelerator=cpu")
sorted(str(path.relative_to(run.folder)) for path in run.folder.rglob("*") if path.is_file())

# %% [markdown]
# ## Contents of a checkpoint
#
# A checkpoint holds tensors and plain values, nothing that could run code, so PyTorch reads it
# with `weights_only=True`.

# %%
checkpoint = torch.load(run.folder / "checkpoints" / "best.ckpt", weights_only=True)
state = checkpoint["state_dict"]
pd.DataFrame(
    [(name, tuple(tensor.shape), str(tensor.dtype)) for name, tensor in state.items()],
    columns=["tensor", "shape", "dtype"],
)

# %% [markdown]
# Row 0 of a table is the unknown user or film, and the last column of a row is its bias.
# `warm_users` and `warm_items` mark the ids that train contains; all others are answered by row
# 0.
#
# ## Plain PyTorch
#
# A network, two masks and the rating scale are the whole model.


# %%
class Predictor(nn.Module):
    """Ids of users and items in, ratings out."""

    def __init__(self, num_users: int, num_items: int, embedding_dim: int) -> None:
        super().__init__()
        self.network = BiasedMatrixFactorization(num_users, num_items, 0.0, embedding_dim)
        self.register_buffer("warm_users", torch.zeros(num_users + 1, dtype=torch.bool))
        self.register_buffer("warm_items", torch.zeros(num_items + 1, dtype=torch.bool))

    def forward(self, user_ids: torch.Tensor, item_ids: torch.Tensor) -> torch.Tensor:
        """Ids of shape (batch,) to ratings of shape (batch,)."""
        users = user_ids * self.warm_users[user_ids]
        items = item_ids * self.warm_items[item_ids]
        return self.network(users, items).clamp(1, 5)


num_users, num_items = len(state["warm_users"]) - 1, len(state["warm_items"]) - 1
embedding_dim = state["network.user_factors.weight"].shape[1] - 1
predictor = Predictor(num_users, num_items, embedding_dim).eval()
predictor.load_state_dict(state)

# %% [markdown]
# The test rows come from the run itself: `load_run` builds data, split and task from
# `config.yaml`, loads the best epoch, and rejects data or a split that are not those of the run.

# %%
loaded = matinee.load_run(run)
user_ids, item_ids, ratings = loaded.datamodule.columns("test")
with torch.no_grad():
    by_hand = predictor(user_ids, item_ids)
by_hand

# %% [markdown]
# ## The Trainer, and `matinee evaluate`

# %%
trainer = make_trainer(loaded.config, None)
with without_advice():  # hide Lightning's advice about loaders
    by_trainer = torch.cat(
        trainer.predict(loaded.task, loaded.datamodule.evaluation_dataloader("test"))
    )
torch.testing.assert_close(by_trainer, by_hand, rtol=0, atol=0)

evaluated = matinee.evaluate(loaded)  # what `matinee evaluate` does
errors = (by_hand - ratings).double()
table = pd.DataFrame(
    {
        "by hand": [errors.square().mean().sqrt().item(), errors.abs().mean().item()],
        "matinee evaluate": evaluated.loc["test", ["rmse", "mae"]].tolist(),
        "result.json": run.metrics().loc["test", ["rmse", "mae"]].tolist(),
    },
    index=["test RMSE (stars)", "test MAE (stars)"],
)
assert np.ptp(table.to_numpy(), axis=1).max() < 1e-6
table.round(6)

# %% [markdown]
# All predictions are equal to the last bit, and the metrics agree. With raw ids the shortest way
# is `predict_ratings`; an id that the data do not contain counts as unknown.

# %%
matinee.predict_ratings(loaded, users=[196, 196, 10**6], items=[50, 242, 50])

# %% [markdown]
# ## Where the model is wrong

# %%
plotting.rating_errors(ratings.numpy(), by_hand.numpy())

# %% [markdown]
# The medians fall from left to right: one star is predicted too high, five stars too low. A model
# that minimizes squared error predicts the mean of what it cannot distinguish. It therefore stays
# near the middle, and rare low ratings cost most.
#
# The single best and worst predictions, by title:

# %%
items = loaded.datamodule.interactions.items
rows = pd.DataFrame(
    {
        "user": loaded.datamodule.interactions.users["raw_id"].loc[user_ids.tolist()].to_numpy(),
        "film": [with_year(items.loc[item]) for item in item_ids.tolist()],
        "rating": ratings.numpy(),
        "predicted": by_hand.numpy(),
    }
).assign(error=lambda row: row.predicted - row.rating)
ordered = rows.sort_values("error", key=abs, kind="stable", ignore_index=True)
worst, best = ordered[:-7:-1].reset_index(drop=True), ordered[:6]
assert (worst.error.abs() > 3).all()
assert best.predicted.isin([1, 5]).all()
pd.concat({"worst": worst, "best": best}).round(3)

# %% [markdown]
# The worst rows are off by more than three of the four possible stars: a user who rates high, or
# a popular film, and for once the lowest rating. Nothing in the user's other ratings announces
# it. The best rows are scores beyond the scale that were clamped to its end, where the rating
# was. Judge films by all of their ratings instead.

# %%
by_film = rows.groupby("film").error.agg(
    rmse=lambda error: np.sqrt((error**2).mean()),
    spread=lambda error: (error**2).std() / np.sqrt(len(error)),
    count="size",
)
by_film = by_film[by_film["count"] >= 30].sort_values("rmse")
shown = pd.concat([by_film.head(8), by_film.tail(8)])
low, high = (np.sqrt((shown.rmse**2 + z * shown.spread).clip(lower=0)) for z in (-1.96, 1.96))
assert high[:8].max() < low[8:].min()

figure, axes = plt.subplots(figsize=(7, 4.6), layout="constrained")
places = np.arange(len(shown)) + np.repeat([0, 1], 8)
for chosen, colour in ((slice(0, 8), plotting.COLOURS[0]), (slice(8, 16), plotting.COLOURS[1])):
    axes.hlines(places[chosen], low[chosen], high[chosen], color=colour, linewidth=1.5)
    axes.plot(shown.rmse[chosen], places[chosen], "o", color=colour)
overall = np.sqrt((rows.error**2).mean())
axes.axvline(overall, color="0.6", linestyle="--", linewidth=1)
axes.text(overall, 8, " all test rows", color="0.4", va="center", fontsize=9)
axes.set_yticks(places, [f"{film[:44]}  ({n})" for film, n in shown["count"].items()], fontsize=8)
axes.set_xlabel("test RMSE (stars), with 95 % intervals")
figure.suptitle(
    "Easiest and hardest films with at least 30 test ratings (number of ratings)", fontsize=12
)
axes.spines[["top", "right"]].set_visible(False)
plt.show()

# %% [markdown]
# The intervals of the easiest and of the hardest films do not overlap. Films on which nearly
# everybody agrees are easy. The hard ones divide their audience, and one vector per user does not
# know on which side this user will be. The ends of such a ranking are biased, though: among some
# hundred films the extreme ones are partly extreme by chance, so expect them closer to the line
# on new ratings.
#
# ## One file for a service
#
# `torch.export` turns the predictor into a program that needs neither matinee nor its classes.
# The raw ids are stored in the same file, in the order of the rows.

# %%
exported = run.folder / "predictor.pt2"
# an example of size 2: size 1 would be exported as a constant
example = (user_ids[:2], item_ids[:2])
batch = torch.export.Dim("batch", min=1)
program = torch.export.export(predictor, example, dynamic_shapes=({0: batch}, {0: batch}))
interactions = loaded.datamodule.interactions
ids = {
    "users": json.dumps(interactions.users["raw_id"].tolist()),
    "items": json.dumps(interactions.items["raw_id"].tolist()),
}
torch.export.save(program, exported, extra_files=ids)
print(f"{exported.name}: {exported.stat().st_size / 1e6:.1f} MB")

# %% [markdown]
# The service is another process that has only PyTorch. An id that it does not know becomes 0.

# %%
service = """
import json, sys
import torch

extra = {"users": "", "items": ""}
predict = torch.export.load(sys.argv[1], extra_files=extra).module()
rows = {name: {raw: row for row, raw in enumerate(json.loads(extra[name]), 1)} for name in extra}
users, items = json.load(sys.stdin)
ids = [[rows["users"].get(user, 0) for user in users], [rows["items"].get(item, 0) for item in items]]
with torch.no_grad():
    print(json.dumps(predict(*torch.tensor(ids, dtype=torch.int32)).tolist()))
assert "matinee" not in sys.modules
"""
asked = [[196, 196, 10**6], [50, 242, 50]]
done = subprocess.run(
    [sys.executable, "-c", service, exported],
    input=json.dumps(asked), capture_output=True, text=True, check=True,
)  # fmt: skip
answered = json.loads(done.stdout)
np.testing.assert_allclose(answered, matinee.predict_ratings(loaded, *asked), rtol=1e-6)
answered

# %% [markdown]
# The service answers as `predict_ratings` does, also for the unknown user. Before you deploy a
# model, train it once more with the hyperparameters that validation chose and nearly all data in
# train (`split.test_share=0.01 split.validation_share=0.01`). The metrics of that run then say
# little; quote those of the run above.
