"""Read an archive that somebody unzipped: the same files, from a folder."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, Self

from preserve.digest import CHUNK
from preserve.documents.verification import Finding
from preserve.errors import MachineError, UserError
from preserve.stores.damage import Damaged, damaged
from preserve.stores.zip_form import MAX_ENTRIES, name_problems, order

MAX_DEPTH = 120  # names have at most 240 bytes
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK


class UnpackedArchive:
    """The archive unpacked at ``path``: regular files and folders only. Meets the interface ``Archive``.

    No link is followed below ``path``, at no moment: each part of a name is opened within the folder before it.
    """

    def __init__(self, path: Path) -> None:
        """List the files.

        Raises:
            UserError: there is no such folder.
            MachineError: it cannot be read.
            Damaged: there is a link, a device or a name that archives do not have.
        """
        self.path = path
        try:
            self._root = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise UserError(f"there is no folder {path}") from error
        except OSError as error:
            raise self._unreadable(path.name, error) from error
        self._close = weakref.finalize(self, os.close, self._root)
        self._files = MappingProxyType(dict(sorted(self._listed(), key=lambda found: order(found[0]))))
        if len(self._files) > MAX_ENTRIES:
            raise damaged(path.name, "has too many files", f"at most {MAX_ENTRIES}", len(self._files))
        for name, problem in name_problems(self._files):
            raise damaged(name, problem)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the folder."""
        self._close()

    def files(self) -> Mapping[str, int]:
        """Sizes in bytes by name, in the order that the archive's file would have."""
        return self._files

    def executable(self, name: str) -> bool:
        """Whether the file may be executed by its owner.

        Raises:
            Damaged: it is not there (any more).
        """
        with self.open(name) as stream:
            return bool(os.fstat(stream.fileno()).st_mode & 0o100)

    def open(self, name: str) -> BinaryIO:
        """Give a reader of one file.

        Raises:
            Damaged: it is not there (any more), or has another size than when the folder was listed.
            MachineError: it cannot be read.
        """
        if name not in self._files:
            raise damaged(name, "is not in the archive")
        try:
            stream = os.fdopen(self._descriptor(name), "rb")
        except OSError as error:
            raise self._unreadable(name, error) from error
        about = os.fstat(stream.fileno())
        if not stat.S_ISREG(about.st_mode) or about.st_size != self._files[name]:
            stream.close()
            raise damaged(name, "changed while it was read", f"{self._files[name]} bytes", f"{about.st_size} bytes")
        return stream

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield the file's bytes, a MiB at a time.

        Raises:
            Damaged: it is not there (any more), or its size changed.
            MachineError: it cannot be read.
        """
        size = 0
        with self.open(name) as stream:
            while chunk := self._read(stream, name):
                size += len(chunk)
                yield chunk
        if size != self._files[name]:
            raise damaged(name, "changed while it was read", f"{self._files[name]} bytes", f"{size} bytes")

    def check_form(self) -> Iterator[Finding]:
        """Yield nothing: a folder has no form besides its names."""
        return iter(())

    def _read(self, stream: BinaryIO, name: str) -> bytes:
        try:
            return stream.read(CHUNK)
        except OSError as error:
            raise self._unreadable(name, error) from error

    def _descriptor(self, name: str) -> int:
        *folders, last = name.split("/")
        with contextlib.ExitStack() as stack:
            folder = self._root
            for part in folders:
                folder = os.open(part, _FOLDER, dir_fd=folder)
                stack.callback(os.close, folder)
            return os.open(last, _FILE, dir_fd=folder)

    def _listed(self) -> Iterator[tuple[str, int]]:
        pending = [""]
        while pending:
            inside = pending.pop()
            for name, about in self._inside(inside):
                if stat.S_ISDIR(about.st_mode):
                    pending.append(f"{name}/")
                elif stat.S_ISREG(about.st_mode):
                    yield name, about.st_size
                else:
                    raise damaged(name, "is a link, a device or the like; archives hold regular files only")

    def _inside(self, folder: str) -> list[tuple[str, os.stat_result]]:
        if folder.count("/") > MAX_DEPTH:
            raise damaged(folder, "lies too deep")
        try:
            descriptor = self._descriptor(f"{folder}.") if folder else os.dup(self._root)
            try:
                with os.scandir(descriptor) as found:
                    return [(folder + entry.name, entry.stat(follow_symlinks=False)) for entry in found]
            finally:
                os.close(descriptor)
        except OSError as error:
            raise self._unreadable(folder or self.path.name, error) from error

    def _unreadable(self, name: str, error: OSError) -> MachineError | Damaged:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
            return damaged(name, "changed while it was read")
        return MachineError(f"{self.path}: cannot read {name}: {error.strerror}", hint="see to the disk and the rights")
