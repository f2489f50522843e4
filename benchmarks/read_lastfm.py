"""Time and memory of reading Last.fm 1K, first and from the columnar copy.

Synthetic files of its format are read in fresh processes; the table shows lines per second, of the
clock and of the processor, and peak memory beyond the bare imports:

    python benchmarks/read_lastfm.py --millions 0.5 1 2
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
import pyarrow.compute as pc
from numpy.typing import NDArray

from matinee.data.sources import lastfm

EVENTS_PER_USER = 19_300
LINES_PER_TRACK = 12  # 19,150,868 lines, about 1.5 million tracks
TRACKS_PER_ARTIST = 9
BLOCK = 250_000


def hexadecimal(numbers: NDArray[np.int64]) -> pa.Array:
    """Write numbers as long as MusicBrainz ids: 36 characters."""
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    scrambled = (numbers.astype(np.uint64) + 1) * np.uint64(0x9E3779B97F4A7C15)
    nibbles = (scrambled[:, None] >> np.arange(0, 64, 4, dtype=np.uint64)) & np.uint64(15)
    letters = np.tile(digits[nibbles], (1, 3))[:, :36]
    letters[:, [8, 13, 18, 23]] = ord("-")
    return pa.array(np.ascontiguousarray(letters).view("S36").ravel()).cast(pa.string())


def named(word: str, numbers: NDArray[np.int64]) -> pa.Array:
    return pc.binary_join_element_wise(word, pa.array(numbers).cast(pa.string()), " ")


def write(path: Path, num_lines: int, seed: int = 0) -> None:
    """Write users one after the other, newest first, tracks by popularity, a ninth without ids."""
    rng = np.random.default_rng(seed)
    num_tracks = num_lines // LINES_PER_TRACK
    with path.open("wb") as file:
        for start in range(0, num_lines, BLOCK):
            rows = np.arange(start, min(start + BLOCK, num_lines))
            users = rows // EVENTS_PER_USER
            seconds = 1_241_478_537 - (rows % EVENTS_PER_USER) * 6_000 - rng.integers(6_000)
            times = pc.strftime(pa.array(seconds.astype("datetime64[s]")), "%Y-%m-%dT%H:%M:%SZ")
            tracks = (num_tracks * rng.random(len(rows)) ** 2).astype(np.int64)
            artists = tracks // TRACKS_PER_ARTIST
            lines = pc.binary_join_element_wise(
                pc.binary_join_element_wise(
                    "user", pc.utf8_lpad(pa.array(users).cast(pa.string()), 6, "0"), "_"
                ),
                times,
                pc.if_else(pa.array(artists % 30 > 0), hexadecimal(artists), ""),
                named('The "Artist', artists),
                pc.if_else(pa.array(tracks % 9 > 0), hexadecimal(tracks), ""),
                named("A Song of Some Length, Take", tracks),
                "\t",
            )
            file.write(("\n".join(lines.to_pylist()) + "\n").encode())


def peak_megabytes() -> float:
    """Return the peak resident memory of this process in MB (ru_maxrss is in KiB on Linux)."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def measure(path: Path, min_item_count: int) -> dict[str, float]:
    imports = peak_megabytes()
    start, cpu_start = time.perf_counter(), time.process_time()
    interactions = lastfm.load(path, min_item_count=min_item_count, data_dir=path.parent)
    return {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu_start,
        "megabytes": peak_megabytes() - imports,
        "lines": interactions.source["lines"],
        "events": len(interactions),
        "items": interactions.num_items,
    }


def in_fresh_process(*options: object) -> dict[str, float]:
    command = [sys.executable, __file__, *map(str, options)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return dict(json.loads(output or "{}"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--millions", type=float, nargs="+", default=[0.5, 1, 2])
    parser.add_argument("--write", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.write:
        write(arguments.path, arguments.write)
        return
    if arguments.measure:
        print(json.dumps(measure(arguments.path, arguments.measure)))
        return
    header = (
        "millions",
        "min count",
        "read",
        "events",
        "items",
        "lines/s",
        "lines/CPU s",
        "peak MB",
    )
    print(f"| {' | '.join(header)} |")
    print("|--:|--:|:--|--:|--:|--:|--:|--:|")
    for millions in arguments.millions:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "events.tsv"
            # Not here: a child's peak memory starts at its parent's.
            in_fresh_process("--write", round(millions * 1e6), "--path", path)
            for min_item_count in (20, 1):
                for what in ("first", "cached"):
                    result = in_fresh_process("--measure", min_item_count, "--path", path)
                    show(millions, min_item_count, what, result)


def show(millions: float, min_item_count: int, what: str, result: dict[str, float]) -> None:
    lines = result["lines"]
    print(
        f"| {millions:g} | {min_item_count} | {what} | {result['events']:,} | {result['items']:,} "
        f"| {lines / result['seconds']:,.0f} | {lines / result['cpu_seconds']:,.0f} "
        f"| {result['megabytes']:.0f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
