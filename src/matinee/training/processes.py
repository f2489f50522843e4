"""Processes of a distributed fit: the first one leads, and only it creates the run folder and writes."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_only

from matinee.errors import MatineeError, Stopped

REPORT_AFTER = 10  # seconds


def is_first_process() -> bool:
    """Return whether this process leads, from what torchrun, a cluster or Lightning has set."""
    node = os.environ.get("NODE_RANK", "0")  # set by Lightning where no launcher counts ranks
    return rank_zero_only.rank == 0 and node == "0"  # type: ignore[attr-defined]


def take_part(fit: Callable[[], None]) -> NoReturn:
    """Take part in the fit that another process leads, and exit when the fit or that process ends.

    Args:
        fit: Fits, in step with the other processes.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the leader too, which decides
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    try:
        fit()
    except Stopped as stopped:
        sys.exit(stopped.status)
    except Exception:
        time.sleep(REPORT_AFTER)  # if all fail, the leader reports the error and ends this process
        raise
    sys.exit(0)


def train_apart(overrides: list[str]) -> None:
    """Train one run of a multirun by its own command, which the other processes of the run can repeat.

    Args:
        overrides: The arguments of ``matinee train``.

    Raises:
        SystemExit: With status 130 or 143, if a signal ended the run.
        MatineeError: If the run failed.
    """
    process = subprocess.Popen([sys.executable, "-m", "matinee", "train", *overrides])
    forward: dict[int, Any] = {
        signal.SIGINT: signal.SIG_IGN,  # a terminal sends it to both processes
        signal.SIGTERM: lambda number, frame: process.send_signal(number),
    }
    before = {number: signal.signal(number, handler) for number, handler in forward.items()}
    status = process.wait()
    for number, handler in before.items():
        signal.signal(number, handler)
    if status in (130, 143):
        sys.exit(status)
    if status:
        raise MatineeError(f"the run of {' '.join(overrides)} failed, see above.")


def _end_with(parent: int) -> None:
    """Exit when the process that started this one has ended, even while a collective waits."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def gathered(value: Any, trainer: pl.Trainer) -> list[Any]:
    """Return the value of each process, unchanged; all processes have to call this together."""
    if trainer.world_size == 1:
        return [value]
    values: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(values, value)
    return values
