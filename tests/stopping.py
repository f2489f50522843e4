"""A signal that reaches a fit at an exact step: in this process, or in one that runs this file.

``python stopping.py STEP SIGNAL VERB [override...]`` runs the command line. Of several processes of a
fit the first gets the signal; SIGINT goes to all of them, as from a terminal.
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from matinee import cli
from matinee.training.callbacks import SeedEachStep

HOOK = "on_train_batch_start"


def signalling(step: int, number: signal.Signals) -> Callable[..., None]:
    """Return a hook of :class:`SeedEachStep` that sends a signal as step ``step`` (from 0) begins."""
    seed = getattr(SeedEachStep, HOOK)

    def hook(self: Any, trainer: Any, *rest: Any) -> None:
        if trainer.global_step == step and trainer.is_global_zero:
            if number == signal.SIGINT and trainer.world_size > 1:
                os.killpg(os.getpgrp(), number)
            else:
                os.kill(os.getpid(), number)
        seed(self, trainer, *rest)

    return hook


if __name__ == "__main__":
    step, number, *arguments = sys.argv[1:]
    setattr(SeedEachStep, HOOK, signalling(int(step), signal.Signals(int(number))))
    cli.main(arguments)
