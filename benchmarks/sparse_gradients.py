"""Are sparse gradients worth it on the CPU? The talk on ranking losses ends with that question.

One training step of a biased matrix factorization with dense gradients and fused Adam against sparse
gradients and RowAdam, which updates only the rows that the step saw. Milliseconds a step are medians
over the rounds, the two sides alternating.

    python benchmarks/sparse_gradients.py
"""

import argparse
import statistics
import time
from typing import Any

import torch

from matinee.networks.pairs.factorization import BiasedMatrixFactorization
from matinee.training.optimizers import RowAdam


def steps_per_second(
    sides: dict[str, tuple[Any, Any]], num_ids: int, batch: int, rounds: int
) -> dict[str, float]:
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    repeats = 3 if num_ids >= 1_000_000 else 20
    for _ in range(rounds + 1):
        users, items = torch.randint(1, num_ids + 1, (2, batch))
        ratings = torch.rand(batch)
        for name, (network, optimizer) in sides.items():
            started = time.perf_counter()
            for _ in range(repeats):
                optimizer.zero_grad()
                torch.nn.functional.mse_loss(network(users, items), ratings).backward()
                optimizer.step()
            seconds[name].append((time.perf_counter() - started) / repeats)
    return {name: 1000 * statistics.median(values[1:]) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dim", type=int, default=64)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"one thread, dimension {options.dim}, as many users as items\n")
    print("| items | batch | dense ms | sparse ms | dense / sparse |")
    print("|------:|------:|---------:|----------:|---------------:|")
    for num_ids in (1_700, 10_000, 100_000, 1_000_000):
        for batch in (256, 4096):
            sides: dict[str, tuple[Any, Any]] = {}
            for name in ("dense", "sparse"):
                network = BiasedMatrixFactorization(
                    num_ids, num_ids, 0.0, options.dim, sparse=name == "sparse"
                )
                if name == "dense":
                    sides[name] = network, torch.optim.Adam(network.parameters(), fused=True)
                else:
                    sides[name] = network, RowAdam(network.parameters())
            took = steps_per_second(sides, num_ids, batch, options.rounds)
            ratio = took["dense"] / took["sparse"]
            print(
                f"| {num_ids:,} | {batch} | {took['dense']:.2f} | {took['sparse']:.2f} | {ratio:.2f} |"
            )


if __name__ == "__main__":
    main()
