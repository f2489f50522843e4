"""An artefact: a folder with the programs of a run, its ids and titles, and a manifest."""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from matinee.data.catalogues import with_year
from matinee.data.interactions import Interactions
from matinee.errors import MatineeError
from matinee.files import writing

FORM = 1  # of the manifest
MANIFEST, ITEMS, USERS, HISTORIES = "manifest.json", "items.jsonl", "users.jsonl", "histories.npz"
TORCH, ONNX = "model.pt2", "model.onnx"
READ_AT_ONCE = 2**22  # bytes


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Give a folder beside ``target`` to fill; it becomes ``target`` at once, or nothing at all.

    Raises:
        MatineeError: If ``target`` exists and is not an empty folder.
        NotWritten: If it cannot be written.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise MatineeError(f"output={target} is taken; name a new folder.")
    part = target.absolute().with_name(f".{target.absolute().name}.{uuid.uuid4().hex}.part")
    try:
        with writing(target):
            part.mkdir(parents=True)
            yield part
            for path in [*part.iterdir(), part]:
                _sync(path)
            os.replace(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(READ_AT_ONCE):
            digest.update(block)
    return digest.hexdigest()


def write_catalogue(path: Path, table: pd.DataFrame, titles: bool) -> None:
    """Write ids as JSON lines, ``{"id": 1, "raw_id": ...}`` in order, with titles if they are wanted."""
    raw_ids = [raw if isinstance(raw, int) else str(raw) for raw in table["raw_id"].tolist()]
    with path.open("w", encoding="utf-8") as file:
        for place, raw_id in enumerate(raw_ids, start=1):
            line: dict[str, Any] = {"id": place, "raw_id": raw_id}
            if titles:
                line["title"] = with_year(table.iloc[place - 1])
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def write_histories(path: Path, interactions: Interactions, with_times: bool) -> None:
    """Write what each user met in time order.

    Args:
        path: The file, read by ``numpy.load``: the rows of user ``u`` are ``offsets[u]`` to
            ``offsets[u + 1]`` of ``item_ids`` and ``times``.
        interactions: The data.
        with_times: Whether to write the times of the rows, in seconds; 0 in data without times.
    """
    order = np.argsort(interactions.user_ids, kind="stable")
    counts = np.bincount(interactions.user_ids, minlength=interactions.num_users + 1)
    columns = {
        "offsets": np.concatenate(([0], np.cumsum(counts))).astype(np.int64),
        "item_ids": interactions.item_ids[order].astype(np.int32),
    }
    if with_times:
        times = np.zeros(len(order), np.int64)
        if interactions.timestamps is not None:
            moments = interactions.timestamps.astype(f"datetime64[{interactions.time_unit}]")
            times = moments.astype("datetime64[s]").astype(np.int64)[order]
        columns["times"] = times
    with path.open("wb") as file:
        np.savez(file, **columns)  # type: ignore[arg-type]
