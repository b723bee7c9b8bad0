"""preserve lock: pin every image, every input and the commit of the code."""

from __future__ import annotations

import contextlib
import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from preserve.digest import CHUNK, Digest
from preserve.documents.lockfile import ImagePin, InputPin, Lock, SourcePin
from preserve.documents.planning import expand, image_reference
from preserve.documents.workflow import ImageSource, InputSource, Workflow
from preserve.errors import DigestMismatch, MachineError, UserError
from preserve.interfaces import Progress
from preserve.operations.folder import Folder, write_file
from preserve.operations.places import Settings, transport_for
from preserve.sources import Sources, differs
from preserve.stores.hashes import HashMemory

PLATFORM = "linux/amd64"


def lock(
    folder: Folder, settings: Settings, *, update: Collection[str] | None, progress: Progress
) -> tuple[Lock, bool]:
    """Write preserve.lock and give it, with whether its bytes changed.

    Images that are pinned already stay as they are but for those named in ``update`` (an empty collection: all;
    ``None``: none). With ``update`` the clock that steps see (SOURCE_DATE_EPOCH) moves to the present commit.

    Raises:
        UserError: preserve.yaml is faulty, or an image or input does not exist.
        DigestMismatch: an input is not what preserve.yaml declares.
        MachineError: a registry, mirror or engine cannot be reached.
    """
    workflow = folder.workflow()
    sources = folder.sources(workflow)
    steps = expand(workflow, tracked=sources.tracked)
    products = tuple(path for step in steps for path in step.outputs)
    sources = folder.sources(workflow, products=products)
    earlier = folder.lock() if folder.lock_file.exists() else None
    for name in update or ():
        if name not in workflow.images:
            raise UserError(f"preserve.yaml has no image {name!r}", hint=f"one of: {', '.join(workflow.images)}")
    with folder.held():
        hashes = folder.hashes()
        try:
            made = Lock(
                images=_images(workflow, earlier, folder, settings, update, progress),
                inputs=_inputs(workflow, folder, hashes, progress),
                source=_source(folder, sources, earlier),
                epoch=earlier.epoch if earlier is not None and update is None else sources.epoch,
            )
        finally:
            hashes.save()
        data = made.to_bytes()
        changed = not folder.lock_file.exists() or folder.lock_file.read_bytes() != data
        if changed:
            write_file(folder.lock_file, data)
    return made, changed


def _images(
    workflow: Workflow,
    earlier: Lock | None,
    folder: Folder,
    settings: Settings,
    update: Collection[str] | None,
    progress: Progress,
) -> dict[str, ImagePin]:
    pinned = {}
    for name, source in workflow.images.items():
        before = earlier.images.get(name) if earlier else None
        renew = update is not None and (not update or name in update)
        pinned[name] = _image(source, before, folder, settings, renew, progress)
    return pinned


def _image(
    source: ImageSource, before: ImagePin | None, folder: Folder, settings: Settings, renew: bool, progress: Progress
) -> ImagePin:
    reference = image_reference(source)
    known = before if before is not None and before.reference == reference else None
    if known is not None and not renew and source.build is None:
        return known
    pins = {reference: known.packages} if known is not None and known.packages else {}
    transport = transport_for(reference, folder, settings, pins=pins, update=renew, progress=progress)
    return replace(transport.resolve(reference, platform=PLATFORM), reference=reference)


def _inputs(workflow: Workflow, folder: Folder, hashes: HashMemory, progress: Progress) -> dict[str, InputPin]:
    """Pin all inputs, several at a time."""
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        pins = pool.map(lambda path: _input(path, workflow.inputs[path], folder, hashes, progress), workflow.inputs)
        return dict(zip(workflow.inputs, pins, strict=True))


def _input(path: str, source: InputSource, folder: Folder, hashes: HashMemory, progress: Progress) -> InputPin:
    target = folder.root / path
    if not target.exists() and source.url is not None:
        _fetch(source.url, target, source.sha256, progress)
    try:
        pin = hashes.pin(target)
    except OSError as error:
        raise UserError(
            f"preserve.yaml:{source.position.line}:{source.position.column}: input {path}: {error.strerror}",
            hint="put the file there, or give its url",
        ) from error
    if source.sha256 is not None and source.sha256 != pin.sha256:
        raise DigestMismatch(
            f"preserve.yaml:{source.position.line}:{source.position.column}: input {path}: "
            f"declared {source.sha256}, found {pin.sha256}",
            hint="fetch the file again, or correct its sha256 if the change is meant",
        )
    progress.bytes_done(path, pin.size, pin.size)
    return InputPin(sha256=pin.sha256, size=pin.size, url=source.url)


def _fetch(url: str, target: Path, expected: Digest | None, progress: Progress) -> None:
    """Download beside, check, rename."""
    if not url.startswith(("https://", "http://", "file:")):
        raise UserError(f"{url}: inputs can be fetched from https:// and file: addresses", hint="fetch it yourself")
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".fetching-{target.name}")
    try:
        with urllib.request.urlopen(_address(url), timeout=60) as answer, beside.open("wb") as out:  # noqa: S310 (schemes checked above)
            found = Digest("sha256:" + _copy(answer, out, str(target.name), progress))
        if expected is not None and found != expected:
            raise DigestMismatch(f"{url}: declared {expected}, found {found}", hint="correct the sha256, or the url")
        beside.replace(target)
    except (OSError, urllib.error.URLError) as error:
        raise MachineError(f"cannot fetch {url}: {error}", hint="check the address and the network") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()


def _address(url: str) -> str:
    if url.startswith("file:") and not url.startswith("file://"):
        return Path(url.removeprefix("file:")).absolute().as_uri()
    return url


def _copy(source: BinaryIO, target: BinaryIO, name: str, progress: Progress) -> str:
    state, done = hashlib.sha256(), 0
    for chunk in _chunks(source):
        state.update(chunk)
        target.write(chunk)
        done += len(chunk)
        progress.bytes_done(name, done, None)
    target.flush()
    os.fsync(target.fileno())
    return state.hexdigest()


def _chunks(source: BinaryIO) -> Iterator[bytes]:
    while chunk := source.read(CHUNK):
        yield chunk


def _source(folder: Folder, sources: Sources, earlier: Lock | None) -> SourcePin | None:
    """Pin the commit; the earlier pin stays while nothing but preserve.lock was committed since."""
    now = sources.pin
    before = earlier.source if earlier else None
    if now is None or before is None or before.clean != now.clean or differs(folder.root, before, now):
        return now
    return before
