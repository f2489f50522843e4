"""Files of a run folder that somebody else made: links and bombs are rejected before they are loaded."""

import io
import json
import os
import pickle
import shutil
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from command_line import failed, matinee
from matinee.errors import MatineeError
from matinee.experiment.reading import read_arrays, read_checkpoint, read_text
from matinee.experiment.run_folder import read_result
from matinee.files import check_plain_files

Finished = Callable[..., Path]
READ = {  # who reads which file of a finished run
    "config.yaml": ["evaluate", "recommend", "report", "resume"],
    "result.json": ["evaluate", "report"],
    "protocol.json": ["evaluate", "recommend", "resume"],
    "checkpoints/best.ckpt": ["evaluate", "recommend", "resume"],
    "checkpoints": ["evaluate", "recommend", "resume"],
    "metrics.csv": ["resume"],
    "extra": ["resume"],
}


def arguments(verb: str, folder: Path) -> list[str]:
    if verb == "report":
        return ["report", str(folder)]
    return ["train", f"resume={folder}"] if verb == "resume" else [verb, f"run={folder}"]


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", ["link", "dangling", "pipe"])
@pytest.mark.parametrize("name", READ)
def test_a_link_or_a_pipe_in_a_run_is_neither_read_nor_written(
    finished: Finished, tmp_path: Path, name: str, kind: str
) -> None:
    folder, outside = finished(), tmp_path / "outside"
    outside.mkdir()
    path, target = folder / name, outside / "theirs"
    if path.exists() and kind == "link":
        shutil.move(path, target)
    elif path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    os.mkfifo(path) if kind == "pipe" else path.symlink_to(target)
    before = contents(outside)
    for verb in READ[name]:
        if (name, kind, verb) == ("result.json", "dangling", "report"):
            continue  # it finds no run there
        if (name, kind, verb) == ("result.json", "dangling", "report"):
            continue  # it finds no run there
        if verb == "resume":
            (folder / "result.json").unlink()
        sentence = failed(matinee(*arguments(verb, folder), cwd=tmp_path))
        assert f"{path} is a link or a device" in sentence
    assert contents(outside) == before


def test_a_lock_that_is_a_link_is_not_followed(finished: Finished, tmp_path: Path) -> None:
    folder, precious = finished(), tmp_path / "precious"
    precious.write_text("keep")
    (folder / "result.json").unlink()
    (tmp_path / ".run.lock").symlink_to(precious)
    failed(matinee("train", f"resume={folder}", cwd=tmp_path))
    assert precious.read_text() == "keep"


def test_a_folder_may_be_a_link_itself(finished: Finished, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").symlink_to(finished())
    assert matinee("recommend", f"run={tmp_path / 'elsewhere'}").returncode == 0
    check_plain_files(tmp_path / "elsewhere")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000 + "]" * 100_000,
        '{"a":' * 500 + "1" + "}" * 500,
        '{"metrics": {"test/rmse": ' + "9" * 400 + "}}",
        '{"a": "' + "x" * 2_000_000 + '"}',
        "",
    ],
)
def test_json_of_others_has_limits(tmp_path: Path, text: str) -> None:
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(MatineeError, match=r"result\.json is no JSON"):
        read_result(tmp_path)


def test_a_text_has_a_limit(tmp_path: Path) -> None:
    with (tmp_path / "metrics.csv").open("wb") as file:
        file.truncate(1 << 40)  # holds nothing on disk
    with pytest.raises(MatineeError, match="more than"):
        read_text(tmp_path, "metrics.csv")


def header(shape: tuple[int, ...], kind: str = "<f8") -> bytes:
    sink = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        sink, {"descr": kind, "fortran_order": False, "shape": shape}
    )
    return sink.getvalue()


ARRAYS = {
    "giant": [header((10**12,))],
    "giant without bytes": [header((10**12,), "<U0")],
    "negative": [header((-1,))],
    "too short": [header((3,)), b"\0" * 16],
    "objects": [header((2,), "|O"), pickle.dumps(["a", "b"])],
    "bomb": [header((1 << 28,), "|u1"), *[b"\0" * (1 << 24)] * 16],
    "nested header": [b"\x93NUMPY\x01\x00", (9000).to_bytes(2, "little"), b"(" * 9000],
    "old header": [b"\x93NUMPY\x01\x00", (60).to_bytes(2, "little"), b"{'shape': (3L,)}".ljust(60)],
    "other version": [b"\x93NUMPY\x09\x00", b"\0" * 100],
    "no array": [b"hello"],
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_of_others_have_the_size_of_their_shape(tmp_path: Path, kind: str) -> None:
    with (
        zipfile.ZipFile(tmp_path / "per_user.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("user.npy", "w") as file,
    ):
        for part in ARRAYS[kind]:
            file.write(part)
    with pytest.raises(MatineeError, match=r"per_user\.npz cannot be read"):
        read_arrays(tmp_path, "per_user.npz")


def test_arrays_are_read_as_numpy_reads_them(tmp_path: Path) -> None:
    arrays = {
        "user": np.array(["a", "bcd"]),
        "rmse": np.array([0.5, 2.0]),
        "none": np.zeros((0, 3)),
        "order": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    }
    np.savez_compressed(tmp_path / "per_user.npz", **arrays)
    found = read_arrays(tmp_path, "per_user.npz")
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


class Bait:
    """What a pickle would call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.called = function, arguments

    def __reduce__(self) -> Any:
        return self.called


def doubled() -> Any:
    value: Any = [0]
    for _ in range(60):
        value = [value, value]
    return value


CHECKPOINTS: dict[str, Callable[[Path], Any]] = {
    "code": lambda marker: Bait(os.mkdir, str(marker)),
    "giant bytes": lambda _: Bait(bytearray, 1 << 40),
    "tensor that repeats its memory": lambda _: torch.zeros(1).expand(10**12),
    "values in each other": lambda _: doubled(),
}


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_a_checkpoint_of_others_holds_plain_values_of_its_size(tmp_path: Path, kind: str) -> None:
    path, marker = tmp_path / "checkpoints" / "best.ckpt", tmp_path / "marker"
    path.parent.mkdir()
    torch.save({"state_dict": OrderedDict(a=torch.ones(2)), "x": CHECKPOINTS[kind](marker)}, path)
    with pytest.raises(MatineeError, match="damaged or holds more than plain values"):
        read_checkpoint(path)
    assert not marker.exists()


@pytest.mark.parametrize("kind", ["packed", "twice", "two archives", "changed", "no zip", "empty"])
def test_a_checkpoint_of_others_is_the_archive_it_looks_like(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "checkpoints" / "best.ckpt"
    path.parent.mkdir()
    torch.save({"state_dict": {"a": torch.zeros(1 << 20)}}, path)
    assert read_checkpoint(path)["state_dict"]["a"].shape == (1 << 20,)
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    names = list(files)
    if kind == "twice":
        names.append(names[0].upper())
    elif kind == "two archives":
        names.append("other/data.pkl")
    with zipfile.ZipFile(
        path, "w", zipfile.ZIP_DEFLATED if kind == "packed" else zipfile.ZIP_STORED
    ) as archive:
        for name in names:
            archive.writestr(name, files.get(name, files[names[0]]))
    if kind == "changed":
        path.write_bytes(content.replace(b"\0" * 64, b"\0" * 63 + b"\1", 1))
    elif kind in ("no zip", "empty"):
        path.write_bytes(b"hello" * (kind == "no zip"))
    with pytest.raises(MatineeError, match="damaged or holds more than plain values"):
        read_checkpoint(path)


def test_results_of_others_are_read_within_limits_by_report(
    write_run: Callable[..., Path], tmp_path: Path
) -> None:
    folder = write_run("runs/theirs")
    result = json.loads((folder / "result.json").read_text())
    deep: Any = 1
    for _ in range(200):
        deep = {"a": deep}
    result["protocol"]["split"]["options"] = deep
    (folder / "result.json").write_text(json.dumps(result))
    assert "levels deep" in failed(matinee("report", str(folder)))
