"""Time and memory of reading large MovieLens files, first and from the columnar copy.

Synthetic `ratings.csv` and `movies.csv` files are read in fresh processes; the table shows seconds,
and peak memory beyond the bare imports, per million ratings, so that linear growth can be seen:

    python benchmarks/read_ratings.py --millions 5 10 20

With `--parquet`, the ratings are in a folder of Parquet files of a million rows each, which `dataset=table`
reads, and the memory of the resulting columns, 20 MB per million, is not counted:

    python benchmarks/read_ratings.py --parquet --millions 10 30 100
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import csv, parquet

from matinee.data.interactions import ARRAYS
from matinee.data.sources import movielens, table
from matinee.data.splits import chronological

NUM_ITEMS = 60_000
RATINGS_PER_USER = 150


def write(folder: Path, num_ratings: int, seed: int = 0) -> None:
    """Write distinct (user, item) pairs, user by user, items by popularity, as MovieLens does."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    num_users = num_ratings // RATINGS_PER_USER
    drawn = num_ratings + num_ratings // 4
    users = generator.integers(1, num_users + 1, drawn)
    items = (NUM_ITEMS * generator.random(drawn) ** 3).astype(np.int64) + 1
    pairs = np.unique(users * (NUM_ITEMS + 1) + items)
    pairs = np.sort(generator.permutation(pairs)[:num_ratings])
    joined = generator.integers(789_652_009, 1_574_327_703, num_users + 1)
    users = pairs // (NUM_ITEMS + 1)
    ratings = {
        "userId": users,
        "movieId": pairs % (NUM_ITEMS + 1),
        "rating": generator.integers(1, 11, len(pairs)) / 2,
        "timestamp": joined[users] + generator.integers(0, 10_000_000, len(pairs)),
    }
    movies = {
        "movieId": np.arange(1, NUM_ITEMS + 1),
        "title": [f"Movie {item} ({1950 + item % 70})" for item in range(NUM_ITEMS)],
        "genres": ["Action|Drama"] * NUM_ITEMS,
    }
    options = csv.WriteOptions(quoting_style="needed")
    csv.write_csv(pa.table(ratings), folder / "ratings.csv", options)
    csv.write_csv(pa.table(movies), folder / "movies.csv", options)


def write_parquet(folder: Path, num_ratings: int) -> None:
    """Write distinct pairs in random order, 100 a user, as files of a million rows."""
    folder.mkdir(parents=True)
    for part in range(num_ratings // 1_000_000):
        generator = np.random.default_rng(part)
        users = 10_000 * part + generator.integers(0, 10_000, 1_250_000)
        items = (NUM_ITEMS * generator.random(len(users)) ** 2).astype(np.int64) + 1
        pairs = np.unique(users * (NUM_ITEMS + 1) + items)
        pairs = generator.permutation(pairs)[:1_000_000]
        columns = {
            "user": pairs // (NUM_ITEMS + 1),
            "item": pairs % (NUM_ITEMS + 1),
            "rating": generator.integers(1, 11, len(pairs)) / 2,
            "time": 1_000_000_000 + generator.integers(0, 500_000_000, len(pairs)),
        }
        parquet.write_table(pa.table(columns), folder / f"part-{part}.parquet")


def peak_megabytes() -> float:
    """Return the peak resident memory of this process in MB (ru_maxrss is in KiB on Linux)."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def measure(folder: Path, split: bool) -> dict[str, float]:
    """Read the data in this process, and split it if asked to."""
    imports = peak_megabytes()
    start = time.perf_counter()
    interactions = movielens.load("ml-25m", data_dir=folder)
    result = {
        "rows": len(interactions),
        "seconds": time.perf_counter() - start,
        "megabytes": peak_megabytes() - imports,
    }
    if split:
        start = time.perf_counter()
        chronological(interactions, quantile=0.8)
        result["split_seconds"] = time.perf_counter() - start
        result["split_megabytes"] = peak_megabytes() - imports  # the table's own columns included
    return result


def measure_parquet(folder: Path) -> dict[str, float]:
    """Read a folder of Parquet files in this process."""
    imports = peak_megabytes()
    start, began = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory(dir=folder.parent) as copies:
        log = table.load(folder, "user", "item", "rating", "time", data_dir=copies)
    columns = [getattr(log, name) for name in ARRAYS]
    own = sum(column.nbytes for column in columns if column is not None) / 1e6
    return {
        "rows": len(log),
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - began,
        "megabytes": peak_megabytes() - imports - own,
    }


def in_fresh_process(folder: Path, *options: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", str(folder), *options]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return dict(json.loads(output or "{}"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--millions", type=int, nargs="+", default=[5, 10, 20])
    parser.add_argument("--write", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--split", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--parquet", action="store_true", help="read a folder of Parquet files")
    arguments = parser.parse_args()
    if arguments.write:
        (write_parquet if arguments.parquet else write)(arguments.measure, arguments.write)
        return
    if arguments.measure:
        folder = arguments.measure
        found = measure_parquet(folder) if arguments.parquet else measure(folder, arguments.split)
        print(json.dumps(found))
        return
    print("                              per million ratings")
    print(f"{'millions':>8} {'what':>12} {'seconds':>12} {'peak MB':>12}")
    for millions in arguments.millions:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "data"
            # Not here: a child's peak memory starts at its parent's.
            kind = ["--parquet"] if arguments.parquet else []
            in_fresh_process(folder, "--write", str(millions * 1_000_000), *kind)
            if arguments.parquet:
                result = in_fresh_process(folder, *kind)
                for what, key in (("first read", "seconds"), ("CPU time", "cpu_seconds")):
                    show(millions, what, result[key], result["megabytes"], result["rows"])
                continue
            for what in ("first read", "cached read"):
                result = in_fresh_process(folder)
                show(millions, what, result["seconds"], result["megabytes"], result["rows"])
            result = in_fresh_process(folder, "--split")
            show(
                millions,
                "split",
                result["split_seconds"],
                result["split_megabytes"],
                result["rows"],
            )


def show(millions: int, what: str, seconds: float, megabytes: float, rows: float) -> None:
    scale = rows / 1e6
    print(
        f"{millions:>8} {what:>12} {seconds / scale:>12.4f} {megabytes / scale:>12.1f}", flush=True
    )


if __name__ == "__main__":
    main()
