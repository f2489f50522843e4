"""Bulk recommendations: users a CPU second, what takes the time, and memory.

    python benchmarks/bulk_answers.py [--items 10000 100000 1000000] [--users 2000] [--model gru]

The model has random weights, as its speed does not depend on them, and the users have 20 items each. Writing
the Parquet file is part of the time. Times are those of one thread, and medians over rounds in which all
sides alternate. The matrix product and the top-k are those of a bare loop; ``network`` is the forward pass
without the product. Memory is that of the process before the answers, and how far it rises meanwhile.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import matinee
from matinee.batches.queries import Queries
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


@torch.no_grad()
def network_seconds(experiment: Experiment) -> float:
    """Time the passes of a sequence network over the histories of all users, in parts of the same size."""
    task, datamodule = experiment.task, experiment.datamodule
    if not hasattr(task.network, "represent"):
        return 0.0
    interactions = datamodule.interactions
    queries = Queries.of_users(interactions, np.arange(1, interactions.num_users + 1))
    at_once = min(
        recommending.USERS_AT_ONCE, recommending.SCORES_AT_ONCE // (interactions.num_items + 1)
    )
    began = time.process_time()
    for start in range(0, len(queries), at_once):
        part = queries[start : start + at_once]
        histories, _, _ = part.histories(datamodule.eval_length - 1)
        task.network.represent(histories, part.user_ids)
    return time.process_time() - began


def megabytes(name: str) -> float:
    """Read a number of Linux about the memory of this process: VmRSS is used, VmHWM its peak."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{name}:")[2].split()[0]) / 1024


def main() -> None:
    """Print one row for each size of the catalogue."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--users", type=int, default=2_000)
    parser.add_argument("--model", choices=OVERRIDES, default="gru")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(
        "| model | items | users | users a CPU second | product, top-k | network | MB before | MB more |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for num_items in options.items:
        experiment = untrained(options.model, num_items, options.users)
        dim = experiment.task.network.tables()["items"].shape[1]
        whole, bare, network = [], [], []
        before, more = megabytes("VmRSS"), 0.0
        with tempfile.TemporaryDirectory() as folder:
            for _ in range(options.rounds):
                Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again
                began = time.process_time()
                recommending.recommend_many(
                    experiment, Path(folder) / "top.parquet", users="all", top_k=TOP_K
                )
                whole.append(time.process_time() - began)
                more = max(more, megabytes("VmHWM") - before)
                bare.append(bare_seconds(options.users, num_items, dim) / whole[-1])
                network.append(network_seconds(experiment) / whole[-1])
        print(
            f"| {options.model} | {num_items:,} | {options.users:,} "
            f"| {options.users / statistics.median(whole):,.0f} | {statistics.median(bare):.0%} "
            f"| {statistics.median(network):.0%} | {before:,.0f} | {more:,.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
