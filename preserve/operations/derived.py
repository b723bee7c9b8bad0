"""What of an archive is made of the rest: written by ``archive``, made again and compared by ``verify``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from preserve.digest import Digest, FilePin
from preserve.documents import bag
from preserve.documents.archive import (
    BAG_INFO,
    BAGIT,
    CITATION,
    CRATE,
    MANIFEST,
    OCI,
    PREVIEW,
    README,
    REPLAY,
    TAG_FILES,
    Contents,
)
from preserve.oci import Image, tables
from preserve.renderers import citation, preview, readme, replay_script, ro_crate


def payload_files(contents: Contents, images: Sequence[Image]) -> dict[str, bytes]:
    """Give the files below data/ that are derived: replay.sh, and the tables of the image layout."""
    found = {REPLAY: replay_script.render(contents)}
    if images:
        found |= {OCI + name: data for name, data in tables(images).items()}
    return found


def is_executable(name: str) -> bool:
    """Whether a derived file is a program."""
    return name == REPLAY


def tag_files(contents: Contents) -> Mapping[str, bytes]:
    """Give all tag files of the tag manifest, in its order; the payload of ``contents`` is complete."""
    made = {
        BAGIT: bag.BAGIT_TXT,
        BAG_INFO: bag.bag_info(contents),
        MANIFEST: bag.manifest({name: pin.sha256 for name, pin in contents.payload.items()}),
        CRATE: ro_crate.render(contents),
        PREVIEW: preview.render(contents),
        README: readme.render(contents),
        CITATION: citation.render(contents),
    }
    return {name: made[name] for name in TAG_FILES}


def tag_manifest(files: Mapping[str, bytes]) -> bytes:
    """Give tagmanifest-sha256.txt, whose sha256 is the archive's id."""
    return bag.manifest({name: Digest.of(data) for name, data in files.items()})


def pin_of_bytes(data: bytes, *, executable: bool = False) -> FilePin:
    """Pin of a file that is in memory."""
    return FilePin(sha256=Digest.of(data), size=len(data), executable=executable)
