"""Reading: the files of a run folder, which somebody else may have made, within limits.

A file that is a link, or that would take much more memory than its size suggests, is rejected before it is
loaded. Everything else that a file holds is checked where it is used.
"""

import math
import pickletools
import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from matinee.errors import MatineeError
from matinee.files import most_unpacked, plain_file

MOST_BYTES = 1 << 26  # of a text file
MOST_STRUCTURE = 1 << 24  # bytes of a checkpoint besides its tensors
MOST_VALUES = 1_000_000  # tensors and other values of a checkpoint
STORED = re.compile(  # classes and functions that the structure of a checkpoint may name
    r"collections (OrderedDict|Counter)|torch\._utils _rebuild_(tensor_v2|parameter)"
    r"|torch (\w+Storage|Size|device|bool|b?float\d+|u?int\d+)|torch\.nn\.parameter Parameter"
    r"|builtins (set|complex)"
)


def read_text(folder: Path, name: str) -> str | None:
    """Read a text file of a run folder; None if the run has no such file.

    Raises:
        MatineeError: If the file is a link, too large, unreadable or no text.
    """
    path = plain_file(folder, name)
    try:
        if not path.exists():
            return None
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES:,} bytes")
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise MatineeError(f"{path} cannot be read ({error}); restore or remove it.") from error


def read_arrays(folder: Path, name: str) -> dict[str, npt.NDArray[Any]]:
    """Read the arrays of an ``.npz`` file of a run folder.

    Raises:
        MatineeError: If the file is missing, a link, broken or too large, or holds anything but plain arrays.
    """
    path = plain_file(folder, name)
    if not path.exists():
        raise MatineeError(f"{path} is missing; restore it or train again.")
    try:
        with warnings.catch_warnings(action="error"), zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            size = sum(member.file_size for member in members)
            if size > most_unpacked(path.stat().st_size):
                raise ValueError(f"it would unpack to {size:,} bytes")
            return {
                member.filename.removesuffix(".npy"): _read_array(archive, member)
                for member in members
            }
    except Exception as error:  # NumPy and zipfile raise many types for a broken file
        reason = str(error).partition("\n")[0]
        raise MatineeError(f"{path} cannot be read ({reason}); restore it.") from error


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> npt.NDArray[Any]:
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, _, dtype = header(file)
        size = math.prod(shape) * dtype.itemsize
        if not dtype.itemsize or size != member.file_size - file.tell():
            raise ValueError(f"{member.filename} has not the size of its shape")
    with archive.open(member) as file:
        array: npt.NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return array


def read_checkpoint(path: Path) -> Mapping[str, Any]:
    """Read a checkpoint of plain values and tensors.

    Args:
        path: The file, ``checkpoints/NAME.ckpt`` of a run folder.

    Raises:
        MatineeError: If it is missing, a link, damaged, too large, or contains anything that could run
            code.
    """
    plain_file(path.parents[1], f"{path.parent.name}/{path.name}")
    if not path.is_file():
        raise MatineeError(f"the checkpoint {path} is missing; finish the run or name another.")
    try:
        with zipfile.ZipFile(path) as archive:
            _check_archive(archive, path.stat().st_size)
        checkpoint: Mapping[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        _check_tensors(checkpoint)
    except Exception as error:  # torch raises many types for a broken or hostile file
        raise MatineeError(
            f"the checkpoint {path} is damaged or holds more than plain values, and was not loaded; "
            "restore it or train again."
        ) from error
    if not isinstance(checkpoint, Mapping) or not isinstance(checkpoint.get("state_dict"), Mapping):
        raise MatineeError(
            f"{path} is no checkpoint of a run; name a run folder that train printed."
        )
    return checkpoint


def _check_archive(archive: zipfile.ZipFile, size: int) -> None:
    """Check what torch does not: checksums, sizes, names, and what the structure may call."""
    members = archive.infolist()
    names = {member.filename.casefold() for member in members}
    if len(names) < len(members) or len({name.partition("/")[0] for name in names}) > 1:
        raise ValueError("two files may stand for one")
    packed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
    if packed or sum(member.file_size for member in members) > size:
        raise ValueError("it is larger than it looks")
    if archive.testzip() is not None:
        raise ValueError("a checksum does not match")
    (structure,) = (member for member in members if member.filename.endswith("/data.pkl"))
    if structure.file_size > MOST_STRUCTURE:
        raise ValueError("its structure is too large")
    for operation, argument, _ in pickletools.genops(archive.read(structure)):
        if operation.name == "GLOBAL" and not STORED.fullmatch(str(argument)):
            raise ValueError(f"it names {argument}")


def _check_tensors(checkpoint: Any) -> None:
    """Reject tensors that repeat their memory, and values that contain each other many times."""
    room, rest = MOST_VALUES, [checkpoint]
    while rest:
        value = rest.pop()
        room -= 1
        if isinstance(value, torch.Tensor):
            if value.nbytes > value.untyped_storage().nbytes():
                raise ValueError("a tensor is larger than its memory")
        elif isinstance(value, Mapping):
            rest += [*value, *value.values()]
        elif isinstance(value, Sequence | set) and not isinstance(value, str | bytes):
            rest += value
        if room < 0:
            raise ValueError("it holds too many values")
