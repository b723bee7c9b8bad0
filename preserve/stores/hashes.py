"""What files hashed to, remembered by size, time and inode, so that an unchanged file is not read again."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from pathlib import Path

from preserve.digest import Digest, FilePin, hash_file


class HashMemory:
    """Pins of files, kept in one JSON file; used from several threads.

    A file is taken as unchanged when size, modification time (ns) and inode are as remembered, as make does (git asks
    for the change time too, but each run links its inputs, and that changes it). The archive's ``verify`` trusts none
    of this, and ``anew`` trusts nothing of earlier processes. A lost or damaged memory only costs hashing again.
    """

    def __init__(self, path: Path, *, anew: bool = False) -> None:
        self._path = path
        self._changed = False
        self._lock = threading.Lock()
        self._known: dict[str, list[int | str]] = {}
        with contextlib.suppress(OSError, ValueError):
            known = json.loads(path.read_bytes())
            self._known = known if isinstance(known, dict) else {}
        self._doubted = set(self._known) if anew else set()

    def pin(self, path: Path) -> FilePin:
        """Pin of the file at ``path``, read only if it changed.

        Raises:
            OSError: it cannot be read.
        """
        stat = path.stat()
        known = None if str(path) in self._doubted else self._known.get(str(path))
        if isinstance(known, list) and len(known) == 4 and known[:3] == _seen(stat):
            return FilePin(sha256=Digest(str(known[3])), size=stat.st_size, executable=bool(stat.st_mode & 0o100))
        pin = hash_file(path)
        self.remember(path, pin, stat)
        return pin

    def is_still(self, path: Path, pin: FilePin, *, at: Path) -> bool:
        """Whether ``at``, which may be a link of the file that was pinned at ``path``, has those bytes."""
        try:
            stat = at.stat()
            if self._known.get(str(path)) == [*_seen(stat), str(pin.sha256)]:
                return True
            if hash_file(at).sha256 != pin.sha256:
                return False
        except OSError:
            return False
        self.remember(path, pin, stat)
        return True

    def remember(self, path: Path, pin: FilePin, stat: os.stat_result | None = None) -> None:
        """Take ``pin`` for what ``path`` holds now."""
        stat = stat or path.stat()
        with self._lock:
            self._known[str(path)] = [*_seen(stat), str(pin.sha256)]
            self._doubted.discard(str(path))
            self._changed = True

    def save(self) -> None:
        """Write the memory, if it changed."""
        with self._lock:
            if not self._changed:
                return
            beside = self._path.with_name(self._path.name + ".writing")
            beside.write_text(json.dumps(self._known, separators=(",", ":")))
            beside.replace(self._path)
            self._changed = False


def _seen(stat: os.stat_result) -> list[int | str]:
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino]
