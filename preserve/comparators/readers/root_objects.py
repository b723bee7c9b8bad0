"""ROOT's objects as leaves: every member of every class that the file describes, in the words of histograms."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from preserve.comparators.leaves import Leaf, TooMuch
from preserve.comparators.making import document, number, text
from preserve.documents.counted import counted

_MEMORY_BITS = 0x03000008  # kIsOnHeap, kNotDeleted, kMustCleanup: of the memory the object was in, not of the object
_BITS = "@fBits"
_AXES = {"fXaxis": "x", "fYaxis": "y", "fZaxis": "z"}
_WORDS = {"fTitle": "title", "fName": "name", "fSumw2": "sumw2", "fX": "x", "fY": "y"}
_BINNING = ("fNbins", "fXmin", "fXmax", "fXbins", "fLabels")
_PER_BIN = ("fSumw2", "fBinEntries", "fBinSumw2")  # shaped as the contents are
_STATISTICS = ("fEntries", "fTsum")  # beginnings of the names of sums over all that was filled


class NotUnderstood(Exception):
    """Some part of an object is of a class that the file does not describe: its bytes have to do."""


def leaves_of_object(path: str, value: Any, depth: int) -> list[Leaf]:
    """Give the leaves of an object (or a member of one) that uproot has read.

    Raises:
        NotUnderstood: a part of it has no description.
        TooMuch: it is nested more than ``depth`` deep.
    """
    return list(_Walk(path).member(path, "", value, depth))


class _Walk:
    """One object with all it contains; what is met a second time is a reference to the first place."""

    def __init__(self, whole: str) -> None:
        self._whole = whole
        self._met: dict[int, str] = {}

    def _object(self, path: str, model: Any, depth: int) -> Iterator[Leaf]:
        if depth < 0:
            raise TooMuch(f"nested too deeply at {path[:80]}")
        first = self._met.setdefault(id(model), path)
        if first != path:
            yield text(f"{path}:same", f"the object {first}")
            return
        if path != self._whole:  # of that, its key says it
            yield text(f"{path}:class", model.classname)
        yield from self._gathered(f"{path}:", model, depth)

    def _gathered(self, path: str, model: Any, depth: int) -> Iterator[Leaf]:
        """Yield all members, those by the hundred that nobody looks at singly as one leaf."""
        gathered = _Gathered()
        yield from self._parts(path, model, depth, _Shape.of(model), gathered)
        if gathered.statistics:
            yield number(f"{path}statistics", list(gathered.statistics.values()))
            gathered.rest["statistics"] = list(gathered.statistics)
        if gathered.rest:
            yield document(f"{path}members", gathered.rest)
        if gathered.drawing:
            yield document(f"{path}drawing", gathered.drawing)

    def _parts(self, path: str, model: Any, depth: int, shape: _Shape, gathered: _Gathered) -> Iterator[Leaf]:
        """Yield the members of a class and of those it is made from."""
        for base in model.bases:
            yield from self._parts(path, base, depth, shape, gathered)
        if hasattr(model, "_data") and isinstance(model._data, np.ndarray):  # TArrayD and its like
            yield number(f"{path}values", shape.of_values(model._data))
        elif hasattr(model, "_data"):
            yield from self._list(path, model, depth)
        elif not model.members and not model.bases and type(model).__name__.startswith("Unknown"):
            raise NotUnderstood(f"{path} is a {model.classname}, which the file does not describe")
        of_drawing = model.classname.startswith("TAtt")
        for name, value in model.members.items():
            if of_drawing and not hasattr(value, "members"):
                gathered.drawing[name] = str(value)
            elif shape.gathers and gathered.take(name, value):
                continue
            elif name in _AXES and type(value).__name__.startswith("Model_TAxis"):
                yield from self._axis(f"{path}{_AXES[name]}", value, depth)
            elif not (shape.is_axis and name in _BINNING):
                shaped = shape.of_values(value) if name in _PER_BIN else value
                yield from self.member(f"{path}{_WORDS.get(name, name)}", name, shaped, depth)

    def _axis(self, path: str, axis: Any, depth: int) -> Iterator[Leaf]:
        members = axis.members
        bins, given = members["fNbins"], np.asarray(members["fXbins"])
        if not 0 <= bins <= 1 << 24 or given.size not in (0, bins + 1):
            raise NotUnderstood(f"{path} has {counted(bins, 'bin')} and {counted(given.size, 'edge')}")
        edges = given if given.size else np.linspace(members["fXmin"], members["fXmax"], bins + 1)
        yield number(f"{path}.edges", _native(edges))
        if members["fLabels"] is not None:
            labels = sorted((label.member("@fUniqueID"), str(label)) for label in members["fLabels"])
            yield text(f"{path}.labels", "\n".join(f"{place}: {label}" for place, label in labels))
        yield from self._gathered(f"{path}.", axis, depth - 1)

    def _list(self, path: str, model: Any, depth: int) -> Iterator[Leaf]:
        options = getattr(model, "_options", [b""] * len(model._data))
        for place, (item, option) in enumerate(zip(model._data, options, strict=True)):
            inner = f"{path.removesuffix(':')}[{place}]"
            yield from self.member(inner, "", item, depth)
            if option:
                yield text(f"{inner}:option", option.decode("latin-1"))

    def member(self, path: str, name: str, value: Any, depth: int) -> Iterator[Leaf]:
        if value is None:
            yield text(path, "null")
        elif isinstance(value, str | bytes):
            yield text(path, str(value) if isinstance(value, str) else value.decode("latin-1"))
        elif isinstance(value, bool | int | float | complex | np.generic):
            yield number(path, np.asarray(value) & ~_MEMORY_BITS if name == _BITS else value)
        elif isinstance(value, np.ndarray):
            yield from self._array(path, value, depth)
        elif hasattr(value, "members") and hasattr(value, "bases"):
            yield from self._object(path, value, depth - 1)
        else:
            yield from self._container(path, value, depth - 1)

    def _array(self, path: str, value: np.ndarray[Any, Any], depth: int) -> Iterator[Leaf]:
        if not value.dtype.hasobject:
            yield number(path, _native(value))
            return
        yield text(f"{path}:length", str(len(value)))
        for place, item in enumerate(value):
            yield from self.member(f"{path}[{place}]", "", item, depth - 1)

    def _container(self, path: str, value: Any, depth: int) -> Iterator[Leaf]:
        """Yield the content of a vector, set, map ... of the standard library."""
        if depth < 0:
            raise TooMuch(f"nested too deeply at {path[:80]}")
        if isinstance(value, Mapping):
            yield from self._container(f"{path}:keys", list(value.keys()), depth - 1)
            yield from self._container(f"{path}:values", list(value.values()), depth - 1)
            return
        try:
            items = list(value)
        except TypeError as error:
            raise NotUnderstood(f"{path} is a {type(value).__name__}") from error
        if items and all(isinstance(item, int | float | np.number) for item in items):
            yield number(path, _native(np.asarray(items)))
            return
        yield text(f"{path}:length", str(len(items)))
        for place, item in enumerate(items):
            yield from self.member(f"{path}[{place}]", "", item, depth - 1)


@dataclass(slots=True)
class _Gathered:
    """Members of an object that become one leaf together."""

    drawing: dict[str, str] = field(default_factory=dict)  # colours, styles, sizes
    statistics: dict[str, float] = field(default_factory=dict)
    rest: dict[str, Any] = field(default_factory=dict)  # numbers and switches beside the contents

    def take(self, name: str, value: Any) -> bool:
        """Take a member of a histogram or an axis, unless it deserves a leaf of its own."""
        if name.startswith(_STATISTICS):
            self.statistics[name] = float(value)
        elif isinstance(value, bool | int | float | np.generic):
            self.rest[name] = str(int(value) & ~_MEMORY_BITS if name == _BITS else value)
        elif value is None or (hasattr(value, "__len__") and len(value) == 0 and name not in (*_WORDS, *_PER_BIN)):
            self.rest[name] = "none"
        else:
            return False
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shape:
    """Of a histogram: bins with under- and overflow along x, y, z."""

    bins: tuple[int, ...] = ()
    gathers: bool = False  # whether its members are gathered
    is_axis: bool = False

    @classmethod
    def of(cls, model: Any) -> _Shape:
        """Give the shape of an object; no bins if it is no histogram of straight axes."""
        if type(model).__name__.startswith("Model_TAxis"):
            return cls(gathers=True, is_axis=True)
        if not model.has_member("fNcells"):
            return cls()
        sizes = [int(model.member(axis).member("fNbins")) + 2 for axis in _AXES if model.has_member(axis)]
        dimensions = 3 if "3" in model.classname else 2 if "2" in model.classname else 1
        bins = tuple(sizes[:dimensions])
        straight = math.prod(bins) == model.member("fNcells")
        return cls(bins=bins if straight else (), gathers=True)

    def of_values(self, values: Any) -> np.ndarray[Any, Any]:
        """Give an array of numbers per bin its shape: ROOT counts bins along x first."""
        array = _native(np.asarray(values))
        if not self.bins or array.size != math.prod(self.bins):
            return array
        return array.reshape(self.bins[::-1]).transpose()


def _native(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return array.astype(array.dtype.newbyteorder("="))
