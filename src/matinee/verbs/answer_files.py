"""Files of answers, written part by part to a temporary file that replaces the target at the end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import csv, parquet

from matinee.errors import MatineeError
from matinee.experiment.run_folder import CONFIG, OVERRIDES
from matinee.files import part_file, writing

ENDINGS = (".parquet", ".csv", ".jsonl")
ROWS_AT_ONCE = 2**17  # a row group of Parquet


def claim_answer_file(output: Any, inputs: Sequence[Any] = ()) -> Path:
    """Check the file that ``output=...`` names; an earlier file of that name is replaced at the end.

    Args:
        output: The value of ``output``.
        inputs: Files that are read.

    Raises:
        MatineeError: If it is no name of a file that can be written, is one of the inputs, or lies in a run
            folder.
    """
    if not isinstance(output, str) or Path(output).suffix.lower() not in ENDINGS:
        raise MatineeError(
            f"output is {output!r}; name a file that ends in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}."
        )
    path = Path(output).expanduser()
    folders = [path.parent, *path.resolve().parents]
    if (path.parent / CONFIG).exists() or any((one / OVERRIDES).exists() for one in folders):
        raise MatineeError(f"output={path} lies in a run folder; name a file elsewhere.")
    if not path.parent.is_dir() or path.is_dir():
        raise MatineeError(
            f"output={path} cannot be written, because {path.parent} is no folder; create it."
            if not path.is_dir()
            else f"output={path} is a folder; name a file."
        )
    for file in inputs:
        if isinstance(file, str) and Path(file).expanduser().resolve() == path.resolve():
            raise MatineeError(f"output={path} would replace a file that is read; name another.")
    return path


def spare_data(output: Path, dataset: Mapping[str, Any]) -> None:
    """Refuse an answer file that would replace data, or be read with them.

    Args:
        output: What :func:`claim_answer_file` returned.
        dataset: The config of the data that a run reads.

    Raises:
        MatineeError: If the output is one of their files, or lies in a folder that is read whole.
    """
    path = output.resolve()
    for key, value in dataset.items():
        if not isinstance(value, str) or not (key == "data_dir" or key.endswith("path")):
            continue
        source = Path(value).expanduser().resolve()
        inside = source in path.parents and (key != "data_dir" or path.exists())
        if path == source or inside:
            raise MatineeError(
                f"output={output} is part of the run's data (dataset.{key}); name another."
            )


@contextmanager
def answer_file(path: Path) -> Iterator[Callable[[pa.Table], None]]:
    """Give a function that adds rows to a file; the file appears, whole, after the last ones.

    Args:
        path: What :func:`claim_answer_file` returned. Its ending chooses the format: Parquet, text with
            commas and a header, or one JSON object a line.

    Raises:
        NotWritten: If the file cannot be written; an earlier file of that name is untouched.
    """
    waiting: list[pa.Table] = []
    writer: Any = None

    def flush() -> None:
        nonlocal writer
        table = pa.concat_tables(waiting)
        waiting.clear()
        if writer is None:
            writer = _WRITERS[path.suffix.lower()](part, table.schema)
        writer.write_table(table)

    def add(table: pa.Table) -> None:
        waiting.append(table)
        if sum(len(part) for part in waiting) >= ROWS_AT_ONCE:
            flush()

    with writing(path), part_file(path) as part:
        try:
            yield add
            if waiting or writer is None:
                flush()
        finally:
            if writer is not None:
                writer.close()


class _JsonLines:
    """Writes one JSON object a line, with the interface of Arrow's writers."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._file = path.open("w", encoding="utf-8")

    def write_table(self, table: pa.Table) -> None:
        self._file.writelines(
            json.dumps(row, ensure_ascii=False) + "\n" for row in table.to_pylist()
        )

    def close(self) -> None:
        self._file.close()


_WRITERS: dict[str, Callable[[Path, pa.Schema], Any]] = {
    ".parquet": parquet.ParquetWriter,
    ".csv": csv.CSVWriter,
    ".jsonl": _JsonLines,
}
