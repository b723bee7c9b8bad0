"""Leaves of contents at hand, and what readers check of every file: its size, its number of values and leaves."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from preserve.comparators.leaves import Kind, Leaf, Limits, TooMuch, Unreadable
from preserve.digest import Digest

_DECIMAL = r"[-+]?(?:(\d+\.\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|\d+[eE][-+]?\d+)|\d+)"  # 1: not a whole number
_APART = re.compile(rf"(?<![\w.#]){_DECIMAL}(?![\w.#])")  # by itself: not a part of a name (x2, 16#FF, 1.2.3)
_PACKED = re.compile(_DECIMAL)  # as SVG writes paths: M10-20L3.5
IN_MEMORY = 256 << 20  # bytes of a file that is read as a whole
MOST_VALUES = 10_000_000  # of a file that is read as a whole: each costs up to a hundred bytes of memory
MOST_NAMES = 256 << 20  # characters of all paths: one long name may be a part of many
_LONG = 64  # characters; a longer text is known by its sha256
_WHOLE = 1 << 53  # whole numbers up to this are exact as doubles
_LEADING_ZERO = re.compile(r"[-+]?0\d")
_EXACT_DIGITS = 15  # a whole number of so many digits is exactly one double
_DOUBLE_DIGITS = 17  # and no double needs more
HOLE = "\0"  # where a number was taken out of a text; formats of text have no such character


def text(path: str, content: str, *, volatile: bool = False) -> Leaf:
    """A text that must be equal, or (``volatile``) one that never decides."""
    known = content if len(content) <= _LONG else Digest.of(content.encode("utf-8", "surrogatepass"))
    kind: Kind = "volatile" if volatile else "text"
    return Leaf(path=path, kind=kind, load=lambda: content, digest=f"{len(content)} {known}")


def opaque(path: str, content: bytes) -> Leaf:
    """Bytes of which only equality can be said; they are not kept."""
    digest = Digest.of(content)
    return Leaf(path=path, kind="opaque", load=lambda: digest, digest=digest)


def unreadable(path: str, reason: str) -> Leaf:
    """Say why a part could not be read."""
    return Leaf(path=path, kind="unreadable", load=lambda: reason)


def number(path: str, values: Any) -> Leaf:
    """One number, or an array (or nested list) of any shape."""
    array = as_array(values)
    return Leaf(path=path, kind="num", load=lambda: array, digest=digest_of(array))


def written(path: str, values: Sequence[int | float], shape: tuple[int, ...]) -> Leaf:
    """Numbers that were written as text, in row-major order.

    Text knows no types: 1 and 1.0 are one number, a double. Integers that doubles do not hold make all of the leaf
    integers of 64 bits; where these do not do either (or there are fractions as well), it is text, digit by digit.
    """
    if not shape and (isinstance(values[0], float) or abs(values[0]) <= _WHOLE):
        return Leaf(path=path, kind="num", load=_Double(float(values[0])))  # sooner compared than digested
    if all(isinstance(value, float) or abs(value) <= _WHOLE for value in values):
        dtype: Any = np.float64
    elif any(isinstance(value, float) for value in values):
        return text(path, " ".join(map(repr, values)))
    elif all(-(1 << 63) <= value < 1 << 63 for value in values):
        dtype = np.int64
    elif all(0 <= value < 1 << 64 for value in values):
        dtype = np.uint64
    else:
        return text(path, " ".join(map(repr, values)))
    return number(path, np.array(values, dtype=dtype).reshape(shape))


@dataclass(frozen=True, slots=True)
class _Double:
    """Gives one double as an array: made when it is asked for, since a file may have a million of them."""

    value: float

    def __call__(self) -> np.ndarray[Any, Any]:
        return np.array(self.value)


def pixels(path: str, array: np.ndarray[Any, Any]) -> Leaf:
    """An image: uint8, (height, width, channels)."""
    return Leaf(path=path, kind="pixels", load=lambda: array, digest=digest_of(array))


def document(path: str, value: Any) -> Leaf:
    """A small structure of JSON's types, as one text."""
    return text(path, json.dumps(value, sort_keys=True, ensure_ascii=False))


def as_array(values: Any) -> np.ndarray[Any, Any]:
    """Give an array; whole numbers too long for 64 bits become floats only where they are exactly that.

    Raises:
        Unreadable: it holds objects (never loaded as such) or such a number.
    """
    try:
        array = np.asarray(values)
    except (ValueError, OverflowError) as error:
        raise Unreadable(f"is not an array: {error}") from error
    if array.dtype.hasobject:
        raise Unreadable("holds objects, not numbers")
    return array


def digest_of(array: np.ndarray[Any, Any]) -> str:
    """Digest of an array's dtype, shape and content; byte order is none of it."""
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    return content_digest(native.dtype, native.shape, hashlib.sha256(native.tobytes()))


def content_digest(dtype: np.dtype[Any], shape: tuple[int, ...], content: Any) -> str:
    """Digest of an array whose bytes (row by row) were fed to ``content``, a hash of hashlib."""
    return Digest.of(f"{dtype.descr} {shape} {content.hexdigest()}".encode())


def numbers_apart(content: str, *, packed: bool = False) -> tuple[str, list[float]]:
    """Split a text into what is left with a hole for every number, and the numbers in order.

    Numbers that are not one double (whole numbers of more than 15 digits, fractions of more than 17) or that begin with
    a zero too many stay in the text, so that the two parts together lose nothing but spelling. ``packed``: numbers may
    touch letters and each other.
    """
    found: list[float] = []

    def taken(match: re.Match[str]) -> str:
        digits = sum(character.isdigit() for character in match[0].lower().partition("e")[0])
        if digits > (_DOUBLE_DIGITS if match[1] else _EXACT_DIGITS) or _LEADING_ZERO.match(match[0]):
            return match[0]
        found.append(float(match[0]))
        return HOLE

    return (_PACKED if packed else _APART).sub(taken, content), found


def kept(leaves: Iterator[Leaf], limits: Limits) -> Iterator[Leaf]:
    """Pass leaves on, each under a path of its own: the second of a name is ``name#2``.

    Raises:
        TooMuch: there are more than ``limits.leaves``, or their names together are too long.
    """
    seen: dict[str, int] = {}
    length = 0
    for count, leaf in enumerate(leaves, 1):
        length += len(leaf.path)
        if count > limits.leaves:
            raise TooMuch(f"more than {limits.leaves} parts")
        if length > MOST_NAMES:
            raise TooMuch(f"the names of its parts have more than {MOST_NAMES} characters")
        times = seen[leaf.path] = seen.get(leaf.path, 0) + 1
        yield leaf if times == 1 else replace(leaf, path=f"{leaf.path}#{times}")


def read_bytes(file: Path, limits: Limits, *, most: int = IN_MEMORY) -> bytes:
    """Give a file's content.

    Raises:
        TooMuch: it is longer than ``limits.bytes``, or than ``most``, what is held in memory at once.
    """
    allowed = min(limits.bytes, most)
    with file.open("rb") as stream:
        content = stream.read(min(allowed, file.stat().st_size) + 1)
    if len(content) > allowed:
        raise TooMuch(f"longer than {allowed} bytes")
    return content


def refuse_many(data: bytes, signs: bytes, *, most: int = MOST_VALUES) -> None:
    """See that there are not more than ``most`` of the signs that part values, before any value is made.

    Raises:
        TooMuch: there are.
    """
    if sum(data.count(signs[n : n + 1]) for n in range(len(signs))) > most:
        raise TooMuch(f"more than {most} values")


def read_text(file: Path, limits: Limits) -> str:
    """Give a file's content as text.

    Raises:
        TooMuch: it is longer than ``limits.bytes``.
        Unreadable: it is not UTF-8.
    """
    try:
        return read_bytes(file, limits).decode()
    except UnicodeDecodeError as error:
        raise Unreadable(f"is not UTF-8: {error}") from error
