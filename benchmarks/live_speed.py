"""What an epoch of live ratings costs beside an epoch of next items with the same encoder.

All train a GRU of 64 dimensions on train of the chronological split of MovieLens 100K: `live/gru` and
`live/joint` on ratings, and the next-item `gru` with a softmax over the catalogue, once on windows of its
default length and once on whole histories, which are what live models read. They take turns in one process.
The table has the median CPU seconds of an epoch over the rounds, and the median of the ratios to a next-item
model in the same round.

    python benchmarks/live_speed.py benchmarks/live_speed.csv
"""

import argparse
import statistics
import time
from pathlib import Path

import pandas as pd
import torch

from matinee.config.composing import compose
from matinee.experiment.building import Experiment, build

NEXT_ITEM = ("experiment=user_based/gru", "split=chronological", "model.embedding_dim=64")
KINDS = {
    "next item, windows of 10": NEXT_ITEM,
    "next item, whole histories": (
        *NEXT_ITEM,
        "data.length=1000",
        "data.stride=1000",
        "data.batch_size=8",
    ),
    "live/gru": ("experiment=live/gru",),
    "live/joint": ("experiment=live/joint",),
}


def epoch_seconds(experiment: Experiment) -> float:
    """Train for one epoch and return its CPU seconds."""
    task = experiment.task.train()
    optimizer = task.make_optimizer(task.parameters())
    started = time.process_time()
    for batch in experiment.datamodule.train_dataloader():
        optimizer.zero_grad()
        task.step(batch)["loss"].backward()
        optimizer.step()
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("output", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    experiments = {kind: build(compose(*overrides)) for kind, overrides in KINDS.items()}
    rounds: list[dict[str, float]] = []
    for number in range(options.rounds + 1):
        seconds = {kind: epoch_seconds(experiment) for kind, experiment in experiments.items()}
        if number:  # the first round warms up
            rounds.append(seconds)
    rows = [
        {
            "training": kind,
            "CPU seconds an epoch": round(statistics.median(r[kind] for r in rounds), 3),
            **{
                f"ratio to {base}": round(statistics.median(r[kind] / r[base] for r in rounds), 2)
                for base in list(KINDS)[:2]
            },
        }
        for kind in KINDS
    ]
    table = pd.DataFrame(rows)
    table.to_csv(options.output, index=False)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
