"""The numeric libraries of an image, found in its layers: BLAS, LAPACK, the C library with its mathematics.

Layers are read as streams, each byte once; nothing is unpacked. What a later layer replaces or removes is gone, and
links are followed as far as it takes to say what ``libblas.so.3`` is.
"""

from __future__ import annotations

import io
import posixpath
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from preserve.documents.record import Library
from preserve.stores.image_graph import unpacked_layer

PIECE = 1 << 22  # bytes of a file that are searched at a time
OVERLAP = 256  # bytes: no text that is looked for is longer
MAX_HEADER = 1 << 20  # bytes of one member's headers: a name has 4096 at most
MAX_SEARCHED = 1 << 28  # bytes of a file in which its version is looked for
MAX_LINKS = 16  # of one path
MOST = 200  # libraries, and kernels of one, that are listed
MOST_KNOWN = 1000  # libraries and links that are kept in mind
ALIASES = ("libblas.so.3", "liblapack.so.3")  # what programs that were built for any BLAS ask for

_NUMBER = re.compile(r"(\d+(?:\.\d+)+)$")  # of libopenblasp-r0.3.21.so
_SUFFIX = re.compile(r"\.so\.([\d.]+)$")  # of libblas.so.3.11.0
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_PREFIX = b"gotoblas_"  # of the tables of functions that an OpenBLAS for several processors has, one for each
_KERNEL = re.compile(rb"[A-Z0-9_]{1,32}(?=\0)")
_LINKS = re.compile(r"lib(?:blas|lapack)\b[^/]*")
_FOLDERS = re.compile(r"(?:[^/]+/)*(?:lib|lib64|[^/]+-linux-[^/]+)")  # where the loader looks


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """Files that are one library: ``file`` matches their names, ``inside`` the version in their bytes."""

    name: str
    file: re.Pattern[str]
    inside: re.Pattern[bytes] | None = None


_KINDS = (
    _Kind(
        name="OpenBLAS",
        file=re.compile(r"lib(?:scipy_)?openblas.*\.so.*"),
        inside=re.compile(rb"OpenBLAS (\d+\.\d+[\w.+-]{0,60})(?=[ \0])"),
    ),
    _Kind(
        name="glibc",
        file=re.compile(r"libc\.so\.6|libc-2\.[\d.]+\.so"),
        inside=re.compile(
            rb"GNU C Library \((?:[^()\0]* (\d[^() \0]{0,60})\)|[^()\0]*\) stable release version (\d+\.\d+)\.)"
        ),
    ),
    _Kind(
        name="musl",
        file=re.compile(r"ld-musl-.*\.so\.1|libc\.musl-.*\.so\.1"),
        inside=re.compile(rb"\0(1\.\d+\.\d+[\w.-]{0,60})\0"),
    ),
    _Kind(name="BLIS", file=re.compile(r"libblis.*\.so.*")),
    _Kind(name="ATLAS", file=re.compile(r"lib[st]?atlas\.so.*")),
    _Kind(name="MKL", file=re.compile(r"libmkl_(?:rt|core)\.so.*")),
    _Kind(name="Intel libm", file=re.compile(r"libimf\.so.*")),
    _Kind(name="AMD libm", file=re.compile(r"lib(?:alm|amdlibm)\.so.*")),
    _Kind(name="BLAS", file=re.compile(r"libblas\.so\.\d.*")),  # the reference, or another one's under this name:
    _Kind(name="LAPACK", file=re.compile(r"liblapack\.so\.\d.*")),  # its path tells
)


def numeric_libraries(layers: Iterable[Iterable[bytes]]) -> tuple[Library, ...] | None:
    """Find the numeric libraries of an image, sorted by name and file; ``layers`` are its blobs, the lowest first.

    ``None``: a layer cannot be read (zstd, or not a tar file).
    """
    tree = _Tree()
    try:
        for layer in layers:
            _read_layer(tree, layer)
    except (zlib.error, tarfile.TarError):
        return None
    aliases = [Library(name=name, version="", file=_in_utf8(file)) for name, file in tree.aliases()]
    found = {library.file: library for library in tree.files.values()}
    return tuple(sorted((*found.values(), *aliases), key=lambda one: (one.name, one.file))[:MOST])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tree:
    """What of an image's files is of interest so far: libraries and links, by path."""

    files: dict[str, Library] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.files) + len(self.links)

    def remove(self, path: str, *, children_only: bool = False) -> None:
        """Forget a path and all below it; an empty one is the root."""
        below = f"{path}/" if path else ""
        for table in (self.files, self.links):
            for known in [one for one in table if one.startswith(below) or (one == path and not children_only)]:
                table.pop(known)

    def aliases(self) -> Iterator[tuple[str, str]]:
        """Yield, for the names that programs ask for, what is found by them: a file's path."""
        for path in (*self.links, *self.files):
            folder, _, name = path.rpartition("/")
            if name in ALIASES and _FOLDERS.fullmatch(folder):
                end = self._end(path)
                if end in self.files:
                    yield name, end

    def _end(self, path: str) -> str:
        for _ in range(MAX_LINKS):
            link = next((link for link in self.links if path == link or path.startswith(link + "/")), None)
            if link is None:
                break
            target = posixpath.join("/", posixpath.dirname(link), self.links[link]) + path[len(link) :]
            path = posixpath.normpath(target).strip("/")
        return path


class _Bounded(io.RawIOBase):
    """A layer's tar stream that refuses to be read further than ``allowed``: headers claim sizes of their own."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest = pieces, memoryview(b"")
        self.allowed = MAX_HEADER

    def skip(self) -> bool:
        """Let the next piece go by; ``False`` at the end."""
        return next(self._pieces, None) is not None

    def read(self, size: int = -1) -> bytes:
        if self.allowed < 0:
            raise tarfile.ReadError("headers beyond all bounds")
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._rest = memoryview(piece)
        data = bytes(self._rest[:size])
        self._rest = self._rest[size:]
        self.allowed -= len(data)
        return data


def _read_layer(tree: _Tree, blob: Iterable[bytes]) -> None:
    """Go through one layer; its whiteouts are about the layers below it, wherever in it they stand."""
    stream, above = _Bounded(unpacked_layer(iter(blob))), _Tree()
    with tarfile.open(fileobj=stream, mode="r|", bufsize=1 << 16) as archive:
        while True:
            stream.allowed = max(stream.allowed, 0) + MAX_HEADER
            member = archive.next()
            if member is None:
                break
            stream.allowed = member.size + MAX_HEADER
            archive.members.clear()  # type: ignore[attr-defined]  # tarfile remembers every member it has seen
            _take(tree, above, archive, member)
    while stream.skip():
        pass  # whoever reads a blob to its end is told whether it is what its digest says
    tree.files.update(above.files)
    tree.links.update(above.links)


def _take(tree: _Tree, above: _Tree, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    path = posixpath.normpath("/" + member.name).strip("/")
    folder, _, name = path.rpartition("/")
    if name == _OPAQUE:
        tree.remove(folder, children_only=True)
        return
    if name.startswith(_WHITEOUT):
        tree.remove(f"{folder}/{name.removeprefix(_WHITEOUT)}".lstrip("/"))
        return
    if member.isdir():
        tree.links.pop(path, None)
        tree.files.pop(path, None)
        return
    tree.remove(path)
    above.remove(path)
    if len(tree) + len(above) >= MOST_KNOWN:
        return
    if member.issym() and ("/" not in folder or _LINKS.match(name)):
        above.links[path] = member.linkname
    elif member.islnk():
        _take_hard_link(tree, above, path, member.linkname)
    elif member.isreg() and (kind := _kind(name)):
        small = member.size <= MAX_SEARCHED
        above.files[path] = _library(kind, path, archive.extractfile(member) if small else None)


def _kind(name: str) -> _Kind | None:
    if ".so" not in name:
        return None
    return next((one for one in _KINDS if one.file.fullmatch(name)), None)


def _take_hard_link(tree: _Tree, above: _Tree, path: str, target: str) -> None:
    other = posixpath.normpath("/" + target).strip("/")
    if library := above.files.get(other) or tree.files.get(other):
        above.files[path] = library


def openblas_in(file: Path) -> Library:
    """Read version and kernels from the file of an OpenBLAS."""
    with file.open("rb") as stream:
        return _library(_KINDS[0], file.name, stream)


def _library(kind: _Kind, path: str, stream: IO[bytes] | None) -> Library:
    """Describe a library by its path and, if they are given, its bytes."""
    name = posixpath.basename(path)
    named = _NUMBER.search(name.removesuffix(".so")) or _SUFFIX.search(name)
    found, kernels = "", set[str]()
    if kind.inside is not None and stream is not None:
        for piece in _pieces(stream):
            if not found and (match := kind.inside.search(piece)):
                found = next(group for group in match.groups() if group).decode("ascii", "replace")
            kernels.update(_kernels(piece))
    version = found or (named[1] if named else "")
    return Library(name=kind.name, version=version, file=_in_utf8(path), kernels=tuple(sorted(kernels)[:MOST]))


def _in_utf8(path: str) -> str:
    """Give a path as a document can have it: names in an image may be any bytes."""
    return path.encode("utf-8", "backslashreplace").decode()


def _kernels(piece: bytes) -> Iterator[str]:
    at = piece.find(_PREFIX)  # twenty times as fast as an expression
    while at >= 0:
        if name := _KERNEL.match(piece, at + len(_PREFIX)):
            yield name[0].decode()
        at = piece.find(_PREFIX, at + 1)


def _pieces(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield a file's bytes, each piece beginning with the end of the one before."""
    tail = b""
    while data := stream.read(PIECE):
        yield tail + data
        tail = data[-OVERLAP:]
