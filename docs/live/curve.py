"""Draw the test error of finished live runs against the number of the user's ratings that they had seen.

    python docs/live/curve.py FIGURE RUN_FOLDER...

prints the curve of each model as a table as well. Squared errors of runs of one model are averaged over their
seeds. Intervals are 95 % percentile intervals of 1,000 draws of the users of test, the same draws for every
model; differences between models are taken within a draw.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from matinee.data.segments import segment_masks
from matinee.experiment.building import load_run

DRAWS = 1000


def squared_errors(folder: Path) -> tuple[str, pd.DataFrame]:
    """Predict the test rows of a run: its label, and user, segment and squared error of each row."""
    experiment = load_run(folder)
    data, task = experiment.datamodule, experiment.task
    with torch.no_grad():
        predicted = torch.cat([task.predict_step(b) for b in data.evaluation_dataloader("test")])
    columns, evaluated = data.columns("test"), data.evaluated("test")
    masks = segment_masks(["known"], evaluated, data.interactions, data.split.train)
    frame = pd.DataFrame({"user": columns.user_ids, "row": data.listened("test").targets})
    frame["error"] = (predicted.double() - columns.ratings).square().numpy()
    for number, mask in enumerate(masks.values()):
        frame.loc[mask, "known"] = number
    frame.attrs["names"] = [name.removeprefix("known=") for name in masks]
    return experiment.config.name.split("/")[-1], frame.sort_values("row", ignore_index=True)


def main(figure: str, folders: list[str]) -> None:
    """Draw and print the curves."""
    frames: dict[str, list[pd.DataFrame]] = {}
    for folder in folders:
        label, frame = squared_errors(Path(folder))
        frames.setdefault(label, []).append(frame)
    first = next(iter(frames.values()))[0]
    names, known = first.attrs["names"], first["known"].to_numpy(dtype=np.int64)
    users, of_user = np.unique(first["user"], return_inverse=True)
    cells = of_user * len(names) + known
    counts = np.bincount(cells, minlength=len(users) * len(names)).reshape(len(users), -1)
    weights = np.random.default_rng(0).multinomial(len(users), [1 / len(users)] * len(users), DRAWS)
    drawn: dict[str, np.ndarray] = {}  # RMSE by draw and segment, the last one over all rows
    rmse: dict[str, np.ndarray] = {}
    for label, runs in frames.items():
        errors = np.mean([run["error"] for run in runs], 0)
        sums = np.bincount(cells, errors, len(users) * len(names)).reshape(len(users), -1)
        sums, sizes = (np.c_[a, a.sum(1)] for a in (sums, counts))
        drawn[label] = np.sqrt((weights @ sums) / (weights @ sizes))
        rmse[label] = np.sqrt(sums.sum(0) / sizes.sum(0))
    table = pd.DataFrame({label: [f"{v:.4f}" for v in values] for label, values in rmse.items()})
    table.insert(0, "rows", np.append(counts.sum(0), counts.sum()))
    table.insert(0, "ratings known", [*names, "all"])
    print(table.to_string(index=False))
    reference = min(rmse, key=lambda label: rmse[label][-1])
    for label in rmse:
        differences = drawn[label][:, -1] - drawn[reference][:, -1]
        low, high = np.quantile(differences, [0.025, 0.975])
        print(
            f"{label} - {reference}: {rmse[label][-1] - rmse[reference][-1]:.4f} [{low:.4f}, {high:.4f}]"
        )
    picture = Figure(figsize=(7, 4), layout="constrained")
    axes = picture.subplots()
    for number, (label, values) in enumerate(rmse.items()):
        places = np.arange(len(names)) + 0.08 * (number - len(rmse) / 2)
        low, high = np.quantile(drawn[label][:, :-1], [0.025, 0.975], axis=0)
        middle = values[:-1]
        axes.errorbar(
            places, middle, (middle - low, high - middle), marker="o", ms=3, lw=1, label=label
        )
    axes.set_xticks(np.arange(len(names)), names)
    axes.set(xlabel="ratings of the user that the model has seen", ylabel="test RMSE (stars)")
    axes.legend()
    picture.savefig(figure, dpi=120)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
