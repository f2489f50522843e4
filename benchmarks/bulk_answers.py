"""Bulk recommendations: users a CPU second, and how much of it the product and the top-k take.

    python benchmarks/bulk_answers.py [--items 10000 100000] [--users 2000] [--model gru]

The model has random weights, as its speed does not depend on them, and the users have 20 items each.
Writing the Parquet file is part of the time. Times are those of one thread, and medians over rounds in
which both sides alternate. Peak memory is that of the process so far.
"""

import argparse
import resource
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import matinee
from matinee.experiment.building import Experiment
from matinee.verbs import recommend as recommending

TOP_K = 20
OVERRIDES = {
    "gru": ["data=sequence", "task=next_item", "loss=softmax", "split=leave_last_out"],
    "attention": ["data=sequence", "task=next_item", "loss=softmax", "split=leave_last_out"],
    "mf_bias": ["split=random"],
}


def untrained(model: str, num_items: int, num_users: int) -> Experiment:
    """Build a model of random weights, whose users have met every item at least once."""
    rng = np.random.default_rng(0)
    num_rows = max(20 * num_users, num_items)
    items = np.concatenate((rng.permutation(num_items), rng.integers(0, num_items, num_rows)))
    frame = {
        "user": np.arange(num_rows) % num_users,
        "item": items[:num_rows],
        "rating": rng.integers(1, 6, num_rows),
    }
    data = matinee.Interactions.from_frame(frame, rating="rating", duplicates="keep")
    config = matinee.compose(*OVERRIDES[model], f"model={model}", "trainer.accelerator=cpu")
    experiment = matinee.build(config, data)
    experiment.task.eval()
    return experiment


@torch.no_grad()
def bare_seconds(num_users: int, num_items: int, dim: int) -> float:
    """Time the matrix product and the top-k alone, in parts of the same size."""
    items, users = torch.randn(num_items + 1, dim), torch.randn(num_users, dim)
    at_once = min(recommending.USERS_AT_ONCE, recommending.SCORES_AT_ONCE // (num_items + 1))
    began = time.process_time()
    for part in users.split(at_once):
        (part @ items.T).topk(TOP_K)
    return time.process_time() - began


def main() -> None:
    """Print one row for each size of the catalogue."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--users", type=int, default=2_000)
    parser.add_argument("--model", choices=OVERRIDES, default="gru")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| items | users a CPU second | share of product and top-k | peak MB |")
    print("| --- | --- | --- | --- |")
    for num_items in options.items:
        experiment = untrained(options.model, num_items, options.users)
        dim = experiment.task.network.tables()["items"].shape[1]
        whole, shares = [], []
        with tempfile.TemporaryDirectory() as folder:
            for _ in range(options.rounds):
                began = time.process_time()
                recommending.recommend_many(
                    experiment, Path(folder) / "top.parquet", users="all", top_k=TOP_K
                )
                whole.append(time.process_time() - began)
                shares.append(bare_seconds(options.users, num_items, dim) / whole[-1])
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        speed, share = options.users / statistics.median(whole), statistics.median(shares)
        print(f"| {num_items:,} | {speed:,.0f} | {share:.0%} | {peak:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
