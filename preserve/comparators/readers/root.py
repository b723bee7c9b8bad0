"""ROOT files: every key of every directory; nothing of the file's own code or of another file is used."""

from __future__ import annotations

import os
import re
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import Any

from preserve.comparators.extras import library
from preserve.comparators.leaves import Leaf, Limits, TooMuch, Unreadable
from preserve.comparators.making import kept, opaque, text, unreadable
from preserve.comparators.readers.root_objects import NotUnderstood, leaves_of_object
from preserve.comparators.readers.root_trees import TREE_CONTENT, leaves_of_ntuple, leaves_of_tree
from preserve.comparators.trial import survive

_HARMLESS = 64 << 20  # bytes: below this nothing is said about the ratio of unpacked to packed
# uproot writes the names in a file's description of its classes into Python code: none of these may be in them.
_NO_NAME = re.compile(r"[{}'\"\\`;=\n\r\0]")
_DESCRIBED = ("fName", "fTypeName", "fCountName", "fCountClass")
_TREES = ("TTree", "TNtuple", "TNtupleD", "TChain")


class Root:
    """Objects by their place: ``dir/h:values``, ``dir/h:x.edges``, ``tree/px``; older cycles as ``h;1``."""

    name = "root"

    def sniff(self, head: bytes, name: str) -> int:
        """Sure by the first four bytes."""
        return 95 if head.startswith(b"root") else 0

    def leaves(self, file: Path, limits: Limits) -> Iterator[Leaf]:
        """Yield the leaves of every key.

        Raises:
            TooMuch: a limit was passed.
            Unreadable: the file is broken.
            MissingExtra: uproot or awkward is not installed.
        """
        with ThreadPoolExecutor(1) as beside:
            trial = beside.submit(copy_context().run, survive, self.name, file, limits)
            library("uproot", "root")  # a second's work, here and in the other process: at once
            trial.result()
        return kept(_leaves(file, limits), limits)

    def attempt(self, file: Path, limits: Limits) -> Iterator[Leaf]:
        """Yield what may harm whoever reads it: for the other process (trial.py)."""
        return kept(_leaves(file, limits, attempt=True), limits)


class _Bytes:
    """A file as uproot wants it; closed when nobody reads it any more."""

    def __init__(self, file: Path) -> None:
        self._number = os.open(file, os.O_RDONLY)
        self._place = 0
        self._closing = weakref.finalize(self, os.close, self._number)

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return not self._closing.alive

    def seek(self, place: int, _whence: int = 0) -> int:
        """Go to a place, counted in bytes from the beginning."""
        self._place = place
        return place

    def read(self, length: int = -1) -> bytes:
        """Give the next bytes: fewer at the file's end."""
        found = self.at(self._place, length if length >= 0 else os.fstat(self._number).st_size)
        self._place += len(found)
        return found

    def at(self, place: int, length: int) -> bytes:
        """Give the bytes at a place."""
        size = os.fstat(self._number).st_size
        return os.pread(self._number, max(0, min(length, size - place)), place)


def _leaves(file: Path, limits: Limits, *, attempt: bool = False) -> Iterator[Leaf]:
    uproot = library("uproot", "root")
    library("awkward", "root")
    content = _Bytes(file)
    try:
        options = {"use_threads": False, "num_workers": 1, "minimal_ttree_metadata": False}
        opened = uproot.open(content, object_cache=None, array_cache=None, **options)
        if opened.file.fEND > file.stat().st_size:
            raise Unreadable(f"was cut short: it says that it has {opened.file.fEND} bytes")
        _check_descriptions(opened.file)
        yield text("file", f"{opened.file.uuid} {opened.file.compression} {opened.file.root_version}", volatile=True)
        yield text("file:classes", "\n".join(sorted(opened.file.streamers)), volatile=True)
        yield from _Keys(content, limits, attempt=attempt).of(opened, "", 0)
    except (TooMuch, Unreadable):
        raise
    # uproot raises what struct, numpy, a decompressor or the classes meet that it makes from the file's own description
    # of them: there is no list. A slip of ours ends here too, as a file that never passes.
    except Exception as error:
        raise Unreadable(f"is no ROOT file that can be read: {type(error).__name__}: {error}") from error


def _check_descriptions(file: Any) -> None:
    """Look through what the file says of its classes before a class is made of it.

    Raises:
        Unreadable: a name there could be more than a name.
    """
    for name, versions in file.streamers.items():
        elements = [element for info in versions.values() for element in info.elements]
        words = [name, *(str(info.name) for info in versions.values())]
        for element in elements:
            words += [str(element.member(word)) for word in _DESCRIBED if element.has_member(word)]
        for word in words:
            if _NO_NAME.search(word):
                raise Unreadable(f"describes a class with the name {word[:80]!r}")


class _Keys:
    """The directories of a file, one after the other."""

    def __init__(self, content: _Bytes, limits: Limits, *, attempt: bool) -> None:
        self._content, self._limits, self._attempt = content, limits, attempt
        self._count = 0

    def of(self, directory: Any, path: str, depth: int) -> Iterator[Leaf]:
        """Yield the leaves of a directory's keys and of the directories in it."""
        if depth > self._limits.depth:
            raise TooMuch(f"directories nested more than {self._limits.depth} deep")
        yield text(f"{path}:times", f"{directory.created_on} {directory.modified_on}", volatile=True)
        newest: dict[str, Any] = {}
        for key in sorted(directory._keys, key=lambda one: (one.name(), -one.fCycle)):
            self._count += 1
            if self._count > self._limits.members:
                raise TooMuch(f"more than {self._limits.members} keys")
            name = key.name() if key.name() not in newest else f"{key.name()};{key.fCycle}"
            first = newest.setdefault(key.name(), key)
            yield from self._key(f"{path}/{name}" if path else name, key, first, depth)

    def _key(self, path: str, key: Any, newest: Any, depth: int) -> Iterator[Leaf]:
        kind = key.fClassName
        self._check_size(path, key)
        if key is not newest and kind in _TREES and newest.fClassName == kind and _is_backup(key.get(), newest.get()):
            yield text(f"{path}:backup", "of the tree when it was not finished", volatile=True)
            return
        yield text(f"{path}:written", str(key.fDatime), volatile=True)
        yield text(f"{path}:key", f"{kind}: {key.fTitle}", volatile=kind == "TProcessID")
        if kind.startswith("TDirectory"):
            yield from self.of(key.get(), path, depth + 1)
            return
        yield from self._content_of(path, key)

    def _check_size(self, path: str, key: Any) -> None:
        unpacked, packed = key.data_uncompressed_bytes, key.data_compressed_bytes
        if unpacked > self._limits.bytes:
            raise TooMuch(f"{path} is longer than {self._limits.bytes} bytes")
        if unpacked > max(_HARMLESS, self._limits.ratio * packed):
            raise TooMuch(f"{path} says that it unpacks to more than {self._limits.ratio} times its size")

    def _content_of(self, path: str, key: Any) -> Iterator[Leaf]:
        if key.fClassName == "TProcessID":  # its title is a UUID
            return
        if key.fClassName.endswith("RNTuple"):
            yield from leaves_of_ntuple(path, key.get(), self._limits)
            return
        if key.fClassName in _TREES:
            tree = key.get()
            yield from _of_tree_itself(path, tree, self._limits.depth)
            yield from leaves_of_tree(path, tree, self._content.at, self._limits, attempt=self._attempt)
            return
        try:
            leaves = leaves_of_object(path, key.get(), self._limits.depth)
        except TooMuch:
            raise
        # Whatever uproot raises, or NotUnderstood: the bytes are there, and must then be the same, all of them.
        except Exception:
            chunk, _ = key.get_uncompressed_chunk_cursor()
            leaves = [opaque(f"{path}:bytes", bytes(chunk.raw_data))]
        yield from leaves


def _is_backup(older: Any, newest: Any) -> bool:
    """Whether an older cycle is what ROOT saved of the same tree while it was filled: its baskets are all in both."""
    before, after = dict(older.iteritems(recursive=True)), dict(newest.iteritems(recursive=True))
    if list(before) != list(after) or older.num_entries > newest.num_entries:
        return False
    places = [(_places(before[name]), _places(after[name])) for name in before]
    return any(old for old, _ in places) and all(old == new[: len(old)] for old, new in places)


def _places(branch: Any) -> list[int]:
    return [int(place) for place in branch.member("fBasketSeek") if place]


def _of_tree_itself(path: str, tree: Any, depth: int) -> Iterator[Leaf]:
    """Yield what a tree holds beside its branches: aliases, indices, what the user attached."""
    for name in TREE_CONTENT:
        value = tree.member(name, none_if_missing=True)
        if value is None or isinstance(value, str):
            continue
        try:
            yield from leaves_of_object(f"{path}:{name}", value, depth)
        except NotUnderstood as error:
            yield unreadable(f"{path}:{name}", str(error))
