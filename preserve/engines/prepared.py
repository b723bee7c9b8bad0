"""Images made ready for Apptainer: an unpacked folder (or a SIF) per manifest digest, built from verified blobs.

A prepared image is a cache, never an identity. It is built beside and renamed, and known again by a fingerprint.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from preserve.documents import jsonform
from preserve.documents.lockfile import ImagePin
from preserve.engines import environment
from preserve.errors import MachineError, UserError
from preserve.oci import INDEX, Image, Layout

Form = Literal["folder", "sif"]
VERSION = 3  # of what is written here; another one is built again
STARTED = "/.singularity.d/started"  # in the container: filled just before the command takes over
_ENGINE_LINKS = (".exec", ".run", ".shell", ".test", "environment", "singularity")


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedImage:
    """``path`` is what the engine runs; ``files`` (folder) holds the container's passwd, group, hosts, resolv.conf."""

    path: Path
    files: Path
    environment: Mapping[str, str]


class PreparedImages:
    """The folder of prepared images; ``build`` runs the engine's ``build`` with its arguments, in a scratch folder."""

    def __init__(
        self, folder: Path, *, form: Form, script: str, build: Callable[[tuple[str, ...], Path], None]
    ) -> None:
        self._folder, self._form, self._script, self._build = folder, form, script, build

    def find(self, pin: ImagePin) -> PreparedImage | None:
        """Give the prepared image if it is there and as it was built (every file's size, times and mode: lstat)."""
        place = self._place(pin)
        try:
            state = jsonform.load((place / "state.json").read_bytes(), str(place / "state.json"))
        except (OSError, UserError):
            return None
        if state.get("version") != VERSION or state.get("fingerprint") != self._seal(place):
            return None
        return self._prepared(place, state["environment"])

    def make(self, pin: ImagePin, layout: Path) -> PreparedImage:
        """Give the prepared image, built if it is not there; one process builds, others wait for it.

        Raises:
            DigestMismatch: the layout is not the pinned image. Nothing was built.
            MachineError: the engine could not build it, or the folder cannot be written.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with _locked(self._place(pin).with_suffix(".lock")):
                return self.find(pin) or self._made(pin, Layout(layout))
        except OSError as error:
            raise MachineError(
                f"cannot prepare image {pin.reference} in {self._folder}: {error.strerror}",
                hint="make room there, or choose another cache folder",
            ) from error

    def _made(self, pin: ImagePin, store: Layout) -> PreparedImage:
        building = f".building-{self._place(pin).name}-"
        for abandoned in self._folder.glob(f"{building}*"):  # the lock is ours: their builder is dead
            remove_tree(abandoned)
        work = self._folder / f"{building}{secrets.token_hex(6)}"
        ready = work / "ready"
        ready.mkdir(parents=True)
        try:
            image = store.verified_image(pin.manifest_digest, pin.config_digest, pin.diff_ids)
            seen = environment.image_environment(image.settings.get("Env") or ())
            self._unpack(store, image, work)
            _write_state(ready, self._seal(ready), seen)
            place = self._place(pin)
            remove_tree(place)  # one that was changed after it was built
            ready.rename(place)
            return self._prepared(place, seen)
        finally:
            remove_tree(work)

    def _unpack(self, store: Layout, image: Image, work: Path) -> None:
        ready, tree = work / "ready", work / "ready" / "image"
        view = _view(store, image, work / "view")
        self._build(("--sandbox", str(tree), f"oci:{view}"), work)
        _adapt(tree, self._script)
        _write_files(tree, ready / "files")
        if self._form == "sif":
            self._build((str(ready / "image.sif"), str(tree)), work)
            remove_tree(tree)

    def _prepared(self, place: Path, seen: Mapping[str, str]) -> PreparedImage:
        return PreparedImage(path=self._image(place), files=place / "files", environment=seen)

    def _place(self, pin: ImagePin) -> Path:
        return self._folder / f"{pin.manifest_digest.hex}-{self._form}"

    def _seal(self, place: Path) -> str:
        return f"{fingerprint(self._image(place))} {fingerprint(place / 'files')}"

    def _image(self, place: Path) -> Path:
        return place / ("image" if self._form == "folder" else "image.sif")


def fingerprint(path: Path) -> str:
    """Digest over every entry's name, kind, mode, size and times (lstat): any later change shows, at 3 us a file.

    The change time cannot be set back by ``touch``, so restoring size and modification time does not hide a change.
    """
    state = hashlib.sha256()
    folders = [str(path)]
    try:
        state.update(_line("", path.lstat()) if path.is_file() else b"")
        while folders and path.is_dir():
            with os.scandir(folders.pop()) as entries:
                for entry in sorted(entries, key=lambda found: found.name):
                    status = entry.stat(follow_symlinks=False)
                    state.update(_line(entry.name, status))
                    if stat.S_ISDIR(status.st_mode):
                        folders.append(entry.path)
    except OSError:
        return "unreadable"
    return state.hexdigest()


def remove_tree(path: Path) -> None:
    """Remove a folder, if it is there, whose sub-folders may be read-only (images and steps make such).

    Another process may be at it too: the guard of a run that was killed, and what that guard is about to end.
    """
    for last in (*[False] * 100, True):
        if not path.exists():
            return
        try:
            _remove_tree(path)
        except OSError as error:
            if last or error.errno not in (errno.ENOENT, errno.ENOTEMPTY):
                raise
            time.sleep(0.05)


def _remove_tree(path: Path) -> None:
    try:
        shutil.rmtree(path)
    except PermissionError:
        for folder, _, _ in os.walk(path):  # top down: a folder is opened before it is looked into
            for entry in os.scandir(folder):
                if entry.is_dir(follow_symlinks=False):
                    Path(entry.path).chmod(0o700)
        shutil.rmtree(path)


def _line(name: str, status: os.stat_result) -> bytes:
    seen = (status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return f"{name}\0{seen}\n".encode(errors="surrogateescape")


def _write_state(ready: Path, seal: str, seen: Mapping[str, str]) -> None:
    data = jsonform.dump({"version": VERSION, "fingerprint": seal, "environment": dict(seen)})
    with (ready / "state.json").open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _view(store: Layout, image: Image, folder: Path) -> Path:
    """Give a layout of one image over the same blobs: Apptainer 1.4.5 refuses a layout with several."""
    folder.mkdir()
    entry = {"mediaType": image.manifest.media_type, "digest": image.manifest.digest, "size": image.manifest.size}
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}
    (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (folder / "index.json").write_text(json.dumps(index))
    (folder / "blobs").symlink_to(store.path.resolve() / "blobs")
    return folder


def _adapt(tree: Path, script: str) -> None:
    """Replace the engine's own start-up scripts by ours: they would add variables with paths of this machine."""
    remove_tree(tree / ".singularity.d")
    for name in _ENGINE_LINKS:
        link = tree / name
        if link.is_symlink() and str(link.readlink()).startswith(".singularity.d/"):
            link.unlink()
    (tree / ".singularity.d" / "env").mkdir(parents=True)
    (tree / ".singularity.d" / "env" / "00-preserve.sh").write_text(script)
    (tree / STARTED.lstrip("/")).touch()
    (tree / "work").mkdir(exist_ok=True)  # Docker makes the working folder; Apptainer wants to find it


def _write_files(tree: Path, folder: Path) -> None:
    """Write what is mounted over the files into which the engine would copy this machine's users and resolver."""
    folder.mkdir()
    for name in ("passwd", "group"):
        (folder / name).write_bytes(_plain_file(tree / "etc" / name))
    for name, text in environment.OFFLINE_FILES.items():
        (folder / name).write_text(text)


def _plain_file(path: Path) -> bytes:
    """Bytes of a file of the image; none when it is missing or a link, which may point out of the image."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as stream:
            return stream.read(1 << 20)
    return b""


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)  # ends with the process, however that ends
        yield
