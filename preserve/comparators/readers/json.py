"""JSON: by JSON pointers, numbers as numbers, keys that come twice and all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from preserve.comparators import making
from preserve.comparators.leaves import Leaf, Limits, TooMuch, Unreadable
from preserve.comparators.readers import text, tree


class Json:
    """Reads JSON (with NaN and Infinity, which Python writes). White space and the order of keys are no content."""

    name = "json"

    def sniff(self, head: bytes, name: str) -> int:
        """Go by what is written; a name that ends in .json makes surer."""
        start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
        if not text.is_text(head) or not start:
            return 0
        if name.endswith(".json"):
            return 90
        return 40 if start in b"{[" and _looks_right(head) else 0

    def leaves(self, file: Path, limits: Limits) -> Iterator[Leaf]:
        """Yield the leaves of the one value."""
        yield from tree.leaves(parse(making.read_bytes(file, limits)), limits)


def parse(data: bytes) -> Any:
    """Read one JSON value; mappings are ``tree.Pairs``.

    Raises:
        Unreadable: it is no JSON.
        TooMuch: nested too deeply, or too many values.
    """
    making.refuse_many(data, b",[{")
    try:
        return json.loads(data.decode("utf-8-sig"), object_pairs_hook=tree.Pairs)
    except ValueError as error:
        raise Unreadable(f"not readable as JSON: {error}") from error
    except RecursionError as error:
        raise TooMuch("nested too deeply") from error


def _looks_right(head: bytes) -> bool:
    """Whether the first token after the bracket is one of JSON: ``{{template`` and ``[section]`` are not."""
    rest = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    follows = rest[1:].lstrip(b" \t\r\n")[:1]
    return follows in (b'"}' if rest[:1] == b"{" else b'{[]"-0123456789')
