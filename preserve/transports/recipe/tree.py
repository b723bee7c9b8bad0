"""The files of a layer before it is one: paths, modes and contents, with no owner, time or trace of the host."""

from __future__ import annotations

import os
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO

from preserve.digest import CHUNK
from preserve.errors import UserError

FOLDER, STICKY, FILE, PROGRAM, LINK = 0o755, 0o1777, 0o644, 0o755, 0o777
MERGED = frozenset({"bin", "sbin", "lib", "lib32", "lib64", "libx32"})  # links into /usr (Debian's usr-merge)
_BLOCK = 512


@dataclass(frozen=True, slots=True)
class Extent:
    """Where a content lies in the spool: offset and size in bytes."""

    offset: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A folder (neither ``content`` nor ``target``), a file, or a symbolic link. ``origin`` is the package it is of."""

    mode: int = FOLDER
    content: Extent | None = None
    target: str | None = None
    origin: str = ""

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return self.content is None and self.target is None


class Spool:
    """One anonymous file with all contents, gone when it is closed; several threads may read it."""

    def __init__(self, folder: Path) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        self._end = 0

    def __enter__(self) -> Spool:
        """Give itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the contents."""
        self._file.close()

    def add(self, stream: IO[bytes]) -> Extent:
        """Keep what remains in ``stream``."""
        start = self._end
        while chunk := stream.read(CHUNK):
            self._write(chunk)
        return Extent(start, self._end - start)

    def add_bytes(self, data: bytes) -> Extent:
        """Keep bytes."""
        self._write(data)
        return Extent(self._end - len(data), len(data))

    def chunks(self, extent: Extent) -> Iterator[bytes]:
        """Yield a content."""
        done = 0
        while done < extent.size:
            chunk = os.pread(self._file.fileno(), min(CHUNK, extent.size - done), extent.offset + done)
            done += len(chunk)
            yield chunk

    def read(self, extent: Extent) -> bytes:
        """Give a content as a whole."""
        return b"".join(self.chunks(extent))

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            written = os.pwrite(self._file.fileno(), rest, self._end)
            self._end += written
            rest = rest[written:]


class Tree:
    """Paths (relative, no ``.`` or ``..``) to entries; parents are made as needed; the usr-merge is applied."""

    def __init__(self, spool: Spool) -> None:
        self.spool = spool
        self.entries: dict[str, Entry] = {}

    def __contains__(self, path: str) -> bool:
        """Whether there is an entry at this path, wherever the usr-merge has put it."""
        return merged(path) in self.entries

    def get(self, path: str) -> Entry | None:
        """The entry at this path."""
        return self.entries.get(merged(path))

    def add(self, path: str, entry: Entry) -> None:
        """Put an entry, in place of one that is there; a folder stays one.

        Raises:
            UserError: a parent is not a folder, or a folder would be replaced.
        """
        path = merged(path)
        there = self.entries.get(path)
        if there is not None and there.is_folder and not entry.is_folder:
            raise UserError(f"/{path} is a folder, and {entry.origin or 'the recipe'} has a file or link there")
        if entry.is_folder and there is not None and not there.is_folder:
            raise UserError(f"/{path} is a file or link of {there.origin}, and a folder of {entry.origin}")
        self._parents(path, entry.origin)
        self.entries[path] = entry

    def folder(self, path: str, *, mode: int = FOLDER, origin: str = "") -> None:
        """Make a folder."""
        self.add(path, Entry(mode=mode, origin=origin))

    def file(self, path: str, data: bytes, *, mode: int = FILE, origin: str = "") -> None:
        """Make a file from bytes."""
        self.add(path, Entry(mode=mode, content=self.spool.add_bytes(data), origin=origin))

    def link(self, path: str, target: str, *, origin: str = "") -> None:
        """Make a symbolic link."""
        self.add(path, Entry(mode=LINK, target=target, origin=origin))

    def read(self, path: str) -> bytes:
        """Content of the file at ``path``; links are followed inside the tree.

        Raises:
            KeyError: no file there.
        """
        entry = self.entries[self.resolve(path)]
        if entry.content is None:
            raise KeyError(path)
        return self.spool.read(entry.content)

    def resolve(self, path: str) -> str:
        """Path with the last part's links followed inside the tree (a chain of at most 40)."""
        path = merged(path)
        for _ in range(40):
            entry = self.entries.get(path)
            if entry is None or entry.target is None:
                return path
            path = merged(pointed_to(path, entry.target))
        raise KeyError(path)

    def _parents(self, path: str, origin: str) -> None:
        for parent in list(PurePosixPath(path).parents)[-2::-1]:
            entry = self.entries.setdefault(str(parent), Entry(origin=origin))
            if not entry.is_folder:
                raise UserError(f"/{path} of {origin or 'the recipe'}: /{parent} is a file or link of {entry.origin}")

    def tar(self) -> Iterator[bytes]:
        """Yield a tar file (GNU format): sorted by name, owner 0, time 0; one content twice is a hard link."""
        written: dict[Extent, str] = {}
        for path in sorted(self.entries):
            entry = self.entries[path]
            info = _header(path, entry, written)
            yield info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
            if info.type == tarfile.REGTYPE and entry.content is not None:
                yield from self.spool.chunks(entry.content)
                yield b"\0" * (-entry.content.size % _BLOCK)
        yield b"\0" * (2 * _BLOCK)


def _header(path: str, entry: Entry, written: dict[Extent, str]) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.mode = entry.mode
    if entry.target is not None:
        info.type, info.linkname = tarfile.SYMTYPE, entry.target
    elif entry.content is None:
        info.type = tarfile.DIRTYPE
    elif entry.content.size and entry.content in written:
        info.type, info.linkname = tarfile.LNKTYPE, written[entry.content]
    else:
        info.size = entry.content.size
        written[entry.content] = path
    return info


def merged(path: str) -> str:
    """Where the usr-merge puts a path: ``bin/ls`` at ``usr/bin/ls``; the links themselves stay."""
    first, slash, rest = path.partition("/")
    return f"usr/{first}/{rest}" if slash and first in MERGED else path


def pointed_to(path: str, target: str) -> str:
    """The path in the image that a link at ``path`` names, relative to the root; above the root is the root."""
    parts: list[str] = [] if target.startswith("/") else list(PurePosixPath(path).parent.parts)
    for part in target.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)
