"""What matinee does on one GPU: checked, measured and written down by one command.

    python benchmarks/accelerator.py                                # on a GPU, in at most 8 minutes
    python benchmarks/accelerator.py --sections models,resume
    python benchmarks/accelerator.py --miniature --device cpu       # all of it in small, anywhere

The sections run one after the other, the most important first. Each stands alone: an error in one is
recorded with its traceback, and the next begins. Rows are printed as they come, and after every row
OUTPUT/accelerator.md and accelerator.json hold all that is known, so a run that is cut keeps what it
found. What fits print goes to accelerator.log. The exit status is 0 if everything held.

A GPU machine without a network needs the wheels that benchmarks/collect_wheels.sh collects.
"""

import argparse
import csv
import json
import math
import os
import platform
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import lightning
import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn import functional as F

import matinee
from matinee.batches.loading import to_device
from matinee.config.composing import compose
from matinee.display.markdown import as_markdown
from matinee.experiment import building, running
from matinee.experiment.reading import read_checkpoint
from matinee.experiment.run_folder import read_result
from matinee.experiment.trainer import fit, make_trainer
from matinee.files import checkpoint_path
from matinee.networks.embedding import EmbeddingTable
from matinee.objectives.ranking_losses import FullSoftmax

BUDGET = 460  # seconds, of 8 minutes
LOSS_TOLERANCE = 1e-3  # relative, between devices in float32, after 60 steps
HEADLINE_TOLERANCE = 1e-2  # relative: a rank moves by whole places
UNDISTURBED = ("logger=none", "callbacks.inspection=null", "callbacks.early_stopping=null")
DRAWS = {"dropout", "user_dropout", "unknown_users", "unknown_items"}  # options that cost a draw
MODELS = {
    "random": ("global_mean", "item_mean", "bias", "mf", "mf_bias", "ncf"),
    "user_based": ("popularity", "pooling", "lstm", "gru", "cnn", "attention", "dnc"),
    "user_tail": ("implicit_mf", "user_gru", "user_lstm", "user_attention", "user_dnc"),
}
GIB = 2**30

Item = TypeVar("Item")


@dataclass
class Section:
    """One part of the report: a table, remarks, and what did not hold."""

    name: str
    write: Callable[[], None] = field(repr=False)
    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    error: str | None = None
    seconds: float = 0.0
    done: bool = False

    @property
    def status(self) -> str:
        if self.error:
            return "error"
        return "failed" if self.failures else "ok" if self.done else "unfinished"

    def row(self, **cells: Any) -> None:
        self.rows.append(cells)
        self._say(", ".join(f"{name} {_cell(value)}" for name, value in cells.items()))

    def note(self, text: str) -> None:
        self.notes.append(text)
        self._say(text)

    def expect(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self.failures.append(otherwise)
            self._say(f"FAILED: {otherwise}")

    def _say(self, text: str) -> None:
        print(f"[{self.name}] {text}", flush=True)
        self.write()

    def as_dict(self) -> dict[str, Any]:
        kept = ("name", "status", "seconds", "rows", "notes", "failures", "error")
        return {name: getattr(self, name) for name in kept}

    def as_markdown(self) -> str:
        parts = [f"## {self.name}: {self.status}, {self.seconds:.0f} s"]
        if self.rows:
            table = pd.DataFrame(self.rows, dtype=object).fillna("")
            parts.append(as_markdown(table.map(_cell)))
        parts += self.notes
        parts += [f"**Failed:** {failure}" for failure in self.failures]
        if self.error:
            parts.append(f"```\n{self.error}```")
        return "\n\n".join(parts)


@dataclass
class Bench:
    """Where everything runs, in which size, and until when."""

    device: str  # gpu or cpu
    miniature: bool
    folder: Path  # of run folders and made-up data
    deadline: float

    @property
    def torch_device(self) -> torch.device:
        return torch.device("cuda" if self.device == "gpu" else "cpu")

    @property
    def seconds_left(self) -> float:
        return max(self.deadline - time.monotonic(), 0.0)

    def pick(self, full: Item, small: Item) -> Item:
        return small if self.miniature else full

    def cases(self, section: Section, cases: Iterable[Item]) -> Iterator[Item]:
        """Go through the cases of a section until the time is over, and tell what was left out."""
        waiting = list(cases)
        while waiting:
            if not self.seconds_left:
                section.expect(False, f"left out for want of time: {', '.join(map(str, waiting))}")
                return
            yield waiting.pop(0)

    def synchronize(self) -> None:
        if self.device == "gpu":
            torch.cuda.synchronize()

    def ratings(self) -> list[str]:
        """Overrides of the rating data: MovieLens 100K, or a small table."""
        if not self.miniature:
            return []
        path = self.folder / "ratings.parquet"
        if not path.exists():
            write_ratings(path, num_users=40, num_items=30, num_ratings=600)
        return [*table_of(path), "data.batch_size=64"]

    def sequences(self) -> list[str]:
        """Overrides of the sequence data: MovieLens 100K, or a small Markov chain."""
        if not self.miniature:
            return []
        sizes = {"users": 60, "items": 30, "interactions": 1500}
        small = [f"dataset.num_{name}={size}" for name, size in sizes.items()]
        return ["dataset=markov", *small, "data.batch_size=16"]

    def experiment(self, split: str, model: str) -> list[str]:
        """Overrides of one of the experiments, in the size of this benchmark."""
        data = self.ratings() if split == "random" else self.sequences()
        one_file = split == "user_tail"  # an experiment for all models of the split
        chosen = (
            [f"experiment={split}", f"model={model}"]
            if one_file
            else [f"experiment={split}/{model}"]
        )
        narrow = self.miniature and model not in (*MODELS["random"][:3], "popularity")
        return [*chosen, *data, *(["model.embedding_dim=8"] if narrow else [])]

    def config(self, *overrides: str, device: str | None = None) -> DictConfig:
        """Compose a config in float32 on this benchmark's device, or another."""
        place = [f"trainer={device or self.device}", "trainer.precision=32-true"]
        return compose(*place, f"log_dir={self.folder}/runs", "name=accelerator", *overrides)

    def new_folder(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.folder))


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def write_ratings(path: Path, num_users: int, num_items: int, num_ratings: int) -> None:
    """Write distinct pairs with stars at random, in time order, as Parquet."""
    rng = np.random.default_rng(0)
    pairs = rng.choice(num_users * num_items, num_ratings, replace=False)
    columns = {"user": pairs // num_items, "item": pairs % num_items}
    stars = rng.integers(1, 6, num_ratings).astype(np.float64)
    pd.DataFrame({**columns, "rating": stars, "timestamp": np.arange(num_ratings)}).to_parquet(path)


def table_of(path: Path) -> list[str]:
    columns = [f"dataset.{name}={name}" for name in ("user", "item", "rating", "timestamp")]
    return ["dataset=table", f"dataset.path={path}", *columns]


def fitted(
    bench: Bench, config: DictConfig, *more: pl.Callback
) -> tuple[building.Experiment, list[dict[str, float]]]:
    """Fit a config without measuring the result; return its parts and the rows of metrics.csv."""
    folder = bench.new_folder()
    config.run_folder = str(folder)
    built = building.build(config)
    trainer = make_trainer(config, folder, alone=built.task.closed_form)
    trainer.callbacks.extend(more)
    fit(trainer, built.task, built.datamodule, folder, None)
    return built, epoch_table(folder)


def epoch_table(folder: Path) -> list[dict[str, float]]:
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: float(value) for name, value in row.items() if value} for row in rows]


def trained(config: DictConfig) -> dict[str, Any]:
    """Train as the command line does and return the content of result.json."""
    return read_result(running.train(config, []))


def child_environment() -> dict[str, str]:
    """Return the environment of a process that has to find the same matinee, and get along alone."""
    environment = {"OMP_NUM_THREADS": "2", **os.environ}
    environment.pop("CUBLAS_WORKSPACE_CONFIG", None)
    source = str(Path(matinee.__file__).parents[1])
    found = environment.get("PYTHONPATH")
    environment["PYTHONPATH"] = os.pathsep.join([source, found] if found else [source])
    return environment


def start_matinee(arguments: Sequence[str]) -> subprocess.Popen[str]:
    """Start ``matinee`` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "matinee", *arguments],
        env=child_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def end_of(bench: Bench, process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for a process, as long as there is time; return its status and what it printed."""
    try:
        output, _ = process.communicate(timeout=max(bench.seconds_left, 20))
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
    return process.returncode, output


def run_matinee(bench: Bench, arguments: Sequence[str]) -> tuple[int, str]:
    """Run ``matinee`` to its end; return its status and what it printed."""
    return end_of(bench, start_matinee(arguments))


def last_line(output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip()]
    return lines[-1] if lines else "(nothing)"


# 1. where this ran


def environment(bench: Bench, section: Section) -> None:
    """Which card, which versions, how many threads."""
    if bench.device == "gpu":
        card = torch.cuda.get_device_properties(0)
        section.row(what="card", value=card.name)
        section.row(what="memory", value=f"{card.total_memory / GIB:.0f} GiB")
        section.row(what="driver", value=driver())
        section.row(what="CUDA of PyTorch", value=torch.version.cuda)
        section.row(what="cuDNN", value=torch.backends.cudnn.version())
        section.row(what="TF32 in cuDNN, by default", value=torch.backends.cudnn.allow_tf32)
        section.row(what="TF32 in cuBLAS, by default", value=torch.backends.cuda.matmul.allow_tf32)
    section.row(what="Python", value=platform.python_version())
    for package in ("torch", "lightning", "hydra-core", "optuna", "numpy", "pandas", "pyarrow"):
        section.row(what=package, value=version(package))
    section.row(what="platform", value=platform.platform())
    section.row(what="CPU cores", value=os.cpu_count())
    section.row(what="threads of PyTorch", value=torch.get_num_threads())


def driver() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, timeout=30).stdout.strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"unknown ({error})"


# 2. every model fits, and learns what it learns on the CPU


def models(bench: Bench, section: Section) -> None:
    """Loss curves of the same fit on the device and on the CPU, in float32."""
    section.note(
        f"Relative differences between the device and the CPU over 3 epochs of "
        f"{bench.pick(20, 3)} steps, without draws. Tolerated are {LOSS_TOLERANCE:g} for the training "
        f"loss and {HEADLINE_TOLERANCE:g} for the validation metric."
    )
    for split, model in bench.cases(
        section, [(s, m) for s, names in MODELS.items() for m in names]
    ):
        try:
            compare_devices(bench, section, split, model)
        except Exception as error:  # one model, not all of them
            section.expect(False, f"{model}: {error!r}")
            traceback.print_exc()  # to the log


def compare_devices(bench: Bench, section: Section, split: str, model: str) -> None:
    steps = [f"+trainer.limit_train_batches={bench.pick(20, 3)}", "+trainer.limit_val_batches=2"]
    overrides = [*bench.experiment(split, model), "trainer.max_epochs=3", *steps, *UNDISTURBED]

    def run(device: str) -> tuple[list[dict[str, float]], float, set[str]]:
        config = bench.config(*overrides, device=device)
        for group in ("model", "task"):
            switch_off(config[group])
        started = time.perf_counter()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            _, rows = fitted(bench, config)
        told = {str(warning.message) for warning in caught}
        kernels = {text.split()[0] for text in told if "deterministic implementation" in text}
        return rows, time.perf_counter() - started, kernels

    reference, cpu_seconds, _ = run("cpu")
    found, seconds, kernels = run(bench.device)
    headline = "val/rmse" if split == "random" else "val/mrr"
    loss, metric = (apart(found, reference, name) for name in ("train/loss", headline))
    section.row(
        model=model,
        loss=loss,
        metric=metric,
        **{"device s": seconds, "CPU s": cpu_seconds},
        nondeterministic=" ".join(sorted(kernels)),
    )
    section.expect(loss <= LOSS_TOLERANCE, f"{model}: training losses are {loss:.2g} apart")
    section.expect(metric <= HEADLINE_TOLERANCE, f"{model}: {headline} is {metric:.2g} apart")


def switch_off(node: DictConfig) -> None:
    """Set every option that costs a random draw to 0: generators differ between devices."""
    for key in list(node):
        if isinstance(node[key], DictConfig):
            switch_off(node[key])
        elif key in DRAWS:
            node[key] = 0.0


def apart(found: list[dict[str, float]], reference: list[dict[str, float]], name: str) -> float:
    """Return the largest relative difference of a metric over the epochs; nan is infinite."""
    if len(found) != len(reference):
        return math.inf
    pairs = [(f[name], r[name]) for f, r in zip(found, reference, strict=True) if name in r]
    differences = [abs(f - r) / max(abs(r), 1e-12) for f, r in pairs]
    return max((math.inf if math.isnan(d) else d for d in differences), default=0.0)


# 3. stopped and resumed, bit for bit


def resume(bench: Bench, section: Section) -> None:
    """A run that SIGTERM stops after its second epoch ends, resumed, as one that nothing disturbed."""
    chosen = bench.pick(
        {"mf_bias": ("random", 20), "gru": ("user_based", 6)}, {"gru": ("user_based", 20)}
    )
    section.note("CUBLAS_WORKSPACE_CONFIG is not set by the caller; trainer.deterministic=true.")
    with ThreadPoolExecutor(bench.pick(4, 1)) as pool:
        started: dict[str, tuple[Path, Path, Future[Any], Future[Any]]] = {}
        for model, (split, epochs) in chosen.items():
            folders = bench.new_folder() / "whole", bench.new_folder() / "stopped"
            exact = ["trainer.precision=32-true", "trainer.deterministic=true"]
            fixed = [f"trainer={bench.device}", *exact, f"trainer.max_epochs={epochs}"]
            command = ["train", *bench.experiment(split, model), *fixed, *UNDISTURBED[1:]]
            whole = pool.submit(run_matinee, bench, [*command, f"run_folder={folders[0]}"])
            started[model] = (
                *folders, whole, pool.submit(stop_and_resume, bench, command, folders[1]),
            )  # fmt: skip
        for model, (whole_folder, folder, whole, stopped) in started.items():
            status, output = whole.result()
            step, problem = stopped.result()
            section.expect(not status, f"{model}, undisturbed: {last_line(output)}")
            section.expect(not problem, f"{model}, stopped: {problem}")
            if status or problem:
                print(output, file=sys.stderr)
                continue
            different = differences(whole_folder, folder)
            same = "; ".join(different) or "the same bits"
            steps = read_result(folder)["fit"]["steps"]
            section.row(model=model, **{"stopped after step": step, "of": steps, "result": same})
            section.expect(not different, f"{model}: {same} differ after a resume")


def stop_and_resume(bench: Bench, command: Sequence[str], folder: Path) -> tuple[int, str]:
    """Stop a run at its second epoch's end and resume it; return where it stopped, and what failed."""
    process = start_matinee([*command, f"run_folder={folder}"])
    table = folder / "metrics.csv"
    while process.poll() is None and bench.seconds_left:
        if table.exists() and table.read_text().count("\n") > 2:  # a header and two epochs
            break
        time.sleep(0.002)
    process.send_signal(signal.SIGTERM)
    status, output = end_of(bench, process)
    if status != 143:
        return 0, f"status {status} instead of 143: {last_line(output)}"
    step = int(read_checkpoint(checkpoint_path(folder, "last"))["global_step"])
    status, output = run_matinee(bench, ["train", f"resume={folder}"])
    return step, f"resuming: {last_line(output)}" if status else ""


def differences(folder: Path, other: Path) -> list[str]:
    """Name what is not the same, bit for bit, in two runs."""
    found = []
    for name, parts in (("best", ("state_dict",)), ("last", ("state_dict", "optimizer_states"))):
        checkpoints = [read_checkpoint(checkpoint_path(run, name)) for run in (folder, other)]
        for part in parts:
            if not same_bits(*(checkpoint[part] for checkpoint in checkpoints)):
                found.append(f"{part} of {name}.ckpt")
    if (folder / "metrics.csv").read_text() != (other / "metrics.csv").read_text():
        found.append("metrics.csv")
    if read_result(folder)["metrics"] != read_result(other)["metrics"]:
        found.append("the metrics of result.json")
    return found


def same_bits(left: Any, right: Any) -> bool:
    if isinstance(left, Tensor):
        return isinstance(right, Tensor) and left.dtype == right.dtype and left.equal(right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same_bits(left[k], right[k]) for k in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same_bits, left, right))
    return bool(left == right)


# 4. how often the host waits for the device


def syncs(bench: Bench, section: Section) -> None:
    """Synchronisations a training step, by the source line that causes them."""
    steps = bench.pick(100, 4)
    section.note(
        f"Counted over a first epoch of {steps} and of {2 * steps} steps; the difference is that of "
        f"{steps} steps. Losses are looked at every 50 steps, which waits."
    )
    for model, split in bench.cases(section, [("mf_bias", "random"), ("gru", "user_based")]):
        counts = []
        for number in (steps, 2 * steps):
            # small batches, so that there are so many of them
            small = ["data.batch_size=32"] if not bench.miniature else []
            limits = ["trainer.max_epochs=1", f"+trainer.limit_train_batches={number}", *small]
            config = bench.config(*bench.experiment(split, model), *limits, *UNDISTURBED)
            with counted_syncs(bench.device == "gpu") as count:
                fitted(bench, config)
            counts.append(count)
        each_step = 0.0
        for line in counts[1]:
            a_step = (counts[1][line] - counts[0][line]) / steps
            if a_step:
                section.row(model=model, line=line, **{"a step": a_step})
                each_step += a_step if a_step > 0.5 else 0
        section.row(model=model, line="all that happen at every step", **{"a step": each_step})


@contextmanager
def counted_syncs(on_device: bool) -> Iterator[Counter[str]]:
    """Count the warnings of CUDA's synchronisations by the line of matinee or Lightning behind them."""
    found: Counter[str] = Counter()

    def count(message: Any, *where: Any, **more: Any) -> None:
        if "synchronizing CUDA" in str(message):
            found[line_behind()] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = count
        if on_device:
            torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            if on_device:
                torch.cuda.set_sync_debug_mode("default")


def line_behind() -> str:
    """Return the innermost line of matinee or Lightning on the stack, else of whatever is."""
    homes = [Path(package.__file__).parent for package in (matinee, lightning)]
    frames = [
        f for f in traceback.extract_stack() if f.filename not in (__file__, warnings.__file__)
    ]
    for frame in reversed(frames):
        for home in homes:
            if Path(frame.filename).is_relative_to(home):
                place = Path(frame.filename).relative_to(home.parent)
                return f"{place}:{frame.lineno} `{frame.line}`"
    return f"{frames[-1].filename}:{frames[-1].lineno} `{frames[-1].line}`"


# 5. steps a second


@dataclass
class Side:
    """One way to train, whose speed is measured."""

    name: str
    device: str
    bare: bool = False
    overrides: tuple[str, ...] = ()


class Clock(pl.Callback):
    """Takes the seconds of the steps of each epoch, and of all that comes between two epochs."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.between: list[float] = []
        self._since = 0.0

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == 0:
            now = time.perf_counter()
            if self.steps:
                self.between.append(now - self._since)
            self._since = now

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        now = time.perf_counter()  # the metrics of train have waited for the device
        self.steps.append(now - self._since)
        self._since = now


def speed(bench: Bench, section: Section) -> None:
    """Steps a second with everything on, beside a bare loop on the same device, and one CPU core."""
    section.note(
        "Steps a second, after a first epoch that warms up; the host uses one thread. The bare loop has "
        "the same network, objective and batches, the ratings on the device, plain cross-entropy, and no "
        "callback, log or check. Float32 but where bf16 is named; deterministic=warn is shipped. Between "
        "epochs matinee validates, writes checkpoints and logs, and lays out the next epoch."
    )
    here = bench.device
    sides = [
        Side("bare", here, bare=True),
        Side("matinee", here),
        Side("deterministic=false", here, overrides=("trainer.deterministic=false",)),
        Side("bf16", here, overrides=("trainer.precision=bf16-mixed",)),
        Side("CPU core", "cpu"),
    ]
    path = bench.folder / "million.parquet"
    write_ratings(path, *bench.pick((20_000, 5_000, 1_000_000), (60, 50, 1000)))
    mf = ["experiment=random/mf_bias", *table_of(path), *bench.pick([], ["model.embedding_dim=8"])]
    sizes = bench.pick((64, 256, 1024, 4096, 16_384, 65_536), (64, 256))
    measure_speed(bench, section, "mf_bias", mf, sizes, sides)
    gru = bench.experiment("user_tail", "gru")
    measure_speed(bench, section, "gru", gru, bench.pick((64, 512, 2048), (16,)), sides)


def measure_speed(
    bench: Bench,
    section: Section,
    model: str,
    overrides: list[str],
    batch_sizes: Sequence[int],
    sides: Sequence[Side],
) -> None:
    few = ["trainer.max_epochs=3", "+trainer.limit_train_batches=1", "+trainer.limit_val_batches=2"]
    configs = {
        side.name: bench.config(
            *overrides, *UNDISTURBED[1:], *few, *side.overrides, device=side.device
        )
        for side in sides
    }
    built = building.build(next(iter(configs.values())))  # the data are read once
    for batch_size in bench.cases(section, batch_sizes):
        built.datamodule.batch_size = batch_size
        batches = len(built.datamodule.train_dataloader())
        rates: dict[str, float] = {}
        between = 0.0
        for side in sides:
            config = configs[side.name]
            cap = bench.pick(500, 3)
            if side.device != bench.device:  # a core is slow where batches are large
                cap = max(2, 2 ** bench.pick(13, 6) // batch_size)
            config.trainer.limit_train_batches = min(batches, cap)
            threads = torch.get_num_threads()
            torch.set_num_threads(1)
            try:
                if side.bare:
                    seconds = bare_epoch(bench, built, config)
                else:
                    seconds, rest = our_epoch(bench, built, config)
                    between = rest if side.name == "matinee" else between
            finally:
                torch.set_num_threads(threads)
            rates[side.name] = min(batches, cap) / seconds
        section.row(
            model=model,
            batch=batch_size,
            **rates,
            **{"matinee takes": rates["bare"] / rates["matinee"], "between epochs, s": between},
        )


def our_epoch(bench: Bench, built: building.Experiment, config: DictConfig) -> tuple[float, float]:
    """Return the seconds of the steps of an epoch of matinee, and of what comes between two."""
    folder = bench.new_folder()
    config.run_folder = str(folder)
    clock = Clock()
    trainer = make_trainer(config, folder)
    trainer.callbacks.append(clock)
    fit(trainer, built.task, built.datamodule, folder, None)
    return statistics.fmean(clock.steps[1:]), statistics.fmean(clock.between)


def bare_epoch(bench: Bench, built: building.Experiment, config: DictConfig) -> float:
    """Return the seconds of the steps of an epoch of a bare loop."""
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.allow_tf32 = False  # as matinee does
    device, limit = bench.torch_device, config.trainer.limit_train_batches
    task = built.task.to(device).train()
    optimizer = torch.optim.Adam(task.parameters(), lr=config.optimizer.lr, fused=True)
    loop = rating_loop if hasattr(built.datamodule, "columns") else ranking_loop
    seconds = []
    for _ in range(config.trainer.max_epochs):
        batches, loss_of = loop(built, device, limit)
        bench.synchronize()
        started = time.perf_counter()
        for batch in batches:
            loss = loss_of(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        bench.synchronize()
        seconds.append(time.perf_counter() - started)
    task.cpu()
    return statistics.fmean(seconds[1:])


Loop = tuple[Iterable[Any], Callable[[Any], Tensor]]  # batches, and the loss of one


def rating_loop(built: building.Experiment, device: torch.device, limit: int) -> Loop:
    """The loop that a person would write, on the same network, data and objective."""
    task, datamodule = built.task, built.datamodule
    users, items, ratings = (column.to(device) for column in datamodule.columns("train"))
    order = torch.randperm(len(ratings), device=device).split(datamodule.batch_size)

    def loss_of(chosen: Tensor) -> Tensor:
        known = torch.rand(2, len(chosen), device=device) >= task.unknown_shares
        user_rows, item_rows = task.network.lookup(
            users[chosen] * known[0], items[chosen] * known[1]
        )
        loss = F.mse_loss(task.network.score(user_rows, item_rows), ratings[chosen])
        rows = user_rows[0].square().sum() + item_rows[0].square().sum()
        return loss + task.l2 * rows / len(chosen)

    return order[:limit], loss_of


def ranking_loop(built: building.Experiment, device: torch.device, limit: int) -> Loop:
    """The same for sequences, with plain cross-entropy over the whole catalogue."""
    network = built.task.network

    def loss_of(batch: Any) -> Tensor:
        histories, targets = batch.histories.to(device), batch.target_ids.to(device)
        here = targets != 0
        weights, biases = network.item_table()
        scores = F.linear(network.represent(histories)[here], weights[1:], biases[1:])
        return F.cross_entropy(scores, targets[here] - 1)

    return islice(built.datamodule.train_dataloader(), limit), loss_of


# 6. do huge batches pay?


def huge_batches(bench: Bench, section: Section) -> None:
    """Quality at equal epochs, from batches of 64 to batches of 65,536 of MovieLens' 72,000 rows."""
    shipped = bench.config("experiment=random/mf_bias", *bench.ratings())
    base, rate = shipped.data.batch_size, shipped.optimizer.lr
    section.note(
        f"mf_bias, random split, {bench.pick(20, 2)} epochs in float32, as shipped but for the batch and "
        f"the rate: {rate:g}, or that times the root of batch / {base}."
    )
    sizes = bench.pick((65_536, 16_384, 4096, 1024, 256, 64), (256, 64))  # cut where time is short
    cases = [(size, scaled) for size in sizes for scaled in (False, True) if size != base or scaled]
    for size, scaled in bench.cases(section, cases):
        chosen = rate * (size / base) ** 0.5 if scaled else rate
        options = [f"data.batch_size={size}", f"optimizer.lr={chosen:g}", *UNDISTURBED]
        epochs = [f"trainer.max_epochs={bench.pick(20, 2)}"]
        small = bench.pick([], ["model.embedding_dim=8"])
        config = bench.config(
            "experiment=random/mf_bias", *bench.ratings(), *small, *options, *epochs
        )
        result = trained(config)
        section.row(
            batch=size,
            rate=chosen,
            steps=result["fit"]["steps"],
            **{name: result["metrics"][name] for name in ("val/rmse", "test/rmse")},
            **{"best epoch": result["fit"]["best_epoch"] + 1},
            seconds=result["environment"]["seconds"]["fit"],
        )


# 7. does bfloat16 cost quality?


def precision(bench: Bench, section: Section) -> None:
    """Training in bf16-mixed beside 32-true, over seeds of weights, draws and batches."""
    section.note("Mean and standard deviation over seeds on one split; measured in float32.")
    seeds = range(bench.pick(3, 2))
    chosen = {"mf_bias": ("random", "rmse", 20), "gru": ("user_based", "mrr", 8)}
    for model in bench.cases(section, chosen):
        split, metric, epochs = chosen[model]
        values: dict[str, list[dict[str, float]]] = {}
        for kind in ("32-true", "bf16-mixed"):
            values[kind] = []
            for seed in seeds:
                options = [f"seed={seed}", "split.seed=0", f"trainer.precision={kind}"]
                options += [f"trainer.max_epochs={bench.pick(epochs, 1)}", *UNDISTURBED]
                result = trained(bench.config(*bench.experiment(split, model), *options))
                seconds = result["environment"]["seconds"]["fit"]
                values[kind].append({**result["metrics"], "seconds": seconds})
        for stage in ("val", "test"):
            name = f"{stage}/{metric}"
            columns = {kind: [v[name] for v in values[kind]] for kind in values}
            noise = statistics.fmean(statistics.variance(column) for column in columns.values())
            means = {kind: statistics.fmean(column) for kind, column in columns.items()}
            difference = means["bf16-mixed"] - means["32-true"]
            spread = math.sqrt(noise)
            section.row(
                model=model, metric=name, **means, difference=difference, **{"seed sd": spread}
            )
            finite = all(map(math.isfinite, means.values()))
            section.expect(finite, f"{model}: {name} is not finite")
            within = bench.miniature or abs(difference) <= 2 * spread
            section.expect(within, f"{model}: {name} differs by {difference:.2g} beyond seed noise")
        times = {kind: statistics.fmean(v["seconds"] for v in values[kind]) for kind in values}
        section.row(model=model, metric="seconds of the fit", **times)


# 8. memory of a full softmax


def softmax_memory(bench: Bench, section: Section) -> None:
    """Peak memory and seconds of a step of the full softmax, with Adam, over a huge catalogue."""
    items, targets, dim = bench.pick((1_000_000, 2000, 64), (3000, 50, 8))
    section.note(
        f"{items:,} items, {targets:,} targets, dimension {dim}; memory beyond the table and its biases, "
        f"which are {4 * (items + 1) * (dim + 1) / GIB:.2f} GiB; gradients and Adam's moments take three "
        f"times that. All scores at once are {4 * items * targets / GIB:.1f} GiB."
    )
    torch.use_deterministic_algorithms(False)
    losses: dict[str, float] = {}
    sides: dict[str, int | None] = {"matinee": None, "plain torch": 0}
    sides |= {f"chunks of {size:,}": size for size in bench.pick((2**12, 2**15, 2**17), (2**10,))}
    if bench.device == "cpu" and not bench.miniature:
        del sides["plain torch"]  # it would take more memory than most machines have
    for name in bench.cases(section, sides):
        try:
            loss, peak, seconds = softmax_step(bench, items, targets, dim, sides[name])
        except torch.OutOfMemoryError:
            section.row(step=name, **{"peak GiB": "out of memory"})
            continue
        finally:
            if bench.device == "gpu":
                torch.cuda.empty_cache()
        losses[name] = loss
        section.row(step=name, loss=loss, **{"peak GiB": peak / GIB, "seconds": seconds})
    first = next(iter(losses.values()))
    spread = max(abs(loss - first) for loss in losses.values()) / abs(first)
    section.expect(spread <= 1e-4, f"the losses are {spread:.2g} apart")


def softmax_step(
    bench: Bench, items: int, targets: int, dim: int, chunk_size: int | None
) -> tuple[float, int, float]:
    """Return the loss of a second step, the peak of memory beyond the table, and its seconds.

    Args:
        bench: Where.
        items: Size of the catalogue.
        targets: Targets of a step.
        dim: Length of a row.
        chunk_size: Of :class:`FullSoftmax`; None is its own choice, 0 is cross-entropy of PyTorch.
    """
    device = bench.torch_device
    torch.manual_seed(0)
    table = EmbeddingTable(items, dim, init_std=0.05).to(device).weight
    biases = nn.Parameter(torch.zeros(items + 1, device=device))
    found = torch.randn(targets, dim).to(device).requires_grad_()
    target_ids = torch.randint(1, items + 1, (targets,)).to(device)
    softmax = FullSoftmax(chunk_size or None)
    before = 0
    if bench.device == "gpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    optimizer = torch.optim.Adam([table, biases], lr=0.005, fused=True)
    seconds, value = 0.0, 0.0
    for _ in range(2):
        bench.synchronize()
        started = time.perf_counter()
        optimizer.zero_grad()
        found.grad = None
        if chunk_size == 0:
            scores = F.linear(found, table[1:], biases[1:])
            loss = F.cross_entropy(scores, target_ids - 1)
            del scores
        else:
            loss = softmax(found, table, biases, target_ids)
        loss.backward()
        optimizer.step()
        value = loss.item()
        bench.synchronize()
        seconds = time.perf_counter() - started
    peak = torch.cuda.max_memory_allocated() - before if bench.device == "gpu" else 0
    return value, peak, seconds


# 9. the other verbs


def verbs(bench: Bench, section: Section) -> None:
    """Every verb that computes, as a person calls it."""
    place, logs = f"trainer={bench.device}", f"log_dir={bench.folder}/verbs"
    ratings, ranking = bench.new_folder() / "ratings", bench.new_folder() / "ranking"
    gru = [*bench.experiment("user_based", "gru"), place, logs]
    trials = ["trials=2", f"accelerator={bench.device}", "space.choices.n_iter=[2]"]
    trials += ["space.choices.batch_size=[32]", "space.choices.embedding_dim=[32,64]", logs]
    data = bench.sequences()[:-1] or ["dataset=ml-100k"]
    on_ratings = ["train", *bench.experiment("random", "mf_bias"), place, "trainer.max_epochs=3"]
    first = [
        [*on_ratings, f"run_folder={ratings}"],
        ["train", *gru, "trainer.max_epochs=2", f"run_folder={ranking}"],
        ["find-lr", *gru, *bench.pick([], ["steps=60"])],
        ["overfit", *gru, *bench.pick([], ["examples=8", "optimizer.lr=0.02"])],
        ["search", "space=gru", *data, *trials],
    ]
    second = [
        [verb, f"run={run}", *more]
        for run in (ranking, ratings)
        for verb, *more in (["evaluate", place], ["recommend", "top_k=3"])
    ]
    elsewhere = [["evaluate", f"run={run}", "trainer=cpu"] for run in (ratings, ranking)]
    rounds = bench.pick((first, second + elsewhere), (first[1:], second[:2]))
    with ThreadPoolExecutor(bench.pick(5, 1)) as pool:
        for commands in rounds:
            ends = list(pool.map(lambda command: run_matinee(bench, command), commands))
            for command, (status, output) in zip(commands, ends, strict=True):
                verb = f"{command[0]} {command[-1]}" if command in elsewhere else command[0]
                section.row(verb=verb, status=status, said=last_line(output))
                section.expect(not status, f"matinee {shlex.join(command)}: {last_line(output)}")
                if status:
                    print(output, file=sys.stderr)


# 10. torch.compile

COMPILED = {"gru": "user_based", "attention": "user_based", "ncf": "random"}
COMPILE_SECONDS = 60


def compiled(bench: Bench, section: Section) -> None:
    """Steps a second of a bare loop with the network compiled, beside the same not compiled."""
    if bench.miniature:
        section.note("Left out of the miniature.")
        return
    section.note(
        "Bare loops in processes of their own; the encoder, or the scores of pairs, compiled."
    )
    for model in bench.cases(section, COMPILED):
        command = [sys.executable, __file__, "--device", bench.device, "--compile", model]
        limit = max(1.0, min(COMPILE_SECONDS, bench.seconds_left))
        try:
            end = subprocess.run(
                command, env=child_environment(), capture_output=True, text=True, timeout=limit
            )
        except subprocess.TimeoutExpired:
            section.row(model=model, eager=f"not done after {limit:.0f} s")
            continue
        section.expect(end.returncode == 0, f"{model}: {last_line(end.stderr)}")
        if end.returncode == 0:
            section.row(model=model, **json.loads(last_line(end.stdout)))


def measure_compiled(bench: Bench, model: str) -> dict[str, float]:
    """Return the steps a second of a network before and after it is compiled."""
    config = bench.config(*bench.experiment(COMPILED[model], model))
    built = building.build(config)
    device = bench.torch_device
    batches = [to_device(b, device) for b in islice(built.datamodule.train_dataloader(), 60)]
    task = built.task.to(device).train()
    optimizer = torch.optim.Adam(task.parameters(), lr=config.optimizer.lr, fused=True)

    def steps_a_second() -> float:
        for timed in (False, True):
            bench.synchronize()
            started = time.perf_counter()
            for batch in batches:
                optimizer.zero_grad()
                task.step(batch)["loss"].backward()
                optimizer.step()
            bench.synchronize()
            if timed:
                return len(batches) / (time.perf_counter() - started)
        raise AssertionError

    eager = steps_a_second()
    started = time.perf_counter()
    if hasattr(task.network, "encoder"):
        task.network.encoder.compile()
    else:
        task.network.score = torch.compile(task.network.score)
    return {
        "eager": eager,
        "compiled": steps_a_second(),
        "seconds to compile": time.perf_counter() - started,
    }


SECTIONS: dict[str, Callable[[Bench, Section], None]] = {
    "environment": environment,
    "models": models,
    "resume": resume,
    "syncs": syncs,
    "speed": speed,
    "huge_batches": huge_batches,
    "precision": precision,
    "softmax_memory": softmax_memory,
    "verbs": verbs,
    "compile": compiled,
}


def run_sections(bench: Bench, names: Sequence[str], output: Path) -> list[Section]:
    """Run some sections, whatever becomes of the others, and keep the report up to date."""
    sections: list[Section] = []

    def write() -> None:
        texts = "\n\n".join(section.as_markdown() for section in sections)
        (output / "accelerator.md").write_text(f"# matinee on one {bench.device}\n\n{texts}\n")
        facts = [section.as_dict() for section in sections]
        (output / "accelerator.json").write_text(json.dumps(facts, indent=1, default=str) + "\n")

    for name in names:
        section = Section(name, write)
        sections.append(section)
        started = time.perf_counter()
        with (output / "accelerator.log").open("a") as log, redirect_stderr(log):
            try:
                if bench.seconds_left:
                    SECTIONS[name](bench, section)
                    section.done = True
                else:
                    section.failures.append("left out for want of time")
            except KeyboardInterrupt:
                section.error = "interrupted\n"
                raise
            except BaseException:  # SystemExit, too: the next section must have its turn
                section.error = traceback.format_exc()
                print(section.error, flush=True)
            finally:
                section.seconds = time.perf_counter() - started
                write()
        print(f"[{name}] {section.status}, {section.seconds:.1f} s", flush=True)
    return sections


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    parser.add_argument("--miniature", action="store_true", help="tiny data and short fits")
    parser.add_argument("--output", type=Path, default=Path("build/accelerator"))
    parser.add_argument("--sections", default=",".join(SECTIONS), help="some of them, by commas")
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds in all")
    parser.add_argument("--compile", choices=COMPILED, help=argparse.SUPPRESS)
    options = parser.parse_args()
    names = options.sections.split(",")
    if unknown := set(names) - set(SECTIONS):
        parser.error(f"there is no section {', '.join(unknown)}; choose from {', '.join(SECTIONS)}")
    if options.device == "gpu" and not torch.cuda.is_available():
        parser.error("PyTorch sees no GPU here; add --device cpu")
    deadline = time.monotonic() + options.budget
    with tempfile.TemporaryDirectory(prefix="accelerator") as scratch:
        bench = Bench(options.device, options.miniature, Path(scratch), deadline)
        if options.compile:
            print(json.dumps(measure_compiled(bench, options.compile)))
            return
        options.output.mkdir(parents=True, exist_ok=True)
        sections = run_sections(bench, names, options.output)
    print(f"\n{'section':<15} status      seconds")
    for section in sections:
        print(f"{section.name:<15} {section.status:<11} {section.seconds:7.1f}")
        for failure in section.failures:
            print(f"    {failure}")
    sys.exit(any(section.status != "ok" for section in sections))


if __name__ == "__main__":
    main()
