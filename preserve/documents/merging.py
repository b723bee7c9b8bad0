"""The marks that git leaves in a file of which two branches have different versions."""

from __future__ import annotations

CONFLICT = "a merge conflict is not resolved here"


def merge_conflict(data: bytes) -> int | None:
    """Line in which a file's first conflict begins; ``None``: it has none."""
    lines = enumerate(data.splitlines(), 1)
    return next((number for number, line in lines if line.startswith(b"<<<<<<< ")), None)
