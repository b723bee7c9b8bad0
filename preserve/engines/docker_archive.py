"""An image on its way to Docker: one archive that graph drivers and the containerd store both load."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator

from preserve.documents.lockfile import ImagePin
from preserve.errors import DigestMismatch
from preserve.oci import Image, Layout, blob_name, tables


def pinned_image(store: Layout, pin: ImagePin) -> Image:
    """Read the pinned image's manifest and config; its layers are hashed when they are sent.

    Raises:
        DigestMismatch: manifest or config are missing, or not the pinned image's.
    """
    described = store.image(pin.manifest_digest)
    if described.config.digest != pin.config_digest or described.diff_ids != pin.diff_ids:
        raise DigestMismatch(f"image {pin.reference}: manifest {pin.manifest_digest} is not the pinned image's")
    return described


def archive(store: Layout, image: Image) -> Iterator[bytes]:
    """Stream what ``docker load`` takes, of every version: blobs first, then Docker's and OCI's tables of contents.

    Raises:
        DigestMismatch: a blob has another digest; the archive then ends before its tables.
    """
    for blob in image.blobs:
        yield _header(blob_name(blob), blob.size)
        yield from store.stream(blob)
        yield b"\0" * (-blob.size % tarfile.BLOCKSIZE)
    for name, data in tables((image,)).items():
        yield _header(name, len(data)) + data + b"\0" * (-len(data) % tarfile.BLOCKSIZE)
    yield b"\0" * (2 * tarfile.BLOCKSIZE)


def _header(name: str, size: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o644
    return entry.tobuf(tarfile.GNU_FORMAT)
