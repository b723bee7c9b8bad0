"""Products by content: a folder of read-only files named by their sha256."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from preserve.digest import FilePin, hash_file
from preserve.errors import DigestMismatch, MachineError
from preserve.stores.hashes import HashMemory


class ObjectStore:
    """Files by sha256 (and executable bit) below ``folder``; an object's name appears only when its bytes are whole.

    Products in the analysis folder are hard links to objects where the file system allows, copies elsewhere. Objects
    are read-only, and one that was changed all the same is noticed before it is used.
    """

    def __init__(self, folder: Path, hashes: HashMemory) -> None:
        self._folder, self._hashes = folder, hashes

    def path(self, pin: FilePin) -> Path:
        """Where the object lies, there or not."""
        return self._folder / pin.sha256.hex[:2] / (pin.sha256.hex[2:] + (".x" if pin.executable else ""))

    def take(self, path: Path) -> FilePin:
        """Move the file at ``path`` into the store.

        Raises:
            OSError: it cannot be read or moved.
        """
        pin = hash_file(path)  # it is not remembered where nothing will be
        target = self.path(pin)
        if self.holds(pin):
            path.unlink()
            return pin
        target.parent.mkdir(parents=True, exist_ok=True)
        path.chmod(0o555 if pin.executable else 0o444)
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
        path.replace(target)
        self._hashes.remember(target, pin)
        return pin

    def keep(self, path: Path) -> FilePin:
        """Take the file at ``path`` into the store and leave it where it is, read-only.

        Raises:
            OSError: it cannot be read, or there is no room.
        """
        pin = hash_file(path)
        if not self.holds(pin):
            target = self.path(pin)
            path.chmod(0o444)
            _put(path, target)  # steps that end together may have the same log
            self._hashes.remember(target, pin)
        return pin

    def holds(self, pin: FilePin) -> bool:
        """Whether the object is here and still what its name says; a spoilt one is removed."""
        path = self.path(pin)
        try:
            found = self._hashes.pin(path)
        except FileNotFoundError:
            return False
        if found.sha256 == pin.sha256:
            return True
        path.unlink(missing_ok=True)
        return False

    def place(self, pin: FilePin, target: Path) -> None:
        """Make ``target`` the object's content, whole or not at all; what stood there is replaced.

        Raises:
            DigestMismatch: the store does not hold it (any more).
            MachineError: no room, or no right to write there.
        """
        if not self.holds(pin):
            raise DigestMismatch(f"{target.name}: the store no longer holds {pin.sha256}", hint="run again")
        try:
            _put(self.path(pin), target)
        except OSError as error:
            raise MachineError(
                f"cannot write {target}: {error.strerror}", hint="free some space, or mend the rights"
            ) from error


def _put(source: Path, target: Path) -> None:
    """Make ``target`` a link of ``source``, or a copy where none can be made; whole, or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mktemp(dir=target.parent, prefix=".placing-"))  # noqa: S306 (link refuses a taken name)
    try:
        try:
            beside.hardlink_to(source)
        except OSError:  # another file system, or one without links
            shutil.copyfile(source, beside)
            beside.chmod(source.stat().st_mode & 0o777)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)  # rename onto another link of the same file leaves both
