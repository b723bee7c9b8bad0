"""Arrays that lie packed in files: what is the same there is unpacked once, or not at all."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import pytest

from preserve.comparators.pieces import Packed, PackedPart, load_packed


class File:
    """Arrays packed with zlib; ``unpacked`` counts how often one was."""

    def __init__(self, *arrays: Sequence[float], like: str = "f8", hidden: bool = False) -> None:
        self.unpacked = 0
        self._hidden = hidden
        self._packed = [zlib.compress(np.array(values, dtype=like).tobytes()) for values in arrays]
        self.packed = Packed(
            parts=tuple(
                PackedPart(like=like, length=len(values), packed=self._bytes(place), array=self._array(place, like))
                for place, values in enumerate(arrays)
            )
        )

    def _bytes(self, place: int):  # type: ignore[no-untyped-def]
        return lambda: None if self._hidden else self._packed[place]

    def _array(self, place: int, like: str):  # type: ignore[no-untyped-def]
        def array() -> np.ndarray:  # type: ignore[type-arg]
            self.unpacked += 1
            return np.frombuffer(zlib.decompress(self._packed[place]), dtype=like)

        return array


def loaded(one: File, other: File) -> tuple[list[float], list[float]] | None:
    both = load_packed(one.packed, other.packed)
    return None if both is None else (both[0].tolist(), both[1].tolist())


def test_all_of_it() -> None:
    assert File([1, 2], [3], [4, 5]).packed().tolist() == [1, 2, 3, 4, 5]
    assert File().packed().tolist() == []


def test_the_same_is_not_unpacked() -> None:
    one, other = File([1, 2], [3]), File([1, 2], [3])
    assert loaded(one, other) is None
    assert (one.unpacked, other.unpacked) == (0, 0)


def test_parts_that_are_the_same_are_unpacked_once() -> None:
    one, other = File([1, 2], [3], [4, 5]), File([1, 2], [9], [4, 5])
    assert loaded(one, other) == ([1, 2, 3, 4, 5], [1, 2, 9, 4, 5])
    assert (one.unpacked, other.unpacked) == (3, 1)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (File([1, 2], [3]), File([1], [2, 3]), [1, 2, 3]),  # divided otherwise
        (File([1, 2], [3]), File([1, 2, 3]), [1, 2, 3]),
        (File([1, 2]), File([1, 2], [3]), [1, 2, 3]),
        (File([1, 2], [3]), File([1, 2], [3], like="f4"), [1, 2, 3]),  # the same bytes would be other numbers
        (File([1, 2], hidden=True), File([1, 2], hidden=True), [1, 2]),  # no bytes that could be compared
        (File([1, 2]), File(), []),
    ],
)
def test_what_cannot_be_compared_as_it_lies_there_is_unpacked(one: File, other: File, expected: list[float]) -> None:
    both = loaded(one, other)
    assert both is not None
    assert both[0] == one.packed().tolist()
    assert both[1] == expected


def test_a_damaged_part() -> None:
    one, other = File([1, 2], [3]), File([1, 2], [4])
    other._packed[1] = b"no zlib"
    with pytest.raises(zlib.error):
        load_packed(one.packed, other.packed)
