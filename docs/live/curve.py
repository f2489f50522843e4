"""Draw the test error of live models against the number of the user's ratings that they had seen.

    python docs/live/curve.py TABLE FIGURE
    python docs/live/curve.py TABLE FIGURE RUN_FOLDER...

The first command draws the figure from the committed table and prints the curves. With run folders, it
first writes the table from them: for each user of test and each number of known ratings, the rows and, for
each model, their sum of squared errors, averaged over the seeds. Intervals are 95 % percentile intervals of
1,000 draws of the users, the same draws for every model; differences are taken within a draw.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from matinee.data.segments import segment_masks
from matinee.display.plotting import COLOURS
from matinee.experiment.building import load_run

DRAWS = 1000
REFERENCE = "online_bias"


def squared_errors(folder: Path) -> tuple[str, pd.DataFrame]:
    """Predict the test rows of a run: its label, and the squared errors by user and ratings known."""
    experiment = load_run(folder)
    data, task = experiment.datamodule, experiment.task
    with torch.no_grad():
        predicted = torch.cat([task(batch) for batch in data.evaluation_dataloader("test")])
    columns, evaluated = data.columns("test"), data.evaluated("test")
    masks = segment_masks(["known"], evaluated, data.interactions, data.split.train)
    frame = pd.DataFrame({"user": columns.user_ids})
    frame["error"] = (predicted.double() - columns.ratings).square().numpy()
    for name, mask in masks.items():
        frame.loc[mask, "known"] = name.removeprefix("known=")
    sums = frame.groupby(["user", "known"])["error"].agg(["size", "sum"])
    return experiment.config.name.split("/")[-1], sums


def make_table(folders: list[str]) -> pd.DataFrame:
    """Sum squared errors of runs by user and number of known ratings, one column for each model."""
    runs: dict[str, list[pd.DataFrame]] = {}
    for folder in folders:
        label, sums = squared_errors(Path(folder))
        runs.setdefault(label, []).append(sums)
    first = next(iter(runs.values()))[0]
    table = pd.DataFrame({"rows": first["size"].astype("int32")})
    for label, seeds in runs.items():
        assert all(sums["size"].equals(first["size"]) for sums in seeds), "runs of other rows"
        table[label] = np.mean([sums["sum"] for sums in seeds], 0).astype("float32")
    return table.reset_index()


def main(path: str, figure: str, *folders: str) -> None:
    """Draw and print the curves."""
    if folders:
        make_table(list(folders)).to_parquet(path, index=False)
    table = pd.read_parquet(path)
    names = sorted(table["known"].unique(), key=lambda name: int(name.rstrip("+").split("-")[0]))
    by_user = table.pivot(index="user", columns="known").fillna(0)

    def spread(column: str) -> np.ndarray:
        """Sums by user and number of known ratings, the last one over all."""
        values = by_user[column][names].to_numpy(dtype=np.float64)
        return np.c_[values, values.sum(1)]

    counts = spread("rows")
    users = len(counts)
    weights = np.random.default_rng(0).multinomial(users, [1 / users] * users, DRAWS)
    labels = [column for column in table if column not in ("user", "known", "rows")]
    drawn = {m: np.sqrt((weights @ spread(m)) / (weights @ counts)) for m in labels}
    rmse = {m: np.sqrt(spread(m).sum(0) / counts.sum(0)) for m in labels}
    labels.sort(key=lambda label: rmse[label][-1])
    shown = pd.DataFrame({label: [f"{v:.4f}" for v in rmse[label]] for label in labels})
    shown.insert(0, "rows", counts.sum(0).astype(int))
    shown.insert(0, "ratings known", [*names, "all"])
    print(shown.to_string(index=False))
    for label in labels[1:]:
        low, high = np.quantile(drawn[label][:, -1] - drawn[labels[0]][:, -1], [0.025, 0.975])
        difference = rmse[label][-1] - rmse[labels[0]][-1]
        print(f"{label} - {labels[0]}: {difference:.4f} [{low:.4f}, {high:.4f}]")
    picture = Figure(figsize=(10, 4.6), layout="constrained")
    left, right = picture.subplots(1, 2)
    places = np.arange(len(names))
    for number, label in enumerate(labels):
        style = {"color": COLOURS[number % len(COLOURS)], "ms": 3.5, "lw": 1}
        style |= {"marker": "os^DvPX*<"[number], "ls": "-" if number < len(COLOURS) else "--"}
        left.plot(places, rmse[label][:-1], label=label, **style)
        if number == 0:
            ends = np.quantile(drawn[label][:, :-1], [0.025, 0.975], axis=0)
            left.fill_between(places, *ends, color=style["color"], alpha=0.12, lw=0)
        middle = (rmse[label] - rmse[REFERENCE])[:-1]
        ends = np.quantile((drawn[label] - drawn[REFERENCE])[:, :-1], [0.025, 0.975], axis=0)
        shift = 0.09 * (number - (len(labels) - 1) / 2)
        right.errorbar(places + shift, middle, np.abs(ends - middle), elinewidth=0.8, **style)
    for axes in (left, right):
        axes.set_xticks(places, names, fontsize=8)
        axes.set_xlabel("ratings of the user that the model has seen")
    left.set_ylabel("test RMSE (stars)")
    right.set_ylabel(f"test RMSE minus that of {REFERENCE} (stars)")
    picture.legend(*left.get_legend_handles_labels(), ncols=len(labels), loc="outside upper center")
    picture.savefig(figure, dpi=90)


if __name__ == "__main__":
    main(*sys.argv[1:])
