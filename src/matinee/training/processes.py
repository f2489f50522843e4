"""Processes: of several that fit together the first leads; it alone makes the run folder and writes."""

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

TELL_AFTER = 10  # seconds


def is_first_process() -> bool:
    """Tell whether this process leads, by what torchrun, a cluster or Lightning has set."""
    node = os.environ.get("NODE_RANK", "0")  # Lightning's own name, where no launcher counts ranks
    return rank_zero_only.rank == 0 and node == "0"  # type: ignore[attr-defined]


def take_part(fit: Callable[[], None]) -> NoReturn:
    """Fit together with the process that leads, and end with its fit, or with its process.

    Args:
        fit: Fits, in step with the other processes.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the leader too, and it decides
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    try:
        fit()
    except Stopped as stopped:
        sys.exit(stopped.status)
    except Exception:
        time.sleep(
            TELL_AFTER
        )  # an error that all have is told by the leader alone, which ends this
        raise
    sys.exit(0)


def train_apart(overrides: list[str]) -> None:
    """Train one run of a multirun by a command of its own, which its other processes can repeat.

    Args:
        overrides: What follows ``matinee train``.

    Raises:
        SystemExit: With status 130 or 143, if a signal ended it.
        MatineeError: If it failed.
    """
    process = subprocess.Popen([sys.executable, "-m", "matinee", "train", *overrides])
    forward: dict[int, Any] = {
        signal.SIGINT: signal.SIG_IGN,  # a terminal sends it to both
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
    """End this process when the one that started it has ended, whatever a collective waits for."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def gathered(value: Any, trainer: pl.Trainer) -> list[Any]:
    """Return what each process holds, exactly; all of them have to ask at the same time."""
    if trainer.world_size == 1:
        return [value]
    values: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(values, value)
    return values
