"""A leaf's content said shortly: a digest that knows no byte order, and statistics that are the same on every CPU.

Equal digests mean what comparing number by number calls equal: -0.0 is 0.0, every NaN is NaN.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from preserve.comparators.numbers import BLOCK, Array
from preserve.digest import Digest
from preserve.documents.fingerprint import Statistics

_DIGEST = re.compile("sha256:[0-9a-f]{64}")
_MANTISSA = 53  # bits of a double's
_HALF = 26  # bits of its lower half: sums of a block of halves are exact as doubles
_LEAST = 1126  # the smallest double, frexp's exponent -1073, is 2**-1126 of its mantissa as a whole number


def content_digest(kind: str, content: Any) -> Digest | None:
    """Digest of what a leaf of this kind was loaded as; ``None`` for an array of objects that are no texts."""
    if kind in ("num", "pixels"):
        return _array_digest(kind, np.asarray(content))
    if isinstance(content, str):
        if kind == "opaque" and _DIGEST.fullmatch(content):
            return Digest(content)  # what could not be kept in memory is loaded as its digest
        return Digest.of(content.encode("utf-8", "surrogatepass"))
    return Digest.of(bytes(content))


def type_name(dtype: np.dtype[Any]) -> str:
    """Name a type as ``same_type`` distinguishes them: byte order and padding do not count."""
    if dtype.subdtype is not None:
        return f"{{{type_name(dtype.base)}: {dtype.shape}}}"
    if dtype.names is not None:
        return "{" + ", ".join(f"{name}: {type_name(dtype[name])}" for name in dtype.names) + "}"
    return dtype.newbyteorder("<").str


def statistics(content: Any) -> tuple[Statistics, ...]:
    """Give the statistics of an array's numbers, part by part; nothing for what is no number."""
    array = np.asarray(content)
    parts = [(name, part) for name, part in _parts(array) if part.dtype.kind in "biuf"]
    with np.errstate(all="ignore"):
        return tuple(_statistics(name, part) for name, part in parts)


def _array_digest(kind: str, array: Array) -> Digest | None:
    state = hashlib.sha256(f"{kind} {type_name(array.dtype)} {array.shape}\n".encode("utf-8", "surrogatepass"))
    with np.errstate(all="ignore"):
        for name, part in _parts(array):
            state.update(f"{name}\n".encode("utf-8", "surrogatepass"))
            if part.dtype.kind == "O" and not all(type(item) is str for item in part.tolist()):
                return None
            for block in _blocks(part):
                state.update(_canonical(block))
    return Digest("sha256:" + state.hexdigest())


def _parts(array: Array, name: str = "") -> Iterator[tuple[str, Array]]:
    """Take a structured or complex array apart; each part is flat."""
    if array.dtype.names is not None:
        for inner in array.dtype.names:
            yield from _parts(array[inner], f"{name}.{inner}" if name else inner)
    elif array.dtype.kind == "c":
        yield from _parts(array.real, f"{name}.real" if name else "real")
        yield from _parts(array.imag, f"{name}.imag" if name else "imag")
    else:
        yield name, array.reshape(-1)


def _blocks(part: Array) -> Iterator[Array]:
    for start in range(0, part.size, BLOCK):
        yield part[start : start + BLOCK]


def _canonical(block: Array) -> bytes:
    """Give bytes that are equal where the values are."""
    dtype = block.dtype
    if dtype.kind == "O":
        return "".join(f"{len(item)}:{item}" for item in block.tolist()).encode("utf-8", "surrogatepass")
    plain = block.astype(dtype.newbyteorder("<"))
    if dtype.kind == "f":
        plain = np.where(np.isnan(plain), plain.dtype.type("nan"), plain + plain.dtype.type(0)).astype(plain.dtype)
    data = np.frombuffer(plain.tobytes(), np.uint8)
    if dtype.kind == "f" and dtype.itemsize == 16 and np.finfo(dtype).nmant == 63:  # ten bytes and six of padding
        data = data.reshape(-1, 16)[:, :10]
    return data.tobytes()


def _statistics(name: str, part: Array) -> Statistics:
    if part.dtype.kind != "f":
        return _of_integers(name, part)
    total, least, largest = ExactSum(), np.inf, -np.inf
    nan = infinite = 0
    for block in _blocks(part):
        finite = block[np.isfinite(block)]
        nan += int(np.count_nonzero(np.isnan(block)))
        infinite += int(np.count_nonzero(np.isinf(block)))
        if part.dtype.itemsize <= 8 and finite.size:
            total.add(finite.astype(np.float64))
            least, largest = min(least, float(finite.min())), max(largest, float(finite.max()))
    if part.dtype.itemsize > 8 or part.size == nan + infinite:  # extended precision is not the same everywhere
        return Statistics(part=name, n=part.size, nan=nan, infinite=infinite)
    return Statistics(
        part=name,
        n=part.size,
        nan=nan,
        infinite=infinite,
        sum=repr(total.value()),
        min=repr(least + 0.0),
        max=repr(largest + 0.0),
    )


def _of_integers(name: str, part: Array) -> Statistics:
    if not part.size:
        return Statistics(part=name, n=0)
    total = 0
    for block in _blocks(part):
        wide = block.astype(np.uint64 if part.dtype.kind == "u" else np.int64)
        total += (int((wide >> 32).sum()) << 32) + int((wide & 0xFFFFFFFF).sum())  # in halves: no overflow
    return Statistics(part=name, n=part.size, sum=str(total), min=str(int(part.min())), max=str(int(part.max())))


@dataclass(slots=True)
class ExactSum:
    """A sum of doubles without any rounding, whatever their order: a whole number of 2**-1126."""

    _whole: int = 0
    _seen: list[int] = field(default_factory=list)

    def add(self, values: Array) -> None:
        """Add finite doubles, at most ``BLOCK`` of them."""
        mantissas, exponents = np.frexp(values)
        whole = np.ldexp(mantissas, _MANTISSA).astype(np.int64)
        least = int(exponents.min())
        places = exponents - least
        high = np.bincount(places, weights=(whole >> _HALF).astype(np.float64))
        low = np.bincount(places, weights=(whole & ((1 << _HALF) - 1)).astype(np.float64))
        for place in np.flatnonzero((high != 0) | (low != 0)).tolist():
            part = (int(high[place]) << _HALF) + int(low[place])
            self._whole += part << (place + least - _MANTISSA + _LEAST)

    def value(self) -> float:
        """Give the sum, rounded once; infinite where no double is as large."""
        try:
            return self._whole / (1 << _LEAST)  # of whole numbers: Python rounds their quotient correctly
        except OverflowError:
            return float("inf") if self._whole > 0 else float("-inf")
