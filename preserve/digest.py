"""Digests: sha256 of bytes, of files and of folders."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from preserve.errors import DigestMismatch

CHUNK = 1 << 20
_FORM = re.compile(r"sha256:[0-9a-f]{64}")


class Digest(str):
    """``sha256:`` and 64 lower-case hexadecimal digits, checked on construction.

    Raises:
        DigestMismatch: the text has another form.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Digest:
        if not _FORM.fullmatch(text):
            raise DigestMismatch(f"{text!r} is not a digest", hint="a digest is sha256: and 64 hexadecimal digits")
        return super().__new__(cls, text)

    @classmethod
    def of(cls, data: bytes) -> Digest:
        """Digest of bytes in memory."""
        return cls("sha256:" + hashlib.sha256(data).hexdigest())

    @property
    def hex(self) -> str:
        """The 64 digits without the algorithm's name."""
        return self[7:]

    @property
    def short(self) -> str:
        """The first 12 digits, for people."""
        return self[7:19]


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePin:
    """A file's content: sha256, size in bytes, and whether it may be executed."""

    sha256: Digest
    size: int
    executable: bool = False


def hash_stream(stream: BinaryIO) -> tuple[Digest, int]:
    """Digest and length in bytes of what remains in ``stream``."""
    state, size = hashlib.sha256(), 0
    while chunk := stream.read(CHUNK):
        state.update(chunk)
        size += len(chunk)
    return Digest("sha256:" + state.hexdigest()), size


def hash_file(path: Path) -> FilePin:
    """Pin of the regular file at ``path``; symbolic links are followed.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as stream:
        digest, size = hash_stream(stream)
        mode = path.stat().st_mode
    return FilePin(sha256=digest, size=size, executable=bool(mode & 0o100))


def hash_tree(files: Iterable[tuple[str, FilePin]]) -> Digest:
    """Digest of a folder: of the sorted lines ``mode sha256  path`` with mode ``0644`` or ``0755``."""
    lines = sorted(f"{'0755' if pin.executable else '0644'} {pin.sha256.hex}  {path}\n" for path, pin in files)
    return Digest.of("".join(lines).encode())
