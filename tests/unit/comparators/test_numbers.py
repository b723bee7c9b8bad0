"""Numbers: what is equal, how far apart the rest is, and what a tolerance covers, at its very boundary."""

from __future__ import annotations

import math
import sys
import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from preserve.comparators.numbers import BLOCK, NumberFacts, count_beyond, number_facts, same_type

MAX = sys.float_info.max
TINY = 5e-324  # the smallest subnormal double
BIG = 1 << 53

Values = list[Any]


def facts(recorded: Values, found: Values, dtype: str = "f8") -> NumberFacts:
    return number_facts(np.array(recorded, dtype=dtype), np.array(found, dtype=dtype))


def within(recorded: Any, found: Any, dtype: str = "f8", **tolerance: Any) -> bool:
    rule = {"rtol": 0.0, "atol": 0.0, "ulp": 0, **tolerance}
    return count_beyond(np.array([recorded], dtype=dtype), np.array([found], dtype=dtype), **rule) == 0


class TestEqual:
    @pytest.mark.parametrize(
        ("recorded", "found", "dtype"),
        [
            (math.nan, math.nan, "f8"),
            (math.inf, math.inf, "f4"),
            (0.0, -0.0, "f8"),
            (TINY, TINY, "f8"),
            (BIG + 1, BIG + 1, "i8"),
            (complex(math.nan, 1), complex(math.nan, 1), "c16"),
            (True, True, "?"),
            ("Zµµ", "Zµµ", "U3"),
            (np.datetime64("NaT"), np.datetime64("NaT"), "M8[s]"),
        ],
    )
    def test_the_same_value(self, recorded: Any, found: Any, dtype: str) -> None:
        assert facts([recorded], [found], dtype).n_diff == 0

    def test_other_bits_of_nan(self) -> None:
        one, other = (np.array([bits], dtype="u8").view("f8") for bits in (0x7FF8000000000000, 0xFFF8000000000001))
        assert number_facts(one, other).n_diff == 0

    def test_signs_of_zero_are_counted(self) -> None:
        assert facts([0.0, -0.0, 1.0], [-0.0, -0.0, 1.0]).zero_signs == 1

    @pytest.mark.parametrize("dtype", ["f8", "f4", "i4", "u2", "c8", "U4", "M8[s]"])
    def test_byte_order_is_no_content(self, dtype: str) -> None:
        values = np.arange(300).astype("i8").astype(dtype)
        swapped = values.astype(values.dtype.newbyteorder(">"))
        assert same_type(values.dtype, swapped.dtype)
        assert number_facts(values, swapped).n_diff == 0
        assert number_facts(swapped, values[::-1]).n_diff == 300 - (300 % 2)

    def test_byte_order_in_structures(self) -> None:
        little = np.array([(1, 2.5)], dtype=[("a", "<i4"), ("b", "<f8")])
        big = little.astype([("a", ">i4"), ("b", ">f8")])
        assert same_type(little.dtype, big.dtype)
        assert number_facts(little, big).n_diff == 0

    @pytest.mark.parametrize(
        ("one", "other"), [("f8", "f4"), ("i4", "u4"), ("i8", "f8"), ("S3", "S4"), ([("a", "i4")], [("b", "i4")])]
    )
    def test_another_type_is_another_type(self, one: Any, other: Any) -> None:
        assert not same_type(np.dtype(one), np.dtype(other))


class TestFacts:
    def test_how_far_apart(self) -> None:
        found = facts([1.0, 2.0, 0.0], [1.5, 2.0, 1e-300])
        assert (found.n, found.n_diff, found.max_abs, found.max_rel) == (3, 2, 0.5, math.inf)
        assert [spot.at for spot in found.worst] == [(0,), (2,)]
        assert (found.sum_recorded, found.sum_found) == (3.0, 3.5)

    def test_nan_and_infinities_are_apart(self) -> None:
        found = facts([math.nan, 1.0, math.inf, math.inf], [1.0, math.nan, -math.inf, 1.0])
        assert (found.n_diff, found.broken, found.nan_mismatches, found.max_abs) == (4, 4, 2, None)

    def test_integers_are_exact(self) -> None:
        assert facts([BIG + 1], [BIG], "i8").max_abs == 1
        assert facts([(1 << 63) - 1], [-(1 << 63)], "i8").max_abs == (1 << 64) - 1
        assert facts([(1 << 64) - 1], [0], "u8").max_abs == (1 << 64) - 1
        assert facts([(1 << 63) - 1] * 3, [0, 0, 1], "i8").sum_recorded == 3 * ((1 << 63) - 1)

    def test_the_whole_range_of_doubles(self) -> None:
        assert facts([MAX], [-MAX]).max_rel == 2.0
        assert facts([TINY], [0.0]).max_abs == TINY

    @pytest.mark.parametrize(
        ("recorded", "found", "dtype", "ulps"),
        [
            (1.0, math.nextafter(1.0, 2.0), "f8", 1),
            (-TINY, TINY, "f8", 2),
            (0.0, TINY, "f8", 1),
            (-0.0, -TINY, "f8", 1),
            (MAX, -MAX, "f8", 2 * 0x7FEFFFFFFFFFFFFF),
            (1.0, 1.0 + 2**-23, "f4", 1),
            (1.0, 1.0 + 2**-10, "f2", 1),
            (1.0, 1.0 + 2**-9, "f2", 2),
        ],
    )
    def test_units_in_the_last_place(self, recorded: float, found: float, dtype: str, ulps: int) -> None:
        assert facts([recorded], [found], dtype).max_ulp == ulps

    def test_coordinates(self) -> None:
        recorded = np.zeros((3, 4), dtype=[("x", "f8"), ("y", "f8", (2,))])
        found = recorded.copy()
        found[2, 1]["y"][1] = 7
        [spot] = number_facts(recorded, found).worst
        assert spot.at == (2, 1, 1, "y")

    def test_the_worst_five_of_many_blocks(self) -> None:
        recorded = np.zeros(3 * BLOCK + 10)
        found = recorded.copy()
        found[[5, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK + 9, 7]] = [1, 6, 2, 5, 4, 3]
        assert [spot.found for spot in number_facts(recorded, found).worst] == [6, 5, 4, 3, 2]

    def test_nothing_and_one(self) -> None:
        assert facts([], []).n_diff == 0
        assert number_facts(np.array(1.0), np.array(2.0)).worst[0].at == ()


def test_memory_does_not_grow_with_the_arrays() -> None:
    recorded = np.arange(4_000_000, dtype="f8")
    found = recorded + 1e-3
    tracemalloc.start()
    try:
        number_facts(recorded, found)
        count_beyond(recorded, found, rtol=1e-9, atol=0, ulp=0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < recorded.nbytes / 2


class TestTolerance:
    @pytest.mark.parametrize(
        ("recorded", "found", "tolerance", "passes"),
        [
            (1.0, 1.5, {"atol": 0.5}, True),
            (1.0, math.nextafter(1.5, 2), {"atol": 0.5}, False),
            (2.0, 3.0, {"rtol": 0.5}, True),
            (2.0, math.nextafter(3.0, 4), {"rtol": 0.5}, False),
            (3.0, 2.0, {"rtol": 0.34}, True),  # relative to what was recorded
            (2.0, 3.0, {"rtol": 0.34}, False),
            (0.0, 1e-300, {"rtol": 1.0}, False),
            (0.0, 1e-300, {"atol": 1e-300}, True),
            (1e-9, 5e-9, {}, False),  # there is no default tolerance
            (1.0, 1.0 + 2**-51, {"ulp": 2}, True),
            (1.0, 1.0 + 2**-51, {"ulp": 1}, False),
            (TINY, 3 * TINY, {"rtol": 2.0}, True),
            (TINY, 3 * TINY, {"rtol": 1.9}, False),
            (2 * TINY, TINY, {"rtol": 0.5}, True),
            (MAX, -MAX, {"rtol": 2.0}, True),
            (MAX, -MAX, {"rtol": 1.99}, False),
            (0.0, -0.0, {}, True),
            (math.nan, math.nan, {}, True),
            (math.nan, 1.0, {"atol": math.inf}, False),
            (math.inf, 1.0, {"rtol": 1.0}, False),
            (1.0, math.inf, {"atol": math.inf}, False),
            (math.inf, -math.inf, {"rtol": 10.0}, False),
            (MAX, math.inf, {"ulp": 1}, False),
        ],
    )
    def test_at_the_boundary(self, recorded: float, found: float, tolerance: dict[str, Any], passes: bool) -> None:
        assert within(recorded, found, **tolerance) is passes

    @pytest.mark.parametrize(
        ("recorded", "found", "dtype", "tolerance", "passes"),
        [
            (BIG + 1, BIG, "i8", {}, False),
            (BIG + 1, BIG, "i8", {"atol": 1.0}, True),
            (BIG + 2, BIG, "i8", {"atol": 1.0}, False),
            (10, 11, "u1", {"rtol": 0.1}, True),
            (10, 12, "u1", {"rtol": 0.1}, False),
            (0, (1 << 64) - 1, "u8", {"ulp": 5}, False),  # units in the last place are of fractions
            ("a", "b", "U1", {"atol": math.inf}, False),
            (1 + 1j, 1.5 + 1.5j, "c16", {"atol": 0.5}, True),
            (1 + 1j, 1.5 + 1.6j, "c16", {"atol": 0.5}, False),
        ],
    )
    def test_other_types(self, recorded: Any, found: Any, dtype: str, tolerance: dict[str, Any], passes: bool) -> None:
        assert within(recorded, found, dtype, **tolerance) is passes


FLOATS = arrays.arrays(np.float64, st.integers(0, 30), elements=st.floats(width=64))
PAIRS = st.integers(0, 30).flatmap(
    lambda n: st.tuples(*(arrays.arrays(np.float64, n, elements=st.floats(width=64)) for _ in range(2)))
)
INTEGER_PAIRS = st.integers(0, 10).flatmap(lambda n: st.tuples(*(arrays.arrays(np.int64, n) for _ in range(2))))


@given(FLOATS)
def test_an_array_equals_itself(values: np.ndarray[Any, Any]) -> None:
    assert number_facts(values, values.copy()).n_diff == 0


@given(PAIRS)
def test_facts_are_symmetric(pair: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]) -> None:
    there, back = number_facts(*pair), number_facts(*pair[::-1])
    assert (there.n_diff, there.max_abs, there.max_ulp, there.broken, there.nan_mismatches, there.zero_signs) == (
        back.n_diff,
        back.max_abs,
        back.max_ulp,
        back.broken,
        back.nan_mismatches,
        back.zero_signs,
    )


@given(PAIRS, st.floats(0, 10), st.floats(0, 1e10), st.integers(0, 100))
def test_a_tolerance_only_loosens(
    pair: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]], rtol: float, atol: float, ulp: int
) -> None:
    strict = count_beyond(*pair, rtol=0, atol=0, ulp=0)
    assert strict == number_facts(*pair).n_diff
    assert count_beyond(*pair, rtol=rtol, atol=atol, ulp=ulp) <= strict


@given(INTEGER_PAIRS)
def test_integers_are_those_of_mathematics(pair: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]) -> None:
    exact = [abs(a - b) for a, b in zip(*(values.tolist() for values in pair), strict=True)]
    found = number_facts(*pair)
    assert (found.max_abs or 0) == max(exact, default=0)
    assert (found.sum_recorded or 0) == sum(pair[0].tolist())


class TestOneDouble:
    """A leaf of a single number takes a shorter way, to the same facts."""

    NUMBERS = st.one_of(
        st.floats(), st.floats(-1e3, 1e3), st.sampled_from([0.0, -0.0, TINY, 1e-290, 1e290, MAX, math.nan, math.inf])
    )

    @given(recorded=NUMBERS, found=NUMBERS, by=st.sampled_from([0.0, 1e-16, 1e-9, -1e-3]))
    def test_as_an_array_of_one(self, recorded: float, found: float, by: float) -> None:
        for other in (found, recorded * (1 + by)):
            alone = facts(recorded, other)  # type: ignore[arg-type]
            of_array = facts([recorded], [other])
            spots = tuple(replace(spot, at=()) for spot in of_array.worst)
            assert repr(alone) == repr(replace(of_array, worst=spots))  # by repr: NaN is NaN

    @given(
        recorded=NUMBERS, found=NUMBERS, limit=st.sampled_from([0.0, 1e-300, 1e-12, 1e-3, 1.0]), ulp=st.integers(0, 9)
    )
    def test_tolerances(self, recorded: float, found: float, limit: float, ulp: int) -> None:
        for tolerance in ({"rtol": limit}, {"atol": limit}, {"ulp": ulp}, {"rtol": limit, "atol": limit, "ulp": ulp}):
            rule = {"rtol": 0.0, "atol": 0.0, "ulp": 0, **tolerance}
            alone = count_beyond(np.array(recorded), np.array(found), **rule)  # type: ignore[arg-type]
            assert (alone == 0) == within(recorded, found, **tolerance)
