"""Columnar copies: equal to what was built, and never those of other files."""

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from matinee.data.interactions import Interactions
from matinee.data.sources import copies
from matinee.data.sources.copies import with_copy
from matinee.errors import MatineeError


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


class Source:
    """Builds interactions from a file with one user id, and counts how often."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "source"
        self.copy = folder / "copies" / "copy.arrow"
        self.path.write_text("7")
        self.builds = 0

    def build(self) -> Interactions:
        self.builds += 1
        users = pd.DataFrame({"raw_id": ["7"], "age": pd.array([None], dtype="Int16")})
        table = {
            "user": [self.path.read_text()] * 2,
            "item": [3, 3],
            "rating": [1, 4],
            "timestamp": [2.5, 1],
            "part": ["train"] * 2,
        }
        return Interactions.from_table(table, users=users, duplicates="last", id_type="text")

    def load(self) -> Interactions:
        return with_copy(self.copy, [self.path], self.build)


def test_a_copy_equals_what_was_built(tmp_path):
    source = Source(tmp_path)
    built, loaded = source.load(), source.load()
    assert source.builds == 1
    for name in ("user_ids", "item_ids", "ratings", "timestamps", "parts"):
        np.testing.assert_array_equal(getattr(built, name), getattr(loaded, name), strict=True)
        assert getattr(loaded, name).flags.writeable
    pd.testing.assert_frame_equal(built.users, loaded.users, check_index_type="equiv")
    pd.testing.assert_frame_equal(built.items, loaded.items, check_index_type="equiv")
    assert (loaded.rating_scale, loaded.duplicates_resolved) == ((1.0, 4.0), 1)
    assert loaded.time_unit == built.time_unit == "ms"
    assert built.fingerprint == loaded.fingerprint
    assert visible(source.copy.parent) == ["copy.arrow"]


@pytest.fixture
def long_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let sources seem old enough for the times of their changes to be trusted."""
    clock = time.time_ns
    monkeypatch.setattr(copies.time, "time_ns", lambda: clock() + 10**10)


def counted_hashes(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    hashed: list[Path] = []
    real = copies._sha256
    monkeypatch.setattr(copies, "_sha256", lambda path: (hashed.append(path), real(path))[1])
    return hashed


@pytest.mark.usefixtures("long_ago")
def test_an_old_source_is_not_read_at_all(tmp_path, monkeypatch):
    source = Source(tmp_path)
    hashed = counted_hashes(monkeypatch)
    source.load()
    source.load()
    assert (source.builds, hashed) == (1, [source.path])


def test_a_source_that_changed_just_now_is_compared_by_its_content(tmp_path, monkeypatch):
    source = Source(tmp_path)
    hashed = counted_hashes(monkeypatch)
    source.load()
    source.load()
    assert (source.builds, hashed) == (1, [source.path] * 2)


def other_content_of_equal_size_and_time(source: Path) -> None:
    """Leave another file, as cp -p, rsync -a, tar and image layers do."""
    before = source.stat()
    source.write_text("8")
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (source.stat().st_size, source.stat().st_mtime_ns) == (
        before.st_size,
        before.st_mtime_ns,
    )


def renamed_over(source: Path) -> None:
    before = source.stat()
    other = source.with_name("other")
    other.write_text("8")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.rename(source)


@pytest.mark.parametrize("change", [other_content_of_equal_size_and_time, renamed_over])
@pytest.mark.parametrize("is_old", [True, False])
def test_a_changed_source_is_read_again(tmp_path, request, change, is_old):
    if is_old:
        request.getfixturevalue("long_ago")
    source = Source(tmp_path)
    source.load()
    change(source.path)
    assert source.load().users["raw_id"].tolist() == ["8"]


@pytest.mark.usefixtures("long_ago")
def test_a_copied_source_of_equal_content_keeps_its_copy(tmp_path):
    source = Source(tmp_path)
    source.load()
    moved = source.path.with_name("moved")
    shutil.copyfile(source.path, moved)
    moved.rename(source.path)
    source.load()
    assert source.builds == 1


def test_a_source_that_changes_while_it_is_read_is_refused(tmp_path):
    source = Source(tmp_path)

    def build() -> Interactions:
        built = source.build()
        source.path.write_text("88")
        return built

    with pytest.raises(MatineeError, match="source changed while it was read"):
        with_copy(source.copy, [source.path], build)
    assert not source.copy.exists()


def test_a_damaged_copy_is_built_anew(tmp_path):
    source = Source(tmp_path)
    expected = source.load().fingerprint
    whole = source.copy.read_bytes()
    damages = [b"", b"junk", whole[: len(whole) // 2]]
    damages += [
        whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :] for at in range(0, len(whole), 53)
    ]
    for damage in damages:
        source.copy.write_bytes(damage)
        loaded = source.load()
        assert loaded.fingerprint == expected
        assert (loaded.rating_scale, loaded.duplicates_resolved) == ((1.0, 4.0), 1)
    assert source.builds > 3


def test_where_no_copy_can_be_written_none_is(tmp_path):
    source = Source(tmp_path)
    source.copy.parent.touch()
    assert len(source.load()) == 1
    assert len(source.load()) == 1
    assert source.builds == 2
