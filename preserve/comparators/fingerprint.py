"""Take the fingerprint of a result's file, and give its leaves back: what stands in for a file that is not at hand."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from preserve.comparators import choosing
from preserve.comparators.choosing import Obstacle, Obstructed
from preserve.comparators.contents import content_digest, statistics, type_name
from preserve.comparators.leaves import Leaf, Limits, Unreadable
from preserve.digest import Digest, FilePin
from preserve.documents.fingerprint import (
    INFINITE,
    MAX_BYTES,
    MOST_WORDS,
    PACKED,
    READERS,
    WHOLE_NUMBERS,
    WHOLE_TEXT,
    Fingerprint,
    LeafPrint,
    Rest,
)

_ROOM = MAX_BYTES - (64 << 10)  # bytes for leaves
_FEW = 8  # numbers, and
_LINE = 100  # characters of a leaf by whose digest nothing would be gained
_LIBRARIES = {
    "root": ("uproot", "awkward"),
    "hdf5": ("h5py",),
    "arrow": ("pyarrow",),
    "image": ("pillow",),
    "pdf": ("pypdfium2",),
}
NOT_KEPT = "of one side only a digest and statistics were kept, which do not say how far each number is off"
_MISSING = re.compile(r"(\w+) is not installed: pip install")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Taken:
    """One leaf: shortly, and (``whole``) with its content where that is small and longer than the short form."""

    short: LeafPrint
    whole: LeafPrint | None = None

    @property
    def digest(self) -> Digest | None:
        """The content's; ``None``: it could not be read."""
        return self.short.digest if not self.short.whole else digest_of(_stand_in(self.short))

    @property
    def identity(self) -> str:
        """Say what it is, for the digest of those that are not listed."""
        return json.dumps([self.short.path, self.short.kind, self.digest, self.short.why])


def take(file: Path, name: str, pin: FilePin, limits: Limits) -> Fingerprint:
    """Take a file's fingerprint; ``name`` is what it is called in the analysis, ``pin`` its content's.

    One that cannot be read has a fingerprint of its bytes, which says why.

    Raises:
        OSError: the file is not there.
    """
    reader = choosing.choose(file, name)
    try:
        taken = [_taken(leaf) for leaf in renamed(choosing.read_leaves(reader, file, limits)).values()]
    except Obstructed as obstructed:
        return unread(pin, reader.name, obstructed.obstacle.reason)
    leaves, shortened, rest = fitted(taken, _ROOM)
    reasons = (one.short.why or "" for one in taken if one.short.kind == "unreadable")
    return Fingerprint(
        sha256=pin.sha256,
        size=pin.size,
        reader=reader.name,
        versions=versions(reader.name),
        missing=next((found[1] for why in reasons if (found := _MISSING.search(why))), None),
        shortened=shortened,
        rest=rest,
        leaves=leaves,
    )


def unread(pin: FilePin, reader: str, reason: str) -> Fingerprint:
    """Give the fingerprint of a file that could not be read, for this reason."""
    found, reason = _MISSING.search(reason), _words(reason)
    missing = found[1] if found else None
    return Fingerprint(sha256=pin.sha256, size=pin.size, reader=reader, obstacle=reason, missing=missing)


def versions(reader: str) -> dict[str, str]:
    """Give the versions of what a built-in reader reads with."""
    libraries = ("numpy", *_LIBRARIES.get(reader, ()))
    return {"preserve": READERS, **{name: _version(name) for name in libraries}}


def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def renamed(leaves: Mapping[str, Leaf]) -> dict[str, Leaf]:
    """Give leaves under the paths that they have in a fingerprint, sorted by these.

    Raises:
        Obstructed: two paths are the same there.
    """
    found = {_words(path): leaf for path, leaf in leaves.items()}
    if len(found) < len(leaves):
        raise Obstructed(Obstacle(reason="two of its parts have names that cannot be told apart in writing"))
    return {path: _under(path, found[path]) for path in sorted(found)}


def _under(path: str, leaf: Leaf) -> Leaf:
    return leaf if leaf.path == path else replace(leaf, path=path)


def stand_ins(fingerprint: Fingerprint) -> dict[str, Leaf]:
    """Give the leaves that a fingerprint lists; those not kept whole say so when they are loaded."""
    return {leaf.path: _stand_in(leaf) for leaf in fingerprint.leaves}


def rest_of(leaves: Iterable[Leaf]) -> Rest | None:
    """Say of some leaves what a fingerprint says of those that it does not list; ``None``: one cannot be read."""
    taken = [_taken(leaf) for leaf in leaves]
    return _rest(taken) if all(one.digest is not None for one in taken) else None


def digest_of(leaf: Leaf) -> Digest | None:
    """Give a leaf's digest as fingerprints have it; ``None``: there is none, so that it equals no other.

    Raises:
        Obstructed: the leaf cannot be read.
    """
    return leaf.kept.digest if leaf.kept is not None else content_digest(leaf.kind, choosing.load(leaf))


def shortly(leaf: Leaf) -> LeafPrint:
    """Give what a fingerprint would keep of a leaf that is too large to be kept whole.

    Raises:
        Obstructed: the leaf cannot be read.
    """
    return leaf.kept if leaf.kept is not None else _short(leaf, choosing.load(leaf))


def fitted(taken: list[_Taken], room: int) -> tuple[tuple[LeafPrint, ...], int, Rest | None]:
    """Choose what fits into ``room`` bytes: all leaves shortly, then the smallest whole ones in place of these.

    Gives the leaves, how many of them were shortened for want of room, and what stands for those that do not fit.
    """
    listed: list[_Taken] = []
    for one in taken:
        room -= _length(one.short)
        if room < 0:
            break
        listed.append(one)
    unlisted = [one for one in taken[len(listed) :] if one.short.kind != "volatile"]  # which decides nothing
    rest = _rest(unlisted) if unlisted else None
    leaves, shortened = {one.short.path: one.short for one in listed}, 0
    growths = [(_length(one.whole) - _length(one.short), one.whole) for one in listed if one.whole is not None]
    for growth, whole in sorted(growths, key=lambda pair: (pair[0], pair[1].path)):
        if growth <= room:
            room -= growth
            leaves[whole.path] = whole
        else:
            shortened += 1
    return tuple(leaves.values()), shortened, rest


def _length(leaf: LeafPrint) -> int:
    return len(leaf.line().encode()) + 8


def _rest(taken: Sequence[_Taken]) -> Rest:
    """Say of leaves, sorted by path, what they are together."""
    state = hashlib.sha256()
    for one in taken:
        state.update(one.identity.encode() + b"\n")
    return Rest(leaves=len(taken), digest=Digest("sha256:" + state.hexdigest()))


def _taken(leaf: Leaf) -> _Taken:
    try:
        content = choosing.load(leaf)
        whole = _whole(leaf, content)
        if whole is not None and (np.size(content) <= _FEW if whole.text is None else len(whole.text) <= _LINE):
            return _Taken(short=whole)
        return _Taken(short=_short(leaf, content), whole=whole)
    except (Obstructed, MemoryError) as error:
        why = error.obstacle.reason if isinstance(error, Obstructed) else "needs more memory than there is"
        return _Taken(short=LeafPrint(path=leaf.path, kind=leaf.kind, why=_words(why)))


def _short(leaf: Leaf, content: Any) -> LeafPrint:
    """Give what is kept of a leaf that is too large to be kept whole."""
    path = leaf.path
    if leaf.kind == "unreadable":
        digest = leaf.digest if isinstance(leaf.digest, Digest) else None
        return LeafPrint(path=path, kind=leaf.kind, why=_words(str(content)), digest=digest)
    digest = content_digest(leaf.kind, content)
    if digest is None:
        return LeafPrint(path=path, kind=leaf.kind, why="an array of Python objects")
    if leaf.kind in ("num", "pixels"):
        array = np.asarray(content)
        known = statistics(array) if leaf.kind == "num" else ()
        dtype, shape = type_name(array.dtype), tuple(map(int, array.shape))
        return LeafPrint(path=path, kind=leaf.kind, dtype=dtype, shape=shape, digest=digest, statistics=known)
    length = len(content) if leaf.kind != "opaque" else None
    return LeafPrint(path=path, kind=leaf.kind, digest=digest, length=length)


def _whole(leaf: Leaf, content: Any) -> LeafPrint | None:
    """Give the leaf with its content; ``None``: that is too large, or of a kind that is known by its digest."""
    if leaf.kind in ("text", "volatile"):
        small = isinstance(content, str) and len(content) <= WHOLE_TEXT and _is_unicode(content)
        return LeafPrint(path=leaf.path, kind=leaf.kind, text=content) if small else None
    if leaf.kind != "num" or np.size(content) > WHOLE_NUMBERS:
        return None
    array = np.ascontiguousarray(content)
    dtype = type_name(array.dtype)
    if dtype not in PACKED:
        return None
    flat = array.astype(array.dtype.newbyteorder("="), copy=False).reshape(-1)
    values = (flat.view(flat.real.dtype) if flat.dtype.kind == "c" else flat).tolist()
    if flat.dtype.kind in "fc":
        values = [value if np.isfinite(value) else str(value) for value in values]
    shape = tuple(map(int, np.shape(content)))
    return LeafPrint(path=leaf.path, kind=leaf.kind, dtype=dtype, shape=shape, values=tuple(values))


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= sign <= "\udfff" for sign in text)


def _words(text: str) -> str:
    """Give a path or a reason as a fingerprint can have it; a long one ends in its digest."""
    if text.isascii() and len(text) <= MOST_WORDS:
        return text
    plain = text.encode("utf-8", "backslashreplace").decode()
    return plain if len(plain) <= MOST_WORDS else f"{plain[: MOST_WORDS - 100]}…{Digest.of(plain.encode()).hex}"


def _stand_in(known: LeafPrint) -> Leaf:
    kind: Any = known.kind
    if known.values is not None:
        return Leaf(path=known.path, kind=kind, load=_numbers(known))
    if known.text is not None:
        return Leaf(path=known.path, kind=kind, load=lambda: known.text)
    if kind == "opaque" and known.digest is not None:
        return Leaf(path=known.path, kind=kind, load=lambda: str(known.digest))
    if kind == "unreadable":
        return Leaf(path=known.path, kind=kind, load=lambda: known.why, digest=known.digest)
    return Leaf(path=known.path, kind=kind, load=_refusing(known), kept=known)


def _numbers(known: LeafPrint) -> Callable[[], Any]:
    def load() -> Any:
        dtype = np.dtype(known.dtype)
        parts = np.dtype(f"<f{dtype.itemsize // 2}") if dtype.kind == "c" else dtype
        values = [float(value) if value in INFINITE else value for value in known.values or ()]
        return np.array(values, dtype=parts).view(dtype).reshape(known.shape or ())

    return load


def _refusing(known: LeafPrint) -> Callable[[], Any]:
    def load() -> Any:
        raise Unreadable(NOT_KEPT if known.why is None else f"it was not kept: {known.why}")

    return load


def described(fingerprint: Fingerprint) -> dict[str, Any]:
    """Say in a comparison's facts what stood in for a file, and with what else it would be read here."""
    unlisted = fingerprint.rest.leaves if fingerprint.rest else 0
    here = versions(fingerprint.reader)
    return {
        "versions": dict(fingerprint.versions),
        "versions_here": {name: here[name] for name in here if here[name] != fingerprint.versions.get(name)},
        "leaves": len(fingerprint.leaves) + unlisted,
        "whole": sum(leaf.whole for leaf in fingerprint.leaves),
        "unlisted": unlisted,
    }
