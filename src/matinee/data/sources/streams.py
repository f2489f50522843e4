"""Files as blocks of whole lines in UTF-8, whatever their compression and encoding."""

from __future__ import annotations

import codecs
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path, PurePath
from typing import Any

import pyarrow as pa

from matinee.errors import MatineeError
from matinee.files import most_unpacked

NOT_UTF8 = "the line is not UTF-8; set encoding to the file's own, such as latin-1 or cp1252"
JOINED = "the line begins with a byte order mark, as where files were joined; remove the mark"
NUL = "the line holds a NUL byte, which is no text; repair the file or set encoding"
BYTE_ORDER_MARK = codecs.BOM_UTF8
COMPRESSIONS = (".gz", ".bz2", ".zst", ".zip")

_OTHER_MARKS = {  # that of UTF-32 begins with that of UTF-16
    "utf-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
    "utf-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
}
_BLOCK = 1 << 22
_LONGEST_LINE = 1 << 28


def uncompressed_name(path: Path) -> str:
    """Return the name of the file inside, which tells its kind; a zip of one file may hold any name.

    Raises:
        MatineeError: If a zip does not hold exactly one file.
    """
    if path.suffix.lower() == ".zip":
        inner = PurePath(path.stem)
        return path.stem if inner.suffix else PurePath(_member(path).filename).name
    return path.stem if path.suffix.lower() in COMPRESSIONS else path.name


def _member(path: Path) -> zipfile.ZipInfo:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [
                member
                for member in archive.infolist()
                if not (member.is_dir() or member.filename.startswith("__MACOSX/"))
            ]
    except (zipfile.BadZipFile, OSError) as error:
        raise MatineeError(f"{path} is no readable zip file ({error}).") from error
    if len(members) != 1:
        names = ", ".join(member.filename for member in members[:5]) or "none"
        raise MatineeError(
            f"{path} holds {len(members)} files ({names}) instead of one; unpack it and name a file."
        )
    return members[0]


def line_blocks(path: Path, encoding: str = "utf-8") -> Iterator[bytes]:
    r"""Read a file as blocks of whole lines.

    Lines end in ``\n``, ``\r\n`` or ``\r`` in the file and in ``\n`` in the blocks, whose text is UTF-8
    without a byte order mark. Bytes of a UTF-8 file that are not UTF-8 stay as they are.

    Args:
        path: A plain file, or one that ends in .gz, .bz2, .zst or .zip (of one file).
        encoding: The file's encoding, as Python names it.

    Raises:
        MatineeError: If the file cannot be read, is damaged, cut or a bomb, or the encoding is unknown or
            another.
    """
    decode = _decoder(path, encoding)
    try:
        with ExitStack() as stack:
            chunks = _chunks(path, stack)
            yield from _whole_lines(path, _unix(decode(chunks)))
    except (OSError, EOFError, zipfile.BadZipFile, pa.ArrowException) as error:
        raise MatineeError(f"{path} cannot be read ({error}); fetch it again.") from error
    except UnicodeError as error:
        raise MatineeError(
            f"{path} is not {encoding} text ({error}); set encoding to the file's own."
        ) from error


def _chunks(path: Path, stack: ExitStack) -> Iterator[bytes]:
    stream: Any
    if path.suffix.lower() == ".zip":
        archive = stack.enter_context(zipfile.ZipFile(path))
        stream = stack.enter_context(archive.open(_member(path)))
    else:
        kind = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}.get(path.suffix.lower())
        stream = stack.enter_context(
            pa.input_stream(str(path), compression=kind, buffer_size=_BLOCK)
        )
    bounded = Bounded(stream, path)
    while chunk := bounded.read(_BLOCK):
        yield chunk


class Bounded:
    """A stream that unpacks a file, up to a size that data do not reach.

    Args:
        stream: Gives the unpacked content.
        path: The packed file.
    """

    def __init__(self, stream: Any, path: Path) -> None:
        self.stream, self.path = stream, path
        self._room = most_unpacked(path.stat().st_size)

    def read(self, size: int) -> bytes:
        """Read at most ``size`` bytes.

        Raises:
            MatineeError: If the file has unpacked to too much.
        """
        content: bytes = self.stream.read(size)
        self._room -= len(content)
        if self._room < 0:
            raise MatineeError(
                f"{self.path} unpacks to much more than data do; do not trust it, or unpack it yourself."
            )
        return content


def _decoder(path: Path, encoding: str) -> Any:
    """Return the function that makes chunks UTF-8 without a byte order mark."""
    try:
        "".encode(encoding)  # refuses encodings of no text
        name = codecs.lookup(encoding).name
        incremental = codecs.getincrementaldecoder(name)()
    except (LookupError, TypeError) as error:
        raise MatineeError(
            f"encoding={encoding!r} is unknown; use a name of Python's, such as utf-8, latin-1 or cp1252."
        ) from error

    def transcoded(chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            yield incremental.decode(chunk).encode()
        yield incremental.decode(b"", final=True).encode()

    def without_mark(chunks: Iterator[bytes]) -> Iterator[bytes]:
        first = next(chunks, b"")
        while len(first) < len(codecs.BOM_UTF32_LE) and (more := next(chunks, b"")):
            first += more
        for other, marks in _OTHER_MARKS.items():
            if first.startswith(marks) and name.startswith("utf-8"):
                raise MatineeError(f"{path} is {other.upper()} text; set encoding={other}.")
        yield first.removeprefix(BYTE_ORDER_MARK)
        yield from chunks

    if name in ("utf-8", "utf-8-sig", "ascii"):
        return without_mark
    return lambda chunks: without_mark(transcoded(chunks))


def _unix(chunks: Iterator[bytes]) -> Iterator[bytes]:
    r"""Let lines end in ``\n`` alone."""
    held = b""
    for chunk in chunks:
        if held or b"\r" in chunk:
            chunk = held + chunk
            held = b"\r" if chunk.endswith(b"\r") else b""
            chunk = chunk[: len(chunk) - len(held)].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        yield chunk
    if held:
        yield b"\n"


def _whole_lines(path: Path, chunks: Iterator[bytes]) -> Iterator[bytes]:
    rest: list[bytes] = []
    length = 0
    for chunk in chunks:
        end = chunk.rfind(b"\n") + 1
        if end:
            yield b"".join([*rest, chunk[:end]])
            rest, length = [], 0
        rest.append(chunk[end:])
        length += len(chunk) - end
        if length > _LONGEST_LINE:
            raise MatineeError(
                f"{path} has a line of more than {_LONGEST_LINE:,} bytes; it is no table."
            )
    if last := b"".join(rest):
        yield last + b"\n"


def line_problem(line: bytes) -> str | None:
    """Say why a line is no text, if it is none."""
    if b"\0" in line:
        return NUL
    if line.startswith(BYTE_ORDER_MARK):
        return JOINED
    return None if is_utf8(line) else NOT_UTF8


def is_clean(block: bytes) -> bool:
    """Say whether `line_problem` finds nothing in any line of a block."""
    marked = block.startswith(BYTE_ORDER_MARK) or b"\n" + BYTE_ORDER_MARK in block
    return not marked and b"\0" not in block and is_utf8(block)


def is_utf8(data: bytes) -> bool:
    """Say whether bytes are UTF-8."""
    if data.isascii():
        return True
    try:
        pa.array([data], pa.large_binary()).cast(pa.large_string())
    except pa.ArrowInvalid:
        return False
    return True
