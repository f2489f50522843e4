"""Export parity: whether the programs of an export list the same best items as ``matinee recommend``.

    python benchmarks/export_parity.py [--models gru ease ...] [--histories 10000] [--seconds 180]

Every model of ``configs/model`` is trained briefly on ML-100K (one epoch, or in closed form) and exported.
Then both programs and the code of ``matinee recommend`` answer the same random histories: empty ones, some
longer than the model reads, with repeated and unknown items, users of the data and unknown ones. A model of
ratings is asked for every user of the data and for an unknown one. Items of the history are left out, and of
equal scores the lower id comes first. A program gets its inputs as ``docs/how-to/to-production.md`` describes
them, not from the code of ``recommend``.

``export_parity.csv`` has a row for each program. ``histories`` says how many were compared in ``--seconds``
of CPU time. ``equal_top_20`` is the share of histories with the same items in the same order, and
``equal_but_ties`` the share where only items change places whose scores differ by less than 0.0001, relative
to the larger of 1 and the largest score.
"""

import argparse
import csv
import itertools
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import matinee
from matinee.batches.queries import Queries
from matinee.errors import MatineeError
from matinee.experiment.building import Experiment, load_run
from matinee.experiment.running import train
from matinee.verbs.export import command, parity
from matinee.verbs.recommend import ranked

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).with_suffix(".csv")
COLUMNS = ("model", "program", "histories", "equal_top_20", "equal_but_ties", "largest_difference")
COLUMNS += ("refused",)
TOP_K, BEYOND, TOLERANCE = 20, 5, 1e-4
NEXT_ITEM = ("data=sequence", "task=next_item", "loss=softmax", "split=leave_last_out")
NEXT_ITEM += ("data.length=51", "data.stride=25", "data.eval_length=51")
RATINGS = ("split=random",)
LIVE = ("data=live", "task=live", "split=chronological", "sampler=none")
OF_RATINGS = ("bias", "global_mean", "item_mean", "mf", "mf_bias", "ncf", "bayesian_mf")
OF_RATED_HISTORIES = ("listening", "folded", "online_bias")
VARIANTS = {
    "attention, relative positions": ("model=attention", "model.encoder.relative_positions=true"),
    "gru, two tables": ("model=gru", "model.tied=false"),
    "mf_bias, star_classification": ("model=mf_bias", "loss=star_classification"),
}
Lists = tuple[Any, Any]


def overrides(model: str) -> list[str]:
    """Return what trains a model in seconds."""
    own = VARIANTS.get(model, (f"model={model}",))
    name = own[0].removeprefix("model=")
    data = RATINGS if name in OF_RATINGS else LIVE if name in OF_RATED_HISTORIES else NEXT_ITEM
    return [*data, *own, "trainer.max_epochs=1", "trainer.accelerator=cpu", "dataset=ml-100k"]


def asked(experiment: Experiment, count: int, newest: int | None) -> Iterator[Queries]:
    """Ask for random histories, or for all users where ratings are predicted."""
    interactions = experiment.datamodule.interactions
    if newest is None:
        every = np.arange(interactions.num_users + 1)
        yield from (Queries.of_users(interactions, users) for users in np.array_split(every, 20))
        return
    sizes = (interactions.num_items, interactions.num_users)
    needs_times = getattr(experiment.task.network, "needs_times", False)
    for case in parity.histories(count, newest + BEYOND, *sizes, needs_times):
        lengths = torch.from_numpy(case["lengths"]) - 1
        inside = torch.arange(case["histories"].shape[1] - 1) < lengths.unsqueeze(1)
        items, times = (
            torch.from_numpy(case[name])[:, 1:][inside] if name in case else None
            for name in ("histories", "times")
        )
        offsets = torch.cat((lengths.new_zeros(1), lengths.cumsum(0)))
        yield Queries(torch.from_numpy(case["user_ids"]), offsets, items, times=times)


def inputs_of(queries: Queries, newest: int | None, num_items: int) -> dict[str, Any]:
    """Make the inputs of a program as its manifest describes them."""
    users = queries.user_ids.numpy()
    if newest is None:
        items = np.arange(num_items + 1)
        return {
            "user_ids": np.repeat(users, len(items)),
            "item_ids": np.tile(items, len(users)),
        }
    starts = queries.offsets.tolist()
    rows = [slice(max(start, end - newest), end) for start, end in itertools.pairwise(starts)]
    lengths = np.array([1 + row.stop - row.start for row in rows])
    inputs = {
        "histories": np.zeros((len(rows), lengths.max()), np.int64),
        "lengths": lengths,
        "user_ids": users,
    }
    for row, (part, length) in enumerate(zip(rows, lengths, strict=True)):
        inputs["histories"][row, 1:length] = queries.item_ids[part]
    if queries.times is not None:
        inputs["times"] = np.zeros_like(inputs["histories"])
        for row, (part, length) in enumerate(zip(rows, lengths, strict=True)):
            times = queries.times[part].numpy()
            inputs["times"][row, 1:length] = times - times[:1]
    return inputs


def best(scores: Any, met: tuple[Any, Any]) -> Lists:
    """List the best items of scores with numpy alone, (rows, TOP_K) ids and scores."""
    scores = scores.copy()
    scores[:, 0] = scores[met] = -np.inf
    ids = np.argsort(-scores, axis=1, kind="stable")[:, :TOP_K]
    values = np.take_along_axis(scores, ids, 1)
    return np.where(np.isfinite(values), ids, 0), values


def compare(experiment: Experiment, folder: Path, manifest: Any, options: Any) -> list[list[Any]]:
    """Compare both programs with ``recommend``; return the columns of a row for each."""
    datamodule, newest = experiment.datamodule, manifest["newest_items"]
    num_items = datamodule.interactions.num_items
    programs = {
        "model.pt2": parity.torch_answer(folder / "model.pt2"),
        "model.onnx": parity.onnx_answer(folder / "model.onnx"),
    }
    found = {name: [0, 0, 0, 0.0] for name in programs}
    began, largest = time.process_time(), 1.0
    for queries in asked(experiment, options.histories, newest):
        ((_, ids, values),) = ranked(experiment, queries, TOP_K)
        ids, values = ids.numpy(), values.numpy()
        with torch.no_grad():
            ours = experiment.task.score_items(datamodule, queries).numpy()[:, 1:]
        largest = max(largest, float(np.abs(ours[np.isfinite(ours)]).max()))
        inputs, met = (
            inputs_of(queries, newest, num_items),
            tuple(part.numpy() for part in queries.met),
        )
        for name, answer in programs.items():
            scores = answer(inputs).reshape(len(queries), num_items + 1)
            other_ids, other_values = best(scores, met)
            equal = other_ids == ids
            with np.errstate(invalid="ignore"):  # infinity less infinity where candidates run out
                near = equal | (np.abs(other_values - values) <= TOLERANCE * largest)
            row = found[name]
            row[0] += len(queries)
            row[1] += int(equal.all(1).sum())
            row[2] += int(near.all(1).sum())
            finite = np.isfinite(ours)
            assert np.array_equal(finite, np.isfinite(scores[:, 1:]))
            row[3] = max(row[3], float(np.abs(scores[:, 1:][finite] - ours[finite]).max()))
        if time.process_time() - began > options.seconds:
            break
    return [
        [name, count, f"{equal / count:.4f}", f"{near / count:.4f}", f"{difference:.1e}", ""]
        for name, (count, equal, near, difference) in found.items()
    ]


def rows_of(model: str, options: Any) -> list[list[Any]]:
    """Train, export and compare one model."""
    with tempfile.TemporaryDirectory() as folder:
        words = [*overrides(model), "callbacks.inspection=null", "logger=none"]
        run = train(matinee.compose(*words, f"run_folder={folder}/run"), words)
        experiment = load_run(run)
        try:
            manifest = command.write_artefact(experiment, run, Path(folder) / "artefact", 100)
        except MatineeError as error:
            return [
                [model, name, 0, "", "", "", str(error)] for name in ("model.pt2", "model.onnx")
            ]
        rows = compare(experiment, Path(folder) / "artefact", manifest, options)
        return [[model, *row] for row in rows]


def main() -> None:
    """Write the rows of the models, and keep those of the others."""
    every = sorted([path.stem for path in (ROOT / "configs/model").glob("*.yaml")] + [*VARIANTS])
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", nargs="+", choices=every, default=every)
    parser.add_argument("--histories", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=180)
    options = parser.parse_args()
    torch.set_num_threads(1)
    table: dict[str, list[list[Any]]] = {}
    if RESULTS.exists():
        with RESULTS.open(newline="") as file:
            for row in [*csv.reader(file)][1:]:
                table.setdefault(row[0], []).append(row)
    for model in options.models:
        began = time.process_time()
        table[model] = rows_of(model, options)
        for row in table[model]:
            print(*row, f"{time.process_time() - began:.0f} s", sep=" | ", flush=True)
        with RESULTS.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows(row for name in sorted(table) for row in table[name])


if __name__ == "__main__":
    main()
