"""ROOT's objects as leaves: every member of every class that the file describes, in the words of histograms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from preserve.comparators.leaves import Leaf, TooMuch
from preserve.comparators.making import number, text

_MEMORY_BITS = 0x03000008  # kIsOnHeap, kNotDeleted, kMustCleanup: of the memory the object was in, not of the object
_BITS = "@fBits"
_AXES = {"fXaxis": "x", "fYaxis": "y", "fZaxis": "z"}
_WORDS = {"fTitle": "title", "fSumw2": "sumw2", "fX": "x", "fY": "y"}
_BINNING = ("fNbins", "fXmin", "fXmax", "fXbins", "fLabels")
_PER_BIN = ("fSumw2", "fBinEntries", "fBinSumw2")  # shaped as the contents are


class NotUnderstood(Exception):
    """Some part of an object is of a class that the file does not describe: its bytes have to do."""


def leaves_of_object(path: str, value: Any, depth: int) -> list[Leaf]:
    """Give the leaves of an object (or a member of one) that uproot has read.

    Raises:
        NotUnderstood: a part of it has no description.
        TooMuch: it is nested more than ``depth`` deep.
    """
    return list(_Walk().member(path, "", value, depth))


class _Walk:
    """One object with all it contains; what is met a second time is a reference to the first place."""

    def __init__(self) -> None:
        self._met: dict[int, str] = {}

    def _object(self, path: str, model: Any, depth: int) -> Iterator[Leaf]:
        if depth < 0:
            raise TooMuch(f"nested too deeply at {path[:80]}")
        first = self._met.setdefault(id(model), path)
        if first != path:
            yield text(f"{path}:same", f"the object {first}")
            return
        yield text(f"{path}:class", model.classname)
        yield from self._parts(path, model, depth, _shape(model))

    def _parts(self, path: str, model: Any, depth: int, shape: tuple[int, ...]) -> Iterator[Leaf]:
        """Yield the members of a class and of those it is made from."""
        for base in model.bases:
            yield from self._parts(path, base, depth, shape)
        if hasattr(model, "_data") and isinstance(model._data, np.ndarray):  # TArrayD and its like
            yield number(f"{path}:values", _shaped(model._data, shape))
        elif hasattr(model, "_data"):
            yield from self._list(path, model, depth)
        elif not model.members and not model.bases and not _may_be_empty(model):
            raise NotUnderstood(f"{path} is a {model.classname}, which the file does not describe")
        for name, value in model.members.items():
            if name in _AXES and type(value).__name__.startswith("Model_TAxis"):
                yield from self._axis(f"{path}:{_AXES[name]}", value, depth)
            else:
                shaped = _shaped(value, shape) if name in _PER_BIN else value
                yield from self.member(f"{path}:{_WORDS.get(name, name)}", name, shaped, depth)

    def _axis(self, path: str, axis: Any, depth: int) -> Iterator[Leaf]:
        members = axis.members
        bins, given = members["fNbins"], np.asarray(members["fXbins"])
        if not 0 <= bins <= 1 << 24 or given.size not in (0, bins + 1):
            raise NotUnderstood(f"{path} has {bins} bins and {given.size} edges")
        edges = given if given.size else np.linspace(members["fXmin"], members["fXmax"], bins + 1)
        yield number(f"{path}.edges", _native(edges))
        if members["fLabels"] is not None:
            labels = sorted((label.member("@fUniqueID"), str(label)) for label in members["fLabels"])
            yield text(f"{path}.labels", "\n".join(f"{place}: {label}" for place, label in labels))
        for base in axis.bases:
            for leaf in self._parts(path, base, depth - 1, ()):
                yield _renamed(leaf, path)
        for name, value in members.items():
            if name not in _BINNING:
                yield from self.member(f"{path}.{name}", name, value, depth)

    def _list(self, path: str, model: Any, depth: int) -> Iterator[Leaf]:
        options = getattr(model, "_options", [b""] * len(model._data))
        for place, (item, option) in enumerate(zip(model._data, options, strict=True)):
            yield from self.member(f"{path}[{place}]", "", item, depth)
            if option:
                yield text(f"{path}[{place}]:option", option.decode("latin-1"))

    def member(self, path: str, name: str, value: Any, depth: int) -> Iterator[Leaf]:
        if value is None:
            yield text(path, "null")
        elif isinstance(value, str | bytes):
            yield text(path, value if isinstance(value, str) else value.decode("latin-1"))
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


def _may_be_empty(model: Any) -> bool:
    """Classes without members of their own exist; those that uproot knows nothing of have their type say so."""
    return not type(model).__name__.startswith("Unknown")


def _shape(model: Any) -> tuple[int, ...]:
    """Bins with under- and overflow along x, y, z; empty if the object is no histogram of straight axes."""
    if not model.has_member("fNcells") or model.classname.startswith("TH2Poly"):
        return ()
    sizes = [int(model.member(axis).member("fNbins")) + 2 for axis in _AXES if model.has_member(axis)]
    dimensions = 3 if "3" in model.classname else 2 if "2" in model.classname else 1
    shape = tuple(sizes[:dimensions])
    return shape if np.prod(shape, dtype=float) == model.member("fNcells") else ()


def _shaped(values: Any, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """ROOT counts bins along x first."""
    array = _native(np.asarray(values))
    if not shape or array.size != int(np.prod(shape)):
        return array
    return array.reshape(shape[::-1]).transpose()


def _native(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return array.astype(array.dtype.newbyteorder("="))


def _renamed(leaf: Leaf, axis: str) -> Leaf:
    """A member of an axis: ``h:x.title`` rather than ``h:x:title``."""
    return Leaf(path=f"{axis}.{leaf.path[len(axis) + 1 :]}", kind=leaf.kind, load=leaf.load, digest=leaf.digest)
