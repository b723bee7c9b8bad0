"""PostScript and EPS: the drawing as text and numbers; when and by whom it was made never decides."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from preserve.comparators.leaves import Leaf, Limits
from preserve.comparators.making import kept, number, numbers_apart, read_bytes, text

_VOLATILE = re.compile(r"%%(CreationDate|Creator|For|Routing|Version|Copyright):")
# Strings are kept as they are: (1.0) and (1.00) are different labels. One level of parentheses inside is usual.
_STRING = re.compile(r"(\((?:\\.|[^()\\]|\((?:\\.|[^()\\])*\))*\)|<[0-9A-Fa-f\s]*>)", re.DOTALL)


class PostScript:
    """Each page (``page[1]:numbers``, ``page[1]:text``) and what stands before the first."""

    name = "postscript"

    def sniff(self, head: bytes, name: str) -> int:
        """Sure by the first four characters."""
        return 95 if head.startswith(b"%!PS") else 0

    def leaves(self, file: Path, limits: Limits) -> Iterator[Leaf]:
        """Yield the leaves of every page.

        Raises:
            TooMuch: a limit was passed.
        """
        return kept(_pages(read_bytes(file, limits).decode("latin-1")), limits)


def _pages(content: str) -> Iterator[Leaf]:
    parts = re.split(r"^(?=%%(?:Page:|Trailer))", content.replace("\r\n", "\n"), flags=re.MULTILINE)
    for place, part in enumerate(parts):
        yield from _page(f"page[{place}]" if place else "prolog", part.split("\n"))


def _page(path: str, lines: list[str]) -> Iterator[Leaf]:
    yield from (text(f"{path}:{line[2:].partition(':')[0]}", line, volatile=True) for line in lines if _volatile(line))
    rest, found = [], []
    for part in _STRING.split("\n".join(line for line in lines if not _volatile(line))):
        left, numbers = (part, []) if _STRING.fullmatch(part) else numbers_apart(part)
        rest.append(left)
        found += numbers
    yield text(f"{path}:text", "".join(rest))
    yield number(f"{path}:numbers", [float(value) for value in found])


def _volatile(line: str) -> bool:
    return _VOLATILE.match(line) is not None
