"""The ranks of the test items in the runs of the study, from run folders or from one table.

``python docs/long_short_term/ranks.py FOLDER`` packs the run folders that launchers/06_long_short_term.sh
made in a folder into the table ``ranks.parquet``; experiments.py makes the same tables and figures from it.
The table has one row for each run and for each evaluation with changed histories. A row has the folder, the
settings and the recorded MRR, and as lists, with one value for each test window, the user, the rank of the
target and whether the window is in each segment.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pyarrow as pa
from omegaconf import OmegaConf
from pyarrow import parquet

from matinee.errors import MatineeError
from matinee.experiment.run_folder import CONFIG, EVALUATION, PER_USER, RESULT
from matinee.files import write_whole

Row = dict[str, Any]  # by column of the table
RANKS = "ranks.parquet"
SETTINGS = {
    "folder": pa.string(),
    "model": pa.string(),
    "embedding_dim": pa.int32(),  # null for popularity
    "length": pa.int32(),
    "drop_oldest": pa.float64(),
    "min_item_count": pa.int32(),  # null for runs on the whole data, as the fold
    "fold": pa.int32(),
    "histories": pa.string(),  # null if unchanged
    "seed": pa.int32(),
    "mrr": pa.float64(),
}
WINDOWS = {"user": pa.list_(pa.string()), "rank": pa.list_(pa.float32())}


def read_ranks(folder: Path) -> list[Row]:
    """Read all runs and evaluations of a study, in the order of their folders.

    If there is both a run folder and a row of ``ranks.parquet`` for it, the run folder counts.

    Args:
        folder: The folder of the study.

    Raises:
        MatineeError: If a file cannot be read, or if ranks do not make the recorded MRR.
    """
    table = folder / RANKS
    rows = {row["folder"]: row for row in (_read_table(table) if table.exists() else ())}
    rows |= {row["folder"]: row for row in _read_folders(folder)}
    for row in rows.values():
        found = np.mean(1 / row["rank"].astype(np.float64))
        if not np.isclose(found, row["mrr"], rtol=1e-5):
            raise MatineeError(
                f"the ranks of {folder / row['folder']} make an MRR of {found:.6f}, not "
                f"{row['mrr']:.6f} as recorded; restore it or train again."
            )
    return [rows[name] for name in sorted(rows)]


def write_ranks(rows: list[Row], folder: Path) -> Path:
    """Write runs and evaluations to ``ranks.parquet`` in a folder; return its path.

    Raises:
        MatineeError: If it cannot be written.
    """
    segments = dict.fromkeys(name for row in rows for name in row if "=" in name)
    schema = pa.schema(SETTINGS | WINDOWS | dict.fromkeys(segments, pa.list_(pa.bool_())))
    table = pa.Table.from_pylist(rows, schema)
    write_whole(
        folder / RANKS,
        lambda file: parquet.write_table(table, file, compression="zstd", compression_level=19),
    )
    return folder / RANKS


def _read_table(path: Path) -> Iterator[Row]:
    try:
        table = parquet.read_table(path)
        settings = table.select(list(SETTINGS)).to_pylist()
        lists = [name for name in table.column_names if name not in SETTINGS]
        for index, row in enumerate(settings):
            known = ((name, table[name][index]) for name in lists)
            yield row | {
                name: _as_numpy(values.values) for name, values in known if values.is_valid
            }
    except (OSError, KeyError, pa.ArrowException) as error:
        raise MatineeError(f"{path} is not a table of ranks ({error}); restore it.") from error


def _as_numpy(values: pa.Array) -> Any:
    strings = pa.types.is_string(values.type)
    return np.array(values.to_pylist()) if strings else values.to_numpy(zero_copy_only=False)


def _read_folders(study: Path) -> Iterator[Row]:
    for pattern in ("popularity", "runs/*/*", "folds/*/*"):
        for path in sorted(study.glob(f"{pattern}/{RESULT}")):
            config: Any = OmegaConf.load(path.parent / CONFIG)
            of_tenth = pattern.startswith("folds")
            settings = {
                "model": path.parent.parent.name if "*" in pattern else pattern,
                "embedding_dim": config.model.get("embedding_dim"),
                "length": config.data.length,
                "drop_oldest": config.data.drop_oldest,
                "min_item_count": config.dataset.min_item_count if of_tenth else None,
                "fold": config.dataset.fold if of_tenth else None,
                "seed": config.seed,
            }
            yield {**settings, "histories": None, **_read_windows(study, path)}
            for kept in path.parent.glob(f"order/*/{EVALUATION}"):
                yield {**settings, "histories": kept.parent.name, **_read_windows(study, kept)}


def _read_windows(study: Path, recorded: Path) -> Row:
    """Read the ranks of a run or an evaluation, sorted by user and time."""
    folder = recorded.parent
    try:
        mrr = json.loads(recorded.read_text())["metrics"]["test/mrr"]
        with np.load(folder / PER_USER) as file:
            # Windows lie by length, those of a user in time order. Sorted by user, they have the same
            # order at any length.
            order = np.argsort(file["user"], kind="stable")
            arrays = {name: file[name][order] for name in file.files}
        segments = {name: array for name, array in arrays.items() if array.dtype == np.bool_}
        windows = {"user": arrays["user"], "rank": arrays["rank"], **segments}
    except (OSError, ValueError, KeyError, TypeError, BadZipFile) as error:
        raise MatineeError(
            f"{recorded} or {PER_USER} beside it cannot be read ({error}); restore it or train again."
        ) from error
    return {"folder": folder.relative_to(study).as_posix(), "mrr": mrr, **windows}


def main() -> None:
    """Pack the run folders of a study."""
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        sys.exit("name the folder of a study: python docs/long_short_term/ranks.py FOLDER")
    folder = Path(sys.argv[1])
    try:
        rows = read_ranks(folder)
        if not rows:
            sys.exit(f"{folder} holds no finished runs of launchers/06_long_short_term.sh.")
        path = write_ranks(rows, folder)
    except MatineeError as error:
        sys.exit(str(error))
    print(f"{len(rows)} runs and evaluations: {path}")


if __name__ == "__main__":
    main()
