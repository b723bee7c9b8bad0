"""Docker's attach stream taken apart again: frames of stdout and stderr on one connection."""

from __future__ import annotations

import struct
from typing import BinaryIO

_HEADER = struct.Struct(">BxxxL")  # Docker Engine API, "Attach to a container": stream 1 or 2, length in bytes


class Demultiplexer:
    """Writes each frame's bytes to its own file as they come, whole frames or parts of them."""

    def __init__(self, *, stdout: BinaryIO, stderr: BinaryIO) -> None:
        self._outputs = {1: stdout, 2: stderr}
        self._header = b""
        self._output = stdout
        self._left = 0

    def feed(self, data: bytes) -> None:
        """Take what the connection gave."""
        view = memoryview(data)
        while view:
            if self._left:
                part = view[: self._left]
                self._output.write(part)
                self._left -= len(part)
                view = view[len(part) :]
            else:
                view = self._take_header(view)

    def _take_header(self, view: memoryview) -> memoryview:
        needed = _HEADER.size - len(self._header)
        self._header += bytes(view[:needed])
        if len(self._header) == _HEADER.size:
            stream, self._left = _HEADER.unpack(self._header)
            self._output, self._header = self._outputs[stream], b""
        return view[needed:]
