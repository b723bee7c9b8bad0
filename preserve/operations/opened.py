"""An archive opened for reading: its documents read and checked against its own tables, the rest untouched."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from preserve.digest import Digest, FilePin
from preserve.documents import bag
from preserve.documents.archive import (
    BAG_INFO,
    FORMAT,
    LEAVABLE,
    LOCK,
    MANIFEST,
    PLAN,
    RECORDS,
    SIGNATURES,
    TAG_MANIFEST,
    WORKFLOW,
    Contents,
    contents_of,
)
from preserve.documents.consistency import contradictions
from preserve.documents.lockfile import read_lock
from preserve.documents.plan import read_plan
from preserve.documents.record import Record, read_record
from preserve.errors import PreserveError, UserError
from preserve.interfaces import Archive
from preserve.stores.crate_zip import CrateZip
from preserve.stores.damage import Damaged, damaged
from preserve.stores.unpacked import UnpackedArchive

MAX_TABLE = 1 << 30  # bytes of a manifest: some five million files
MAX_DOCUMENT = 64 << 20  # bytes of anything else that is read into memory
S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An archive and its contents as its documents tell them, with the bytes of preserve.yaml and preserve.lock."""

    store: Archive
    archive_id: Digest
    contents: Contents
    documents: Mapping[str, bytes]

    @property
    def signatures(self) -> tuple[str, ...]:
        """Names of the signatures inside."""
        return tuple(name for name in self.store.files() if name.startswith(SIGNATURES))


def open_store(path: Path) -> CrateZip | UnpackedArchive:
    """Open an archive's file, or the folder it was unpacked to.

    Raises:
        UserError: there is none.
        DigestMismatch: it is not an archive in the one form that archives have.
    """
    return UnpackedArchive(path) if path.is_dir() else CrateZip(path)


@contextlib.contextmanager
def open_archive(path: Path) -> Iterator[Opened]:
    """Read an archive's documents, each checked against its tables and the others; the rest is not touched.

    Raises:
        UserError: there is no such file, or a document cannot be read.
        DigestMismatch: it is no archive, or a document is not what the tables say, or says what none may.
    """
    with open_store(path) as store:
        table = read(store, TAG_MANIFEST)
        tags = _listed(store, TAG_MANIFEST, table)
        info = _read_checked(store, BAG_INFO, tags)
        payload = _listed(store, MANIFEST, _read_checked(store, MANIFEST, tags))
        contents = _contents(store, payload, info)
        for finding in contradictions(contents):
            raise Damaged(finding)
        yield Opened(
            store=store,
            archive_id=Digest.of(table),
            contents=contents,
            documents={Path(name).name: _read_checked(store, name, payload) for name in (WORKFLOW, LOCK)},
        )


def read_contents(store: Archive, payload: Mapping[str, FilePin]) -> Contents:
    """Read bag-info.txt, plan, lock and records, and give the contents they tell of.

    ``payload`` are the files below data/; a document that has another content is refused. bag-info.txt is taken as it
    is: the caller derives it again from these contents, and compares that with what it has hashed.

    Raises:
        UserError: the archive is of another version.
        DigestMismatch: a document is missing, cannot be read, or is not what ``payload`` says.
    """
    return _contents(store, payload, read(store, BAG_INFO))


def _contents(store: Archive, payload: Mapping[str, FilePin], bag_info: bytes) -> Contents:
    info = _parsed(BAG_INFO, bag_info, bag.read_bag_info)
    if info["Preserve-Format"] != FORMAT:
        raise UserError(
            f"{BAG_INFO}: this archive's format is {info['Preserve-Format']!r}, this version reads {FORMAT!r}",
            hint="use the version that wrote it, or data/replay.sh inside it",
        )
    contents = contents_of(
        _parsed(PLAN, _read_checked(store, PLAN, payload), read_plan),
        _parsed(LOCK, _read_checked(store, LOCK, payload), read_lock),
        _records(store, payload),
        agent=info["Bag-Software-Agent"],
        without=frozenset(info.get("Preserve-Without", "").split(",")) & frozenset(LEAVABLE),
        parent=_parsed(BAG_INFO, info["Preserve-Parent"], _parent) if "Preserve-Parent" in info else None,
    )
    left_out = _left_out(contents, info[bag.LEFT_OUT].split("\n")) if bag.LEFT_OUT in info else frozenset[str]()
    return replace(contents, payload=dict(payload), left_out=left_out)


def read_payload(opened: Opened, name: str) -> bytes:
    """Read a document below data/, and see that it is what the manifest says.

    Raises:
        DigestMismatch: it is missing, damaged or too large.
    """
    return _read_checked(opened.store, name, opened.contents.payload)


def read(store: Archive, name: str) -> bytes:
    """Read a whole file of bounded size: a document or a table.

    Raises:
        DigestMismatch: it is missing, damaged or too large.
    """
    most = MAX_TABLE if name in (MANIFEST, TAG_MANIFEST) else MAX_DOCUMENT
    size = store.files().get(name)
    if size is None:
        raise damaged(name, "is not in the archive")
    if size > most:
        raise damaged(name, "is larger than it can be", f"at most {most} bytes", f"{size} bytes")
    return b"".join(store.chunks(name))


def _listed(store: Archive, table: str, data: bytes) -> dict[str, FilePin]:
    """Read a manifest's bytes: content by name of the files that it lists."""
    digests, faults = bag.read_manifest(data, table)
    if faults:
        raise damaged(table, str(faults[0]))
    files = store.files()
    if missing := sorted(digests.keys() - files.keys()):
        raise damaged(missing[0], "is not in the archive", digests[missing[0]])
    return {
        name: FilePin(sha256=digest, size=files[name], executable=store.executable(name))
        for name, digest in digests.items()
    }


def _read_checked(store: Archive, name: str, pins: Mapping[str, FilePin]) -> bytes:
    if name not in pins:
        raise damaged(name, "is not listed in the manifest")
    data = read(store, name)
    if Digest.of(data) != pins[name].sha256:
        raise damaged(name, "has other content than the manifest says", pins[name].sha256, Digest.of(data))
    return data


def _parsed(name: str, data: S, reader: Callable[[S, str], T]) -> T:
    """Read a document; one that cannot be read is damage to that file."""
    try:
        return reader(data, name)
    except PreserveError as error:
        raise damaged(name, error.message.removeprefix(f"{name}: ")) from error


def _left_out(contents: Contents, names: Sequence[str]) -> frozenset[str]:
    """Give the paths of products by their names in the archive.

    Raises:
        DigestMismatch: a name is of no product.
    """
    paths = {contents.names[path]: path for path in contents.products}
    if strange := [name for name in names if name not in paths]:
        raise damaged(BAG_INFO, f"{bag.LEFT_OUT}: {strange[0]!a} is no product of this archive")
    return frozenset(paths[name] for name in names)


def _parent(text: str, _: str) -> Digest:
    return Digest(text)


def _records(store: Archive, payload: Mapping[str, FilePin]) -> dict[str, Record]:
    """Read the records that are there, by step id; a planned step without one is for the rules to miss."""
    names = [name for name in payload if name.startswith(RECORDS)]
    found = (_parsed(name, _read_checked(store, name, payload), read_record) for name in names)
    return {name.removeprefix(RECORDS).removesuffix(".json"): record for name, record in zip(names, found, strict=True)}
