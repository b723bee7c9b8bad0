"""What differs between two files, leaf by leaf: facts that stand whatever is required. Verdicts are made of them later.

Cheapest first: the files' bytes, the digests of leaves, and only then the content of the leaves that differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from preserve.comparators import choosing
from preserve.comparators.choosing import Obstacle, Obstructed
from preserve.comparators.leaves import Leaf, Limits
from preserve.comparators.numbers import Array, NumberFacts, number_facts, same_type
from preserve.digest import Digest, FilePin, hash_file

State = Literal["equal", "volatile", "changed", "unlike", "missing", "extra", "unreadable"]
SHOWN = 200  # characters of a text that are shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How one leaf compares.

    ``state``: equal; volatile (metadata, differing); changed (of one kind, type and shape); unlike (of another kind,
    type or shape); missing (only recorded); extra (only found); unreadable. ``why`` says it in words where that is not
    clear; ``numbers`` are facts of numbers; ``texts`` both sides, shortened, of others. The leaves are kept, so that
    judging can look at them again.
    """

    path: str
    state: State
    kind: str
    why: str = ""
    numbers: NumberFacts | None = None
    texts: tuple[str, str] | None = None
    recorded: Leaf | None = None
    found: Leaf | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFacts:
    """How two files compare. ``None`` for a pin: there is no such file.

    ``reader`` names what read them; ``obstacle`` says why they could not be compared beyond their bytes;
    ``differences`` are all leaves that are not equal, ``equal`` the paths of those that are. ``opaque`` are the paths
    of leaves of which nothing but equality can be said.
    """

    recorded: FilePin | None
    found: FilePin | None
    reader: str = "bytes"
    obstacle: Obstacle | None = None
    differences: tuple[Difference, ...] = ()
    equal: tuple[str, ...] = ()
    opaque: tuple[str, ...] = ()
    read: bool = False

    @property
    def same_bytes(self) -> bool:
        """Whether the files have the same content, byte by byte."""
        return self.recorded is not None and self.found is not None and self.recorded.sha256 == self.found.sha256

    @property
    def paths(self) -> Iterator[str]:
        """All leaf paths, as far as the files were read."""
        yield from self.equal
        yield from (one.path for one in self.differences)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """The two files of a comparison, by pin and, where the bytes are at hand, by path.

    ``name`` is the file's path in the analysis: readers go by its ending.
    """

    name: str
    recorded: FilePin | None
    found: FilePin | None
    recorded_file: Path | None = None
    found_file: Path | None = None


def sides_of(name: str, recorded: Path | None, found: Path | None) -> Sides:
    """Hash two files.

    Raises:
        OSError: one cannot be read.
    """
    return Sides(
        name=name,
        recorded=hash_file(recorded) if recorded else None,
        found=hash_file(found) if found else None,
        recorded_file=recorded,
        found_file=found,
    )


def compare_files(sides: Sides, limits: Limits, *, read_equal: bool = False) -> FileFacts:
    """Compare two files; with ``read_equal`` their leaves are named even if the bytes are the same."""
    facts = FileFacts(recorded=sides.recorded, found=sides.found)
    if sides.recorded is None or sides.found is None or (facts.same_bytes and not read_equal):
        return facts
    try:
        return _read(sides, limits, facts)
    except Obstructed as obstructed:
        return replace(facts, obstacle=obstructed.obstacle)


def compare_leaves(recorded: Mapping[str, Leaf], found: Mapping[str, Leaf]) -> Iterator[Difference]:
    """Compare all leaves by path, the equal ones too, in the order of paths."""
    for path in sorted(recorded.keys() | found.keys()):
        yield _compare(path, recorded.get(path), found.get(path))


def _read(sides: Sides, limits: Limits, facts: FileFacts) -> FileFacts:
    recorded_file, found_file = _at_hand(sides.recorded_file, "recorded"), _at_hand(sides.found_file, "found")
    reader, other = choosing.choose(recorded_file, sides.name), choosing.choose(found_file, sides.name)
    if reader.name != other.name:
        why = f"the recorded file is read as {reader.name}, the found one as {other.name}"
        unlike = Difference(path="", state="unlike", kind="file", why=why)
        return replace(facts, differences=(unlike,), read=True)
    facts = replace(facts, reader=reader.name)
    try:
        recorded = choosing.read_leaves(reader, recorded_file, limits)
        found = recorded if facts.same_bytes else choosing.read_leaves(reader, found_file, limits)
    except Obstructed as obstructed:
        return replace(facts, obstacle=obstructed.obstacle)
    compared = tuple(compare_leaves(recorded, found))
    return replace(
        facts,
        differences=tuple(one for one in compared if one.state != "equal"),
        equal=tuple(one.path for one in compared if one.state == "equal"),
        opaque=tuple(path for path, leaf in recorded.items() if leaf.kind == "opaque"),
        read=True,
    )


def _at_hand(file: Path | None, which: str) -> Path:
    if file is None:
        raise Obstructed(Obstacle(reason=f"the {which} file is known by its digest only: its bytes are not at hand"))
    return file


def _compare(path: str, recorded: Leaf | None, found: Leaf | None) -> Difference:
    if recorded is None or found is None:
        return _one_sided(path, recorded, found)
    if recorded.kind == found.kind and recorded.digest is not None and recorded.digest == found.digest:
        return Difference(path=path, state="equal", kind=recorded.kind)  # even where it cannot be read
    if "unreadable" in (recorded.kind, found.kind):
        why = _reason(recorded, found)
        return Difference(path=path, state="unreadable", kind="unreadable", why=why, recorded=recorded, found=found)
    if recorded.kind != found.kind:
        why = f"{recorded.kind} was recorded, {found.kind} is found"
        return Difference(path=path, state="unlike", kind=recorded.kind, why=why, recorded=recorded, found=found)
    try:
        return _COMPARE[recorded.kind](path, recorded, found)
    except Obstructed as obstructed:
        why = obstructed.obstacle.reason
        return Difference(path=path, state="unreadable", kind=recorded.kind, why=why, recorded=recorded, found=found)


def _one_sided(path: str, recorded: Leaf | None, found: Leaf | None) -> Difference:
    """Give the state of a leaf that only one file has; metadata that come and go stay metadata."""
    kind = (recorded or found).kind  # type: ignore[union-attr]  # one of them is there
    state: State = "missing" if found is None else "extra"
    why = "was recorded and is not there" if found is None else "is new"
    return Difference(
        path=path, state="volatile" if kind == "volatile" else state, kind=kind, why=why, recorded=recorded, found=found
    )


def _reason(*leaves: Leaf) -> str:
    reasons = (str(leaf.load()) for leaf in leaves if leaf.kind == "unreadable")
    return "; ".join(dict.fromkeys(reasons))


def _numbers(path: str, recorded: Leaf, found: Leaf) -> Difference:
    one, other = np.asarray(choosing.load(recorded)), np.asarray(choosing.load(found))
    alike = Difference(path=path, state="equal", kind=recorded.kind, recorded=recorded, found=found)
    if not same_type(one.dtype, other.dtype):
        why = f"type {_type(one)} was recorded, {_type(other)} is found"
        return replace(alike, state="unlike", why=why)
    if one.shape != other.shape:
        why = f"shape {_shape(one)} was recorded, {_shape(other)} is found"
        return replace(alike, state="unlike", why=why)
    facts = number_facts(one, other)
    return replace(alike, state="changed" if facts.n_diff else "equal", numbers=facts)


def _type(values: Array) -> str:
    return str(values.dtype.newbyteorder("="))


def _shape(values: Array) -> str:
    return "x".join(map(str, values.shape)) or "of one number"


def _texts(path: str, recorded: Leaf, found: Leaf) -> Difference:
    return _exact(path, recorded, found, str(choosing.load(recorded)), str(choosing.load(found)))


def _opaque(path: str, recorded: Leaf, found: Leaf) -> Difference:
    if recorded.digest is not None and found.digest is not None:
        return _exact(path, recorded, found, recorded.digest, found.digest)
    return _exact(path, recorded, found, _digest(choosing.load(recorded)), _digest(choosing.load(found)))


def _digest(content: Any) -> str:
    return content if isinstance(content, str) else str(Digest.of(bytes(content)))


def _volatile(path: str, recorded: Leaf, found: Leaf) -> Difference:
    one, other = choosing.load(recorded), choosing.load(found)
    exact = _exact(path, recorded, found, *(v if isinstance(v, str) else bytes(v).hex() for v in (one, other)))
    return exact if exact.state == "equal" else replace(exact, state="volatile")


def _exact(path: str, recorded: Leaf, found: Leaf, one: str, other: str) -> Difference:
    if one == other:
        return Difference(path=path, state="equal", kind=recorded.kind)
    texts = _around_change(one, other)
    return Difference(path=path, state="changed", kind=recorded.kind, texts=texts, recorded=recorded, found=found)


def _around_change(one: str, other: str) -> tuple[str, str]:
    """Shorten two texts to where they begin to differ."""
    if max(len(one), len(other)) <= SHOWN:
        return one, other
    same = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    start = max(0, same - SHOWN // 4)
    return tuple(("…" if start else "") + text[start : start + SHOWN] for text in (one, other))  # type: ignore[return-value]


def _pixels(path: str, recorded: Leaf, found: Leaf) -> Difference:
    one, other = np.asarray(choosing.load(recorded)), np.asarray(choosing.load(found))
    alike = Difference(path=path, state="equal", kind=recorded.kind, recorded=recorded, found=found)
    if one.shape != other.shape or one.dtype != other.dtype:
        why = f"an image of {_shape(one)} was recorded, of {_shape(other)} is found (height, width, channels)"
        return replace(alike, state="unlike", why=why)
    facts = number_facts(one, other)
    return replace(alike, state="changed" if facts.n_diff else "equal", numbers=facts)


_COMPARE: Mapping[str, Callable[[str, Leaf, Leaf], Difference]] = {
    "num": _numbers,
    "text": _texts,
    "pixels": _pixels,
    "opaque": _opaque,
    "volatile": _volatile,
}
