"""Text: UTF-8, line by line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preserve.comparators import making
from preserve.comparators.leaves import Leaf, Limits


class Text:
    """Reads UTF-8 without control characters: a leaf ``line N`` for each line, N from 1."""

    name = "text"

    def sniff(self, head: bytes, name: str) -> int:
        """Take what is UTF-8 as far as it can be seen."""
        return 10 if is_text(head) else 0

    def leaves(self, file: Path, limits: Limits) -> Iterator[Leaf]:
        """Yield the lines."""
        data = making.read_bytes(file, limits)
        try:
            content = data.decode("utf-8")
        except UnicodeDecodeError:  # it only began like text
            yield making.opaque("bytes", data)
            return
        making.refuse_many(data, b"\n", most=limits.leaves)
        for number, line in enumerate(content.split("\n"), start=1):
            yield making.text(f"line {number}", line)


def is_text(head: bytes) -> bool:
    """Whether a file that begins like this may be UTF-8 text: a character may be cut at the end of ``head``."""
    if b"\0" in head:
        return False
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.end == len(head) and len(head) - error.start < 4 and "unexpected end" in error.reason
    return True
