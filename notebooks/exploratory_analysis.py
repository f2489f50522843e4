# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # MovieLens 100K before any model
#
# **Purpose.** Get to know the data before training: how ratings, users, films and times are
# distributed, what is unusual about them, and which users a split by time leaves unknown. This
# tells you what a model can learn and which evaluation is honest.
#
# The numbers in the text come from the public data set, which does not change; run all cells to
# reproduce them. All data are read through `matinee.data.sources`, so the same cells work for
# your own table if you load that instead.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm
from matplotlib.dates import ConciseDateFormatter

from matinee.data.sources import movielens
from matinee.data.splits import chronological
from matinee.display.plotting import COLOURS, STYLE

# %matplotlib inline
plt.rcParams.update(STYLE)
BLUE, ORANGE, GREEN, PINK, YELLOW, SKY, BLACK = COLOURS

log = movielens.load("ml-100k")
ratings = pd.DataFrame(
    {
        "user_id": log.user_ids,
        "item_id": log.item_ids,
        "rating": log.ratings,
        "time": pd.to_datetime(log.timestamps, unit="s"),
    }
)
print(
    f"{len(ratings):,} ratings by {log.num_users:,} users of {log.num_items:,} films, "
    f"{ratings.time.min():%d %B %Y} to {ratings.time.max():%d %B %Y}"
)
ratings.head()

# %% [markdown]
# ## Ratings

# %%
by_user, by_item = ratings.groupby("user_id").rating, ratings.groupby("item_id").rating
shares = 100 * ratings.rating.value_counts(normalize=True).sort_index()

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6))
bars = left.bar(shares.index, shares, color=BLUE)
left.bar_label(bars, fmt="%.0f %%")
left.set(xlabel="rating (stars)", ylabel="share of ratings (%)", title="Ratings")
bins = np.arange(1, 5.01, 0.2)
for means, colour, name in (
    (by_user.mean(), BLUE, "users"),
    (by_item.mean()[by_item.size() >= 20], ORANGE, "films (20+ ratings)"),
):
    right.hist(
        means, bins, density=True, histtype="step", linewidth=2, color=colour,
        label=f"{name}: sd {means.std():.2f}",
    )  # fmt: skip
right.axvline(ratings.rating.mean(), color="0.5", linestyle="--", label="mean of all ratings")
right.set(
    xlabel="mean rating (stars)", ylabel="density (1/star)", title="Mean ratings", ylim=(0, 1.5)
)
right.legend(loc="upper left", fontsize=9)
print(f"mean {ratings.rating.mean():.2f}, standard deviation {ratings.rating.std():.2f} stars")
plt.show()

# %% [markdown]
# Compare the two spreads on the right with the standard deviation of all ratings, 1.13 stars.
# People rate films that they expected to like: 55 % of the ratings are 4 or 5 stars, and only 6 %
# are 1 star. The means of users vary by 0.45 stars and those of films by 0.53. So *who* rates and
# *what* is rated each explain a good part of a rating before any interaction of the two. This is
# why most rating models here have user and item biases, and why a damped mean is the baseline to
# beat.

# %% [markdown]
# ## Users, films and the long tail

# %%
per_user = ratings.groupby("user_id").size().sort_values(ascending=False)
per_item = ratings.groupby("item_id").size().sort_values(ascending=False)

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6))
for counts, colour, name in ((per_user, BLUE, "users"), (per_item, ORANGE, "films")):
    left.loglog(np.arange(1, len(counts) + 1), counts, color=colour, linewidth=2, label=name)
    right.plot(
        100 * np.arange(1, len(counts) + 1) / len(counts),
        100 * counts.cumsum() / len(ratings),
        color=colour, linewidth=2, label=name,
    )  # fmt: skip
half = 1 + int((per_item.cumsum() < len(ratings) / 2).sum())
right.plot(100 * half / log.num_items, 50, "o", color=BLACK)
right.annotate(
    f"half of all ratings:\n{half} films", (100 * half / log.num_items, 50), (50, 15), fontsize=9,
    arrowprops={"arrowstyle": "-", "color": "0.5"},
)  # fmt: skip
left.set(xlabel="rank by number of ratings", ylabel="ratings", title="Activity and popularity")
right.plot([0, 100], [0, 100], color="0.6", linestyle="--", linewidth=1, label="equal shares")
right.set(
    xlabel="most active users, most popular films (%)",
    ylabel="share of ratings (%)",
    title="Concentration",
)
figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=3)
plt.show()
pd.DataFrame(
    {name: counts.describe().round(1) for name, counts in (("user", per_user), ("film", per_item))}
).rename_axis("ratings per ...").T

# %% [markdown]
# On the left, a power law would be a straight line; both curves fall off faster at their end.
# Every user has at least 20 ratings, because the collectors removed the others. Films have no
# such minimum: a third (530) have fewer than 10 ratings and 141 have a single one. 215 films, an
# eighth, receive half of all ratings. About films with few ratings a model can learn little more
# than "unknown". matinee therefore shrinks every row towards the unknown row. A recommender that
# lists only popular films already looks decent, so always compare with popularity.

# %%
rank_of_user = per_user.rank(ascending=False, method="first")
rank_of_item = per_item.rank(ascending=False, method="first")

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4))
counted, x_edges, y_edges = np.histogram2d(
    ratings.item_id.map(rank_of_item), ratings.user_id.map(rank_of_user), bins=(40, 30)
)
cells = np.diff(x_edges)[:, None] * np.diff(y_edges)
filled = np.ma.masked_equal(100 * counted / cells, 0)
image = left.pcolormesh(x_edges, y_edges, filled.T, norm=LogNorm(0.05, 100), cmap="viridis")
left.invert_yaxis()
left.set(xlabel="films, most popular first", ylabel="users, most active first")
left.set_title(f"Filled cells: {100 * len(ratings) / log.num_users / log.num_items:.1f} % of all")
figure.colorbar(image, ax=left, label="filled cells (%)", format="{x:g}")

mean = by_item.mean().loc[per_item.index]
right.scatter(per_item, mean, s=16, alpha=0.3, color=BLUE, linewidth=0)
bins = pd.cut(per_item, [0, 1, 3, 9, 27, 81, 243, 729])
trend = pd.DataFrame({"count": per_item, "mean": mean}).groupby(bins, observed=True).mean()
right.plot(trend["count"], trend["mean"], "o-", color=ORANGE, label="mean of a bin")
right.set(xscale="log", xlabel="ratings of a film", ylabel="mean rating (stars)")
right.set_title("Popular films are rated better")
right.xaxis.set_major_formatter("{x:g}")
right.legend(loc="lower right")
plt.show()

# %% [markdown]
# 6.3 % of the cells are filled, but not evenly. In the top left corner, where active users meet
# popular films, most cells are filled; on the right nearly all are empty. Ratings are **not
# missing at random**: from 10 ratings on, the mean rating of a film rises with its popularity by
# nearly one star. A mean over the observed ratings, and therefore RMSE, says nothing about what
# people would give to the films that they did not choose.

# %% [markdown]
# ## Who rates

# %%
users = log.users.assign(
    ratings=per_user,
    mean=by_user.mean(),
    gender=log.users.gender.replace({"F": "women", "M": "men"}),
)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4))
left.hist(
    [users.age[users.gender == gender] for gender in ("men", "women")],
    np.arange(5, 80, 5), stacked=True, color=[BLUE, ORANGE], label=["men", "women"],
)  # fmt: skip
left.set(xlabel="age (years)", ylabel="users", title="Age and gender")
left.legend()
jobs = users.groupby("occupation").agg(users=("mean", "size"), mean=("mean", "mean"))
error = 1.96 * users.groupby("occupation")["mean"].std() / np.sqrt(jobs.users)
jobs = jobs.assign(error=error).query("users >= 10").sort_values("mean")
right.errorbar(jobs["mean"], np.arange(len(jobs)), xerr=jobs.error, fmt="o", color=BLUE)
right.axvline(users["mean"].mean(), color="0.6", linestyle="--", linewidth=1)
right.set_yticks(
    np.arange(len(jobs)), [f"{name} ({n})" for name, n in jobs.users.items()], fontsize=8
)
right.set(
    xlabel="mean rating (stars), 95 % interval\ndashed: all users", title="Occupation (users)"
)
plt.show()
users.groupby("gender")[["ratings", "mean"]].agg(["count", "mean"]).round(2)

# %% [markdown]
# 71 % are men, one user in five is a student, and most are between 20 and 40: what is popular
# here was popular with these groups. Check on the right whether the intervals cross the dashed
# line. All do, so no group clearly rates lower or higher than the others. Women and men give the
# same mean. What a form says about a new user does little to predict *how high* they rate, so do
# not expect much from such features for RMSE.

# %% [markdown]
# ## What is rated

# %%
items = log.items.assign(ratings=by_item.size(), total=by_item.sum())
genres = items.assign(genre=items.genres.str.split("|")).explode("genre")
genres = genres.groupby("genre").agg(
    films=("title", "size"), ratings=("ratings", "sum"), total=("total", "sum")
)
genres["mean"] = genres.total / genres.ratings
genres = genres[genres.films > 2].sort_values("mean")

figure, panels = plt.subplot_mosaic(
    [["share", "mean", "films"], ["share", "mean", "years"]], figsize=(11, 4.8)
)
left, middle, upper, lower = (panels[name] for name in ("share", "mean", "films", "years"))
places = np.arange(len(genres))
left.barh(places - 0.2, 100 * genres.films / len(items), 0.4, color=SKY, label="films")
left.barh(places + 0.2, 100 * genres.ratings / len(ratings), 0.4, color=BLUE, label="ratings")
left.set_yticks(places, genres.index, fontsize=9)
left.set(xlabel="share (%)", title="Genres (films have several)")
left.legend(loc="center right")
middle.sharey(left)
middle.plot(genres["mean"], places, "o", color=ORANGE)
middle.axvline(ratings.rating.mean(), color="0.6", linestyle="--", linewidth=1)
middle.tick_params("y", labelleft=False, length=0)
middle.grid(axis="y", color="0.9")
middle.set(xlabel="mean rating (stars), dashed: all", title="Their ratings")
years = items.assign(year=5 * (items.year // 5) + 2.5).groupby("year")
years = years.agg(films=("title", "size"), ratings=("ratings", "sum"), total=("total", "sum"))
upper.bar(years.index, years.films, 4.6, color=SKY)
upper.set(yscale="log", ylabel="films", title="Periods of five years")
upper.yaxis.set_major_formatter("{x:g}")
upper.tick_params("x", labelbottom=False)
years = years[years.films >= 5]
lower.sharex(upper)
lower.plot(years.index, years.total / years.ratings, "o-", color=ORANGE)
lower.set(xlabel="year of release", ylabel="mean rating (stars)")
plt.show()

# %% [markdown]
# Compare the two bars of each genre. Drama is the most frequent genre among films (43 %) and is
# rated well, while action, science fiction and thrillers have a larger share of the ratings than
# of the films. Film noir, war and drama have the highest means; fantasy, horror and children's
# films the lowest. Old films are few and rated well, films of the nineties are many and rated
# lower: of the old films only those worth remembering are still rated. (Periods of five years
# with fewer than five films have no point.) Year and genre are therefore what an embedding should
# rediscover; `interpreting_embeddings` looks for them.

# %% [markdown]
# ## Titles with two ids

# %%
twins = items.dropna(subset="year").groupby(["title", "year"]).filter(lambda group: len(group) > 1)
twins = twins.assign(mean=(twins.total / twins.ratings).round(2))
pairs = twins.groupby(["title", "year"]).agg(
    ids=("raw_id", lambda ids: ", ".join(map(str, ids))),
    ratings=("ratings", lambda counts: " + ".join(map(str, counts))),
    means=("mean", lambda values: ", ".join(f"{value:.2f}" for value in values)),
)
merged = movielens.load("ml-100k", merge_duplicate_titles=True)
print(
    f"{len(pairs)} titles have two ids; after merging, {log.num_items:,} films become "
    f"{merged.num_items:,}, and {merged.duplicates_resolved} repeated ratings are removed"
)
pairs

# %% [markdown]
# 18 films have two ids. Look at the counts: some, such as *Chasing Amy*, are popular under both
# ids, and 307 times a user rated both. A recommender may therefore list a film that its user has
# seen, and a user's "next film" may be the same film again. This affects 1 % of the catalogue:
# metrics hardly change, but sizes do (1,682 or 1,664 films), and published sizes differ in this.
# matinee keeps the ids as they are, so that results stay comparable;
# `dataset.merge_duplicate_titles=true` merges them.

# %% [markdown]
# ## Time: ratings come in bursts

# %%
ordered = ratings.sort_values(["user_id", "time"], kind="stable")
gaps = ordered.groupby("user_id").time.diff().dt.total_seconds()
session = (gaps.isna() | (gaps > 3600)).groupby(ordered.user_id).cumsum()
sessions = ordered.groupby(["user_id", session.rename("session")]).size()
num_sessions = sessions.groupby("user_id").size()
largest = sessions.groupby("user_id").max() / per_user

figure, (left, middle, right) = plt.subplots(1, 3, figsize=(10, 3.6))
edges = [-0.5, 0.5, 10, 60, 600, 3600, 86400, 1e9]
names = ["0 s", "to 10 s", "to 1 min", "to 10 min", "to 1 h", "to 1 day", "longer"]
counted = 100 * np.histogram(gaps.dropna(), edges)[0] / gaps.notna().sum()
bars = left.bar(names, counted, color=[ORANGE, *[BLUE] * 6])
left.bar_label(bars, fmt="%.1f", fontsize=8)
left.tick_params("x", labelrotation=60)
left.set(
    xlabel="time since the user's previous rating",
    ylabel="share of ratings (%)",
    title="Time between ratings",
)
counted = 100 * np.histogram(num_sessions, [1, 2, 3, 5, 9, 100])[0] / len(num_sessions)
bars = middle.bar(["1", "2", "3-4", "5-8", "9+"], counted, color=BLUE)
middle.bar_label(bars, fmt="%.0f")
middle.set(xlabel="sessions (gaps over an hour apart)", ylabel="share of users (%)")
middle.set_title("Sessions of a user")
right.hist(sessions, np.geomspace(1, 800, 22), color=BLUE, weights=sessions / 1000)
right.set(xscale="log", xlabel="ratings given in the session", ylabel="ratings (thousands)")
right.xaxis.set_major_formatter("{x:g}")
right.set_title("Size of the session of a rating")
plt.show()
ties = ordered.duplicated(["user_id", "time"], keep=False).mean()
print(
    f"{100 * (gaps == 0).sum() / len(ratings):.0f} % of the ratings have the same second as the "
    f"user's previous rating; {100 * ties:.0f} % share their second with another of the same user"
)
print(
    f"{100 * (num_sessions == 1).mean():.0f} % of the users came once; on average "
    f"{100 * largest.mean():.0f} % of a user's ratings were given in one session"
)

# %% [markdown]
# Look at the orange bar: half of all ratings have the same second as the user's previous rating
# (a page of films was submitted at once), and 76 % share their second with another rating of the
# same user. 61 % of the users came only once. These timestamps say when somebody filled in a
# form, not when a film was seen, and the **order within a second is that of the source file**.
# This has two consequences. A "next item" is partly the next line of a page, so a sequence model
# may learn the order of that page. And results depend on how ties are broken, so the rule must be
# stated: matinee sorts stably by time and source row.

# %% [markdown]
# ## What a split by time leaves unknown

# %%
split = chronological(log)
parts = {"train": split.train, "validation": split.validation, "test": split.test}
known = set(log.user_ids[split.train])
is_cold = ~ratings.user_id.isin(known)

figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.8), width_ratios=(2, 1))
weeks = pd.Grouper(key="time", freq="W")
weekly = [part.groupby(weeks).size() for part in (ratings[~is_cold], ratings[is_cold])]
weekly = pd.concat(weekly, axis=1, keys=["users in train", "users not in train"]).fillna(0)
left.stackplot(weekly.index, weekly.T / 1000, colors=[BLUE, ORANGE], labels=weekly.columns)
for name, rows in list(parts.items())[1:]:
    moment = ratings.time[rows[0]]
    left.axvline(moment, color=BLACK, linewidth=1, linestyle="--")
    left.text(moment, 1.2 * weekly.sum(axis=1).max() / 1000, f" {name}", va="top", fontsize=9)
left.set(
    xlabel="week, 1997 and 1998",
    ylabel="ratings a week (thousands)",
    title="Ratings by week and user",
)
left.set_ylim(0, 1.25 * weekly.sum(axis=1).max() / 1000)
left.legend(loc="upper left", fontsize=9)
left.xaxis.set_major_formatter(ConciseDateFormatter(left.xaxis.get_major_locator()))
cold = {name: 100 * is_cold[rows].mean() for name, rows in parts.items()}
bars = right.bar(list(cold), list(cold.values()), color=ORANGE)
right.bar_label(bars, fmt="%.1f %%")
right.set(ylabel="ratings by users not in train (%)", ylim=(0, 100), title="Cold rows")
plt.show()
pd.DataFrame(
    {
        name: {
            "ratings": len(rows),
            "users": ratings.user_id[rows].nunique(),
            "by users not in train (%)": round(cold[name], 1),
            "of films not in train (%)": round(
                100 * (~ratings.item_id[rows].isin(ratings.item_id[split.train])).mean(), 1
            ),
        }
        for name, rows in parts.items()
    }
).T

# %% [markdown]
# Look at how much of the first figure is orange on the right. A split by time seems the most
# realistic one, but it asks almost only about strangers: 82.3 % of the validation ratings and
# 89.7 % of the test ratings come from users that train does not contain, because people come,
# rate and do not return. New films hardly matter (1 and 3 %). On this split a model is measured
# by its answer for the *unknown user*, and the best possible answer is little more than a good
# estimate of each film's mean. A factorization that sends every unknown user to some real user's
# row fails badly. To measure what factors learn about a person, use `split=random`. For new users
# whose first items are known, use `split=user_based`.
#
# **In short.** Compare with damped means and with popularity. Shrink rare films towards the
# unknown. State how ties in time are broken and who is cold. `homework` builds on this step by
# step.
