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
# # Long- and short-term dependencies, tested again
#
# **Purpose.** A thesis on Last.fm 1K asked how much recurrent recommenders gain from knowing the user
# and from looking far back, and answered: little. Its experiments are run again here with intervals and
# tests, and with one more: are shuffled histories worse at all? The runs are those of
# `launchers/06_long_short_term.sh`; only their result files are read, so this takes seconds. Set `folder`
# to runs of your own; what is said below was found on MovieLens 100K. `docs/long_short_term.md` holds
# protocol and verdicts. In the tables `popularity=low` is the third of the items that train holds
# least often, and `history=10-49` are targets that 10 to 49 items of their user come before.
#
# Every figure is a mean over test windows and seeds; intervals hold 95 % of the resamples of whole users and
# of seeds.

# %%
import sys

import matplotlib.pyplot as plt
from IPython.display import Markdown, display

from matinee.config.checking import config_dir

root = config_dir().parent  # of the checkout
folder = root / "lightning_logs" / "long_short_term" / "ml-100k"
sys.path.append(str(root / "docs" / "long_short_term"))
import experiments
from cells import Study, estimate

study = Study(folder)
print(f"{len(study.cells)} settings")


def show(experiment) -> None:
    """Show an experiment's tables and figure."""
    result = experiment(study)
    display(Markdown(result.text), result.figure)
    plt.close(result.figure)


# %% [markdown]
# ## 1. Time folds: does user information help?
#
# Claimed: less than the literature says. Each tenth of the data is a small data set of its own; `user_gru`
# knows whose history it reads, `gru` does not. Below zero, knowing the user harms.

# %%
show(experiments.time_folds)

# %% [markdown]
# It does not help: with items of 20 rows and more, so with few rows a user, the model that knows the
# user is worse by a third; with the rarer items kept, the difference cannot be told from none. Single
# tenths say nothing.

# %% [markdown]
# ## 2. Shrinking history: is the distant past needed for learning?
#
# Claimed: quality falls far more slowly than the training set shrinks. The oldest part of each user's
# training data is dropped; test windows and what they show of the past stay the same. Along the dotted line
# quality would fall as fast as the data.

# %%
show(experiments.shrinking_history)

# %% [markdown]
# Confirmed: half of the data are worth about four fifths of the quality. But not nothing: from the
# first fifth dropped on something is lost. The model that knows the user loses more.

# %% [markdown]
# ## 3. Embedding size
#
# Is the user's row of use once the model is large enough, or small enough?

# %%
show(experiments.embedding_size)

# %% [markdown]
# At no size. Eight dimensions are too few, from 32 on size makes no difference on this data.

# %% [markdown]
# ## 4. Sequence length: is the distant past needed for predicting?
#
# Claimed: no clear relation between sequence length and quality, whatever the popularity. Solid lines do
# not know the user, dashed ones do.

# %%
show(experiments.sequence_length)

# %% [markdown]
# Confirmed from 10 items on: no model gains from 50 instead of 20. Five items cost some Recall@20.
# Within each pair the model that knows the user is the lower one, at every length.

# %% [markdown]
# ## 5. Does order matter at all?
#
# The models of 4 that were trained on windows of 20 are given changed histories: all items but the last
# shuffled, all shuffled, only the last 5, 2 or 1. No model was trained again. A model that loses nothing
# when all is shuffled sees a history as a set.

# %%
show(experiments.order)

# %% [markdown]
# It does, but only that of a handful of items: five are worth all, the last one alone two thirds or more.

# %% [markdown]
# ## What may be recommended?
#
# All items were candidates so far, and nobody meets a film twice. The models with windows of 20 once more,
# trained and ranked with the films that a user has seen left out: how many times as good, in MRR@20, is
# the model that knows the user?

# %%
unseen = Study(folder.with_name("ml-100k-unseen"))
for plain, user in experiments.PAIRS:
    for items, part in [("all items", study), ("unseen items", unseen)]:
        ratio = estimate(part.run(user), part.run(plain), ratio=True)
        print(f"{user:15s}/ {plain:10s}{items:13s}{ratio:.2f}")

# %% [markdown]
# The sign depends on it: among unseen items user information helps the GRU, among all it harms. A user's row
# is trained to raise what its user has taken, which is right for music and wrong for films.

# %% [markdown]
# ## One number each
#
# How many times as good as without the change, in MRR@20?

# %%
for label, one, two in [
    ("user information, whole data", study.run("user_gru"), study.run("gru")),
    ("half of the training data dropped", study.run("gru", drop=0.5), study.run("gru")),
    ("windows of 50 for 5", study.run("gru", length=50), study.run("gru", length=5)),
    ("all shuffled", study.order("gru", "shuffled"), study.run("gru")),
    ("last item alone", study.order("gru", "last_1"), study.run("gru")),
]:
    if one is not None and two is not None:
        print(f"{label:36s}{estimate(one, two, ratio=True):.2f}")
