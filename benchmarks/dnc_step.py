"""Milliseconds per time step, forward and backward, of the DNC encoder over a grid of sizes.

    OMP_NUM_THREADS=1 python benchmarks/dnc_step.py [--length 20] [--threads 1] [--profile]

The last columns say what an epoch of MovieLens 100K costs: 8,000 windows of 20 items.
"""

import argparse
import statistics
import time

import torch

from matinee.networks.encoders.dnc import DNC

WINDOWS, WINDOW_LENGTH = 8_000, 20


def seconds_per_pass(network: torch.nn.Module, inputs: torch.Tensor, repeats: int) -> float:
    """Median seconds of one forward and backward pass, after one that warms up."""
    seconds = []
    for _ in range(repeats + 1):
        network.zero_grad()
        start = time.perf_counter()
        network(inputs).square().mean().backward()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--length", type=int, default=WINDOW_LENGTH)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--controller", default="lstm", choices=["lstm", "gru"])
    parser.add_argument("--plain", action="store_true", help="the DNC of Graves et al.")
    parser.add_argument("--profile", action="store_true", help="profile one size and stop")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    refined = not options.plain
    extras = {"masking": refined, "deallocation": refined, "link_sharpening": refined}

    if options.profile:
        network = DNC(64, 64, 32, 32, 2, options.controller, **extras)
        inputs = torch.randn(128, options.length, 64)
        seconds_per_pass(network, inputs, 1)
        with torch.profiler.profile() as profiler:
            seconds_per_pass(network, inputs, 2)
        print(profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=40))
        return

    print(
        f"{'batch':>6}{'cells':>6}{'words':>6}{'heads':>6}{'ms/step':>9}{'us/row':>8}{'s/epoch':>9}"
    )
    for cells, words, heads in [(16, 16, 1), (16, 32, 1), (32, 32, 1), (32, 32, 2), (32, 32, 4)]:
        for batch in (64, 128, 256):
            network = DNC(64, 64, cells, words, heads, options.controller, **extras)
            inputs = torch.randn(batch, options.length, 64)
            step = seconds_per_pass(network, inputs, options.repeats) / options.length
            epoch = step * WINDOW_LENGTH * WINDOWS / batch
            print(
                f"{batch:6d}{cells:6d}{words:6d}{heads:6d}"
                f"{1e3 * step:9.2f}{1e6 * step / batch:8.1f}{epoch:9.1f}"
            )


if __name__ == "__main__":
    main()
