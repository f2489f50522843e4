"""The files of finished runs, read from run folders and from packed tables.

A packed table is one Parquet file, ``runs.parquet``, that stands for many run folders. It has a row for
each run and these columns:

- ``folder``: the run folder, relative to the folder of the table;
- ``config.yaml``, ``overrides.yaml``, ``result.json``, ``metrics.csv``: the text of each file, null if the
  run has none;
- ``per_user``: the arrays of ``per_user.npz`` by name, each a list.

Checkpoints and event files are not packed, nor is ``protocol.json``, which ``result.json`` repeats.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import parquet

from matinee.errors import MatineeError
from matinee.experiment.reading import read_arrays, read_text
from matinee.experiment.run_folder import CONFIG, METRICS, OVERRIDES, PER_USER, RESULT
from matinee.files import plain_file, write_whole

Arrays = dict[str, npt.NDArray[Any]]
TEXTS = (CONFIG, OVERRIDES, RESULT, METRICS)
PACKED = "runs.parquet"
ROWS_AT_ONCE = 16  # of a packed table
MOST_VALUES = 1 << 28  # of a packed table
MOST_BYTES = 1 << 32  # of a packed table in memory


class RunFiles(Protocol):
    """The files of one finished run, wherever they are stored."""

    @property
    def folder(self) -> Path:
        """The run folder; that of a packed run need not exist."""

    def text(self, name: str) -> str | None:
        """Return the content of a text file, or None if the run has no such file.

        Raises:
            MatineeError: If the file cannot be read.
        """

    def per_user(self) -> Arrays:
        """Return the arrays of ``per_user.npz``.

        Raises:
            MatineeError: If they are missing or cannot be read.
        """


@dataclass(frozen=True)
class FolderFiles:
    """A run in a folder of its own."""

    folder: Path

    def text(self, name: str) -> str | None:
        """See :meth:`RunFiles.text`."""
        return read_text(self.folder, name)

    def per_user(self) -> Arrays:
        """See :meth:`RunFiles.per_user`."""
        return read_arrays(self.folder, PER_USER)


@dataclass(frozen=True)
class PackedFiles:
    """A run in a row of a packed table."""

    folder: Path
    texts: dict[str, str | None]
    arrays: pa.StructScalar

    def text(self, name: str) -> str | None:
        """See :meth:`RunFiles.text`."""
        return self.texts[name]

    def per_user(self) -> Arrays:
        """See :meth:`RunFiles.per_user`."""
        lists = ((name, self.arrays[name]) for name in self.arrays)
        return {name: _as_numpy(values.values) for name, values in lists if values.is_valid}


def find_run_files(folders: Sequence[Path]) -> list[RunFiles]:
    """Find the finished runs below some folders, at any depth.

    A run counts once, also where it is below two of the folders. If a run folder and a row of a packed
    table stand for the same folder, the run folder counts.

    Raises:
        MatineeError: If a folder is missing or a packed table cannot be read.
    """
    found: dict[Path, RunFiles] = {}
    for folder in folders:
        if not folder.is_dir():
            raise MatineeError(f"there is no folder {folder}; name folders that hold runs.")
        for path in sorted(folder.rglob(RESULT)):
            found[path.parent.resolve()] = FolderFiles(path.parent)
        for path in sorted(folder.rglob(PACKED)):
            for run in read_packed(path):
                found.setdefault(run.folder.resolve(), run)
    return list(found.values())


def read_packed(path: Path) -> list[PackedFiles]:
    """Read the runs of a packed table.

    Raises:
        MatineeError: If the file cannot be read or has other columns.
    """
    try:
        columns = ("folder", *TEXTS, "per_user")
        with parquet.ParquetFile(plain_file(path.parent, path.name)) as file:
            if sum(_num_values(file.metadata)) > MOST_VALUES:
                raise ValueError(f"it holds more than {MOST_VALUES:,} values")
            batches, size = [], 0
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=columns):
                batches.append(batch)
                size += batch.nbytes
                if size > MOST_BYTES:
                    raise ValueError(f"it would unpack to more than {MOST_BYTES:,} bytes")
            table = pa.Table.from_batches(batches, batches[0].schema) if batches else None
        if table is None:
            return []
        rows = zip(*(table[name] for name in columns), strict=True)
        return [
            PackedFiles(
                path.parent / folder.as_py(),
                {name: text.as_py() for name, text in zip(TEXTS, texts, strict=True)},
                arrays,
            )
            for folder, *texts, arrays in rows
        ]
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise MatineeError(
            f"{path} is not a table of packed runs ({error}); restore it."
        ) from error


def _num_values(metadata: parquet.FileMetaData) -> Iterator[int]:
    """Yield the number of values in each stored column, which a file of runs of one value hides."""
    for group in range(metadata.num_row_groups):
        for column in range(metadata.num_columns):
            yield metadata.row_group(group).column(column).num_values


def pack(runs: Sequence[RunFiles], folder: Path) -> Path:
    """Add runs to the packed table of a folder, in place of rows with the same run folder.

    Reading them back gives equal texts and arrays.

    Args:
        runs: The runs, at least one.
        folder: The folder of the table, which is created if there is none.

    Returns:
        The path of the table.

    Raises:
        MatineeError: If a run cannot be read, two runs have arrays of one name but different types,
            or the table cannot be read or written.
    """
    path = folder / PACKED
    rows: dict[str, RunFiles] = {}
    for run in [*(read_packed(path) if path.exists() else ()), *runs]:
        rows[Path(os.path.relpath(run.folder, folder)).as_posix()] = run
    columns = {"folder": pa.array(rows, pa.string())}
    for name in TEXTS:
        columns[name] = pa.array([run.text(name) for run in rows.values()], pa.string())
    arrays = [run.per_user() for run in rows.values()]
    names = dict.fromkeys(name for entry in arrays for name in entry)
    lists = [_as_lists(name, [entry.get(name) for entry in arrays]) for name in names]
    columns["per_user"] = pa.StructArray.from_arrays(lists, names=list(names))
    table = pa.table(columns)
    write_whole(
        path,
        lambda file: parquet.write_table(table, file, compression="zstd", compression_level=19),
    )
    return path


def _as_lists(name: str, arrays: Sequence[npt.NDArray[Any] | None]) -> pa.ListArray:
    """Turn the arrays of a name into one Arrow array of lists, null for None."""
    values = [pa.array(array) for array in arrays if array is not None]
    if len({array.type for array in values}) > 1:
        raise MatineeError(f"{name} has not the same type in all runs; pack fewer runs together.")
    lengths = [0 if array is None else len(array) for array in arrays]
    return pa.ListArray.from_arrays(
        pa.array(np.cumsum([0, *lengths]), pa.int32()),
        pa.concat_arrays(values),
        mask=pa.array([array is None for array in arrays]),
    )


def _as_numpy(values: pa.Array) -> npt.NDArray[Any]:
    if pa.types.is_string(values.type):
        return np.array(values.to_pylist(), dtype=str)
    array: npt.NDArray[Any] = values.to_numpy(zero_copy_only=False)
    return array
