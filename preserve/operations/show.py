"""preserve show: what is in an archive, at a glance, without unpacking it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from preserve import signatures
from preserve.digest import Digest
from preserve.documents.archive import Contents
from preserve.errors import DigestMismatch
from preserve.operations.opened import Opened, open_archive, read


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """An archive's id, contents, size in bytes, and the fingerprints of the keys that signed it (not checked)."""

    archive_id: Digest
    contents: Contents
    size: int
    signed_with: tuple[str, ...]


def show(path: Path) -> Shown:
    """Read an archive's documents and nothing else; only ``verify`` says whether the rest is intact.

    Raises:
        UserError: there is no such file, or it is of another version.
        DigestMismatch: it is no archive, or a document in it is damaged.
    """
    with open_archive(path) as opened:
        return Shown(
            archive_id=opened.archive_id,
            contents=opened.contents,
            size=sum(opened.store.files().values()) if path.is_dir() else path.stat().st_size,
            signed_with=_fingerprints(opened),
        )


def _fingerprints(opened: Opened) -> tuple[str, ...]:
    found = []
    for name in opened.signatures:
        try:
            found.append(signatures.read_signature(read(opened.store, name)).fingerprint)
        except DigestMismatch:
            found.append(f"{name} (not readable)")
    return tuple(found)
