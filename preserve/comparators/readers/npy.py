"""numpy's files: .npy and .npz. Arrays of Python objects are pickles: opaque, never loaded."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from preserve.comparators import making
from preserve.comparators.leaves import Leaf, Limits, TooMuch, Unreadable
from preserve.comparators.readers import members

MAGIC = b"\x93NUMPY"
MAPPED = 16 << 20  # bytes above which a file is mapped instead of read

Array = np.ndarray[Any, Any]


class Npy:
    """Reads one array: the leaf ``array``, or for a structured one a leaf per field, by its name."""

    name = "npy"

    def sniff(self, head: bytes, name: str) -> int:
        """Go by the magic string."""
        return 100 if head.startswith(MAGIC) else 0

    def leaves(self, file: Path, limits: Limits) -> Iterator[Leaf]:
        """Yield the array."""
        size = file.stat().st_size
        if size > limits.bytes:
            raise TooMuch(f"the file has {size} bytes, more than {limits.bytes}")
        with file.open("rb") as stream:
            dtype, end = _header(stream)
        if dtype.hasobject:
            yield making.opaque("array", making.read_bytes(file, limits))
            return
        yield from _fields("array", "", dtype, lambda: _mapped(file))
        if size > end:
            with file.open("rb") as stream:
                stream.seek(end)
                yield making.opaque("bytes after the array", stream.read(making.IN_MEMORY))


class Npz:
    """Reads arrays by name: leaves ``NAME``, and ``NAME/FIELD`` of structured ones; other members are opaque."""

    name = "npz"

    def sniff(self, head: bytes, name: str) -> int:
        """Go by the first member of a ZIP file, or the name."""
        if not head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            return 0
        length = int.from_bytes(head[26:28], "little")
        return 95 if name.endswith(".npz") or head[30 : 30 + length].endswith(b".npy") else 0

    def leaves(self, file: Path, limits: Limits) -> Iterator[Leaf]:
        """Yield the arrays of all members."""
        with members.opened_zip(file) as archive:
            found = members.listed(archive, limits)
            for info in found:
                yield from _member(file, archive, info)
            yield from members.about(archive, found)


def _member(file: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[Leaf]:
    name = info.filename.removesuffix(".npy")
    with archive.open(info) as stream:
        if stream.read(len(MAGIC)) != MAGIC:
            yield making.opaque(info.filename, archive.read(info))
            return
    with archive.open(info) as stream:
        dtype, end = _header(stream)
    if dtype.hasobject:
        yield making.opaque(name, archive.read(info))
        return
    yield from _fields(name, name + "/", dtype, lambda: _unpacked(file, info))
    if info.file_size > end:
        yield making.opaque(f"{name} bytes after the array", archive.read(info)[end:])


def _fields(name: str, prefix: str, dtype: np.dtype[Any], load: Callable[[], Array]) -> Iterator[Leaf]:
    if dtype.names is None:
        yield Leaf(path=name, kind="num", load=load)
        return
    if not dtype.names:
        yield making.text(name, "a structured array without fields")
    for field in dtype.names:
        yield Leaf(path=prefix + field, kind="num", load=lambda field=field: load()[field])  # type: ignore[misc]


def _header(stream: Any) -> tuple[np.dtype[Any], int]:
    """Give the type of an array, and where its bytes end in the file."""
    counted = _Counted(stream)
    try:
        version = np.lib.format.read_magic(counted)
        read: dict[tuple[int, int], Any] = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
            (3, 0): np.lib.format.read_array_header_2_0,  # the same, the names in UTF-8
        }
        shape, _, dtype = read[version](counted)
    except (ValueError, KeyError, EOFError, OSError) as error:
        raise Unreadable(f"the array's header cannot be read: {error}") from error
    count = 1
    for length in shape:  # of any size: what the header says need not be true
        count *= int(length)
    return dtype, counted.count + count * dtype.itemsize


class _Counted(io.RawIOBase):
    """A stream that knows how much was read of it."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        self._stream, self.count = stream, 0

    def read(self, size: int = -1) -> bytes:
        """Read and count."""
        data = self._stream.read(size)
        self.count += len(data)
        return data


def _mapped(file: Path) -> Array:
    mode = "r" if file.stat().st_size > MAPPED else None
    array: Array = np.load(file, mmap_mode=mode, allow_pickle=False)  # type: ignore[arg-type]
    return array


def _unpacked(file: Path, info: zipfile.ZipInfo) -> Array:
    with members.opened_zip(file) as archive, archive.open(info) as stream:
        array: Array = np.lib.format.read_array(stream, allow_pickle=False)
        return array
