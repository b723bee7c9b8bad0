"""Files of files: ZIP, tar, gzip, bzip2, xz. Their members are read in turn by whichever reader knows them."""

from __future__ import annotations

import bz2
import gzip
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from preserve.comparators import making
from preserve.comparators.choosing import choose
from preserve.comparators.leaves import Leaf, Limits, MissingExtra, TooMuch, Unreadable
from preserve.comparators.readers import members
from preserve.comparators.readers.members import Budget, Scratch
from preserve.digest import hash_file

_MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz"}
_ENDINGS = (".gz", ".bz2", ".xz", ".tgz", ".tbz2", ".txz")
_BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError, ValueError)


class _Container:
    """A reader of files in a file: what is inside one shares one budget and one scratch folder."""

    name = ""

    def leaves(self, file: Path, limits: Limits) -> Iterator[Leaf]:
        """Yield the leaves of all members: of a member ``M``, ``M!`` and the leaf's own path."""
        yield from self.inside(file, limits, Budget(limits), Scratch())

    def inside(self, file: Path, limits: Limits, budget: Budget, scratch: Scratch) -> Iterator[Leaf]:
        """Yield the leaves of the file with what is left of the budget."""
        raise NotImplementedError

    def sniff(self, head: bytes, name: str) -> int:
        """How sure this reader is."""
        raise NotImplementedError


class Zip(_Container):
    """Reads ZIP files: content and permissions count, times, packing and order do not."""

    name = "zip"

    def sniff(self, head: bytes, name: str) -> int:
        """Go by the magic string."""
        return 90 if head.startswith((b"PK\x03\x04", b"PK\x05\x06")) else 0

    def inside(self, file: Path, limits: Limits, budget: Budget, scratch: Scratch) -> Iterator[Leaf]:
        """Yield the members' leaves."""
        with members.opened_zip(file) as archive:
            found = members.listed(archive, limits)
            for info in found:
                budget.take_member()
                yield making.text(f"{info.filename}!:kind", _zip_kind(info))
                if info.is_dir():
                    continue
                target = scratch.path(info.filename)
                with archive.open(info) as stream:
                    budget.copy(stream, target, most=info.file_size, what=info.filename)  # type: ignore[arg-type]
                yield from _member(info.filename, target, limits, budget, scratch)
            yield from members.about(archive, found)


class Tar(_Container):
    """Reads tar files: content, kinds, permissions and links count; owners, times and order do not."""

    name = "tar"

    def sniff(self, head: bytes, name: str) -> int:
        """Go by the magic string in the first header."""
        return 90 if head[257:262] == b"ustar" else 0

    def inside(self, file: Path, limits: Limits, budget: Budget, scratch: Scratch) -> Iterator[Leaf]:
        """Yield the members' leaves."""
        try:
            with tarfile.open(file, "r:", errorlevel=2) as archive:
                for info in archive:
                    budget.take_member()
                    yield from _tar_member(archive, info, limits, budget, scratch)
        except _BROKEN as error:
            raise Unreadable(f"not readable as tar: {error}") from error


class Compressed(_Container):
    """Reads what gzip, bzip2 or xz packed: the leaves are those of the file inside; its time and name do not count."""

    name = "compressed"

    def sniff(self, head: bytes, name: str) -> int:
        """Go by the magic string."""
        return 85 if _packing(head) else 0

    def inside(self, file: Path, limits: Limits, budget: Budget, scratch: Scratch) -> Iterator[Leaf]:
        """Yield the leaves of the file inside."""
        with file.open("rb") as stream:
            head = stream.read(64)
        name = file.name
        for ending in _ENDINGS:
            name = name.removesuffix(ending)
        packing, target = _packing(head), scratch.path(name)
        if not packing:
            raise Unreadable("packed neither by gzip nor by bzip2 nor by xz")
        openers: dict[str, Callable[[Path], Any]] = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}
        try:
            with openers[packing](file) as stream:
                most = limits.ratio * max(file.stat().st_size, 1)
                budget.copy(stream, target, most=most, what="the file")
        except _BROKEN as error:
            raise Unreadable(f"not readable as {packing}: {error}") from error
        if packing == "gzip":
            yield making.text("gzip:header", _gzip_header(head), volatile=True)
        yield making.text("compressed:form", packing)
        yield from _held(_leaves(target, target.name, _deeper(limits), budget, scratch), scratch)


def _member(name: str, file: Path, limits: Limits, budget: Budget, scratch: Scratch) -> Iterator[Leaf]:
    """Yield a member's leaves; where it cannot be read, one that says why, known by the member's bytes."""
    try:
        for leaf in _held(_leaves(file, name, _deeper(limits), budget, scratch), scratch):
            yield replace(leaf, path=f"{name}!{leaf.path}")
    except (Unreadable, MissingExtra) as error:
        reason = str(error)
        digest = hash_file(file).sha256
        yield Leaf(path=f"{name}!:content", kind="unreadable", load=lambda: reason, digest=digest)


def _leaves(file: Path, name: str, limits: Limits, budget: Budget, scratch: Scratch) -> Iterator[Leaf]:
    chosen = choose(file, name)
    if isinstance(chosen, _Container):
        yield from chosen.inside(file, limits, budget, scratch)
    else:
        yield from chosen.leaves(file, limits)


def _held(found: Iterator[Leaf], scratch: Scratch) -> Iterator[Leaf]:
    """Let each leaf hold the scratch folder, from which it may be loaded later."""
    for leaf in found:
        yield replace(leaf, load=_Held(leaf.load, scratch))


class _Held:
    """A leaf's ``load`` together with the folder that it needs."""

    __slots__ = ("_load", "_scratch")

    def __init__(self, load: Callable[[], Any], scratch: Scratch) -> None:
        self._load, self._scratch = load, scratch

    def __call__(self) -> Any:
        """Load."""
        return self._load()


def _deeper(limits: Limits) -> Limits:
    if limits.depth < 1:
        raise TooMuch("files in files, nested too deeply")
    return replace(limits, depth=limits.depth - 1)


def _zip_kind(info: zipfile.ZipInfo) -> str:
    mode = info.external_attr >> 16
    if info.is_dir():
        return "folder"
    return f"{'link' if stat.S_ISLNK(mode) else 'file'}{', executable' if mode & 0o100 else ''}"


def _tar_member(
    archive: tarfile.TarFile, info: tarfile.TarInfo, limits: Limits, budget: Budget, scratch: Scratch
) -> Iterator[Leaf]:
    kinds = {tarfile.DIRTYPE: "folder", tarfile.SYMTYPE: "link to ", tarfile.LNKTYPE: "hard link to "}
    kind = "file" if info.isreg() else kinds.get(info.type, f"type {info.type!r} ")
    executable = ", executable" if info.isreg() and info.mode & 0o100 else ""
    yield making.text(f"{info.name}!:kind", kind + (info.linkname if info.issym() or info.islnk() else "") + executable)
    times = f"time {info.mtime}, mode {info.mode:o}, owner {info.uid} {info.uname}, group {info.gid} {info.gname}"
    yield making.text(f"{info.name}!:times", times, volatile=True)
    stream = archive.extractfile(info) if info.isreg() else None
    if stream is not None:
        target = scratch.path(info.name)
        with stream:
            budget.copy(stream, target, most=limits.bytes, what=info.name)  # type: ignore[arg-type]
        yield from _member(info.name, target, limits, budget, scratch)


def _packing(head: bytes) -> str:
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), "")


def _gzip_header(head: bytes) -> str:
    """Give time, level and system, and the name that may follow (RFC 1952, 2.3)."""
    has_name = head[3:4] == b"\x08"
    name = head[10:].split(b"\0")[0].decode("latin-1") if has_name else ""
    return f"time {int.from_bytes(head[4:8], 'little')}, level {head[8]}, system {head[9]}, name {name}"
