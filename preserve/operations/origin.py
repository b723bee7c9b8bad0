"""Where an analysis folder came from, when a replay made it: the parent archive and its code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from preserve.digest import Digest, FilePin, hash_file
from preserve.documents import jsonform
from preserve.documents.archive import BUNDLE, PATCH
from preserve.documents.paths import OWN
from preserve.operations.folder import Folder, write_file

SCHEMA = "preserve/origin/1"
NOTE = "origin.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The parent archive's id, and the files with its code by their names there: where they lie, and their content."""

    archive_id: Digest
    files: Mapping[str, Path]
    code: Mapping[str, FilePin]


def code_file(folder: Folder, name: str) -> Path:
    """Where a replayed folder keeps a file of its parent's code."""
    return folder.state / "code" / Path(name).name


def write_origin(folder: Folder, archive_id: Digest) -> None:
    """Note that ``folder`` is made from an archive; its code is put there as well."""
    write_file(folder.state / NOTE, jsonform.dump({"schema": SCHEMA, "archive_id": archive_id}))


def is_replayed(folder: Folder) -> bool:
    """Whether a replay began to make ``folder``, however far it came; in somebody's own folder nothing is made."""
    return (folder.root / OWN / NOTE).exists()


def read_origin(folder: Folder) -> Origin | None:
    """Read where ``folder`` came from; ``None``: an author made it.

    Raises:
        UserError: the note is damaged.
        DigestMismatch: it names no archive.
    """
    if not is_replayed(folder):
        return None
    note = folder.state / NOTE
    value = jsonform.load(note.read_bytes(), str(note), schema=SCHEMA)
    files = {name: code_file(folder, name) for name in (BUNDLE, PATCH) if code_file(folder, name).exists()}
    return Origin(
        archive_id=Digest(str(value.get("archive_id"))),
        files=files,
        code={name: replace(hash_file(path), executable=False) for name, path in files.items()},
    )
