"""Members of ZIP and tar files, with limits, and a scratch folder that goes when nothing needs it any more."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import weakref
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from preserve.comparators import making
from preserve.comparators.leaves import Leaf, Limits, TooMuch, Unreadable

CHUNK = 1 << 20


class Scratch:
    """A folder for files that leaves are loaded from; removed with the last leaf that holds it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="preserve-compare-"))
        self._count = 0
        self.close = weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)

    def path(self, name: str) -> Path:
        """Give a new path for a file whose name ends as ``name`` does."""
        self._count += 1
        ending = "".join(sign for sign in Path(name).name[-40:] if sign.isascii() and (sign.isalnum() or sign in "._-"))
        return self.folder / f"{self._count}-{ending}"


class Budget:
    """What may still be unpacked, of all members and members of members together."""

    def __init__(self, limits: Limits) -> None:
        self.bytes, self.members = limits.bytes, limits.members

    def take_member(self) -> None:
        """Count one more member.

        Raises:
            TooMuch: there are too many.
        """
        self.members -= 1
        if self.members < 0:
            raise TooMuch("more members than the limit allows")

    def copy(self, source: BinaryIO, target: Path, *, most: int, what: str) -> None:
        """Write a member to a file, at most ``most`` bytes of it.

        Raises:
            TooMuch: it is longer, or all together are.
        """
        allowed = min(most, self.bytes)
        with target.open("xb") as stream:
            while chunk := source.read(CHUNK):
                allowed -= len(chunk)
                self.bytes -= len(chunk)
                if allowed < 0:
                    raise TooMuch(f"{what} unpacks to more than the limit allows")
                stream.write(chunk)


@contextlib.contextmanager
def opened_zip(file: Path) -> Iterator[zipfile.ZipFile]:
    """Open a ZIP file.

    Raises:
        Unreadable: it is broken, encrypted, or packed in a way that nothing here unpacks.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise Unreadable(f"not readable as ZIP: {error}") from error


def listed(archive: zipfile.ZipFile, limits: Limits) -> list[zipfile.ZipInfo]:
    """Give the members, if they are within the limits as the table tells; unpacking holds them to it.

    Raises:
        TooMuch: they are not.
    """
    found = archive.infolist()
    if len(found) > limits.members:
        raise TooMuch(f"{len(found)} members, more than {limits.members}")
    if (total := sum(info.file_size for info in found)) > limits.bytes:
        raise TooMuch(f"the members unpack to {total} bytes, more than {limits.bytes}")
    for info in found:
        if info.file_size > limits.ratio * max(info.compress_size, 1):
            raise TooMuch(f"{info.filename} unpacks to more than {limits.ratio} times its size")
    return found


def about(archive: zipfile.ZipFile, found: Sequence[zipfile.ZipInfo]) -> Iterator[Leaf]:
    """Yield what a ZIP file says besides its members' content: times and packing, which do not count, and a comment."""
    packed = (f"{i.filename}: {i.date_time}, method {i.compress_type}, system {i.create_system}" for i in found)
    yield making.text("zip:times", "\n".join(packed), volatile=True)
    if archive.comment:
        yield making.opaque("zip:comment", archive.comment)
