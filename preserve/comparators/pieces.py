"""Leaves of contents too long to be held: read piece by piece, once for all digests, again for each that is loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from preserve.comparators.leaves import Leaf, Limits, TooMuch
from preserve.comparators.making import content_digest
from preserve.digest import Digest

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
