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
# **Purpose.** A thesis on Last.fm 1K asked how much recurrent recommenders gain from knowing the
# user and from looking far back. Its answer: little. This notebook shows its experiments with
# intervals and tests, and one more: do shuffled histories make predictions worse at all? The runs
# are those of `launchers/06_long_short_term.sh`. Only the ranks they gave are read, so the notebook
# takes seconds. Set `folder` to runs of your own; the text describes MovieLens 100K.
# `docs/long_short_term.md` holds the protocol and the verdicts. In the tables `popularity=low` is
# the third of the items with the fewest rows in train, and `history=10-49` are targets with 10 to
# 49 earlier items of their user.
#
# Every value is a mean over test windows and seeds. Intervals hold 95 % of the resamples of whole
# users and of seeds.

# %%
import sys

import matplotlib.pyplot as plt
from IPython.display import Markdown, display

from matinee.config.folders import config_dir
from matinee.display.plotting import STYLE

plt.rcParams.update(STYLE)
root = config_dir().parent  # of the checkout
folder = root / "lightning_logs" / "long_short_term" / "ml-100k"
sys.path.append(str(root / "docs" / "long_short_term"))
import experiments
from estimates import Study, estimate

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
# Claimed: less than the literature says. Each tenth of the data is a small data set of its own.
# `user_gru` knows whose history it reads, `gru` does not. Below zero, knowing the user makes
# predictions worse.

# %%
show(experiments.time_folds)

# %% [markdown]
# It does not help. With items of 20 rows and more, and therefore few rows per user, the model
# that knows the user is worse by a third. With the rarer items included, the difference cannot be
# distinguished from zero. Single tenths say nothing.

# %% [markdown]
# ## 2. Shrinking history: is the distant past needed for training?
#
# Claimed: quality falls far more slowly than the training set shrinks. The oldest part of each
# user's training data is dropped; test windows and the histories they show stay the same. Along
# the dotted line quality would fall as fast as the data.

# %%
show(experiments.shrinking_history)

# %% [markdown]
# Confirmed: with half of the data about four fifths of the quality remain. But the effect is not
# zero: from the first dropped fifth on, something is lost. The model that knows the user loses
# more.

# %% [markdown]
# ## 3. Embedding size
#
# Is the row of the user useful once the model is large enough, or small enough?

# %%
show(experiments.embedding_size)

# %% [markdown]
# At no size. Eight dimensions are too few; from 32 on size makes no difference on these data.

# %% [markdown]
# ## 4. Sequence length: is the distant past needed for predicting?
#
# Claimed: no clear relation between sequence length and quality, whatever the popularity. Solid
# lines do not know the user, dashed ones do.

# %%
show(experiments.sequence_length)

# %% [markdown]
# Confirmed from 10 items on: no model gains from 50 items instead of 20. Five items cost some
# Recall@20. Within each pair the model that knows the user is lower, at every length.

# %% [markdown]
# ## 5. Does order matter at all?
#
# The models of experiment 4 that were trained on windows of 20 read changed histories: all items
# but the last shuffled, all items shuffled, only the last 5, 2 or 1 items. No model is trained
# again. A model that loses nothing when all items are shuffled treats a history as a set.

# %%
show(experiments.order)

# %% [markdown]
# It does, but only the order of a few items: the last five are enough, and the last one alone
# gives two thirds of the quality or more.

# %% [markdown]
# ## What may be recommended?
#
# So far all items were candidates, although nobody meets a film twice. Here the models with
# windows of 20 are trained and ranked once more with seen films excluded. What is the ratio of
# MRR@20 of the model that knows the user to the one that does not?

# %%
unseen = Study(folder.with_name("ml-100k-unseen"))
for plain, user in experiments.PAIRS:
    for items, part in [("all items", study), ("unseen items", unseen)]:
        ratio = estimate(part.run(user), part.run(plain), ratio=True)
        print(f"{user:15s}/ {plain:10s}{items:13s}{ratio:.2f}")

# %% [markdown]
# The sign depends on it: among unseen items user information helps the GRU, among all items it
# hurts. The row of a user is trained to raise what the user has chosen, which is right for music
# and wrong for films.

# %% [markdown]
# ## One number each
#
# The ratio of MRR@20 with the change to MRR@20 without it:

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
