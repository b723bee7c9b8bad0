"""What differs between two files, leaf by leaf: facts that stand whatever is required. Verdicts are made of them later.

Cheapest first: the files' bytes, the digests of leaves, and only then the content of the leaves that differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from preserve.comparators import choosing, fingerprint
from preserve.comparators.choosing import Obstacle, Obstructed
from preserve.comparators.leaves import Leaf, Limits
from preserve.comparators.numbers import Array, NumberFacts, number_facts, same_type
from preserve.digest import Digest, FilePin, hash_file
from preserve.documents.fingerprint import Fingerprint, Rest, Statistics

State = Literal["equal", "volatile", "changed", "unlike", "missing", "extra", "unreadable"]
SHOWN = 200  # characters of a text that are shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How one leaf compares.

    ``state``: equal; volatile (metadata, differing); changed (of one kind, type and shape); unlike (of another kind,
    type or shape); missing (only recorded); extra (only found); unreadable. ``why`` says it in words where that is not
    clear; ``numbers`` are facts of numbers; ``texts`` both sides, shortened, of others; ``statistics`` what is known of
    both sides' numbers where those of one are not at hand. The leaves are kept, so that judging can look at them again.
    """

    path: str
    state: State
    kind: str
    why: str = ""
    numbers: NumberFacts | None = None
    texts: tuple[str, str] | None = None
    statistics: tuple[tuple[Statistics, ...], tuple[Statistics, ...]] | None = None
    recorded: Leaf | None = None
    found: Leaf | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFacts:
    """How two files compare. ``None`` for a pin: there is no such file.

    ``reader`` names what read them; ``obstacle`` says why they could not be compared beyond their bytes;
    ``differences`` are all leaves that are not equal, ``equal`` the paths of those that are. ``opaque`` are the paths
    of leaves of which nothing but equality can be said. ``fingerprints`` says, by side, what stood in for a file whose
    bytes are not at hand.
    """

    recorded: FilePin | None
    found: FilePin | None
    reader: str = "bytes"
    obstacle: Obstacle | None = None
    differences: tuple[Difference, ...] = ()
    equal: tuple[str, ...] = ()
    opaque: tuple[str, ...] = ()
    read: bool = False
    fingerprints: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

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

    ``name`` is the file's path in the analysis: readers go by its ending. A fingerprint is looked at only where the
    bytes are not at hand.
    """

    name: str
    recorded: FilePin | None
    found: FilePin | None
    recorded_file: Path | None = None
    found_file: Path | None = None
    recorded_print: Fingerprint | None = None
    found_print: Fingerprint | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Content:
    """One file's leaves, of its bytes or of its fingerprint; ``rest`` are those that this does not list."""

    reader: str
    leaves: Callable[[], dict[str, Leaf]]
    fingerprint: Fingerprint | None = None

    @property
    def rest(self) -> Rest | None:
        """What a fingerprint says of leaves that it does not list."""
        return self.fingerprint.rest if self.fingerprint is not None else None


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
    recorded = _content(sides.name, sides.recorded_file, sides.recorded_print, limits, "recorded")
    found = _content(sides.name, sides.found_file, sides.found_print, limits, "found")
    used = {"recorded": recorded.fingerprint, "found": found.fingerprint}
    facts = replace(facts, fingerprints={side: fingerprint.described(one) for side, one in used.items() if one})
    if recorded.reader != found.reader:
        why = f"the recorded file is read as {recorded.reader}, the found one as {found.reader}"
        unlike = Difference(path="", state="unlike", kind="file", why=why)
        return replace(facts, differences=(unlike,), read=True)
    facts = replace(facts, reader=recorded.reader)
    try:
        return _with_leaves(facts, recorded, found)
    except Obstructed as obstructed:
        return replace(facts, obstacle=obstructed.obstacle)


def _with_leaves(facts: FileFacts, recorded: _Content, found: _Content) -> FileFacts:
    partial = recorded.rest is not None or found.rest is not None
    if facts.same_bytes and partial:
        return facts  # nothing differs, and of what there is, not all is known
    one = recorded.leaves()
    other = one if facts.same_bytes else found.leaves()
    if recorded.fingerprint is not None or found.fingerprint is not None:
        one, other = fingerprint.renamed(one), fingerprint.renamed(other)
    unlisted: tuple[str, ...] = ()
    if partial:
        one, other, unlisted = _settled(recorded, found, one, other)
    compared = tuple(compare_leaves(one, other))
    return replace(
        facts,
        differences=tuple(difference for difference in compared if difference.state != "equal"),
        equal=(*(difference.path for difference in compared if difference.state == "equal"), *unlisted),
        opaque=tuple(path for path, leaf in one.items() if leaf.kind == "opaque"),
        read=True,
    )


def _settled(
    recorded: _Content, found: _Content, one: dict[str, Leaf], other: dict[str, Leaf]
) -> tuple[dict[str, Leaf], dict[str, Leaf], tuple[str, ...]]:
    """Take the leaves that a fingerprint does not list away from the other side, if they are what it says of them.

    Gives both sides' other leaves, and the paths of those that are equal.

    Raises:
        Obstructed: they are others, or both sides are fingerprints.
    """
    count = max(rest.leaves for rest in (recorded.rest, found.rest) if rest is not None)
    obstacle = Obstacle(
        reason=f"a fingerprint had no room for {count} leaves, and nothing shows that they are the same"
    )
    if recorded.fingerprint is not None and found.fingerprint is not None:
        raise Obstructed(obstacle)
    listed, rest, whole = (one, recorded.rest, other) if recorded.rest is not None else (other, found.rest, one)
    unlisted = {path: leaf for path, leaf in whole.items() if path not in listed and leaf.kind != "volatile"}
    if fingerprint.rest_of(unlisted.values()) != rest:
        raise Obstructed(obstacle)
    left = {path: leaf for path, leaf in whole.items() if path not in unlisted}
    return (one, left, tuple(unlisted)) if recorded.rest is not None else (left, other, tuple(unlisted))


def _content(name: str, file: Path | None, known: Fingerprint | None, limits: Limits, which: str) -> _Content:
    """Give a file's leaves, or what stands in for them."""
    if file is not None:
        reader = choosing.choose(file, name)
        return _Content(reader=reader.name, leaves=lambda: choosing.read_leaves(reader, file, limits))
    reason = f"the {which} file is known by its digest only: its bytes are not at hand"
    if known is None:
        raise Obstructed(Obstacle(reason=reason))
    if known.obstacle is not None:
        raise Obstructed(Obstacle(reason=f"{reason}, and its fingerprint says only why not more: {known.obstacle}"))
    return _Content(reader=known.reader, leaves=lambda: fingerprint.stand_ins(known), fingerprint=known)


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
        kept = recorded.kept is not None or found.kept is not None
        return (_kept if kept else _COMPARE[recorded.kind])(path, recorded, found)
    except Obstructed as obstructed:
        why = obstructed.obstacle.reason
        return Difference(path=path, state="unreadable", kind=recorded.kind, why=why, recorded=recorded, found=found)


def _kept(path: str, recorded: Leaf, found: Leaf) -> Difference:
    """Compare with a leaf of a fingerprint that was too large for it: by digest, and what else is known of it."""
    alike = Difference(path=path, state="equal", kind=recorded.kind, recorded=recorded, found=found)
    digests = fingerprint.digest_of(recorded), fingerprint.digest_of(found)
    if digests[0] is not None and digests[0] == digests[1]:
        return alike
    if recorded.kind in ("text", "volatile"):
        state: State = "volatile" if recorded.kind == "volatile" else "changed"
        return replace(alike, state=state, texts=_kept_texts(recorded, found))
    return _kept_arrays(alike, recorded, found)


def _kept_arrays(alike: Difference, recorded: Leaf, found: Leaf) -> Difference:
    """Say what is known of arrays with other digests."""
    one, other = fingerprint.shortly(recorded), fingerprint.shortly(found)
    if reasons := [known.why for known in (one, other) if known.why is not None]:
        return replace(alike, state="unreadable", why="; ".join(dict.fromkeys(reasons)))
    if one.dtype != other.dtype:
        return replace(alike, state="unlike", why=f"type {one.dtype} was recorded, {other.dtype} is found")
    if one.shape != other.shape:
        return replace(alike, state="unlike", why=f"shape {one.shape} was recorded, {other.shape} is found")
    known = (one.statistics, other.statistics) if one.statistics and other.statistics else None
    return replace(alike, state="changed", statistics=known, why="its digest is another")


def _kept_texts(recorded: Leaf, found: Leaf) -> tuple[str, str]:
    """Say of two texts what is known of them."""

    def said(leaf: Leaf) -> str:
        if leaf.kept is not None:
            return f"({leaf.kept.length} characters, known by their digest only)"
        content = choosing.load(leaf)
        text = content if isinstance(content, str) else bytes(content).hex()
        return text if len(text) <= SHOWN else text[:SHOWN] + "…"

    return said(recorded), said(found)


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
    both = choosing.load_both(recorded, found)
    if both is None:
        return Difference(path=path, state="equal", kind=recorded.kind)
    one, other = map(np.asarray, both)
    why, facts = "", None
    if not same_type(one.dtype, other.dtype):
        why = f"type {_type(one)} was recorded, {_type(other)} is found"
    elif one.shape != other.shape:
        why = f"shape {_shape(one)} was recorded, {_shape(other)} is found"
    else:
        facts = number_facts(one, other)
    kind = recorded.kind
    if facts is not None and not facts.n_diff:
        return Difference(path=path, state="equal", kind=kind)
    state: State = "unlike" if facts is None else "changed"
    return Difference(path=path, state=state, kind=kind, why=why, numbers=facts, recorded=recorded, found=found)


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
