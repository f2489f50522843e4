"""Files appear whole or not at all, whatever ends their writing."""

import os
from pathlib import Path

import pytest

from matinee.errors import MatineeError
from matinee.files import part_file, remove_parts, write_whole
from matinee.training.callbacks import AtomicCheckpointIO, EpochTable


def test_part_file_keeps_the_old_file_on_failure(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")

    def fail() -> None:
        with part_file(target) as part:
            part.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_two_that_write_one_file_do_not_mix(tmp_path: Path) -> None:
    target = tmp_path / "file"

    def write(file) -> None:
        file.write(b"first")
        write_whole(target, lambda other: other.write(b"the other"))
        assert target.read_bytes() == b"the other"

    write_whole(target, write)
    assert target.read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["file"]


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(MatineeError, match=r"nowhere.file could not be written"):
        write_whole(tmp_path / "nowhere" / "file", lambda file: file.write(b"x"))


def test_all_that_is_renamed_is_on_the_disk_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: (done.append("fsync"), fsync(number)))
    monkeypatch.setattr(os, "replace", lambda *paths: (done.append("replace"), replace(*paths)))
    write_whole(tmp_path / "file", lambda file: file.write(b"x"))
    AtomicCheckpointIO().save_checkpoint({"epoch": 1}, tmp_path / "last.ckpt")
    EpochTable()._write(tmp_path / "metrics.csv")
    assert done == ["fsync", "replace"] * 3


def test_parts_are_removed_by_the_name_of_their_target(tmp_path: Path) -> None:
    for name in (".a.12.part", ".a.13.part", ".b.12.part", "a", "thesis.part"):
        (tmp_path / name).touch()
    remove_parts(tmp_path, "a")
    assert sorted(os.listdir(tmp_path)) == [".b.12.part", "a", "thesis.part"]
    remove_parts(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["a", "thesis.part"]
    remove_parts(tmp_path / "nowhere")


def test_equal_checkpoints_are_equal_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        AtomicCheckpointIO().save_checkpoint({"epoch": 1}, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
