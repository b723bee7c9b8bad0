"""A stretch of a file as a file of its own."""

from __future__ import annotations

import io
import os
import stat
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class OpenFile:
    """A file open for reading; closed when nothing refers to it any more, if not before."""

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            OSError: it cannot be opened.
        """
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a FIFO would be waited for
        self.close = weakref.finalize(self, os.close, self._descriptor)

    @property
    def descriptor(self) -> int:
        """The descriptor.

        Raises:
            ValueError: the file was closed.
        """
        if not self.close.alive:
            raise ValueError("the archive is closed")
        return self._descriptor

    @property
    def size(self) -> int:
        """Size in bytes; 0 for what is not a regular file."""
        about = os.fstat(self.descriptor)
        return about.st_size if stat.S_ISREG(about.st_mode) else 0


class Window(io.RawIOBase):
    """``size`` bytes of ``file`` from ``start`` on, to be read; windows on one file do not disturb each other."""

    def __init__(self, file: OpenFile, start: int, size: int) -> None:
        super().__init__()
        self._file, self._start, self._size, self._at = file, start, size, 0

    def buffered(self) -> BinaryIO:
        """Give a reader that fetches more than is asked for."""
        return cast(BinaryIO, io.BufferedReader(self, 1 << 16))

    def readable(self) -> bool:
        """It can be read."""
        return True

    def seekable(self) -> bool:
        """It can be read from anywhere."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place, counted from the beginning, from here or from the end."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError("a place before the beginning")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill the buffer as far as the stretch goes; 0 at its end."""
        room = memoryview(buffer).cast("B")[: max(self._size - self._at, 0)]
        if not room:
            return 0
        count = os.preadv(self._file.descriptor, [room], self._start + self._at)
        self._at += count
        return count
