"""Leaves of nested values as JSON and YAML have them: mappings, lists, texts, numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from preserve.comparators import making
from preserve.comparators.leaves import Leaf, Limits, TooMuch


@dataclass(frozen=True, slots=True)
class Pairs:
    """A mapping as it stands in the file: in order, keys perhaps twice."""

    items: Sequence[tuple[str, Any]]


def leaves(value: Any, limits: Limits, path: str = "") -> Iterator[Leaf]:
    """Yield the leaves of a value, by JSON pointers (RFC 6901): ``/fit/mass``, ``/bins/0/low``.

    A list of numbers, or of equally long lists of numbers, is one leaf; so is a list of booleans. ``~`` in a key is
    written ``~0``, ``/`` is ``~1``, an empty key ``~``. ``null``, ``[]`` and ``{}`` equal only themselves.

    Raises:
        TooMuch: nested too deeply.
    """
    if path.count("/") > limits.depth:
        raise TooMuch(f"nested more than {limits.depth} deep, at {path[:80]}…")
    if isinstance(value, Pairs):
        yield from _mapping(value, limits, path)
    elif isinstance(value, list):
        yield from _list(value, limits, path)
    else:
        yield _scalar(value, path or "/")


def _mapping(value: Pairs, limits: Limits, path: str) -> Iterator[Leaf]:
    if not value.items:
        yield _nothing(path or "/", "{}")
    times: dict[str, int] = {}
    for key, item in value.items:
        part = key.replace("~", "~0").replace("/", "~1") or "~"
        times[part] = times.get(part, 0) + 1  # the second and later of a key that comes again
        inner = f"{path}/{part}#{times[part]}" if times[part] > 1 else f"{path}/{part}"
        if isinstance(item, Pairs | list):
            yield from leaves(item, limits, inner)
        else:  # most are: passed on without one more generator
            yield _scalar(item, inner)


def _list(value: list[Any], limits: Limits, path: str) -> Iterator[Leaf]:
    if not value:
        yield _nothing(path or "/", "[]")
        return
    shape, flat = _regular(value, limits.depth)
    if flat and all(type(item) in (int, float) for item in flat):
        yield making.written(path or "/", flat, shape)
    elif flat and all(type(item) is bool for item in flat):
        yield making.number(path or "/", np.array(flat, dtype=bool).reshape(shape))
    else:
        for index, item in enumerate(value):
            yield from leaves(item, limits, f"{path}/{index}")


def _regular(value: list[Any], depth: int) -> tuple[tuple[int, ...], list[Any]]:
    """Give shape and items of a list of equally long lists (of lists ...); no items where it is none."""
    shape: tuple[int, ...] = (len(value),)
    while len(shape) <= depth and value and all(type(item) is list for item in value):
        length = len(value[0])
        if length == 0 or any(len(item) != length for item in value):
            return (), []
        shape, value = (*shape, length), [inner for item in value for inner in item]
    return shape, value


def _scalar(value: Any, path: str) -> Leaf:
    if value is None:
        return _nothing(path, "null")
    if isinstance(value, bool):
        return making.number(path, np.array(value))
    if isinstance(value, int | float):
        return making.written(path, (value,), ())
    return making.text(path, str(value))


def _nothing(path: str, written: str) -> Leaf:
    """Give a leaf of an object that equals only what is written the same, and that no tolerance covers."""
    return Leaf(path=path, kind="num", load=lambda: np.array(written, dtype=object), digest=written)
