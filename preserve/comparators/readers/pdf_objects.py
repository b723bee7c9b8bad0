"""What a PDF is made of: its numbered objects, read far enough to tell drawing from the circumstances of writing.

Pages are compared as text and pixels as well, but a change smaller than a pixel is seen only here.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from preserve.comparators.leaves import Leaf, Limits, TooMuch
from preserve.comparators.making import number, numbers_apart, opaque, text

_OBJECT = re.compile(rb"(?:^|[\r\n \t])(\d+)[ \t\r\n]+(\d+)[ \t\r\n]+obj\b")
_STREAM = re.compile(rb"\bstream\r?\n")
_INFO = re.compile(rb"/Info[ \t\r\n]+(\d+)[ \t\r\n]+\d+[ \t\r\n]+R")
_LENGTH = re.compile(rb"/Length[ \t\r\n]+(\d+)(?![ \t\r\n]+\d+[ \t\r\n]+R)")
_LENGTH_ELSEWHERE = re.compile(rb"/Length[ \t\r\n]+(\d+)[ \t\r\n]+\d+[ \t\r\n]+R")
# Entries of dictionaries that tell when and with what it was written, or where things are in the file.
_VOLATILE = re.compile(
    rb"/(?:CreationDate|ModDate|Producer|Creator|LastModified|PTEX\.Fullbanner|ID|Length)[ \t\r\n]*"
    rb"(?:\((?:\\.|[^\\()])*\)|<[0-9A-Fa-f \t\r\n]*>|\[[^\]]*\]|\d+(?:[ \t\r\n]+\d+[ \t\r\n]+R)?)"
)
_PLACES = re.compile(rb"/Type[ \t\r\n]*/(?:XRef|Metadata)\b")  # tables of places, and metadata in XML
_INFLATABLE = re.compile(rb"/Filter[ \t\r\n]*(?:/FlateDecode\b|\[[ \t\r\n]*/FlateDecode[ \t\r\n]*\])")
_STRING = re.compile(r"(\((?:\\.|[^()\\])*\)|<[0-9A-Fa-f\s]*>)", re.DOTALL)
_PRINTABLE = re.compile(rb"[\t\n\r\x20-\x7e\x80-\xff]*")
_HARMLESS = 64 << 20  # bytes: below this nothing is said about the ratio of unpacked to packed


@dataclass(frozen=True, slots=True, kw_only=True)
class _Object:
    """One numbered object: its dictionary (or whatever it is) and its stream, unpacked where that is simple."""

    name: str
    head: bytes
    stream: bytes | None = None


def leaves_of_objects(content: bytes, limits: Limits) -> Iterator[Leaf]:
    """Yield the leaves of all objects; of several of one number, all.

    Raises:
        TooMuch: a limit was passed.
    """
    information = {f"object[{found[1].decode()}]" for found in _INFO.finditer(content)}
    lengths = {f"object[{found[1].decode()}]" for found in _LENGTH_ELSEWHERE.finditer(content)}
    for one in _objects(content, limits):
        is_length = one.name in lengths and one.head.strip().isdigit()
        if is_length or one.name in information or _PLACES.search(one.head) is not None:
            yield text(f"{one.name}:metadata", one.head.decode("latin-1"), volatile=True)
            continue
        yield text(one.name, _still(one.head))
        if one.stream is not None:
            yield from _stream(one.name, one.stream)


def _objects(content: bytes, limits: Limits) -> Iterator[_Object]:
    begins = list(_OBJECT.finditer(content))
    if len(begins) > limits.members:
        raise TooMuch(f"more than {limits.members} objects")
    unpacked = place = 0
    for begin in begins:
        if begin.start() < place:  # inside the stream of the one before
            continue
        after = content.find(b"endobj", begin.end())
        stream = _STREAM.search(content, begin.end(), after if after >= 0 else len(content))
        head = content[begin.end() : stream.start() if stream else after if after >= 0 else len(content)]
        packed = None if stream is None else _packed(content, stream.end(), head)
        place = begin.end() if packed is None or stream is None else stream.end() + len(packed)
        made = None if packed is None else _unpacked(packed, head, limits)
        unpacked += len(made or b"")
        if unpacked > max(_HARMLESS, limits.ratio * len(content)) or unpacked > limits.bytes:
            raise TooMuch("its streams unpack to too much")
        yield _Object(name=f"object[{begin[1].decode()}]", head=head, stream=made)


def _packed(content: bytes, start: int, head: bytes) -> bytes:
    """Give a stream's bytes: as many as its dictionary says, if the end is there; else up to the next end."""
    length = _LENGTH.search(head)
    if length is not None:
        stop = start + int(length[1])
        if content[stop : stop + 12].lstrip(b"\r\n").startswith(b"endstream"):
            return content[start:stop]
    stop = content.find(b"endstream", start)
    return content[start : stop if stop >= 0 else len(content)].rstrip(b"\r\n")


def _unpacked(packed: bytes, head: bytes, limits: Limits) -> bytes:
    """Undo zlib where it is the only filter; other streams are compared as they are."""
    if not _INFLATABLE.search(head):
        return packed
    most = min(limits.bytes, max(_HARMLESS, limits.ratio * len(packed)))
    try:
        made = zlib.decompressobj().decompress(packed, most + 1)
    except zlib.error:
        return packed
    if len(made) > most:
        raise TooMuch("one of its streams unpacks to too much")
    return made


def _still(head: bytes) -> str:
    """A dictionary without what changes from one writing to the next."""
    return " ".join(_VOLATILE.sub(b"", head).decode("latin-1").split())


def _stream(name: str, content: bytes) -> Iterator[Leaf]:
    if not _PRINTABLE.fullmatch(content):
        yield opaque(f"{name}:stream", content)
        return
    left, found = [], []
    for part in _STRING.split(_VOLATILE.sub(b"", content).decode("latin-1")):
        rest, numbers = (part, []) if _STRING.fullmatch(part) else numbers_apart(part)
        left.append(rest)
        found += numbers
    yield text(f"{name}:text", "".join(left))
    yield number(f"{name}:numbers", [float(value) for value in found])
