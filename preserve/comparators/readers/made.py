"""Leaves of what a reader has in memory already, and a bound on what may come there."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from preserve.comparators.leaves import Kind, Leaf, Limits, TooMuch

if TYPE_CHECKING:
    import numpy as np

IN_MEMORY = 256 << 20  # bytes of a file that is read as a whole
EXACT = 1 << 53  # integers up to this size are exact as doubles
VALUES = 10_000_000  # values of a file that is read as a whole: each costs up to a hundred bytes of memory
LONG = 64  # characters; a longer text is known by its sha256


def read_bytes(file: Path, limits: Limits, *, most: int = IN_MEMORY) -> bytes:
    """Read a whole file.

    Raises:
        TooMuch: it is too large for that.
    """
    allowed = min(limits.bytes, most)
    with file.open("rb") as stream:
        data = stream.read(allowed + 1)
    if len(data) > allowed:
        raise TooMuch(f"the file has more than {allowed} bytes")
    return data


def refuse_many(data: bytes, signs: bytes, *, most: int = VALUES) -> None:
    """See that there are not more than ``most`` of the signs that part values, before any value is made.

    Raises:
        TooMuch: there are.
    """
    if sum(data.count(signs[n : n + 1]) for n in range(len(signs))) > most:
        raise TooMuch(f"more than {most} values")


def text(path: str, content: str, *, kind: Kind = "text") -> Leaf:
    """Give a leaf of text."""
    known = content if len(content) <= LONG else hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()
    return Leaf(path=path, kind=kind, load=lambda: content, digest=f"{kind} {len(content)} {known}")


def opaque(path: str, content: bytes) -> Leaf:
    """Give a leaf of bytes of which only equality can be said."""
    return Leaf(path=path, kind="opaque", load=lambda: content, digest=hashlib.sha256(content).hexdigest())


def array(path: str, values: np.ndarray[Any, Any]) -> Leaf:
    """Give a leaf of numbers; its digest does not know byte orders."""
    native = values.astype(values.dtype.newbyteorder("="), copy=False)
    state = hashlib.sha256(f"{native.dtype.str} {native.shape}\n".encode())
    state.update(native.tobytes())
    return Leaf(path=path, kind="num", load=lambda: values, digest=state.hexdigest())


def numbers(path: str, values: Sequence[int | float], shape: tuple[int, ...]) -> Leaf:
    """Give a leaf of numbers that were written as text, in row-major order.

    Text knows no types: 1 and 1.0 are one number, a double. Integers that doubles do not hold make all of the leaf
    integers of 64 bits; where these do not do either (or there are fractions as well), it is text, digit by digit.
    """
    import numpy as np  # noqa: PLC0415  (only a comparison needs it)

    if all(isinstance(value, float) or abs(value) <= EXACT for value in values):
        dtype: Any = np.float64
    elif any(isinstance(value, float) for value in values):
        return text(path, " ".join(map(repr, values)))
    elif all(-(1 << 63) <= value < 1 << 63 for value in values):
        dtype = np.int64
    elif all(0 <= value < 1 << 64 for value in values):
        dtype = np.uint64
    else:
        return text(path, " ".join(map(repr, values)))
    return array(path, np.array(values, dtype=dtype).reshape(shape))
