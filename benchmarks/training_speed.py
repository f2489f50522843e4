"""How much a fully observed matinee fit costs over a bare PyTorch loop.

Both train the same biased matrix factorization on the same ratings with the same objective, batches
of the same size and fused Adam, and measure validation RMSE after every epoch. The bare loop does
nothing else; matinee also writes TensorBoard events, metrics.csv, two checkpoints an epoch and a
progress bar, guards against NaN, and can be resumed. The two alternate in one process; the figures
are medians over the rounds, and the ratio is the median of the rounds' ratios.

    python benchmarks/training_speed.py
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from matinee.config.composing import compose
from matinee.experiment import building, running
from matinee.experiment.run_folder import read_result

NUM_RATINGS = 111_111  # a random split leaves 80,000 of them for train


def write_ratings(path: Path) -> None:
    rng = np.random.default_rng(0)
    pairs = rng.choice(943 * 1682, NUM_RATINGS, replace=False)
    columns = np.stack([pairs // 1682, pairs % 1682, rng.integers(1, 6, NUM_RATINGS)], axis=1)
    np.savetxt(path, columns, "%d", ",", header="user,item,rating", comments="")


def bare_loop(built: building.Experiment, epochs: int) -> None:
    """The loop a person would write, on the same network, data and objective."""
    task, batch_size = built.task, built.datamodule.batch_size
    users, items, ratings = built.datamodule.columns("train")
    val_users, val_items, val_ratings = built.datamodule.columns("val")
    optimizer = torch.optim.Adam(task.parameters(), lr=0.005, fused=True)
    for _ in range(epochs):
        task.train()
        for chosen in torch.randperm(len(ratings)).split(batch_size):
            known = torch.rand(2, len(chosen)) >= task.unknown_shares
            user_rows, item_rows = task.network.lookup(
                users[chosen] * known[0], items[chosen] * known[1]
            )
            loss = torch.nn.functional.mse_loss(
                task.network.score(user_rows, item_rows), ratings[chosen]
            )
            rows = user_rows[0].square().sum() + item_rows[0].square().sum()
            loss = loss + task.l2 * rows / len(chosen)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        task.eval()
        with torch.no_grad():
            float((task(val_users, val_items) - val_ratings).square().mean().sqrt())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"80,000 ratings, dimension 32, {options.threads} thread(s), {options.rounds} rounds\n")
    print(
        "| batch | epochs | bare s | matinee s | ratio |\n|------:|-------:|-------:|----------:|------:|"
    )
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        write_ratings(folder / "ratings.csv")
        for batch_size, epochs in ((256, 3), (4096, 30)):
            config = compose(
                "dataset=table", f"dataset.path={folder / 'ratings.csv'}", "dataset.user=user",
                "dataset.item=item", "dataset.rating=rating", "split=random", "name=speed",
                "model.embedding_dim=32", f"data.batch_size={batch_size}",
                f"trainer.max_epochs={epochs}", "callbacks.early_stopping=null",
                "scheduler=none", f"log_dir={folder}", "trainer.accelerator=cpu",
            )  # fmt: skip
            bare, ours = [], []
            for _ in range(options.rounds + 1):
                built = building.build(config.copy())
                started = time.perf_counter()
                bare_loop(built, epochs)
                bare.append(time.perf_counter() - started)
                run = running.train(config.copy(), [])
                ours.append(read_result(run)["environment"]["seconds"]["fit"])
            bare, ours = bare[1:], ours[1:]  # the first round warms up
            ratio = statistics.median(o / b for o, b in zip(ours, bare, strict=True))
            print(
                f"| {batch_size:5} | {epochs:6} | {statistics.median(bare):6.3f} | "
                f"{statistics.median(ours):9.3f} | {ratio:5.2f} |"
            )


if __name__ == "__main__":
    main()
