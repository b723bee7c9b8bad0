"""Packets of a container that found no route: a step without network that tried to reach one."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Self


class NetworkCounter:
    """An open view of one network namespace's counters; it outlives the namespace's processes.

    The kernel keeps the namespace for as long as the file is open, so the last packet of the last process counts.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def of_process(cls, pid: int) -> Self | None:
        """Open the counters that process ``pid`` sees; ``None`` when it is gone or in our own namespace."""
        try:
            if _namespace(pid) == _namespace("self"):
                return None
            return cls(os.open(f"/proc/{pid}/net/snmp", os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            return None

    def read_and_close(self) -> int | None:
        """Packets without a route so far (``Ip: OutNoRoutes``, RFC 4293); ``None`` when the kernel does not say."""
        try:
            text = os.pread(self._descriptor, 1 << 16, 0).decode("ascii", "replace")
        except OSError:
            return None
        finally:
            os.close(self._descriptor)
        return no_routes(text.splitlines())


def no_routes(lines: Iterable[str]) -> int | None:
    """Read ``OutNoRoutes`` from the lines of /proc/net/snmp: one line of names, then one of numbers."""
    rows = [line.split() for line in lines if line.startswith("Ip:")]
    if len(rows) != 2:
        return None
    found = dict(zip(rows[0], rows[1], strict=False)).get("OutNoRoutes")
    return int(found) if found is not None else None


def first_child(pid: int) -> int | None:
    """Pid of the first child of ``pid``'s main thread; ``None`` when there is none or the kernel does not list them."""
    try:  # plain text, not Path: asked every few milliseconds while a container starts
        with open(f"/proc/{pid}/task/{pid}/children", "rb", buffering=0) as stream:  # noqa: PTH123
            children = stream.read(4096).split()
    except OSError:
        return None
    return int(children[0]) if children else None


def _namespace(process: int | str) -> str:
    return os.readlink(f"/proc/{process}/ns/net")  # noqa: PTH115 (no Path: asked often, as above)
