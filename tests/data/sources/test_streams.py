"""Packed files that unpack to much more than data do."""

import bz2
import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from matinee.data.sources import lastfm, lines, streams, table
from matinee.data.sources.streams import line_blocks
from matinee.errors import MatineeError

NUM_BLOCKS = 10  # of a MiB
BLOCK = b"1,2\n" * (1 << 18)


def gz(path: Path) -> Path:
    with gzip.open(path / "bomb.csv.gz", "wb", compresslevel=9) as file:
        for _ in range(NUM_BLOCKS):
            file.write(BLOCK)
    return path / "bomb.csv.gz"


def bz(path: Path) -> Path:
    whole = bz2.compress(BLOCK * 2)
    (path / "bomb.csv.bz2").write_bytes(whole * (NUM_BLOCKS // 2))
    return path / "bomb.csv.bz2"


def zst(path: Path) -> Path:
    with pa.output_stream(str(path / "bomb.csv.zst"), compression="zstd") as file:
        for _ in range(NUM_BLOCKS):
            file.write(BLOCK)
    return path / "bomb.csv.zst"


def zipped(path: Path) -> Path:
    with (
        zipfile.ZipFile(path / "bomb.csv.zip", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("bomb.csv", "w", force_zip64=True) as file,
    ):
        for _ in range(NUM_BLOCKS):
            file.write(BLOCK)
    return path / "bomb.csv.zip"


@pytest.fixture(autouse=True)
def _small_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATINEE_DATA", str(tmp_path / "cache"))
    monkeypatch.setattr(streams, "most_unpacked", lambda size: (2 << 20) + 100 * size)


@pytest.mark.parametrize("pack", [gz, bz, zst, zipped])
def test_a_bomb_is_not_read(tmp_path: Path, pack: Callable[[Path], Path]) -> None:
    path, read = pack(tmp_path), 0
    blocks = line_blocks(path)
    with pytest.raises(MatineeError, match="unpacks to much more than data do"):
        read = sum(map(len, blocks))
    assert read == 0  # the first block is too much already


def test_the_readers_say_so(tmp_path: Path) -> None:
    path = zst(tmp_path)
    with pytest.raises(MatineeError, match="unpacks to much more than data do"):
        lines.load(path)
    with pytest.raises(MatineeError, match="unpacks to much more than data do"):
        table.load(path, "user", "item", column_names=["user", "item"], duplicates="keep")
    assert not list(tmp_path.rglob("*.arrow"))


def test_an_archive_of_events_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "lastfm-dataset-1K.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        info = tarfile.TarInfo("unrelated")
        info.size = NUM_BLOCKS << 20
        archive.addfile(info, io.BytesIO(bytes(info.size)))
    with pytest.raises(MatineeError, match="unpacks to much more than data do"):
        lastfm.load(path)


def test_a_parquet_file_has_room_for_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bomb.parquet"
    same = pa.array([1]).take(pa.array([0] * 100_000))
    parquet.write_table(pa.table({"user": same, "item": same}), path)
    monkeypatch.setattr("matinee.data.sources.parquet_files.most_unpacked", lambda size: 10 * size)
    with pytest.raises(MatineeError, match="claims 100,000 rows, more than its size allows"):
        table.load(path, "user", "item", duplicates="keep")


def test_a_plain_table_that_repeats_itself_is_read(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "fine.csv.gz", "wb") as file:
        file.write(BLOCK)
    assert sum(map(len, line_blocks(tmp_path / "fine.csv.gz"))) == len(BLOCK)
