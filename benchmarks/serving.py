r"""The service under load: latency, throughput, and reloads, beside the bare model's time.

    python benchmarks/serving.py --run RUN --artefact FOLDER [--seconds 60] [--reloads 200]

Starts ``matinee serve`` for the run and then for the artefact, and asks over loopback: 64 connections, each
of which sends the next question when the last is answered. A question is a history of 10 random items. The
client is wrk (https://github.com/wg/wrk) and shares the cores with the service. Afterwards the same questions
are asked while the model is reloaded, half of the times by a request and half by SIGHUP. Every answer of
another status than 200, and every broken connection, counts as lost.

The bare model's time is that of one batch of 64 such histories, computed in this process before and after the
load by what the service calls for a batch.
"""

import argparse
import json
import os
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np

from matinee.verbs.serve.batching import BATCH
from matinee.verbs.serve.command import TOKEN
from matinee.verbs.serve.sources import Asked, Source, open_source

CONNECTIONS = 64
HISTORY = 10  # items
QUESTIONS = 20_000  # so that hardly any is asked twice: a run keeps states of histories
SECRET = "benchmark"
SCRIPT = """
local questions = {{{questions}}}
local place = 0
function request()
  place = place % #questions + 1
  return wrk.format("POST", "/recommend", {{["content-type"] = "application/json"}}, questions[place])
end
function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    "RESULT %d %d %d %d %f %f %f\\n", summary.requests, summary.duration, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(95), latency:percentile(99)))
end
"""


def written_questions(source: Source, folder: Path) -> Path:
    """Write the script that makes wrk ask."""
    rng = random.Random(0)
    questions = []
    for _ in range(QUESTIONS):
        history = rng.sample(source.raw_items, HISTORY)
        question = json.dumps({"history": history, "top_k": 10})
        questions.append(f"[[{question}]]")
    script = folder / "questions.lua"
    script.write_text(SCRIPT.format(questions=",\n".join(questions)))
    return script


def start_load(url: str, script: Path, seconds: int) -> subprocess.Popen[str]:
    """Start to ask."""
    words = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "30s", "-s"]
    return subprocess.Popen([*words, str(script), url], stdout=subprocess.PIPE, text=True)


def read_load(load: subprocess.Popen[str]) -> dict[str, float]:
    """Wait for the end of the load, and read what wrk found; times in seconds."""
    found = re.search(r"RESULT (.*)", load.communicate()[0])
    assert found is not None
    requests, duration, refused, broken, *latencies = map(float, found[1].split())
    names = ("p50", "p95", "p99")
    return {
        "requests": requests,
        "seconds": duration / 1e6,
        "lost": refused + broken,
        **{name: latency / 1e6 for name, latency in zip(names, latencies, strict=True)},
    }


def bare_batch(source: Source, seed: int, rounds: int = 30) -> tuple[float, float]:
    """Time one batch of new histories in this process: seconds, and CPU seconds; medians."""
    rng = np.random.default_rng(seed)
    walls, cpus = [], []
    for _ in range(rounds):
        histories = rng.integers(1, len(source.raw_items) + 1, (BATCH, HISTORY))
        asked = [Asked(0, history) for history in histories]
        wall, cpu = time.perf_counter(), time.process_time()
        source.score(asked)
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return statistics.median(walls), statistics.median(cpus)


def cpu_seconds(process: int) -> float:
    """Return the CPU seconds that a process has taken."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mb(process: int) -> float:
    """Return the memory of a process."""
    return (
        int(Path(f"/proc/{process}/statm").read_text().split()[1])
        * os.sysconf("SC_PAGE_SIZE")
        / 2**20
    )


def measure(argument: str, config: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Serve one model and ask it."""
    source = open_source(config)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    service = subprocess.Popen(
        [sys.executable, "-m", "matinee", "serve", argument, f"port={port}"],
        env={**os.environ, TOKEN: SECRET}, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        with (
            httpx.Client(
                transport=httpx.HTTPTransport(retries=12), base_url=url, timeout=60
            ) as asking,
            tempfile.TemporaryDirectory() as folder,
        ):
            asking.get("/health")
            script = written_questions(source, Path(folder))
            read_load(start_load(url, script, 3))  # warm
            before = bare_batch(source, seed=0)
            cpu = cpu_seconds(service.pid)
            load = read_load(start_load(url, script, options.seconds))
            cpu = cpu_seconds(service.pid) - cpu
            after = bare_batch(source, seed=1)
            batch, batch_cpu = (statistics.mean(pair) for pair in zip(before, after, strict=True))
            sizes = dict(
                re.findall(r"matinee_batch_(sum|count) (\S+)", asking.get("/metrics").text)
            )
            memory = resident_mb(service.pid)
            reloads = start_load(url, script, options.longest)
            headers = {"authorization": f"Bearer {SECRET}"}
            for count in range(options.reloads):
                if count % 2:
                    service.send_signal(signal.SIGHUP)
                else:
                    asking.post("/reload", headers=headers).raise_for_status()
                pattern = rf"matinee_reloads_total {count + 1}\.0"
                while not re.search(pattern, asking.get("/metrics").text):
                    time.sleep(0.02)
            assert reloads.poll() is None, "the load ended before the reloads; raise --longest"
            reloads.send_signal(signal.SIGINT)
            under_reloads = read_load(reloads)
            grown = resident_mb(service.pid) - memory
    finally:
        service.send_signal(signal.SIGTERM)
        service.wait(60)
    return {
        **load,
        "cpu": cpu,
        "batch": batch,
        "batch_cpu": batch_cpu,
        "mean_batch": float(sizes["sum"]) / float(sizes["count"]),
        "reloads": options.reloads,
        "reload": under_reloads,
        "grown": grown,
    }


def main() -> None:
    """Print a table: one column for each model."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", required=True)
    parser.add_argument("--artefact", required=True)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--reloads", type=int, default=200)
    parser.add_argument("--longest", type=int, default=1800, help="seconds that reloads may take")
    options = parser.parse_args()
    if options.reloads < 1:
        parser.error("give at least one reload; its end tells when the load may end")
    nowhere = dict.fromkeys(("path", "validation_path", "test_path", "data_dir"))
    common = {"run": None, "artefact": None, "checkpoint": "best", "dataset": nowhere}
    columns = []
    for kind in ("run", "artefact"):
        folder = getattr(options, kind)
        config = SimpleNamespace(**{**common, kind: folder})
        columns.append(measure(f"{kind}={folder}", config, options))

    def row(name: str, form: str, value: Any) -> None:
        print(f"| {name} |", " | ".join(format(value(column), form) for column in columns), "|")

    print("| | run | artefact |\n| :-- | --: | --: |")
    row("questions answered", ",.0f", lambda c: c["requests"])
    row("lost", ".0f", lambda c: c["lost"])
    row("answers a second", ",.0f", lambda c: c["requests"] / c["seconds"])
    row("answers a CPU second of the service", ",.0f", lambda c: c["requests"] / c["cpu"])
    for name in ("p50", "p95", "p99"):
        row(f"{name}, ms", ".0f", lambda c, name=name: 1e3 * c[name])
    row("mean batch, questions", ".1f", lambda c: c["mean_batch"])
    row(f"bare model, batch of {BATCH}, ms", ".1f", lambda c: 1e3 * c["batch"])
    row("the same, CPU ms", ".1f", lambda c: 1e3 * c["batch_cpu"])
    row("p50 / bare batch", ".1f", lambda c: c["p50"] / c["batch"])
    row(
        "share of the CPU that the bare model would take", ".0%",
        lambda c: c["requests"] / BATCH * c["batch_cpu"] / c["cpu"],
    )  # fmt: skip
    row("reloads under load", ".0f", lambda c: c["reloads"])
    row("questions answered meanwhile", ",.0f", lambda c: c["reload"]["requests"])
    row("lost meanwhile", ".0f", lambda c: c["reload"]["lost"])
    row("p99 meanwhile, ms", ".0f", lambda c: 1e3 * c["reload"]["p99"])
    row("memory more after the reloads, MB", ".0f", lambda c: c["grown"])


if __name__ == "__main__":
    main()
