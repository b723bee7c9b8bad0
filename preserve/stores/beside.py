"""Write a large file beside its place; it comes to stand there whole, or not at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from preserve.errors import MachineError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # file systems of clusters, mounted without locks


@contextlib.contextmanager
def written_beside(path: Path, size: int) -> Iterator[int]:
    """Give a descriptor of an empty file that replaces ``path`` at the end; whatever goes wrong, it is removed.

    ``size`` is how many bytes will be written. What a killed process left is written over by the next.

    Raises:
        MachineError: no room for ``size`` bytes, no right to write there, or another process is writing the same.
    """
    beside = path.with_name(f".{path.name}.writing")
    try:
        descriptor = _taken(beside)
        try:
            os.ftruncate(descriptor, 0)
            check_room(path.parent, size, path.name)
            yield descriptor
            os.fsync(descriptor)
            beside.replace(path)
            sync_folder(path.parent)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
    except OSError as error:
        raise write_error(path, size, error) from error


def check_room(folder: Path, size: int, what: str) -> None:
    """See that ``size`` bytes fit where ``folder`` is.

    Raises:
        MachineError: they do not.
    """
    free = _free(folder)
    if free < size:
        raise _no_room(what, size, free)


def write_error(path: Path, size: int, error: OSError) -> MachineError:
    """Give the error for a write of ``size`` bytes that failed: a full disk says what is needed and free."""
    if error.errno in _FULL:
        with contextlib.suppress(OSError):
            return _no_room(path.name, size, _free(path.parent))
    return MachineError(f"cannot write {path}: {error.strerror}", hint="mend the rights, or choose another place")


def write_all(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of ``data`` at ``offset``.

    Raises:
        OSError: it cannot be written.
    """
    rest = memoryview(data)
    while rest:
        count = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[count:], offset + count


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` last.

    Raises:
        OSError: the disk does not take them.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _taken(beside: Path) -> int:
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    try:
        with _busy(beside):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        ours, there = os.fstat(descriptor), beside.lstat()
        if not stat.S_ISREG(ours.st_mode) or (ours.st_dev, ours.st_ino) != (there.st_dev, there.st_ino):
            raise _in_use(beside)  # it was finished and renamed between our opening and our locking it
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextlib.contextmanager
def _busy(beside: Path) -> Iterator[None]:
    try:
        yield
    except BlockingIOError as error:
        raise _in_use(beside) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise


def _in_use(beside: Path) -> MachineError:
    return MachineError(f"another process is writing {beside}", hint="wait for it, or choose another name")


def _free(folder: Path) -> int:
    room = os.statvfs(folder)
    return room.f_bavail * room.f_frsize


def _no_room(what: str, size: int, free: int) -> MachineError:
    return MachineError(
        f"no room for {what}: {size / 1e6:,.1f} MB are needed, {free / 1e6:,.1f} MB are free",
        hint="free some space, or choose a place on another disk",
    )
