"""preserve lock: pin every image, every input and the commit of the code."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO

from preserve.digest import CHUNK, Digest, FilePin
from preserve.documents.lockfile import ImagePin, InputPin, Lock, SourcePin
from preserve.documents.planning import expand, image_reference
from preserve.documents.workflow import ImageSource, InputSource, Workflow
from preserve.errors import DigestMismatch, Interrupted, MachineError, PreserveError, UserError
from preserve.interfaces import Progress
from preserve.operations.folder import PLATFORM, Folder, recipes_of, suites_of, write_file
from preserve.operations.places import Settings, transport_for
from preserve.sources import Sources, differs
from preserve.stores.hashes import HashMemory


def lock(
    folder: Folder, settings: Settings, *, update: Collection[str] | None, progress: Progress
) -> tuple[Lock, bool]:
    """Write preserve.lock and give it, with whether its bytes changed.

    Images that are pinned already stay as they are but for those named in ``update`` (an empty collection: all, and
    inputs too may be other bytes than before; ``None``: none). With ``update`` the clock that steps see
    (SOURCE_DATE_EPOCH) moves to the present commit.

    Raises:
        UserError: preserve.yaml is faulty, or an image or input does not exist.
        DigestMismatch: an input is not what preserve.yaml declares, or its address gives other bytes than before.
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
    # --update without a name lets everything be new
    held = earlier.inputs if earlier is not None and (update is None or update) else {}
    suites = suites_of(folder, workflow)
    with folder.held():
        hashes = folder.hashes()
        try:
            made = Lock(
                images=_images(workflow, _same_suites(earlier, suites), folder, settings, update, progress),
                recipes=recipes_of(folder, workflow),
                suites=suites,
                inputs=_inputs(workflow, folder, hashes, held, progress),
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


def _same_suites(earlier: Lock | None, suites: Mapping[str, str]) -> dict[str, ImagePin]:
    """Give the images that are pinned already, but for those whose packages are of another suite than wanted now."""
    if earlier is None:
        return {}
    known = earlier.suites
    return {name: pin for name, pin in earlier.images.items() if known.get(name) in (None, suites.get(name))}


def _images(
    workflow: Workflow,
    earlier: Mapping[str, ImagePin],
    folder: Folder,
    settings: Settings,
    update: Collection[str] | None,
    progress: Progress,
) -> dict[str, ImagePin]:
    pinned = {}
    for name, source in workflow.images.items():
        before = earlier.get(name)
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


def _inputs(
    workflow: Workflow, folder: Folder, hashes: HashMemory, earlier: Mapping[str, InputPin], progress: Progress
) -> dict[str, InputPin]:
    """Pin all inputs, several at a time; ``earlier`` are the pins that hold until told otherwise."""
    intake = _Intake(folder=folder, hashes=hashes, earlier=earlier, progress=progress)
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        try:
            pins = list(pool.map(intake.pin, workflow.inputs, workflow.inputs.values()))
        except KeyboardInterrupt:
            intake.stopping.set()  # leaving the pool waits for the transfers that are under way
            raise
    return dict(zip(workflow.inputs, pins, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Intake:
    """Fetches and pins inputs; used from several threads. ``stopping`` ends the transfers under way."""

    folder: Folder
    hashes: HashMemory
    earlier: Mapping[str, InputPin]
    progress: Progress
    stopping: threading.Event = field(default_factory=threading.Event)

    def pin(self, path: str, source: InputSource) -> InputPin:
        """Pin one input, fetched first where it is not there."""
        target = self.folder.root / path
        there = target.exists()
        if source.url is not None and not there:
            self._fetch(path, source, source.url, target)
        try:
            pin = self.hashes.pin(target)
        except OSError as error:
            raise UserError(
                f"{_place(path, source)}: {error.strerror}", hint="put the file there, or give its url"
            ) from error
        self._require_expected(path, source, pin.sha256)
        if there:
            self._require_its_address(path, source, pin.sha256)
        self.progress.bytes_done(path, pin.size, pin.size)
        return InputPin(sha256=pin.sha256, size=pin.size, url=source.url)

    def _fetch(self, path: str, source: InputSource, url: str, target: Path) -> None:
        """Download beside, check, rename."""
        if not url.startswith(("https://", "http://", "file:")):
            hint = f"fetch it yourself to {path}"
            raise UserError(f"{_place(path, source)}: {url} is not an http, https or file address", hint=hint)
        beside = target.with_name(f".fetching-{target.name}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with urllib.request.urlopen(self._address(url), timeout=60) as answer, beside.open("wb") as out:  # noqa: S310 (schemes checked above)
                pin = self._copy(answer, out, path)
            self._require_expected(path, source, pin.sha256)
            beside.replace(target)
        except (OSError, http.client.HTTPException) as error:
            raise _not_fetched(_place(path, source), url, error) from error
        finally:
            with contextlib.suppress(OSError):  # its folder could not be made
                beside.unlink()
        self.hashes.remember(target, pin)

    def _address(self, url: str) -> str:
        """Give the address; a relative ``file:`` starts at the analysis' folder."""
        if url.startswith("file:") and not url.startswith("file:/"):
            return (self.folder.root / url.removeprefix("file:")).as_uri()
        return url

    def _copy(self, answer: Any, target: BinaryIO, name: str) -> FilePin:
        """Copy the answer whole; a connection that was cut looks like its end, so that the length is compared."""
        state, done = hashlib.sha256(), 0
        length = answer.headers.get("Content-Length", "")
        while chunk := answer.read1(CHUNK):
            if self.stopping.is_set():
                raise Interrupted(f"{name}: interrupted")
            state.update(chunk)
            target.write(chunk)
            done += len(chunk)
            self.progress.bytes_done(name, done, None)
        if length.isdecimal() and done != int(length):  # what is no number says nothing
            raise ConnectionError(f"the connection was cut after {done} of {length} bytes")
        target.flush()
        os.fsync(target.fileno())
        return FilePin(sha256=Digest("sha256:" + state.hexdigest()), size=done)

    def _require_expected(self, path: str, source: InputSource, found: Digest) -> None:
        """Refuse other bytes than declared, or, from the same address, than pinned before."""
        before = self.earlier.get(path)
        if source.sha256 is not None and found != source.sha256:
            raise DigestMismatch(
                f"{_place(path, source)}: declared {source.sha256}, found {found}",
                hint="fetch the file again, or correct its sha256 if the change is meant",
            )
        if source.sha256 is None and before and source.url and before.url == source.url and before.sha256 != found:
            raise DigestMismatch(
                f"{_place(path, source)}: preserve.lock pins {before.sha256} from {source.url}, found {found}",
                hint="restore the file, or, if the change is meant, run: preserve lock --update",
            )

    def _require_its_address(self, path: str, source: InputSource, found: Digest) -> None:
        """Refuse to take the file that came from an earlier address for what is at the present one."""
        before = self.earlier.get(path)
        if source.sha256 is not None or source.url is None or before is None or before.url in (None, source.url):
            return
        if found == before.sha256:
            raise UserError(
                f"{_place(path, source)}: its url is new, but the file is still the one from {before.url}",
                hint=f"remove it to have it fetched: rm {path}; or, if both are the same, declare sha256: {found.hex}",
            )


def _place(path: str, source: InputSource) -> str:
    return f"preserve.yaml:{source.position.line}:{source.position.column}: input {path}"


def _not_fetched(place: str, url: str, error: Exception) -> PreserveError:
    """Give what a failed transfer means: an address that names nothing is the user's to correct."""
    if isinstance(error, urllib.error.HTTPError):
        error.close()  # it holds the connection
        if error.code in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
            return UserError(f"{place}: there is nothing at {url} (HTTP {error.code})", hint="correct the url")
        reason = f"HTTP {error.code} {error.reason}"
    else:
        reason = str(getattr(error, "reason", None) or error)
        if isinstance(getattr(error, "reason", None), FileNotFoundError):
            return UserError(f"{place}: there is nothing at {url}", hint="correct the url")
    return MachineError(f"{place}: cannot fetch {url}: {reason}", hint="check the network, and the room on this disk")


def _source(folder: Folder, sources: Sources, earlier: Lock | None) -> SourcePin | None:
    """Pin the commit; the earlier pin stays while nothing but preserve.lock was committed since."""
    now = sources.pin
    before = earlier.source if earlier else None
    if now is None or before is None or before.clean != now.clean or differs(folder.root, before, now):
        return now
    return before
