"""What it costs to show a run in TensorBoard beyond its curves.

Trains two models on MovieLens 100K with the inspection on and off in turn, and prints the medians of
the whole training's wall seconds; the rest of the run is the same.

    python benchmarks/inspection.py
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from matinee.config.composing import compose
from matinee.experiment.running import train

SIDES = {
    "off": "callbacks.inspection=null",
    "on": "callbacks.inspection.samples=5",
    "with histograms": "callbacks.inspection.histograms=true",
}


def seconds(overrides: list[str]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        config = compose(*overrides, f"run_folder={Path(folder) / 'run'}")
        started = time.perf_counter()
        train(config, overrides)
        return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    print(f"1 thread, medians of {rounds} rounds\n")
    print("| experiment | epochs | off s | on s | with histograms s |\n|:--|--:|--:|--:|--:|")
    for experiment, epochs in (("chronological/mf_bias", 20), ("user_based/gru", 2)):
        measured: dict[str, list[float]] = {side: [] for side in SIDES}
        common = [f"experiment={experiment}", f"trainer.max_epochs={epochs}", "trainer=cpu"]
        seconds([*common, SIDES["on"]])  # imports and caches
        for _ in range(rounds):
            for side, override in SIDES.items():
                measured[side].append(seconds([*common, override]))
        cells = " | ".join(f"{statistics.median(values):.2f}" for values in measured.values())
        print(f"| {experiment} | {epochs} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
