"""preserve sign: put an SSH signature over an archive's id into the archive."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from preserve import signatures
from preserve.digest import Digest
from preserve.documents import bag
from preserve.documents.archive import TAG_FILES, TAG_MANIFEST
from preserve.errors import DigestMismatch, UserError
from preserve.interfaces import Silent
from preserve.operations.places import Settings
from preserve.operations.verify import Choices, require_intact, verify
from preserve.stores.crate_writer import write_more
from preserve.stores.crate_zip import CrateZip
from preserve.stores.damage import Damaged, damaged


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A signature in an archive: its name there, the key's fingerprint, and whether it was added just now."""

    archive_id: Digest
    name: str
    fingerprint: str
    added: bool


def sign(archive: Path, key: Path, settings: Settings) -> Signed:
    """Verify ``archive``, then add the signature of ``key``; the archive's id stays.

    Raises:
        UserError: there is no such archive, it is an unpacked one, or the key cannot sign.
        DigestMismatch: the archive is damaged: nobody's name is put under that.
        MachineError: ssh-keygen is missing, or there is no room.
    """
    if archive.is_dir():
        raise UserError(f"{archive} is a folder", hint="sign the archive itself, the file NAME.crate.zip")
    checks = Choices(search_path=settings.search_path)
    require_intact(archive, verify(archive, checks, progress=Silent()), done="signed")
    return add_signature(archive, key, settings)


def add_signature(archive: Path, key: Path, settings: Settings) -> Signed:
    """Sign an archive whose payload was verified; its form and its tag files are checked here.

    A key that has signed already is not asked to do so twice: nothing changes.

    Raises:
        UserError: there is no such archive, or the key cannot sign.
        DigestMismatch: form or tag files are damaged, or a signature of this key is there that is none of it.
        MachineError: ssh-keygen is missing, or there is no room.
    """
    with CrateZip(archive) as store:
        data = _checked_manifest(store)
        made = signatures.sign(
            data, key, agent=settings.environment.get("SSH_AUTH_SOCK"), search_path=settings.search_path
        )
        found = signatures.read_signature(made)
        there = b"".join(store.chunks(found.name)) if found.name in store.files() else None
    if there is not None:
        _require_good(data, there, found.name, settings)
    else:
        write_more(archive, archive.resolve(), ((found.name, made),))  # a link to the archive stays one
    return Signed(archive_id=Digest.of(data), name=found.name, fingerprint=found.fingerprint, added=there is None)


def _checked_manifest(store: CrateZip) -> bytes:
    """Give the bytes to be signed, once all files that they tell of are what they say."""
    for finding in store.check_form():
        raise Damaged(finding)
    data = b"".join(store.chunks(TAG_MANIFEST))
    listed, faults = bag.read_manifest(data, TAG_MANIFEST)
    for fault in faults:
        raise damaged(TAG_MANIFEST, f"line {fault.line}: {fault.message}")
    for name in TAG_FILES:
        found = Digest.of(b"".join(store.chunks(name)))
        if found != listed.get(name):
            raise damaged(name, "is not what the tag manifest says", listed.get(name, ""), found)
    return data


def _require_good(data: bytes, signature: bytes, name: str, settings: Settings) -> None:
    try:
        signatures.check(data, signature, search_path=settings.search_path)
    except DigestMismatch as error:
        raise DigestMismatch(f"{name} is there already: {error.message}", hint=error.hint) from error
