"""A logger."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger


class JSONLines(Logger):
    """Write the metrics of each step as a line of ``metrics.jsonl``.

    Args:
        save_dir: Run folder.
    """

    name = "json_lines"
    version = ""

    def __init__(self, save_dir: str) -> None:
        super().__init__()
        self.path = Path(save_dir) / "metrics.jsonl"

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append a line."""
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, **metrics}) + "\n")

    def log_hyperparams(self, *arguments: Any, **options: Any) -> None:
        """Do nothing: the config is in the run folder."""
