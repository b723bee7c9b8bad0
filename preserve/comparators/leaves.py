"""What readers make of a result's file: one flat list of leaves, whatever the format."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from preserve.documents.fingerprint import LeafPrint

Kind = Literal["num", "text", "pixels", "opaque", "volatile", "unreadable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a file from a stranger may cost its reader.

    ``bytes`` of one file or member when unpacked; ``members`` of a container; ``leaves`` of a file; ``pixels`` of an
    image; ``depth`` of nesting; ``ratio`` of unpacked to packed bytes.
    """

    bytes: int = 4 << 30
    members: int = 100_000
    leaves: int = 1_000_000
    pixels: int = 200_000_000
    depth: int = 100
    ratio: int = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """One thing to compare.

    ``path`` is unique in its file (``dir/h_pt:values``); ``kind`` num: ``load`` gives a numpy array (shape and dtype
    as in the file; a scalar has shape ``()``); text: a str; pixels: a uint8 array (height, width, channels); opaque:
    bytes, or a digest of them as str, of which only equality can be said; volatile: as text or opaque, but metadata
    that differ from run to run (a date, a UUID) and never decide; unreadable: ``load`` gives a str, the reason why
    this part could not be read. ``digest`` identifies the content without loading it (``None``: load it); equal
    digests mean equal content, kind, shape and dtype. ``load`` may be called several times, and is not called where
    digests agree. ``kept``: there is no content to load, this is all that a fingerprint kept of it.
    """

    path: str
    kind: Kind
    load: Callable[[], Any]
    digest: str | None = None
    kept: LeafPrint | None = None


class TooMuch(Exception):
    """A limit was passed: the message says which, and where in the file."""


class Unreadable(Exception):
    """The file, or a part that the rest depends on, is not what its format asks for; the message says what."""


class MissingExtra(Exception):
    """A library is not installed; the message names the extra: ``pip install 'hep-preserve[root]'``."""


class Reader(Protocol):
    """Knows one format."""

    name: str

    def sniff(self, head: bytes, name: str) -> int:
        """How sure this reader is (0 to 100) that a file with this beginning (64 KiB) and name is of its format."""

    def leaves(self, file: Path, limits: Limits) -> Iterator[Leaf]:
        """Yield all leaves: every content of the file is in one of them (what is not understood, as opaque).

        Order does not matter. Nothing is executed that the file says (no pickle, no macros, no external entities).

        Raises:
            TooMuch: a limit was passed.
            Unreadable: the file is broken.
            MissingExtra: the library for it is not installed.
        """
