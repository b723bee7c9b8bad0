"""How far products moved between two runs of a step: by the comparator, so that it is numbers and not digests."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from preserve.comparators.comparing import Difference, compare_files, sides_of
from preserve.comparators.leaves import Limits
from preserve.documents.probe import Movement

_NO_MOVEMENT = ("equal", "volatile")  # states of a leaf
_GONE = {"missing": "missing", "extra": "extra"}
MOST = 1000  # movements of one finding that are listed


def movements(before: Mapping[str, Path], after: Mapping[str, Path]) -> tuple[Movement, ...]:
    """Compare files by path; what differs only in metadata that always differ (dates, UUIDs) has not moved.

    Raises:
        OSError: a file cannot be read.
    """
    found: list[Movement] = []
    for product in sorted(before.keys() | after.keys()):
        found += _of_file(product, before.get(product), after.get(product))
    return tuple(found)


def beyond(moved: Iterable[Movement], known: Iterable[Movement]) -> tuple[Movement, ...]:
    """Give the movements of leaves that are not among ``known``."""
    places = {(one.product, one.leaf) for one in known}
    return tuple(one for one in moved if (one.product, one.leaf) not in places)


def largest(moved: Iterable[Movement]) -> tuple[tuple[Movement, ...], int]:
    """Give the movements that a finding lists, and how many others there are."""
    ordered = sorted(moved, key=_size)
    return tuple(ordered[:MOST]), max(0, len(ordered) - MOST)


def _size(one: Movement) -> tuple[bool, float, float, str, str]:
    """Sort by: what is no number first, then the largest."""
    return (one.kind == "numbers", -(one.max_rel or 0.0), -(one.max_abs or 0.0), one.product, one.leaf)


def _of_file(product: str, before: Path | None, after: Path | None) -> Iterator[Movement]:
    if before is None or after is None:
        yield Movement(product=product, leaf="", kind="extra" if before is None else "missing")
        return
    facts = compare_files(sides_of(product, before, after), Limits())
    if facts.same_bytes:
        return
    if not facts.read:
        yield Movement(product=product, leaf="", kind="content")
    for difference in facts.differences:
        if difference.state not in _NO_MOVEMENT:
            yield _of_leaf(product, difference)


def _of_leaf(product: str, difference: Difference) -> Movement:
    numbers = difference.numbers
    if numbers is None or numbers.broken:
        return Movement(product=product, leaf=difference.path, kind=_GONE.get(difference.state, "content"))
    return Movement(
        product=product,
        leaf=difference.path,
        kind="numbers",
        max_abs=_finite(numbers.max_abs),
        max_rel=_finite(numbers.max_rel),
    )


def _finite(number: float | None) -> float | None:
    return None if number is None or not math.isfinite(number) else float(number)
