"""Tables as text: CSV, TSV, and columns between white space."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from preserve.comparators import making
from preserve.comparators.leaves import Leaf, Limits, TooMuch
from preserve.comparators.readers import text

_WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_NUMBER = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eEdD][-+]?[0-9]+)?")
_PADDED = re.compile(r"[-+]?0[0-9]+")  # 007 names something, it does not count
_INFINITE = re.compile(r"[-+]?(inf|infinity|nan)", re.IGNORECASE)
_NAMES = (".csv", ".tsv")


@dataclass(frozen=True, slots=True)
class _Rows:
    """A file's rows of fields, its comments, and the numbers of rows (from 0) before which a line is blank."""

    rows: Sequence[Sequence[str]]
    comments: Sequence[str]
    gaps: Sequence[int]


class Table:
    """Reads tables of rows with equally many fields: a leaf per column, by its name in the header, else its number.

    A first row without numbers is the header, if any row below it has one. A column of which all fields are numbers
    is one leaf of numbers, else text. The order of columns is content (leaf ``columns``); so are comments (``#``).
    """

    name = "csv"

    def sniff(self, head: bytes, name: str) -> int:
        """Take what is called a table, or text that looks like one."""
        if not text.is_text(head):
            return 0
        if name.endswith(_NAMES):
            return 70
        lines = head.decode("utf-8", "ignore").splitlines()
        read = _rows(lines[:-1] if len(lines) > 1 and len(head) >= 1 << 16 else lines, None)
        return 20 if read.rows and _is_regular(read.rows) and _has_numbers(read.rows) else 0

    def leaves(self, file: Path, limits: Limits) -> Iterator[Leaf]:
        """Yield the columns; the lines, where the rows are not equally long."""
        data = making.read_bytes(file, limits)
        making.refuse_many(data, b",;\t \n")
        try:
            content = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            yield making.opaque("bytes", data)
            return
        read = _rows(content.splitlines(), _delimiter(content))
        if not _is_regular(read.rows):
            yield from text.Text().leaves(file, limits)
            return
        if len(read.rows[0]) > limits.leaves:
            raise TooMuch(f"more than {limits.leaves} columns")
        yield from _columns(read)


def _columns(read: _Rows) -> Iterator[Leaf]:
    names, rows = _header(read.rows)
    yield making.text("columns", "\t".join(names))
    for index, name in enumerate(names):
        yield _column(name, [row[index] for row in rows])
    for index, comment in enumerate(read.comments, start=1):
        yield making.text(f"comment {index}", comment)
    if read.gaps:
        yield making.text("blank lines", " ".join(map(str, read.gaps)))


def _header(rows: Sequence[Sequence[str]]) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    if len(rows) > 1 and not any(map(_is_number, rows[0])):
        below = range(len(rows[0]))
        if any(_is_number(row[index]) for row in rows[1:] for index in below):
            return [name.strip() or str(index + 1) for index, name in enumerate(rows[0])], rows[1:]
    return [str(index + 1) for index in range(len(rows[0]))], rows


def _column(name: str, fields: Sequence[str]) -> Leaf:
    if all(map(_is_number, fields)):
        return making.written(name, [_number(field) for field in fields], (len(fields),))
    return making.text(name, "\n".join(fields))


def _is_number(field: str) -> bool:
    field = field.strip()
    if _PADDED.fullmatch(field):
        return False
    return bool(_NUMBER.fullmatch(field) or _INFINITE.fullmatch(field))


def _number(field: str) -> int | float:
    field = field.strip()
    if _WHOLE.fullmatch(field) and len(field) < 40:
        return -0.0 if field == "-0" else int(field)
    return float(field.lower().replace("d", "e") if not _INFINITE.fullmatch(field) else field)


def _rows(lines: Sequence[str], delimiter: str | None) -> _Rows:
    if delimiter is None and lines:
        delimiter = _delimiter("\n".join(lines[:50]))
    comments = [line for line in lines if line.startswith("#")]
    rows: list[Sequence[str]] = []
    gaps: list[int] = []
    for line in _records([line for line in lines if not line.startswith("#")], delimiter):
        if line:
            rows.append(line)
        else:
            gaps.append(len(rows))
    return _Rows(rows, comments, [gap for gap in gaps if 0 < gap < len(rows)])


def _records(lines: Sequence[str], delimiter: str | None) -> Iterator[Sequence[str]]:
    if delimiter is None:
        yield from (line.split() for line in lines)
        return
    try:
        yield from csv.reader([line + "\n" for line in lines], delimiter=delimiter, strict=False)
    except csv.Error as error:
        raise TooMuch(f"not readable as a table: {error}") from error


def _delimiter(content: str) -> str | None:
    """Give what separates fields in the first row: a tab, semicolon or comma; ``None``: white space."""
    first = next((line for line in content.splitlines() if line.strip() and not line.startswith("#")), "")
    counts = {sign: first.count(sign) for sign in "\t;,"}
    best = max(counts, key=counts.__getitem__)
    return best if counts[best] else None


def _is_regular(rows: Sequence[Sequence[str]]) -> bool:
    return bool(rows) and all(len(row) == len(rows[0]) for row in rows)


def _has_numbers(rows: Sequence[Sequence[str]]) -> bool:
    """Whether a column has nothing but numbers, below a header perhaps."""
    _, below = _header(rows)
    return any(all(_is_number(row[index]) for row in below) for index in range(len(rows[0])))
