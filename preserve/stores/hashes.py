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

    A file is taken as unchanged when size, modification time (ns) and inode are as remembered, as git and make do;
    the archive's ``verify`` trusts none of this. A lost or damaged memory only costs hashing again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changed = False
        self._lock = threading.Lock()
        self._known: dict[str, list[int | str]] = {}
        with contextlib.suppress(OSError, ValueError):
            known = json.loads(path.read_bytes())
            self._known = known if isinstance(known, dict) else {}

    def pin(self, path: Path) -> FilePin:
        """Pin of the file at ``path``, read only if it changed.

        Raises:
            OSError: it cannot be read.
        """
        stat = path.stat()
        seen = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
        known = self._known.get(str(path))
        if isinstance(known, list) and len(known) == 4 and known[:3] == seen:
            return FilePin(sha256=Digest(str(known[3])), size=stat.st_size, executable=bool(stat.st_mode & 0o100))
        pin = hash_file(path)
        self.remember(path, pin, stat)
        return pin

    def remember(self, path: Path, pin: FilePin, stat: os.stat_result | None = None) -> None:
        """Take ``pin`` for what ``path`` holds now."""
        stat = stat or path.stat()
        with self._lock:
            self._known[str(path)] = [stat.st_size, stat.st_mtime_ns, stat.st_ino, str(pin.sha256)]
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
