"""Leaves of contents too long to be held: read piece by piece, once for all digests, again for each that is loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from preserve.comparators.leaves import Leaf, Limits, TooMuch
from preserve.comparators.making import content_digest
from preserve.digest import Digest

Array = np.ndarray[Any, Any]
Piece = Mapping[str, Any]  # part of the content: a numpy array or a str, to be joined with those of the next pieces
Pieces = Callable[[], Iterator[Piece]]
SHORT = 64 << 20  # bytes: an array up to this length may be loaded rather than digested
VALID = ":valid"  # a part of this ending (bool: which entries there are) is left out where all are true


@dataclass(slots=True)
class _Part:
    """What is known of a part after its pieces so far."""

    dtype: np.dtype[Any] | None = None
    row: tuple[int, ...] = ()
    length: int = 0
    bytes: int = 0
    scalar: bool = False
    whole: bool = True
    state: Any = field(default_factory=hashlib.sha256)

    def add(self, piece: Any) -> None:
        """Take the next piece in."""
        if isinstance(piece, str):
            data: Any = piece.encode("utf-8", "surrogatepass")
        else:
            self.dtype, self.row = piece.dtype, piece.shape[1:]
            self.length, self.scalar = self.length + np.atleast_1d(piece).shape[0], not piece.ndim
            data = np.ascontiguousarray(piece).data.cast("B") if piece.size else b""
            self.whole = self.whole and piece.dtype == np.bool_ and bool(piece.all())
        self.state.update(data)
        self.bytes += len(data)

    def digest(self) -> str:
        """Digest of the joined content."""
        if self.dtype is None:
            return Digest("sha256:" + self.state.hexdigest())
        return content_digest(self.dtype, () if self.scalar else (self.length, *self.row), self.state)


def leaves_of_pieces(path: str, pieces: Pieces, limits: Limits) -> Iterator[Leaf]:
    """Yield a leaf for each part of the pieces: its path is ``path`` and the part's name.

    Raises:
        TooMuch: a part is longer than ``limits.bytes``.
    """
    parts: dict[str, _Part] = {}
    for piece in pieces():
        for name, content in piece.items():
            part = parts.setdefault(name, _Part())
            part.add(content)
            if part.bytes > limits.bytes:
                raise TooMuch(f"{path}{name} is longer than {limits.bytes} bytes")
    for name, part in parts.items():
        if not (name.endswith(VALID) and part.whole):
            kind: Any = "text" if part.dtype is None else "num"
            yield Leaf(path=path + name, kind=kind, load=_loading(pieces, name), digest=part.digest())


def leaf_of_pieces(path: str, pieces: Pieces) -> Leaf:
    """Give the leaf of an array that is the only part, without a digest: it is read once, when it is compared."""
    return Leaf(path=path, kind="num", load=_loading(pieces, ""))


def _loading(pieces: Pieces, name: str) -> Callable[[], Any]:
    def load() -> Any:
        found = [piece[name] for piece in pieces() if name in piece]
        if not found:
            return np.zeros(0)
        if isinstance(found[0], str):
            return "".join(found)
        return np.concatenate(found) if found[0].ndim else found[0]

    return load


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedPart:
    """A part of an array as it lies packed in a file: of two parts that are ``like`` each other, the same bytes are
    the same numbers.

    ``length`` is that of its first dimension. ``packed`` gives the bytes, or ``None`` where they cannot be had;
    ``array`` unpacks them.
    """

    like: str
    length: int
    packed: Callable[[], bytes | None]
    array: Callable[[], Array]


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """Loads an array that lies packed in a file."""

    parts: Sequence[PackedPart]

    def __call__(self) -> Array:
        """Unpack it all."""
        return self.joined(part.array() for part in self.parts)

    def joined(self, arrays: Iterable[Array]) -> Array:
        """Join the parts' arrays, one at a time."""
        whole: Array | None = None
        begin = 0
        for part, array in zip(self.parts, arrays, strict=True):
            if whole is None:
                whole = np.empty((sum(one.length for one in self.parts), *array.shape[1:]), dtype=array.dtype)
            whole[begin : begin + part.length] = array
            begin += part.length
        return np.zeros(0) if whole is None else whole


def load_packed(recorded: Packed, found: Packed) -> tuple[Array, Array] | None:
    """Load two arrays; parts that are the same as they lie in the files are unpacked once.

    ``None``: all are, and nothing was unpacked.
    """
    same = _same_parts(recorded, found)
    if same and all(same):
        return None
    with ThreadPoolExecutor(1) as beside:  # unpacking lets another thread run: one file each
        other = beside.submit(_unpacked_but, found, same)
        one = recorded()
        differing = other.result()
    return one, found.joined(_filled(differing, recorded, one))


def _same_parts(recorded: Packed, found: Packed) -> list[bool]:
    """Say which parts are the same; none, where the files are divided otherwise."""
    if [part.length for part in recorded.parts] != [part.length for part in found.parts]:
        return [False] * len(found.parts)
    return [_same(one, other) for one, other in zip(recorded.parts, found.parts, strict=True)]


def _same(one: PackedPart, other: PackedPart) -> bool:
    if one.like != other.like:
        return False
    packed = one.packed()
    return packed is not None and packed == other.packed()


def _unpacked_but(found: Packed, same: Sequence[bool]) -> list[Array | None]:
    return [None if known else part.array() for part, known in zip(found.parts, same, strict=True)]


def _filled(differing: list[Array | None], recorded: Packed, one: Array) -> Iterator[Array]:
    """Yield the arrays of all parts: those that are the same out of the whole ``one``."""
    begin = 0
    for place, array in enumerate(differing):
        differing[place] = None  # not held twice
        if array is None:
            yield one[begin : begin + recorded.parts[place].length]
        else:
            yield array
        if place < len(recorded.parts):
            begin += recorded.parts[place].length
