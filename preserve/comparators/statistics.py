"""Tests of whether two sets of entries are of one distribution, and Holm's correction for making many of them.

Asked for explicitly, never a fallback: both give p = 1 where half a percent of the entries is lost, which is why
a bound on the change of the yield stands beside each (docs/reference/comparison.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from preserve.documents.rules import TESTS

LEAST = 10.0  # entries of both together in a bin, below which chi2 is no good approximation: bins are joined

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tested:
    """A test's outcome: ``statistic``, degrees of freedom (chi2 only), ``p``, and the relative change of the yield."""

    statistic: float
    ndf: int | None
    p: float
    yield_shift: float


class Untestable(Exception):
    """The numbers are not of the kind that the test is for; the message says why."""


def outcome(test: str, recorded: Array, found: Array) -> Tested:
    """Do the test of this name.

    Raises:
        Untestable: the numbers are not what the test is for.
    """
    for values in (recorded, found):
        if values.dtype.kind not in "iuf" or not np.isfinite(values).all():
            raise Untestable("the numbers must be real and finite")
    if test == "chi2":
        return chi2(recorded, found)
    if test == "ks":
        return ks(recorded, found)
    raise Untestable(f"there is no test {test!r}; there are: {', '.join(TESTS)}")


def chi2(recorded: Array, found: Array) -> Tested:
    """Test two histograms of counts (contents bin by bin) for one shape: Pearson's test of homogeneity.

    Bins are joined, in order, until each has ``LEAST`` entries. The yield is the sum of contents.

    Raises:
        Untestable: other numbers of bins, negative contents, or too few entries.
    """
    if recorded.shape != found.shape:
        raise Untestable("chi2 needs histograms of the same bins")
    one, other = recorded.reshape(-1).astype(float), found.reshape(-1).astype(float)
    if (one < 0).any() or (other < 0).any():
        raise Untestable("chi2 needs counts: there are negative contents")
    total, total_found = float(one.sum()), float(other.sum())
    one, other = _joined(one, other)
    if one.size < 2 or not total or not total_found:
        raise Untestable(f"chi2 needs two bins of {LEAST:g} entries")
    ratio = math.sqrt(total_found / total)
    statistic = float(np.sum((ratio * one - other / ratio) ** 2 / (one + other)))
    ndf = one.size - 1
    return Tested(statistic=statistic, ndf=ndf, p=chi2_tail(statistic, ndf), yield_shift=_shift(total, total_found))


def ks(recorded: Array, found: Array) -> Tested:
    """Test two sets of entries (not histograms) for one distribution: Kolmogorov and Smirnov's test.

    p is the asymptotic one with Stephens' correction for finite numbers. The yield is the number of entries.

    Raises:
        Untestable: a set is empty.
    """
    one, other = np.sort(recorded.reshape(-1)), np.sort(found.reshape(-1))
    if not one.size or not other.size:
        raise Untestable("ks needs entries on both sides")
    every = np.concatenate((one, other))
    below = np.searchsorted(one, every, side="right") / one.size
    below_found = np.searchsorted(other, every, side="right") / other.size
    statistic = float(np.abs(below - below_found).max())
    root = math.sqrt(one.size * other.size / (one.size + other.size))
    p = kolmogorov_tail((root + 0.12 + 0.11 / root) * statistic)
    return Tested(statistic=statistic, ndf=None, p=p, yield_shift=_shift(one.size, other.size))


def holm(values: Sequence[float]) -> tuple[float, ...]:
    """Adjust p-values for their number (Holm 1979): compared with alpha, at most alpha of all sets fail by chance."""
    order = sorted(range(len(values)), key=values.__getitem__)
    adjusted, largest = [1.0] * len(values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, values[index] * (len(values) - rank)))
        adjusted[index] = largest
    return tuple(adjusted)


def chi2_tail(statistic: float, ndf: int) -> float:
    """Probability of a larger chi2 with ``ndf`` degrees of freedom: the regularised upper incomplete gamma function.

    Series below and continued fraction (Lentz) above the mean, as in Abramowitz and Stegun 6.5.29 and 6.5.31.
    """
    a, x = ndf / 2, statistic / 2
    if x <= 0:
        return 1.0
    scale = math.exp(-x + a * math.log(x) - math.lgamma(a))
    return 1.0 - scale * _lower_series(a, x) if x < a + 1 else scale * _upper_fraction(a, x)


def kolmogorov_tail(value: float) -> float:
    """Probability of a larger Kolmogorov statistic, for many entries."""
    if value < 0.2:
        return 1.0  # to 1e-12; the series converges badly here
    terms = ((-1) ** (k - 1) * math.exp(-2 * (k * value) ** 2) for k in range(1, 101))
    return min(1.0, max(0.0, 2 * math.fsum(terms)))


def _lower_series(a: float, x: float) -> float:
    term = total = 1 / a
    n = a
    while abs(term) > abs(total) * 1e-17:
        n += 1
        term *= x / n
        total += term
    return total


def _upper_fraction(a: float, x: float) -> float:
    tiny = 1e-300
    b = x + 1 - a
    c, d = 1 / tiny, 1 / b
    total = d
    for i in range(1, 100_000):
        factor = -i * (i - a)
        b += 2
        d = 1 / (factor * d + b or tiny)
        c = b + factor / c or tiny
        total *= c * d
        if abs(c * d - 1) < 1e-16:
            break
    return total


def _joined(one: Array, other: Array) -> tuple[Array, Array]:
    """Join neighbouring bins until each has enough entries; what remains at the end goes to the last."""
    edges, sum_ = [0], 0.0
    for index, content in enumerate(one + other):
        sum_ += float(content)
        if sum_ >= LEAST:
            edges.append(index + 1)
            sum_ = 0.0
    starts = edges[:-1]
    if not starts:
        return one[:0], other[:0]
    return np.add.reduceat(one, starts), np.add.reduceat(other, starts)


def _shift(recorded: float, found: float) -> float:
    return abs(found - recorded) / recorded if recorded else math.inf
