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
# # Ratings that listen
#
# **Purpose.** Type in a few ratings and watch the predictions move. A live model reads the ratings
# of a user in order, so a newcomer needs no training: every rating changes what it predicts next.
# The protocol and the results are in `docs/live.md`.
#
# To use a run of your own, set `run = matinee.Run(FOLDER)` and skip the training.

# %%
import sys
import tempfile

import matplotlib.pyplot as plt
import pandas as pd
import torch

import matinee
from matinee.data.catalogues import with_year
from matinee.display.plotting import STYLE

# %matplotlib inline
sys.stderr = sys.stdout  # progress is no error
plt.rcParams.update(STYLE)
torch.set_num_threads(1)  # small models are fastest with one thread

# %%
scratch = tempfile.TemporaryDirectory()  # deleted when the kernel ends
quiet = ["callbacks.progress_bar=null", "callbacks.inspection=null", "logger=none"]
overrides = ["experiment=live/gru", "name=gru", f"log_dir={scratch.name}", "trainer.max_epochs=1"]
run = matinee.train(*overrides, *quiet, "trainer.accelerator=cpu")
run.metrics().loc[["val", "test"], ["rmse", "mae"]].round(4)

# %% [markdown]
# ## Your ratings
#
# Film ids are those of the data, and the oldest rating comes first. Change the table and run the rest again.

# %%
loaded = matinee.load_run(run)
items = loaded.datamodule.interactions.items
films = items.apply(with_year, axis=1).set_axis(items["raw_id"])
mine = {50: 5, 172: 5, 181: 4, 313: 1, 245: 1, 294: 1, 96: 5, 195: 5}
pd.DataFrame({"film": films.loc[list(mine)], "rating": list(mine.values())})

# %% [markdown]
# ## How predictions move
#
# The first column knows nothing of you: it is what the model predicts for any newcomer. Each column
# to the right knows one more rating.

# %%
watched = [89, 176, 204, 288, 286, 258]  # films that you did not rate
steps = range(len(mine) + 1)
answers = {
    count: matinee.recommend(loaded, ratings=dict(list(mine.items())[:count]), top_k=2000)
    for count in steps
}
moves = pd.DataFrame(
    {count: answer.set_index("item")["predicted_rating"] for count, answer in answers.items()}
).loc[watched]
assert not moves[0].equals(moves[len(mine)])
moves.set_axis(films.loc[watched]).round(2)

# %%
figure, axes = plt.subplots(figsize=(9, 4.6))
for film in watched:
    axes.plot(steps, moves.loc[film], marker="o", label=films[film])
given = [f"{films[film].rsplit(' (', 1)[0]}: {stars}" for film, stars in mine.items()]
axes.set_xticks(steps, ["none", *given], rotation=35, ha="right", rotation_mode="anchor")
axes.set(xlabel="latest rating known", ylabel="predicted rating (stars)")
figure.legend(loc="outside right center")
plt.show()

# %% [markdown]
# All films move together, because few ratings mostly tell how you use the scale.
#
# ## How the list moves
#
# The best films for a newcomer, for you after three ratings, and after all of them. Only films with
# at least 100 ratings take part.

# %%
counts = pd.Series(loaded.datamodule.interactions.item_ids).value_counts()
known = set(items.loc[counts.index[counts >= 100], "raw_id"])
lists = {
    f"{count} ratings": answer[answer["item"].isin(known)]["item"].to_list()
    for count, answer in answers.items()
}
chosen = ["0 ratings", "3 ratings", f"{len(mine)} ratings"]
pd.DataFrame({name: list(films.loc[lists[name][:8]]) for name in chosen}, index=range(1, 9))

# %% [markdown]
# The top of the list moves little: how good a film is counts more than eight ratings. Farther down,
# taste shows. These films gained and lost the most places against a newcomer's list:

# %%
first, last = (pd.Series(range(1, len(x) + 1), x) for x in (lists[chosen[0]], lists[chosen[2]]))
gained = (first - last).dropna().astype(int).sort_values(kind="stable").rename(films)
pd.concat({"up": gained[:-7:-1], "down": gained[:6]}).rename("places gained").to_frame()

# %% [markdown]
# ## The order counts
#
# The same ratings in the opposite order are another history.

# %%
backwards = matinee.recommend(loaded, ratings=dict(reversed(mine.items())), top_k=2000)
both = pd.DataFrame(
    {
        "as given": moves[len(mine)],
        "backwards": backwards.set_index("item")["predicted_rating"].loc[watched],
    }
)
assert not both["as given"].equals(both["backwards"])
both.set_axis(films.loc[watched]).round(3)
