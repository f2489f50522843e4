"""Speed and memory of next-item recommendation against the ways in which it is commonly done.

1. One training step of the full softmax over a million items: seconds and peak memory, weights and
   gradients included.
2. Windows that end at every interaction: bytes an interaction, against copying every window into a
   row of a padded matrix.
3. An epoch of training `gru` and `attention` (dimension 64, full softmax) on histories of which many
   are short and few long. matinee batches windows of similar length, pads to the longest of a batch
   and computes the loss only where there is a target. The common loop takes windows in random order,
   pads all of them to 50 items, scores every position against every item, padding included, and
   ignores the padding afterwards. Both train the same network on the same windows with fused Adam in
   a bare loop. The common loop is timed on a tenth of an epoch, and its seconds are multiplied.
4. Ranking the last item of every history among all items: in batches, and one history at a time, by
   the same task and by the shortest loop that a person would write, whose data are made beforehand.

In 3 and 4 the sides alternate in one process. Seconds are medians over the rounds, ratios are
medians of the rounds' ratios. Peak memory is measured in fresh processes,
beyond the imports (1) or beyond the table of interactions (2).

    python benchmarks/sequence_speed.py
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from matinee.batches import SequenceDataModule
from matinee.batches.windows import Histories, Windows, cut_windows, gather
from matinee.config.composing import compose
from matinee.config.parts import make_part
from matinee.data.interactions import Interactions
from matinee.data.splits import Split
from matinee.networks.embedding import EmbeddingTable
from matinee.objectives.ranking_losses import FullSoftmax
from matinee.training.tasks import NextItemTask

DIM = 64
LENGTH = 50  # most items of a window
MEAN_LENGTH = 9
BATCH_SIZE = 128  # windows
COMMON_SHARE = 10  # the common loop is timed on one part in so many
EVAL_BATCH_SIZE = 512
NUM_TARGETS = 2000
ROWS_PER_USER = 150  # in the memory of windows
GIB = 2**30


def synthetic(num_users: int, num_items: int, seed: int = 0) -> Interactions:
    """Draw histories of 2 to 50 items, 1 plus a geometric number: the table is in time order."""
    generator = np.random.default_rng(seed)
    lengths = np.minimum(1 + generator.geometric(1 / (MEAN_LENGTH - 1), num_users), LENGTH)
    users = np.repeat(np.arange(1, num_users + 1), lengths)
    times = np.arange(len(users)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    items = generator.permutation(np.arange(len(users)) % num_items) + 1  # all of them occur
    table = {"user": users, "item": items, "timestamp": times}
    return Interactions.from_table(table, duplicates="keep")


def make_task(name: str, datamodule: SequenceDataModule) -> NextItemTask:
    model = make_part(compose(f"model={name}", f"model.embedding_dim={DIM}"), "model")
    adam = partial(torch.optim.Adam, lr=0.005, fused=True)
    return NextItemTask.from_data(datamodule, model, FullSoftmax(), adam)


def alternate(sides: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Take every side's seconds in turn, ``rounds`` times."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            seconds[name].append(side())
    return seconds


def ratio(slow: list[float], fast: list[float]) -> float:
    return statistics.median(s / f for s, f in zip(slow, fast, strict=True))


def peak_bytes() -> int:
    """Return the peak resident memory of this process (ru_maxrss is in KiB on Linux)."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def in_fresh_process(what: str, *numbers: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--measure", what, *map(str, numbers)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return dict(json.loads(output))


# 1. a step of the full softmax


def measure_step(num_items: int, with_adam: int, rounds: int) -> dict[str, Any]:
    imports = peak_bytes()
    generator = torch.Generator().manual_seed(0)
    weights = EmbeddingTable(num_items, DIM, init_std=0.05).weight
    biases = torch.nn.Parameter(torch.zeros(num_items + 1))
    representations = torch.randn(NUM_TARGETS, DIM, generator=generator, requires_grad=True)
    target_ids = torch.randint(1, num_items + 1, (NUM_TARGETS,), generator=generator)
    loss = FullSoftmax()
    optimizer = torch.optim.Adam([weights, biases], lr=0.005, fused=True) if with_adam else None
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        weights.grad = biases.grad = representations.grad = None
        loss(representations, weights, biases, target_ids).backward()
        if optimizer is not None:
            optimizer.step()
        seconds.append(time.perf_counter() - started)
    return {"seconds": statistics.median(seconds), "peak": peak_bytes() - imports}


def softmax_step(rounds: int, num_items: int = 1_000_000) -> None:
    scores, table = 4 * NUM_TARGETS * num_items, 4 * (num_items + 1) * (DIM + 1)
    print(
        f"## A step of the full softmax\n\n{num_items:,} items, {NUM_TARGETS:,} targets, dimension "
        f"{DIM}. Weights and biases take {table / GIB:.2f} GiB, their gradients as much, Adam's "
        f"moments twice.\nScores held whole would take {scores / GIB:.2f} GiB, and again for their "
        "gradients.\n\n| step | s | peak GiB |\n|:-----|--:|---------:|",
        flush=True,
    )
    for with_adam, step in enumerate(("forward, backward", "forward, backward, Adam")):
        result = in_fresh_process("step", num_items, with_adam, rounds)
        print(f"| {step} | {result['seconds']:.1f} | {result['peak'] / GIB:.2f} |", flush=True)


# 2. windows


def to_matrix(items: Tensor, windows: Windows) -> Tensor:
    """Return windows as the classical matrix: one row each, padded with 0 on the left."""
    before = torch.arange(LENGTH, 0, -1)  # distance from the window's end
    lengths = windows.lengths.long().unsqueeze(1)
    places = windows.starts.unsqueeze(1) + lengths - before
    return items[places.clamp_(min=0)].long().masked_fill_(before > lengths, 0)


def measure_windows(num_rows: int, copied: int) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    num_users = num_rows // ROWS_PER_USER
    interactions = Interactions(
        user_ids=generator.integers(1, num_users + 1, num_rows, dtype=np.int32),
        item_ids=generator.integers(1, 60_001, num_rows, dtype=np.int32),
        ratings=None,
        timestamps=None,
        users=pd.DataFrame(index=range(1, num_users + 1)),
        items=pd.DataFrame(index=range(1, 60_001)),
    )
    rows = np.arange(num_rows)
    table = peak_bytes()
    histories = Histories.from_rows(interactions, rows)
    windows = cut_windows(histories, LENGTH, stride=1, min_length=2)
    if copied:
        items, count = torch.from_numpy(histories.item_ids), len(windows.starts)
        matrix = torch.empty(count, LENGTH, dtype=torch.int32)
        for start in range(0, count, 10_000):
            chosen = slice(start, start + 10_000)
            matrix[chosen] = to_matrix(items, windows.take(chosen))
        held = matrix.nbytes
    else:
        arrays = (histories.item_ids, histories.offsets, histories.rows, *windows)
        held = sum(array.nbytes for array in arrays)
    return {
        "windows": len(windows.starts),
        "held": held,
        "peak": peak_bytes() - table,
    }


def windows_at_every_row() -> None:
    print(
        f"\n## Windows at stride 1\n\nWindows of at most {LENGTH} items, about {ROWS_PER_USER} "
        "interactions a user; the matrix holds int32. Held is what remains, peak what making it "
        "took at most.\n\n"
        "| interactions | windows | what | held MB | held B/interaction | peak B/interaction |\n"
        "|-------------:|--------:|:-----|--------:|-------------------:|-------------------:|",
        flush=True,
    )
    for num_rows in (1_000_000, 2_000_000, 4_000_000):
        for copied, what in enumerate(("offsets", "padded matrix")):
            result = in_fresh_process("windows", num_rows, copied)
            held, peak = result["held"], result["peak"]
            print(
                f"| {num_rows:,} | {result['windows']:,} | {what} | {held / 1e6:.0f} | "
                f"{held / num_rows:.1f} | {peak / num_rows:.1f} |",
                flush=True,
            )


# 3. an epoch of training


def our_epoch(task: NextItemTask, datamodule: SequenceDataModule) -> float:
    optimizer = task.configure_optimizers()
    loader = datamodule.train_dataloader()
    task.train()
    started = time.perf_counter()
    for index, batch in enumerate(loader):
        step = task.training_step(batch, index)
        optimizer.zero_grad()
        step["loss"].backward()
        optimizer.step()
    return time.perf_counter() - started


def common_epoch(task: NextItemTask, datamodule: SequenceDataModule) -> float:
    """Return the seconds of an epoch, as a multiple of those of its first batches."""
    optimizer = task.configure_optimizers()
    items = torch.from_numpy(datamodule.histories.item_ids)
    whole = gather(items, datamodule.windows)  # copied once and for all, which is not timed
    missing = LENGTH - whole.histories.shape[1]
    histories, targets = (F.pad(ids, (0, missing)) for ids in (whole.histories, whole.target_ids))
    task.train()
    started = time.perf_counter()
    batches = torch.randperm(len(histories)).split(BATCH_SIZE)
    timed = batches[: max(1, len(batches) // COMMON_SHARE)]
    for chosen in timed:
        representations = task.network.represent(histories[chosen])
        logits = F.linear(representations, *task.network.item_table())
        loss = F.cross_entropy(logits.flatten(0, 1), targets[chosen].flatten(), ignore_index=0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    windows = sum(len(chosen) for chosen in timed)
    return (time.perf_counter() - started) * len(histories) / windows


def training(rounds: int, num_users: int = 20_000, num_items: int = 12_000) -> None:
    interactions = synthetic(num_users, num_items)
    nothing = np.zeros(0, np.int64)
    split = Split("all", {}, np.arange(len(interactions)), nothing, nothing)
    datamodule = SequenceDataModule(
        interactions, split, length=LENGTH, stride=LENGTH, batch_size=BATCH_SIZE
    )
    lengths = datamodule.windows.lengths.numpy()
    print(
        f"\n## Training\n\n{len(lengths):,} histories of {lengths.min()} to {lengths.max()} items, "
        f"mean {lengths.mean():.1f}, median {np.median(lengths):.0f}; {interactions.num_items:,} "
        f"items; {BATCH_SIZE} windows a batch.\nThe common loop was timed on 1/{COMMON_SHARE} of "
        "an epoch.\n\n"
        "| model | common s/epoch | matinee s/epoch | matinee targets/s | ratio |\n"
        "|:------|---------------:|----------------:|------------------:|------:|",
        flush=True,
    )
    for name in ("gru", "attention"):
        tasks = [make_task(name, datamodule) for _ in range(2)]
        seconds = alternate(
            {
                "ours": partial(our_epoch, tasks[0], datamodule),
                "common": partial(common_epoch, tasks[1], datamodule),
            },
            rounds,
        )
        ours, common = (statistics.median(seconds[side]) for side in ("ours", "common"))
        print(
            f"| {name} | {common:.1f} | {ours:.2f} | {lengths.sum() / ours:,.0f} | "
            f"{ratio(seconds['common'], seconds['ours']):.1f} |",
            flush=True,
        )


# 4. ranking


def rank_by_task(task: NextItemTask, datamodule: SequenceDataModule, batch_size: int) -> float:
    datamodule.eval_batch_size = batch_size
    loader = datamodule.evaluation_dataloader("test")
    with torch.inference_mode():
        started = time.perf_counter()
        for index, batch in enumerate(loader):
            task.validation_step(batch, index)
        return time.perf_counter() - started


def rank_bare(task: NextItemTask, rows: list[tuple[Tensor, int]]) -> float:
    """Rank histories (1, length) and their targets without the task's checks and its reading."""
    network = task.network
    with torch.inference_mode():
        started = time.perf_counter()
        for history, target in rows:
            scores = network.score_all(network.represent(history)[0, -1])
            int((scores > scores[target]).sum()) + 1
        return time.perf_counter() - started


def ranking(rounds: int, num_users: int = 2000, num_items: int = 1682) -> None:
    interactions = synthetic(num_users, num_items)
    newest = np.unique(interactions.user_ids[::-1], return_index=True)[1]
    last = np.sort(len(interactions) - 1 - newest)
    train = np.setdiff1d(np.arange(len(interactions)), last)
    split = Split("last", {}, train, np.zeros(0, np.int64), last)
    print(
        f"\n## Ranking\n\n{num_users:,} histories against {interactions.num_items:,} items, "
        f"{EVAL_BATCH_SIZE} a batch: the rank of each one's last item.\n\n"
        "| model | most items | one by one s | bare one by one s | batches s | ratio | bare ratio |\n"
        "|:------|-----------:|-------------:|------------------:|----------:|------:|-----------:|",
        flush=True,
    )
    for name in ("pooling", "gru", "attention"):
        for most in (10, LENGTH):
            datamodule = SequenceDataModule(
                interactions, split, eval_length=most, eval_batch_size=EVAL_BATCH_SIZE
            )
            task = make_task(name, datamodule).eval()
            rows = [
                (history[:length].unsqueeze(0), int(target[length - 1]))
                for batch in datamodule.evaluation_dataloader("test")
                for history, target, length in zip(*batch[:3], strict=True)
            ]
            seconds = alternate(
                {
                    "batches": partial(rank_by_task, task, datamodule, EVAL_BATCH_SIZE),
                    "one": partial(rank_by_task, task, datamodule, 1),
                    "bare": partial(rank_bare, task, rows),
                },
                rounds + 1,
            )
            seconds = {side: values[1:] for side, values in seconds.items()}  # one warmed up
            batches, one, bare = (statistics.median(values) for values in seconds.values())
            print(
                f"| {name} | {most} | {one:.2f} | {bare:.2f} | {batches:.3f} | "
                f"{ratio(seconds['one'], seconds['batches']):.1f} | "
                f"{ratio(seconds['bare'], seconds['batches']):.1f} |",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.measure:
        what, *numbers = options.measure
        measure = {"step": measure_step, "windows": measure_windows}[what]
        print(json.dumps(measure(*map(int, numbers))))
        return
    print(f"1 thread, {options.rounds} rounds\n")
    # First what is measured in other processes: a child's peak memory starts at its parent's.
    softmax_step(options.rounds)
    windows_at_every_row()
    training(options.rounds)
    ranking(options.rounds)


if __name__ == "__main__":
    main()
