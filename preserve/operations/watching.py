"""Which of the laid out inputs a step opens: inotify(7) on their folders, no privilege and no tracing."""

from __future__ import annotations

import ctypes
import os
import select
import struct
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from preserve.errors import MachineError

_OPENED = 0x20  # IN_OPEN: reading, mapping and executing begin with it
_LOST = 0x4000  # IN_Q_OVERFLOW
_EVENT = struct.Struct("iIII")  # watch, mask, cookie, length of the name that follows
_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK  # IN_CLOEXEC and IN_NONBLOCK are the same bits


class InputWatch:
    """Watches a folder of inputs (paths count from it) and files that are mounted from elsewhere, by path.

    A file of the folder counts as opened when it is opened there: that the same content is opened under another name,
    by another step, does not count. A file from elsewhere counts whoever opens it, and by whichever of its names.
    """

    def __init__(self, folder: Path, elsewhere: Mapping[str, Path]) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._checked(self._libc.inotify_init1(_FLAGS))
        self._places: dict[int, str] = {}
        self._files: dict[int, list[str]] = {}  # one watch for a file, however many of its names are inputs
        self._opened: set[str] = set()
        self._lost = False
        self._reading, self._writing = os.pipe()
        self._thread = threading.Thread(target=self._drain, daemon=True)
        try:
            for parent, _, _ in os.walk(folder):
                self._places[self._watch(Path(parent))] = Path(parent).relative_to(folder).as_posix()
            for path, file in elsewhere.items():
                self._files.setdefault(self._watch(file), []).append(path)
        except BaseException:
            self._close()
            raise

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.write(self._writing, b".")
        self._thread.join()
        self._close()

    def unopened(self, paths: Iterable[str]) -> tuple[str, ...]:
        """Give those of ``paths`` that nobody opened, after the ``with`` block; none when events were lost."""
        return () if self._lost else tuple(path for path in paths if path not in self._opened)

    def _watch(self, path: Path) -> int:
        return self._checked(self._libc.inotify_add_watch(self._descriptor, os.fsencode(path), _OPENED))

    def _checked(self, answer: int) -> int:
        if answer < 0:
            raise MachineError(
                f"inputs cannot be watched: {os.strerror(ctypes.get_errno())}",
                hint="see: sysctl fs.inotify; or run without --trace-inputs",
            )
        return answer

    def _drain(self) -> None:
        """Take events as they come: the kernel keeps only some thousand."""
        poller = select.poll()
        for descriptor in (self._descriptor, self._reading):
            poller.register(descriptor, select.POLLIN)
        while True:
            ready = {descriptor for descriptor, _ in poller.poll()}
            if self._descriptor in ready:
                self._take(os.read(self._descriptor, 1 << 16))
            elif self._reading in ready:  # and no event is left
                return

    def _take(self, data: bytes) -> None:
        while data:
            watch, mask, _, length = _EVENT.unpack_from(data)
            name = os.fsdecode(data[_EVENT.size : _EVENT.size + length].rstrip(b"\0"))
            data = data[_EVENT.size + length :]
            if mask & _LOST:
                self._lost = True
            elif watch in self._files:
                self._opened.update(self._files[watch])
            elif name:
                place = self._places.get(watch, "")
                self._opened.add(name if place == "." else f"{place}/{name}")

    def _close(self) -> None:
        for descriptor in (self._descriptor, self._reading, self._writing):
            os.close(descriptor)
