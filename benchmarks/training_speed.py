"""How much a fully observed matinee fit costs over a bare PyTorch loop.

Both train biased matrix factorization on the same ratings with the same objective, batches of the same
size and fused Adam, and measure validation RMSE after every epoch. The bare loops do nothing else: one
trains the model as textbooks write it, with torch.nn.Embedding, the other one matinee's own network, so
that what remains is the cost of the framework. matinee also writes TensorBoard events, metrics.csv, two
checkpoints an epoch and a progress bar, guards against NaN, and can be resumed. The three alternate in one
process; the figures are medians over the rounds, and the ratios are medians of the rounds' ratios.

A second table shows what part of a training epoch of a GRU on MovieLens 100K the matrix products take: the
CPU time of whole epochs, and that of PyTorch's products in epochs under its profiler.

    python benchmarks/training_speed.py
"""

import argparse
import itertools
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from matinee.batches import RatingDataModule
from matinee.config.composing import compose
from matinee.experiment import building, running
from matinee.experiment.run_folder import read_result
from matinee.training.host import keep_freed_memory

DIM = 32
NUM_RATINGS = 111_111  # a random split leaves 80,000 of them for train


def write_ratings(path: Path) -> None:
    rng = np.random.default_rng(0)
    pairs = rng.choice(943 * 1682, NUM_RATINGS, replace=False)
    columns = np.stack([pairs // 1682, pairs % 1682, rng.integers(1, 6, NUM_RATINGS)], axis=1)
    np.savetxt(path, columns, "%d", ",", header="user,item,rating", comments="")


class Textbook(nn.Module):
    """Biased matrix factorization with the biases in the last columns, as in matinee."""

    def __init__(self, num_users: int, num_items: int, mean: float, dim: int) -> None:
        super().__init__()
        self.users = nn.Embedding(num_users + 1, dim + 1)
        self.items = nn.Embedding(num_items + 1, dim + 1)
        self.mean = nn.Parameter(torch.tensor(mean))

    def lookup(self, user_ids: Tensor, item_ids: Tensor) -> tuple[tuple[Tensor], tuple[Tensor]]:
        return (self.users(user_ids),), (self.items(item_ids),)

    def score(self, user_rows: tuple[Tensor], item_rows: tuple[Tensor]) -> Tensor:
        (users,), (items,) = user_rows, item_rows
        products = (users[:, :-1] * items[:, :-1]).sum(-1)
        return self.mean + users[:, -1] + items[:, -1] + products


def bare_loop(
    network: Any, data: RatingDataModule, unknown_shares: Tensor, l2: float, epochs: int
) -> None:
    """The loop a person would write, on the same data and objective."""
    users, items, ratings = data.columns("train")
    val_users, val_items, val_ratings = data.columns("val")
    optimizer = torch.optim.Adam(network.parameters(), lr=0.005, fused=True)
    for _ in range(epochs):
        for chosen in torch.randperm(len(ratings)).split(data.batch_size):
            known = torch.rand(2, len(chosen)) >= unknown_shares
            rows = network.lookup(users[chosen] * known[0], items[chosen] * known[1])
            loss = F.mse_loss(network.score(*rows), ratings[chosen])
            squares = rows[0][0].square().sum() + rows[1][0].square().sum()
            loss = loss + l2 * squares / len(chosen)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            predicted = network.score(*network.lookup(val_users, val_items)).clamp(1, 5)
            float((predicted - val_ratings).square().mean().sqrt())


def factorization(rounds: int) -> None:
    """Print the seconds of both bare loops and of matinee."""
    print("| batch | epochs | textbook s | network s | matinee s | / textbook | / network |")
    print("|------:|-------:|-----------:|----------:|----------:|-----------:|----------:|")
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        write_ratings(folder / "ratings.csv")
        for batch_size, epochs in ((256, 3), (4096, 30)):
            config = compose(
                "dataset=table", f"dataset.path={folder / 'ratings.csv'}", "dataset.user=user",
                "dataset.item=item", "dataset.rating=rating", "split=random", "name=speed",
                f"model.embedding_dim={DIM}", f"data.batch_size={batch_size}",
                f"trainer.max_epochs={epochs}", "callbacks.early_stopping=null",
                "scheduler=none", f"log_dir={folder}", "trainer.accelerator=cpu",
            )  # fmt: skip
            took: dict[str, list[float]] = {"textbook": [], "network": [], "matinee": []}
            for _ in range(rounds + 1):
                built = building.build(config.copy())
                task, table = built.task, built.datamodule.interactions
                networks = {
                    "textbook": Textbook(table.num_users, table.num_items, 3.0, DIM),
                    "network": task.network,
                }
                for name, network in networks.items():
                    started = time.perf_counter()
                    bare_loop(network, built.datamodule, task.unknown_shares, task.l2, epochs)
                    took[name].append(time.perf_counter() - started)
                run = running.train(config.copy(), [])
                took["matinee"].append(read_result(run)["environment"]["seconds"]["fit"])
            took = {name: seconds[1:] for name, seconds in took.items()}  # the first warms up
            ratios = (
                statistics.median(
                    ours / bare for ours, bare in zip(took["matinee"], took[name], strict=True)
                )
                for name in ("textbook", "network")
            )
            seconds = [f"{statistics.median(one):.3f}" for one in took.values()]
            cells = [str(batch_size), str(epochs), *seconds, *(f"{one:.2f}" for one in ratios)]
            print("| " + " | ".join(cells) + " |")


def products(rounds: int) -> None:
    """Print the CPU seconds of training epochs of a GRU, and of their matrix products."""
    keep_freed_memory()  # as in every fit
    built = building.build(compose("experiment=user_based/gru", "trainer.accelerator=cpu"))
    task, loader = built.task.train(), built.datamodule.train_dataloader()
    optimizer = task.make_optimizer(task.parameters())
    numbers = itertools.count()

    def epoch() -> float:
        loader.set_epoch(next(numbers))
        started = time.process_time()
        for batch in loader:
            loss = task.step(batch)["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return time.process_time() - started

    whole, part = [], []
    epoch()  # warms up
    for _ in range(rounds):
        whole.append(epoch())
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            epoch()
        times = {event.key: event.self_cpu_time_total / 1e6 for event in profiled.key_averages()}
        part.append(sum(times.get(f"aten::{name}", 0) for name in ("mm", "addmm", "bmm")))
    ratio = statistics.median(all_of / some for all_of, some in zip(whole, part, strict=True))
    print("\n| model | epoch, CPU s | matrix products s | ratio |\n|:--|--:|--:|--:|")
    print(f"| gru | {statistics.median(whole):.2f} | {statistics.median(part):.2f} | {ratio:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(
        f"80,000 ratings, dimension {DIM}, {options.threads} thread(s), {options.rounds} rounds\n"
    )
    factorization(options.rounds)
    products(options.rounds)


if __name__ == "__main__":
    main()
