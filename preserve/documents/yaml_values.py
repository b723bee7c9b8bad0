"""Any YAML, as plain values: for files that are compared. (preserve.yaml is read strictly: yaml12.py.)

Aliases are followed, tags stay visible, nothing is constructed. Scalars mean what YAML 1.2's core schema says, and
infinities and NaN are numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from preserve.documents.yaml12 import NotAScalar, resolve_plain
from preserve.errors import UserError

_EVENTS: Any = yaml.CBaseLoader if yaml.__with_libyaml__ else yaml.BaseLoader
_STANDARD = "tag:yaml.org,2002:"


class TooManyValues(UserError):
    """The file has more values (aliases followed), or is nested deeper, than is allowed."""


Pairs = Callable[[list[tuple[str, Any]]], Any]


def read_values(data: bytes, file: str, *, pairs: Pairs, most: int, depth: int) -> list[Any]:
    """Read all documents of a stream; ``pairs`` makes a mapping of its items, keys perhaps twice.

    Keys are texts as written (a key that is a mapping or list is refused).

    Raises:
        UserError: it is no YAML, or a key is not a scalar.
        TooManyValues: more than ``most`` values, or nested more than ``depth`` deep.
    """
    try:
        builder = _Builder(yaml.parse(data, Loader=_EVENTS), file, pairs, most, depth)
        return list(builder.documents())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not readable as YAML: {error}") from error


@dataclass(frozen=True, slots=True)
class _Anchored:
    """What an alias stands for, and how many values that is."""

    value: Any
    count: int


class _Builder:
    """Makes values of events; ``most`` bounds what aliases can multiply."""

    def __init__(self, events: Iterator[Any], file: str, pairs: Pairs, most: int, depth: int) -> None:
        self._events, self._file, self._pairs, self._most, self._depth = events, file, pairs, most, depth
        self._anchors: dict[str, _Anchored] = {}
        self._count = 0

    def documents(self) -> Iterator[Any]:
        """Yield the value of each document."""
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                self._anchors.clear()
                yield self._value(next(self._events), 0)

    def _value(self, event: Any, depth: int) -> Any:
        before = self._count
        self._more(1)
        if depth > self._depth:
            raise TooManyValues(f"{self._file}: nested more than {self._depth} deep")
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        value = self._content(event, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = _Anchored(value, self._count - before)
        return value

    def _alias(self, event: Any) -> Any:
        if event.anchor not in self._anchors:
            raise UserError(f"{self._file}: line {event.start_mark.line + 1}: no anchor {event.anchor!r} before it")
        anchored = self._anchors[event.anchor]
        self._more(anchored.count)
        return anchored.value

    def _content(self, event: Any, depth: int) -> Any:
        if isinstance(event, yaml.ScalarEvent):
            return _scalar(event)
        if isinstance(event, yaml.SequenceStartEvent):
            value: Any = list(self._items(depth))
        else:
            value = self._pairs(self._entries(depth))
        tag = _foreign(event.tag)
        return self._pairs([(f"!{tag}", value)]) if tag else value

    def _items(self, depth: int) -> Iterator[Any]:
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            yield self._value(event, depth + 1)

    def _entries(self, depth: int) -> list[tuple[str, Any]]:
        entries = []
        while not isinstance(key := next(self._events), yaml.MappingEndEvent):
            if not isinstance(key, yaml.ScalarEvent):
                raise UserError(f"{self._file}: line {key.start_mark.line + 1}: a key that is not a plain text")
            entries.append((key.value, self._value(next(self._events), depth + 1)))
        return entries

    def _more(self, count: int) -> None:
        self._count += count
        if self._count > self._most:
            raise TooManyValues(f"{self._file}: more than {self._most} values")


def _foreign(tag: str | None) -> str | None:
    """Give a tag that says more than the form does."""
    if tag in (None, "!", *(_STANDARD + kind for kind in ("str", "int", "float", "map", "seq", "bool", "null"))):
        return None
    return tag


def _scalar(event: Any) -> Any:
    text: str = event.value
    if tag := _foreign(event.tag):
        return f"!{tag} {text}"
    if event.style or event.tag in ("!", _STANDARD + "str"):
        return text
    if text.lower().lstrip("+-") == ".inf":
        return -math.inf if text.startswith("-") else math.inf
    if text.lower() == ".nan":
        return math.nan
    try:
        return resolve_plain(text)
    except NotAScalar:
        return text  # a number that no type of ours holds: its digits
