"""YAML, HEPData's tables among it: by the same paths as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preserve.comparators import making
from preserve.comparators.leaves import Leaf, Limits, TooMuch, Unreadable
from preserve.comparators.readers import text, tree
from preserve.documents.yaml_values import TooManyValues, read_values
from preserve.errors import UserError

MOST_BYTES = 64 << 20


class Yaml:
    """Reads YAML 1.2, of several documents too (then ``/0/…``, ``/1/…``).

    Comments, white space, the style of scalars, anchors and the order of keys are no content; tags are.
    """

    name = "yaml"

    def sniff(self, head: bytes, name: str) -> int:
        """Go by the name, or by a document's beginning: anything is YAML."""
        if not text.is_text(head):
            return 0
        if name.endswith((".yaml", ".yml")):
            return 80
        return 50 if head.startswith((b"%YAML ", b"---\n", b"--- ")) else 0

    def leaves(self, file: Path, limits: Limits) -> Iterator[Leaf]:
        """Yield the leaves of all documents."""
        data = making.read_bytes(file, limits, most=MOST_BYTES)
        try:
            documents = read_values(data, "YAML", pairs=tree.Pairs, most=limits.leaves * 4, depth=limits.depth)
        except TooManyValues as error:
            raise TooMuch(error.message) from error
        except UserError as error:
            raise Unreadable(error.message) from error
        if len(documents) == 1:
            yield from tree.leaves(documents[0], limits)
        for index, document in enumerate(documents if len(documents) != 1 else ()):
            yield from tree.leaves(document, limits, f"/{index}")
