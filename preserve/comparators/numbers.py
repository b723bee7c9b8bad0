"""How two arrays of the same shape and type differ, number by number; and which numbers a tolerance does not cover.

Arrays are walked in blocks, and only elements that differ are looked at closely, in extended precision: differences
of 64-bit integers are exact, and neither 1e308 - (-1e308) nor a tolerance on subnormals leaves the range.
"""

from __future__ import annotations

import heapq
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

BLOCK = 1 << 16  # elements looked at together
WORST = 5  # differing elements that are shown
_LEAST, _LARGEST = 1e-290, 1e290  # between these no difference or quotient of two doubles leaves the range
_DOUBLE, _BITS = struct.Struct("=d"), struct.Struct("=q")

Array = np.ndarray[Any, Any]
Number = int | float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """One differing element: its coordinates (with the field of a structured array) and both values, for people."""

    at: tuple[int | str, ...]
    recorded: Any
    found: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberFacts:
    """What differs in ``n`` numbers (of complex ones, each part counts).

    Two numbers are equal if they have the same value: -0.0 is 0.0 (``zero_signs`` counts these pairs), NaN is NaN.
    ``max_abs``, ``max_rel`` (to the recorded value; ``inf`` where that is 0) and ``max_ulp`` (units in the last place)
    are of the finite pairs that differ, ``None`` where there is none; ``broken`` counts pairs of which one or both are
    NaN or infinite, ``nan_mismatches`` those with just one NaN. ``worst`` are the broken ones, then the largest
    absolute differences. Sums are of all numbers: exact for integers.
    """

    n: int
    n_diff: int
    max_abs: Number = None
    max_rel: Number = None
    max_ulp: Number = None
    broken: int = 0
    nan_mismatches: int = 0
    zero_signs: int = 0
    sum_recorded: Number = None
    sum_found: Number = None
    worst: tuple[Spot, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """Numbers of one type out of two arrays: flat, with the shape and names that coordinates need."""

    recorded: Array
    found: Array
    shape: tuple[int, ...]
    name: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Gap:
    """The differing elements of one block: their indices, and element by element how far they are apart."""

    index: Array
    recorded: Array
    found: Array
    size: Array  # of the recorded value, as ``delta``
    delta: Array
    ulps: Array | None
    broken: Array


def same_type(one: np.dtype[Any], other: np.dtype[Any]) -> bool:
    """Whether two types hold the same kind of values: byte order and padding do not count."""
    if one is other:
        return True
    if one.subdtype is not None and other.subdtype is not None:
        return one.shape == other.shape and same_type(one.base, other.base)
    if one.names is not None and other.names is not None:
        return one.names == other.names and all(same_type(one[name], other[name]) for name in one.names)
    return one.newbyteorder("=") == other.newbyteorder("=")


def number_facts(recorded: Array, found: Array) -> NumberFacts:
    """Give what differs between two arrays of one shape and type."""
    if _is_plain(recorded) and _is_plain(found):
        return _plain_facts(recorded.item(), found.item())
    total = NumberFacts(n=0, n_diff=0)
    with np.errstate(all="ignore"):
        for part in _parts(recorded, found):
            total = _added(total, _part_facts(part))
    return total


def count_beyond(recorded: Array, found: Array, *, rtol: float, atol: float, ulp: int) -> int:
    """Count elements off by more than max(``atol``, ``rtol`` · abs(recorded)) and by more than ``ulp`` units.

    What is NaN or infinite on one side only is beyond any tolerance, and so is a text that differs.
    """
    if _is_plain(recorded) and _is_plain(found):
        return _plain_beyond(recorded.item(), found.item(), rtol=rtol, atol=atol, ulp=ulp)
    count = 0
    with np.errstate(all="ignore"):
        for part in _parts(recorded, found):
            for _, gap in _gaps(part):
                allowed = np.maximum(np.longdouble(atol), np.longdouble(rtol) * gap.size)
                within = gap.delta <= allowed
                if gap.ulps is not None:
                    within |= gap.ulps <= ulp
                count += int(np.count_nonzero(gap.broken | ~within))
    return count


def _is_plain(values: Array) -> bool:
    """Whether it is a single double far from 0 and from infinity: files of text have many, each a leaf of its own."""
    return values.ndim == 0 and values.dtype.char == "d" and _LEAST < abs(values.item()) < _LARGEST


def _plain_facts(recorded: float, found: float) -> NumberFacts:
    """Give the facts of one pair: what the arrays' way finds, in a hundredth of the time."""
    if recorded == found:
        return NumberFacts(n=1, n_diff=0, sum_recorded=recorded, sum_found=found)
    wide = np.longdouble(recorded)
    gap = abs(wide - np.longdouble(found))
    return NumberFacts(
        n=1,
        n_diff=1,
        max_abs=float(gap),
        max_rel=float(gap / abs(wide)),
        max_ulp=abs(_rank(recorded) - _rank(found)),
        sum_recorded=recorded,
        sum_found=found,
        worst=(Spot(at=(), recorded=recorded, found=found),),
    )


def _plain_beyond(recorded: float, found: float, *, rtol: float, atol: float, ulp: int) -> int:
    wide = np.longdouble(recorded)
    allowed = max(np.longdouble(atol), np.longdouble(rtol) * abs(wide))
    within = abs(wide - np.longdouble(found)) <= allowed or abs(_rank(recorded) - _rank(found)) <= ulp
    return 0 if within else 1


def _rank(value: float) -> int:
    """Number a double in the order of all of them, as ``_ranks`` does."""
    bits: int = _BITS.unpack(_DOUBLE.pack(value))[0]
    return bits if bits >= 0 else -(1 << 63) - bits


def _parts(recorded: Array, found: Array, name: tuple[str, ...] = ()) -> Iterator[_Part]:
    kind = recorded.dtype.kind
    if recorded.dtype.names is not None:
        for field in recorded.dtype.names:
            yield from _parts(recorded[field], found[field], (*name, field))
    elif kind == "c":
        yield from _parts(recorded.real, found.real, (*name, "real"))
        yield from _parts(recorded.imag, found.imag, (*name, "imag"))
    else:
        yield _Part(recorded=recorded.reshape(-1), found=found.reshape(-1), shape=recorded.shape, name=name)


def _part_facts(part: _Part) -> NumberFacts:
    facts = NumberFacts(n=part.recorded.size, n_diff=0)
    for block, gap in _gaps(part):
        facts = _added(facts, _gap_facts(part, block, gap))
    return facts


def _gaps(part: _Part) -> Iterator[tuple[slice, _Gap]]:
    """Yield all blocks with what differs in them."""
    for start in range(0, part.recorded.size, BLOCK):
        block = slice(start, start + BLOCK)
        recorded, found = _native(part.recorded[block]), _native(part.found[block])
        kind = recorded.dtype.kind
        if kind == "f":
            yield block, _float_gap(recorded, found, start)
        elif kind in "biumM":
            yield block, _integer_gap(recorded, found, start)
        else:
            yield block, _exact_gap(recorded, found, start)


def _native(block: Array) -> Array:
    return block.astype(block.dtype.newbyteorder("="), copy=False)


def _float_gap(recorded: Array, found: Array, start: int) -> _Gap:
    differ = (recorded != found) & ~(np.isnan(recorded) & np.isnan(found))
    index = np.flatnonzero(differ)
    recorded, found = recorded[index], found[index]
    wide_recorded, wide_found = recorded.astype(np.longdouble), found.astype(np.longdouble)
    return _Gap(
        index=index + start,
        recorded=recorded,
        found=found,
        size=np.abs(wide_recorded),
        delta=np.abs(wide_recorded - wide_found),
        ulps=_ulps(recorded, found),
        broken=~(np.isfinite(recorded) & np.isfinite(found)),
    )


def _ulps(recorded: Array, found: Array) -> Array:
    """Count the numbers of the type from one to the other; for extended precision, approximately."""
    if recorded.dtype.itemsize > 8:
        spacing = np.spacing(np.minimum(np.abs(recorded), np.abs(found)))
        steps: Array = np.ceil(np.abs(recorded - found) / spacing)
        return steps
    one, other = _ranks(recorded), _ranks(found)
    return np.where(
        one > other, one.view(np.uint64) - other.view(np.uint64), other.view(np.uint64) - one.view(np.uint64)
    )


def _ranks(values: Array) -> Array:
    """Number floats in their order, 0.0 and -0.0 both 0: IEEE 754 bit patterns read as signed magnitudes."""
    bits = values.view(f"i{values.dtype.itemsize}").astype(np.int64)
    least = np.int64(np.iinfo(f"i{values.dtype.itemsize}").min)
    return np.where(bits < 0, least - bits, bits)


def _integer_gap(recorded: Array, found: Array, start: int) -> _Gap:
    if recorded.dtype.kind in "mM":
        recorded, found = recorded.view(np.int64), found.view(np.int64)
    index = np.flatnonzero(recorded != found)
    recorded, found = recorded[index], found[index]
    wide = np.uint64 if recorded.dtype.kind == "u" else np.int64
    one, other = recorded.astype(wide), found.astype(wide)
    larger, smaller = np.maximum(one, other).view(np.uint64), np.minimum(one, other).view(np.uint64)
    return _Gap(
        index=index + start,
        recorded=recorded,
        found=found,
        size=np.abs(one.astype(np.longdouble)),
        delta=(larger - smaller).astype(np.longdouble),  # modulo 2**64: never wrong, whatever the signs
        ulps=None,
        broken=np.zeros(index.size, dtype=bool),
    )


def _exact_gap(recorded: Array, found: Array, start: int) -> _Gap:
    """Compare texts, bytes and objects: each that differs is beyond any tolerance."""
    if recorded.dtype.kind == "O":
        pairs = zip(recorded.tolist(), found.tolist(), strict=True)
        differ = np.array([type(one) is not type(other) or one != other for one, other in pairs], dtype=bool)
    else:
        differ = np.asarray(recorded != found)
    index = np.flatnonzero(differ)
    infinite = np.full(index.size, np.inf, dtype=np.longdouble)
    return _Gap(
        index=index + start,
        recorded=recorded[index],
        found=found[index],
        size=np.zeros(index.size, dtype=np.longdouble),
        delta=infinite,
        ulps=None,
        broken=np.ones(index.size, dtype=bool),
    )


def _gap_facts(part: _Part, block: slice, gap: _Gap) -> NumberFacts:
    if part.recorded.dtype.kind not in "biuf":
        return NumberFacts(n=0, n_diff=gap.index.size, worst=_spots(part, gap))
    finite = ~gap.broken
    whole = part.recorded.dtype.kind != "f"
    largest = gap.delta[finite].max(initial=-1)
    relative = (gap.delta[finite] / gap.size[finite]).max(initial=-1)
    ulps = gap.ulps[finite] if gap.ulps is not None else np.array([])
    recorded, found = part.recorded[block], part.found[block]
    return NumberFacts(
        n=0,
        n_diff=gap.index.size,
        max_abs=None if largest < 0 else int(largest) if whole else float(largest),
        max_rel=None if relative < 0 else float(relative),
        max_ulp=int(ulps.max()) if ulps.size else None,
        broken=int(np.count_nonzero(gap.broken)),
        nan_mismatches=0 if whole else int(np.count_nonzero(np.isnan(gap.recorded) != np.isnan(gap.found))),
        zero_signs=0 if whole else _zero_signs(recorded, found),
        sum_recorded=_sum(recorded),
        sum_found=_sum(found),
        worst=_spots(part, gap),
    )


def _zero_signs(recorded: Array, found: Array) -> int:
    zero = (recorded == 0) & (found == 0)
    return int(np.count_nonzero(np.signbit(recorded[zero]) != np.signbit(found[zero]))) if zero.any() else 0


def _sum(values: Array) -> int | float:
    if values.dtype.kind == "f":
        return float(values.sum(dtype=np.longdouble))
    wide = values.astype(np.uint64 if values.dtype.kind == "u" else np.int64)
    return (int((wide >> 32).sum()) << 32) + int((wide & 0xFFFFFFFF).sum())  # in halves: no overflow


def _spots(part: _Part, gap: _Gap) -> tuple[Spot, ...]:
    """Give the worst of a block, the worst first."""
    if not gap.index.size:
        return ()
    badness = np.where(gap.broken, np.inf, gap.delta.astype(np.float64))
    worst = np.argpartition(-badness, WORST)[:WORST] if badness.size > WORST else np.arange(badness.size)
    worst = worst[np.argsort(-badness[worst], kind="stable")]
    return tuple(
        Spot(
            at=(*(int(i) for i in np.unravel_index(gap.index[i], part.shape)), *part.name),
            recorded=gap.recorded[i].item() if hasattr(gap.recorded[i], "item") else gap.recorded[i],
            found=gap.found[i].item() if hasattr(gap.found[i], "item") else gap.found[i],
        )
        for i in worst
    )


def _added(one: NumberFacts, other: NumberFacts) -> NumberFacts:
    return NumberFacts(
        n=one.n + other.n,
        n_diff=one.n_diff + other.n_diff,
        max_abs=_largest(one.max_abs, other.max_abs),
        max_rel=_largest(one.max_rel, other.max_rel),
        max_ulp=_largest(one.max_ulp, other.max_ulp),
        broken=one.broken + other.broken,
        nan_mismatches=one.nan_mismatches + other.nan_mismatches,
        zero_signs=one.zero_signs + other.zero_signs,
        sum_recorded=_total(one.sum_recorded, other.sum_recorded),
        sum_found=_total(one.sum_found, other.sum_found),
        worst=tuple(heapq.nlargest(WORST, (*one.worst, *other.worst), key=_badness)),
    )


def _largest(one: Number, other: Number) -> Number:
    return max((value for value in (one, other) if value is not None), default=None)


def _total(one: Number, other: Number) -> Number:
    present = [value for value in (one, other) if value is not None]
    return sum(present) if present else None


def _badness(spot: Spot) -> float:
    if not isinstance(spot.recorded, int | float) or not isinstance(spot.found, int | float):
        return math.inf
    difference = abs(float(spot.recorded) - float(spot.found)) if abs(spot.recorded) != math.inf else math.inf
    return math.inf if math.isnan(difference) else difference
