"""Events of generators as text: HepMC 2 and 3, Les Houches. Numbers go by kind of line, for tolerances' sake."""

from __future__ import annotations

import hashlib
import re
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from preserve.comparators.leaves import Leaf, Limits, TooMuch, Unreadable
from preserve.comparators.making import digest_of, kept, numbers_apart, text
from preserve.digest import Digest

_LINE = 1 << 20  # characters: no line of an event file is longer
_DATED = re.compile(r"(?i)[#<!\s-]*(generated|created|written|run|started|date)\b.*\b(19|20)\d\d\b")
_WRITER = ("HepMC::Version",)
_HEADER, _INIT, _EVENT = "header", "init", "event"


@dataclass(slots=True)
class _Lines:
    """All lines of one kind: what is left of them without their numbers, and the numbers."""

    rest: hashlib._Hash = field(default_factory=hashlib.sha256)
    numbers: array[float] = field(default_factory=lambda: array("d"))

    def add(self, line: str) -> None:
        left, found = numbers_apart(line)
        self.rest.update(left.encode() + b"\n")
        self.numbers.extend(found)


class _Events:
    """What the two formats have in common: one pass gives all lines by kind, and their order."""

    def __init__(self, kind_of: Callable[[str, str], tuple[str, str]]) -> None:
        self._kind_of = kind_of

    def leaves(self, file: Path, limits: Limits) -> Iterator[Leaf]:
        lines: dict[str, _Lines] = {}
        order = hashlib.sha256()
        headers: list[str] = []
        dated: list[str] = []
        place, size = "", 0
        for line in _read(file):
            size += len(line)
            if size > limits.bytes:
                raise TooMuch(f"longer than {limits.bytes} bytes")
            place, kind = self._kind_of(place, line)
            if kind == _HEADER:
                (dated if _DATED.match(line) or line.startswith(_WRITER) else headers).append(line)
                continue
            order.update(kind.encode() + b"\n")
            lines.setdefault(kind, _Lines()).add(line)
        yield text("header", "\n".join(headers))
        yield text("header:written", "\n".join(dated), volatile=True)
        yield _digest("order of lines", order)
        for kind, found in lines.items():
            yield _digest(f"{kind}:words", found.rest)
            yield _numbers(kind, found.numbers)


def _read(file: Path) -> Iterator[str]:
    with file.open(encoding="utf-8", errors="surrogateescape", newline="\n") as stream:
        while line := stream.readline(_LINE):
            if len(line) == _LINE:
                raise Unreadable(f"has a line of more than {_LINE} characters")
            yield line.rstrip("\r\n")


def _digest(path: str, state: hashlib._Hash) -> Leaf:
    digest = Digest("sha256:" + state.hexdigest())
    return Leaf(path=path, kind="opaque", load=lambda: digest, digest=digest)


def _numbers(path: str, numbers: array[float]) -> Leaf:
    values = np.frombuffer(numbers) if numbers else np.zeros(0)
    return Leaf(path=path, kind="num", load=lambda: values, digest=digest_of(values))


class HepMC:
    """HepMC's ASCII forms: ``P`` (particles), ``V`` (vertices), ``W`` (weights) ... of all events."""

    name = "hepmc"

    def sniff(self, head: bytes, name: str) -> int:
        """Sure by the first line."""
        return 95 if head.lstrip().startswith(b"HepMC::") else 0

    def leaves(self, file: Path, limits: Limits) -> Iterator[Leaf]:
        """Yield the leaves of all events.

        Raises:
            TooMuch: a limit was passed.
            Unreadable: the listing does not end, or a line does not.
        """
        return kept(_Events(_hepmc).leaves(_ended(file), limits), limits)


def _hepmc(_place: str, line: str) -> tuple[str, str]:
    word = line.partition(" ")[0]
    return "", word if re.fullmatch(r"[A-Z]", word) else _HEADER


def _ended(file: Path) -> Path:
    """Give the file back if its listing ends: the writer's last line.

    Raises:
        Unreadable: it was cut short.
    """
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - 4096))
        if b"END_EVENT_LISTING" not in stream.read():
            raise Unreadable("its listing of events has no end")
    return file


class Lhe:
    """Les Houches event files: ``header``, ``init`` and ``event`` (numbers of all lines of all events)."""

    name = "lhe"

    def sniff(self, head: bytes, name: str) -> int:
        """Sure by the first element."""
        return 96 if b"<LesHouchesEvents" in head[:4096] else 0

    def leaves(self, file: Path, limits: Limits) -> Iterator[Leaf]:
        """Yield the leaves of all events.

        Raises:
            TooMuch: a limit was passed.
            Unreadable: the file does not end, or a line does not.
        """
        with file.open("rb") as stream:
            stream.seek(max(0, file.stat().st_size - 4096))
            if b"</LesHouchesEvents>" not in stream.read():
                raise Unreadable("its events have no end")
        return kept(_Events(_lhe).leaves(file, limits), limits)


def _lhe(place: str, line: str) -> tuple[str, str]:
    word = line.strip()
    if word.startswith("<init"):
        return _INIT, _INIT
    if word.startswith("<event"):
        return _EVENT, _EVENT
    if word.startswith(("</init", "</event", "</LesHouches")):
        return "", place or _HEADER
    return place, place or _HEADER
