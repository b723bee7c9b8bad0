"""Any file: its bytes, of which only equality can be said."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preserve.comparators.leaves import Leaf, Limits
from preserve.digest import hash_file


class Bytes:
    """Reads what no other reader knows, pickles among them: one opaque leaf ``bytes``; nothing of it is loaded."""

    name = "bytes"

    def sniff(self, head: bytes, name: str) -> int:
        """Take what nobody else takes."""
        return 1

    def leaves(self, file: Path, limits: Limits) -> Iterator[Leaf]:
        """Yield the digest of all bytes."""
        digest = hash_file(file).sha256
        yield Leaf(path="bytes", kind="opaque", load=lambda: str(digest), digest=digest)
