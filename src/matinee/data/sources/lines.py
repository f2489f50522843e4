"""Histories one a line, `user item item ...`, as papers on sequential recommendation publish them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from matinee.data.columns.ids import IdType
from matinee.data.columns.rows import BadRowPolicy, RowReader, Rules
from matinee.data.columns.texts import TEXT
from matinee.data.duplicates import DuplicatePolicy, check_policy
from matinee.data.interactions import Interactions
from matinee.data.source_location import Stretch
from matinee.data.sources.copies import with_copy
from matinee.data.sources.dialects import delimiter_of
from matinee.data.sources.fetch import cache_dir
from matinee.data.sources.streams import line_blocks, line_problem
from matinee.data.sources.table import find_files
from matinee.errors import MatineeError


def load(
    path: str | Path,
    user_first: bool = True,
    delimiter: str | None = None,
    encoding: str = "utf-8",
    id_type: IdType = "auto",
    duplicates: DuplicatePolicy = "keep",
    bad_rows: BadRowPolicy = "error",
    data_dir: str | Path | None = None,
) -> Interactions:
    """Read histories, and keep a fast copy of them.

    The order in a line is the order in time; there are no timestamps. Blank lines are left out.

    Args:
        path: A text file, perhaps compressed, or a folder or glob pattern of such files.
        user_first: Whether a line begins with its user; otherwise users are numbered from 1, line by line.
        delimiter: What separates the ids of a line, see `matinee.data.sources.dialects.Dialect`; None are
            blanks, any number of them.
        encoding: The text's encoding, as Python names it.
        id_type: Whether ids are ``integer``, ``text``, or what is written (``auto``).
        duplicates: What to do with items that a user has several times, see `Interactions.from_table`.
        bad_rows: Whether an id that is none is an ``error``, or left out and counted (``skip``).
        data_dir: Folder of the fast copies; None is `cache_dir()`.

    Raises:
        MatineeError: If a file is missing, empty or unreadable, a user has no items or two lines, or an id
            is none; it names the file and line.
    """
    check_policy(duplicates)
    rules = Rules(id_type, bad_rows=bad_rows)
    files = find_files(path)

    def build() -> Interactions:
        whole = str(files[0]) if len(files) == 1 else f"{files[0].parent} ({len(files)} files)"
        reader = RowReader({"user": "user", "item": "item"}, rules, whole)
        histories = _Histories(reader, user_first, delimiter and delimiter_of(delimiter))
        for file in files:
            histories.read(file, encoding)
        reader.report()
        interactions = Interactions.from_rows(reader, duplicates=duplicates)
        histories.refuse_second_lines()
        return interactions

    options = [[str(file) for file in files], user_first, delimiter, encoding, id_type, duplicates]
    digest = hashlib.sha256(json.dumps(["lines", *options, bad_rows]).encode()).hexdigest()[:16]
    folder = Path(data_dir).expanduser() if data_dir else cache_dir()
    return with_copy(folder / "tables" / f"{files[0].name}.{digest}.arrow", files, build)


class _Histories:
    """Takes the lines of files apart into rows.

    Args:
        reader: Takes the rows.
        user_first: Whether a line begins with its user.
        delimiter: What separates ids; None are blanks.
    """

    def __init__(self, reader: RowReader, user_first: bool, delimiter: str | None) -> None:
        self.reader, self.user_first, self.delimiter = reader, user_first, delimiter
        self._num_lines = 0
        self._users: list[pa.Array] = []
        self._places: list[tuple[Path, NDArray[np.int64]]] = []

    def read(self, file: Path, encoding: str) -> None:
        """Read one file."""
        first_line = 1
        for block in line_blocks(file, encoding):
            lines = block[:-1].split(b"\n")
            self._read_lines(file, lines, first_line)
            first_line += len(lines)

    def _read_lines(self, file: Path, lines: list[bytes], first_line: int) -> None:
        refused, numbers, texts = [], [], []
        for number, line in enumerate(lines, start=first_line):
            if not line.strip():
                continue
            if problem := line_problem(line):
                refused.append((number, problem))
            else:
                numbers.append(number)
                texts.append(line)
        places = np.array(numbers, np.int64)
        bare = pc.utf8_trim_whitespace(pa.array(texts, pa.large_binary()).cast(TEXT))
        if self.delimiter is None:
            split = pc.utf8_split_whitespace(bare)
        else:
            split = pc.split_pattern(bare, self.delimiter)
        counts = pc.list_value_length(split).to_numpy().astype(np.int64)
        tokens = split.flatten()
        if self.user_first:
            is_user = np.zeros(len(tokens), np.bool_)
            is_user[np.cumsum(counts) - counts] = True
            users, tokens = tokens.filter(pa.array(is_user)), tokens.filter(pa.array(~is_user))
            counts -= 1
            problem = "the line has a user and no items; remove it, or set user_first=false"
            refused += [(int(number), problem) for number in places[counts == 0]]
            self._users.append(users)
            self._places.append((file, places))
        else:
            users = pa.array(np.arange(len(places)) + self._num_lines + 1)
        self._num_lines += len(places)
        owners = np.repeat(np.arange(len(places)), counts)
        columns = {"user": users.take(pa.array(owners)), "item": tokens}
        stretch = Stretch(str(file), "line", places[owners], step=0)
        self.reader.append(self.reader.parse(columns), stretch, sorted(refused))

    def refuse_second_lines(self) -> None:
        """Refuse a user who begins two lines.

        Raises:
            MatineeError: If there is one; as a rule, the lines begin with items then.
        """
        if not self._users:
            return
        codes = (
            pa.chunked_array(self._users).combine_chunks().dictionary_encode().indices.to_numpy()
        )
        if len(codes) == 0 or codes.max() == len(codes) - 1:
            return
        first = np.full(len(codes), -1)
        first[codes[::-1]] = np.arange(len(codes))[::-1]
        again = int(np.argmax(first[codes] != np.arange(len(codes))))
        places = [f"{file}, line {line}" for file, lines in self._places for line in lines.tolist()]
        user = pa.chunked_array(self._users)[again].as_py()
        raise MatineeError(
            f"{places[again]}: user {user!r} has another line ({places[first[codes[again]]]}); join them, "
            "set user_first=false if lines begin with items, or dataset=table if a line is one row."
        )
