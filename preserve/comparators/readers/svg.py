"""SVG: every element's text, attributes and geometry; random names and dates never decide."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.parsers import expat

from preserve.comparators.leaves import Leaf, Limits, TooMuch, Unreadable
from preserve.comparators.making import MOST_NAMES, document, kept, number, numbers_apart, read_bytes, text

# Attributes that are numbers, perhaps with letters between: a tolerance can be given for them.
_SHAPES = ("d", "points", "transform", "viewBox")
_PLACES = ("x", "y", "x1", "y1", "x2", "y2", "cx", "cy", "r", "rx", "ry", "dx", "dy", "width", "height")
_GEOMETRY = frozenset((*_SHAPES, *_PLACES))
_GENERATED = re.compile(r"[a-z]{0,8}[_-]?(?=[a-f]*[0-9])[0-9a-f]{6,}|[a-z]{1,5}[0-9a-f]{10}", re.ASCII)
_METADATA = "/metadata/"  # below it nothing is drawn: who made it when, and of what
_CHILD = "\ufffc"  # where in a text an element stands
_REFERENCE = re.compile(r"#([\w.:-]+)")
_DATED = re.compile(r"\s*(Creator|CreationDate)\s*:")  # ROOT writes them into the title


class Svg:
    """Elements by their place: ``svg/g[1]/path[2]@d``; names that a program made up are replaced by their order."""

    name = "svg"

    def sniff(self, head: bytes, name: str) -> int:
        """Sure if an svg element begins in the head."""
        return 95 if re.search(rb"<svg[\s>]", head) and head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<") else 0

    def leaves(self, file: Path, limits: Limits) -> Iterator[Leaf]:
        """Yield the leaves of every element.

        Raises:
            TooMuch: a limit was passed.
            Unreadable: it is not well-formed, or defines entities.
        """
        return kept(_Reading(limits).of(read_bytes(file, limits)), limits)


@dataclass(slots=True)
class _Element:
    """What the parser has met of an element so far."""

    path: str
    tag: str
    attributes: dict[str, str]
    children: int = 0
    words: list[str] = field(default_factory=list)


class _Reading:
    """One pass of the parser over a file."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._elements: list[_Element] = []
        self._open: list[_Element] = []
        self._named = 0
        self._comments: list[str] = []

    def of(self, content: bytes) -> Iterator[Leaf]:
        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        parser.CommentHandler = self._comments.append
        parser.ProcessingInstructionHandler = self._instruction
        parser.StartDoctypeDeclHandler = _doctype
        parser.EntityDeclHandler = _entity
        try:
            parser.Parse(content, True)
        except expat.ExpatError as error:
            raise Unreadable(f"is not well-formed: {error}") from error
        return self._leaves()

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        if len(self._open) >= self._limits.depth:
            raise TooMuch(f"nested more than {self._limits.depth} deep")
        if len(self._elements) >= self._limits.leaves:
            raise TooMuch(f"more than {self._limits.leaves} elements")
        path = tag
        if self._open:
            parent = self._open[-1]
            path = f"{parent.path}/{tag}"
            if tag != "metadata":  # which are there or not without any change to the drawing
                parent.children += 1  # over all kinds: what comes later is drawn above
                parent.words.append(_CHILD)
                path += f"[{parent.children}]"
        self._named += len(path)
        if self._named > MOST_NAMES:
            raise TooMuch(f"the names of its elements have more than {MOST_NAMES} characters")
        self._elements.append(_Element(path, tag, attributes))
        self._open.append(self._elements[-1])

    def _end(self, _tag: str) -> None:
        self._open.pop()

    def _characters(self, data: str) -> None:
        if self._open:
            self._open[-1].words.append(data)

    def _instruction(self, target: str, data: str) -> None:
        self._comments.append(f"{target} {data}")

    def _leaves(self) -> Iterator[Leaf]:
        names = _ordinals(element.attributes.get("id") for element in self._elements)
        yield text("generated names", "\n".join(names), volatile=True)
        yield text("comments", "\n".join(self._comments), volatile=True)
        metadata = [element for element in self._elements if _METADATA in f"{element.path}/"]
        yield text(
            "metadata", "\n".join(repr((e.tag, e.attributes, "".join(e.words))) for e in metadata), volatile=True
        )
        for element in self._elements:
            if _METADATA in f"{element.path}/":
                continue
            attributes = {name: _renamed(value, names) for name, value in element.attributes.items()}
            yield from _element(element.path, element.tag, attributes)
            yield from _content(element.path, _renamed("".join(element.words), names))


def _ordinals(names: Iterator[str | None]) -> dict[str, str]:
    """Give what a name is called instead, for those that a program made of random digits."""
    made = dict.fromkeys(name for name in names if name is not None and _GENERATED.fullmatch(name))
    return {name: f"generated-{place}" for place, name in enumerate(made, 1)}


def _renamed(value: str, names: dict[str, str]) -> str:
    if value in names:
        return names[value]
    return _REFERENCE.sub(lambda match: "#" + names.get(match[1], match[1]), value)


def _element(path: str, tag: str, attributes: dict[str, str]) -> Iterator[Leaf]:
    geometry = {name: attributes[name] for name in attributes if name in _GEOMETRY}
    yield document(path, [tag, {name: value for name, value in attributes.items() if name not in geometry}])
    for name, value in geometry.items():
        rest, numbers = numbers_apart(value, packed=True)
        yield text(f"{path}@{name}:form", "".join(rest.replace(",", " ").split()))
        yield number(f"{path}@{name}", numbers)


def _content(path: str, content: str) -> Iterator[Leaf]:
    if not content.replace(_CHILD, "").strip():
        return
    lines = content.strip().split("\n")
    dated = [line for line in lines if _DATED.match(line)]
    if dated:
        yield text(f"{path}:dated", "\n".join(dated), volatile=True)
    if len(dated) < len(lines):
        yield text(f"{path}:text", "\n".join(line for line in lines if line not in dated))


def _doctype(_name: str, _system: str | None, _public: str | None, has_internal_subset: Any) -> None:
    if has_internal_subset:
        raise Unreadable("its document type defines something of its own, which is not read")


def _entity(*_declaration: Any) -> None:
    raise Unreadable("it defines entities, which are not read")
