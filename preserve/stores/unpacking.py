"""Take files out of an archive: each is hashed while it is written, and none comes to stand outside the folder."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from preserve.digest import Digest, FilePin
from preserve.errors import PreserveError, UserError
from preserve.interfaces import Archive, Progress, Silent
from preserve.stores.beside import check_room, write_all, write_error
from preserve.stores.damage import Damaged, damaged

THREADS = 2
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW


def unpack(
    archive: Archive,
    target: Path,
    wanted: Mapping[str, FilePin],
    *,
    places: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> None:
    """Write the files ``wanted`` (by name in the archive) below ``target``, which is made if it is missing.

    ``places`` gives the path below ``target`` of those that do not go by their name. Modes are 0644 or, as the pin
    says, 0755. What was written before a failure stays; the file that failed does not.

    Raises:
        Damaged: a file is not in the archive, or not what its pin says.
        UserError: a place is taken, or not below ``target``.
        MachineError: no room for all, or it cannot be read or written.
    """
    where = {name: _parts(name, (places or {}).get(name, name)) for name in wanted}
    total = sum(pin.size for pin in wanted.values())
    try:
        target.mkdir(parents=True, exist_ok=True)
        check_room(target, total, f"unpacking to {target}")
        folder = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise write_error(target, total, error) from error
    try:
        with _Unpacking(archive, target, folder, total, progress or Silent()) as unpacking:
            unpacking.all_of(wanted, where)
    finally:
        os.close(folder)


def hashed(
    archive: Archive, names: Sequence[str], *, progress: Progress | None = None
) -> Iterator[tuple[str, FilePin | Damaged]]:
    """Hash files, two at a time, and yield their pins as they are done: or the damage, where one cannot be read whole.

    Raises:
        MachineError: the archive cannot be read.
    """
    sizes = archive.files()
    told = _Told(progress or Silent(), "verify", sum(sizes.get(name, 0) for name in names))
    with _threads() as (pool, stopping):
        futures = [pool.submit(_hash_one, archive, name, told, stopping) for name in names]
        for future in futures:
            yield future.result()


class _Told:
    """Counts the bytes of several threads for whoever watches."""

    def __init__(self, progress: Progress, what: str, total: int) -> None:
        self._progress, self._what, self._total, self._done = progress, what, total, 0
        self._lock = threading.Lock()

    def more(self, count: int) -> None:
        """``count`` more bytes are done."""
        with self._lock:
            self._done += count
            self._progress.bytes_done(self._what, self._done, self._total)


class _Stopped(PreserveError):
    """Another thread failed, or the user stopped: nobody waits for this one any more."""


class _Unpacking:
    """Writes files below ``folder`` (a descriptor of ``target``)."""

    def __init__(self, archive: Archive, target: Path, folder: int, total: int, progress: Progress) -> None:
        self._archive, self._target, self._folder, self._total = archive, target, folder, total
        self._told = _Told(progress, "unpack", total)
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> _Unpacking:
        self._pool, self._stopping = self._stack.enter_context(_threads())
        return self

    def __exit__(self, *failure: object) -> None:
        self._stack.close()

    def all_of(self, wanted: Mapping[str, FilePin], where: Mapping[str, tuple[str, ...]]) -> None:
        """Write all files; the first that fails ends it."""
        futures = [self._pool.submit(self._one, name, pin, where[name]) for name, pin in wanted.items()]
        for future in as_completed(futures):
            future.result()

    def _one(self, name: str, pin: FilePin, parts: tuple[str, ...]) -> None:
        path = self._target.joinpath(*parts)
        try:
            with self._made_folder(parts[:-1]) as folder:
                descriptor = os.open(parts[-1], _NEW, 0o600, dir_fd=folder)
                try:
                    self._fill(descriptor, name, pin)
                except BaseException:
                    os.unlink(parts[-1], dir_fd=folder)
                    raise
                finally:
                    os.close(descriptor)
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ELOOP, errno.ENOTDIR):
                raise UserError(f"{path}: something stands there already", hint="choose an empty folder") from error
            raise write_error(path, self._total, error) from error

    def _fill(self, descriptor: int, name: str, pin: FilePin) -> None:
        state, size = hashlib.sha256(), 0
        for chunk in self._archive.chunks(name):
            if self._stopping.is_set():
                raise _Stopped("stopped")
            if size + len(chunk) > pin.size:
                raise damaged(name, "is longer than it should be", f"{pin.size} bytes", "more")
            state.update(chunk)
            write_all(descriptor, chunk, size)
            size += len(chunk)
            self._told.more(len(chunk))
        found = Digest("sha256:" + state.hexdigest())
        if found != pin.sha256:
            raise damaged(name, "is not what its digest says", pin.sha256, found)
        os.fchmod(descriptor, 0o755 if pin.executable else 0o644)

    @contextlib.contextmanager
    def _made_folder(self, parts: tuple[str, ...]) -> Iterator[int]:
        with contextlib.ExitStack() as stack:
            folder = self._folder
            for part in parts:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=folder)
                folder = os.open(part, _FOLDER, dir_fd=folder)
                stack.callback(os.close, folder)
            yield folder


@contextlib.contextmanager
def _threads() -> Iterator[tuple[ThreadPoolExecutor, threading.Event]]:
    """Give threads, and what tells them to leave off; whatever ends the block, none works on after it."""
    pool, stopping = ThreadPoolExecutor(THREADS, thread_name_prefix="archive"), threading.Event()
    try:
        yield pool, stopping
    finally:
        stopping.set()
        pool.shutdown(cancel_futures=True)


def _hash_one(archive: Archive, name: str, told: _Told, stopping: threading.Event) -> tuple[str, FilePin | Damaged]:
    state, size = hashlib.sha256(), 0
    try:
        for chunk in archive.chunks(name):
            if stopping.is_set():
                raise _Stopped("stopped")
            state.update(chunk)
            size += len(chunk)
            told.more(len(chunk))
        executable = archive.executable(name)
    except Damaged as damage:
        return name, damage
    return name, FilePin(sha256=Digest("sha256:" + state.hexdigest()), size=size, executable=executable)


def _parts(name: str, path: str) -> tuple[str, ...]:
    parts = tuple(path.split("/"))
    if not all(parts) or "\0" in path or any(part in (".", "..") for part in parts):
        raise UserError(f"{name} cannot be put at {path!a}: that is not below the folder")
    return parts
