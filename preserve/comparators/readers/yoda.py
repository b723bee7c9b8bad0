"""YODA (Rivet's histograms): blocks of headers and rows of numbers, of any kind, also those of later versions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from preserve.comparators.leaves import Leaf, Limits, Unreadable
from preserve.comparators.making import kept, number, read_text, text

_BEGIN = re.compile(r"BEGIN (YODA_\w+|\w+)(?:\s+(\S+))?\s*")
_HEADER = re.compile(r"([A-Za-z_][\w.()]*)\s*[:=]\s*(.*)")
_RULE = "---"  # ends a block's header
_EXACT = 15  # digits of a whole number that is exactly one double


class Yoda:
    """Each block by its path: ``/ANALYSIS/d01-x01-y01:sumw``, one leaf per column, header line and comment."""

    name = "yoda"

    def sniff(self, head: bytes, name: str) -> int:
        """Sure by the first block's mark."""
        return 95 if re.search(rb"^BEGIN (YODA_|PLOT|HISTO|HISTOGRAM)", head, re.MULTILINE) else 0

    def leaves(self, file: Path, limits: Limits) -> Iterator[Leaf]:
        """Yield the leaves of every block, and what is outside of blocks.

        Raises:
            TooMuch: a limit was passed.
            Unreadable: a block has no end.
        """
        return kept(_blocks(read_text(file, limits)), limits)


def _blocks(content: str) -> Iterator[Leaf]:
    outside: list[str] = []
    lines = iter(content.splitlines())
    for line in lines:
        begin = _BEGIN.fullmatch(line)
        if begin is None:
            outside.append(line)
        else:
            yield from _block(begin[1], begin[2] or "", _until_end(lines, begin[1]))
    if any(line.strip() for line in outside):
        yield text("outside of blocks", "\n".join(outside))


def _until_end(lines: Iterator[str], kind: str) -> list[str]:
    block: list[str] = []
    for line in lines:
        if line.strip() == f"END {kind}":
            return block
        block.append(line)
    raise Unreadable(f"a block {kind} has no end")


def _block(kind: str, path: str, lines: list[str]) -> Iterator[Leaf]:
    yield text(f"{path}:class", kind)
    rule = lines.index(_RULE) if _RULE in lines else 0
    for line in lines[:rule]:
        found = _HEADER.fullmatch(line)
        yield text(f"{path}:{found[1]}", found[2]) if found else text(f"{path}:header", line)
    yield from _rows(path, lines[rule:])


def _rows(path: str, lines: list[str]) -> Iterator[Leaf]:
    """Tables are runs of rows of one form; the comment before a table names its columns."""
    names: list[str] = []
    for (form, comment), run in groupby(lines, key=lambda line: (_form(line), line.startswith("#"))):
        rows = list(run)
        if comment or not form or not any(form):
            yield text(f"{path}:lines", "\n".join(rows))
            names = rows[-1].lstrip("# ").split() if comment else names
        else:
            yield from _table(path, [row.split() for row in rows], form, names)


def _form(line: str) -> tuple[bool, ...]:
    """Of each word of a line, whether it is a number."""
    return () if line.startswith("#") else tuple(_is_number(word) for word in line.split())


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return "_" not in word and (not word.lstrip("+-").isdigit() or len(word.lstrip("+-")) <= _EXACT)


def _table(path: str, rows: list[list[str]], form: tuple[bool, ...], names: list[str]) -> Iterator[Leaf]:
    columns = zip(*rows, strict=True)
    for place, (numeric, column) in enumerate(zip(form, columns, strict=True), 1):
        name = names[place - 1] if len(names) == len(form) else f"column{place}"
        if numeric:
            yield number(f"{path}:{name}", [float(word) for word in column])
        else:
            yield text(f"{path}:{name}", "\n".join(column))
