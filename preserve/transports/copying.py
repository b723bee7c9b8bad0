"""One image from a source into an OCI layout: manifest, config and layers checked against the pin, then listed."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from preserve.digest import Digest
from preserve.documents.lockfile import ImagePin
from preserve.errors import DigestMismatch, MachineError
from preserve.interfaces import Progress
from preserve.oci import Descriptor, Image, Layout
from preserve.transports.selection import read_checked

RESERVE = 16 << 20  # bytes that stay free on the disk besides the image


class BlobSource(Protocol):
    """Gives the blobs of one place."""

    def manifest(self, digest: Digest) -> bytes:
        """A manifest's bytes, checked."""

    def document(self, blob: Descriptor) -> bytes:
        """A small blob's bytes, checked."""

    def chunks(self, blob: Descriptor) -> Iterator[bytes]:
        """A blob's bytes in pieces as the place gives them: checked by whoever writes them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How hard to try: blobs under way at once, and how often a blob that came wrong is asked for."""

    threads: int = 1
    tries: int = 1


def copy_image(
    pin: ImagePin, source: BlobSource, folder: Path, *, progress: Progress, effort: Effort | None = None
) -> Image:
    """Copy what is missing or damaged in the OCI layout at ``folder``; every blob is hashed; the image is listed last.

    Raises:
        DigestMismatch: the pin does not fit, or a blob has other bytes. The image is not listed.
        MachineError: the disk is full or not writable, or the source failed.
    """
    layout = Layout(folder)
    try:
        layout.create()
        manifest = source.manifest(pin.manifest_digest)
        image = read_checked(manifest, what=pin.reference, fetch=source.document)
        check_pin(image, pin)
        _check_space(image, layout, pin.reference)
        _copy_blobs((image.config, *image.layers), source, layout, _Meter(pin.reference, progress), effort or Effort())
        layout.add_bytes(manifest, expected=image.manifest.digest)
        layout.list_image(image)
    except OSError as error:
        raise MachineError(
            f"{pin.reference}: cannot copy it to {folder}: {error.strerror or error}",
            hint="see that the folder is writable and has room, and run the command again",
        ) from error
    return image


def check_pin(image: Image, pin: ImagePin) -> None:
    """Check an image's documents against its pin.

    Raises:
        DigestMismatch: manifest, config or the layers' diff_ids are others.
    """
    for what, found, expected in (
        ("manifest", image.manifest.digest, pin.manifest_digest),
        ("config", image.config.digest, pin.config_digest),
        ("layers' diff_ids", ", ".join(image.diff_ids), ", ".join(pin.diff_ids)),
    ):
        if found != expected:
            raise DigestMismatch(
                f"{pin.reference}: {what} not as pinned: expected {expected}, found {found}",
                hint="the pin is of another image: lock again with: preserve lock --update",
            )


class _Meter:
    """Adds up the bytes of all layers for one progress, which need not be safe for threads."""

    def __init__(self, reference: str, progress: Progress) -> None:
        self._what, self._progress = f"copying {reference}", progress
        self._lock, self._done = threading.Lock(), 0
        self.total = 0
        self.stopped = threading.Event()

    def add(self, size: int) -> None:
        with self._lock:
            self._done += size
            self._progress.bytes_done(self._what, self._done, self.total)

    def count(self, chunks: Iterator[bytes], counted: list[int]) -> Iterator[bytes]:
        """Pass chunks on until the copy is stopped; ``counted`` gets their sizes."""
        for chunk in chunks:
            if self.stopped.is_set():
                raise MachineError(f"{self._what} was stopped")
            yield chunk
            counted.append(len(chunk))
            self.add(len(chunk))


def _check_space(image: Image, layout: Layout, reference: str) -> None:
    missing = sum(blob.size for blob in image.blobs if not layout.has(blob))
    free = shutil.disk_usage(layout.path).free
    if missing and missing + RESERVE > free:
        raise MachineError(
            f"{reference}: {missing} bytes to copy, {free} bytes free in {layout.path}",
            hint="make room there and run the command again",
        )


def _copy_blobs(
    blobs: tuple[Descriptor, ...], source: BlobSource, layout: Layout, meter: _Meter, effort: Effort
) -> None:
    distinct = tuple({blob.digest: blob for blob in blobs}.values())
    meter.total = sum(blob.size for blob in distinct)
    pool = ThreadPoolExecutor(max_workers=effort.threads, thread_name_prefix="layer")
    try:
        jobs = [pool.submit(_copy_blob, blob, source, layout, meter, effort.tries) for blob in distinct]
        for job in wait(jobs, return_when=FIRST_EXCEPTION).done:
            job.result()
    finally:
        meter.stopped.set()  # after a failure or Ctrl-C, what is under way ends at its next piece
        pool.shutdown(wait=True, cancel_futures=True)


def _copy_blob(blob: Descriptor, source: BlobSource, layout: Layout, meter: _Meter, tries: int) -> None:
    if _intact(blob, layout):
        meter.add(blob.size)
        return
    for left in reversed(range(tries)):
        counted: list[int] = []
        try:
            layout.add(meter.count(source.chunks(blob), counted), expected=blob.digest, size=blob.size)
        except DigestMismatch:
            meter.add(-sum(counted))
            if not left:
                raise
        else:
            return


def _intact(blob: Descriptor, layout: Layout) -> bool:
    """Whether the blob lies here with its own bytes; a damaged one is fetched again and replaced."""
    if not layout.has(blob):
        return False
    try:
        layout.verify(blob)
    except DigestMismatch:
        return False
    return True
