"""CPU time and memory of a container from its control group's files, sampled while it runs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


class Usage:
    """The highest values seen; ``None`` when none was.

    The files vanish with the container, so the last sample is the truth: ``cpu_seconds`` (user plus system) can miss
    the last interval, ``peak_memory`` (bytes, with the page cache of files the container read) what happened in it.
    """

    def __init__(self, container: str, pid: int) -> None:
        self.cpu_seconds: float | None = None
        self.peak_memory: int | None = None
        self._files: dict[str, int] = {}
        for kind, path in _files(container, pid):
            with contextlib.suppress(OSError):  # not on this machine, or the container has ended
                self._files[kind] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def sample(self) -> None:
        """Read the counters once; costs some 20 microseconds."""
        for kind, descriptor in self._files.items():
            with contextlib.suppress(OSError, ValueError):  # the container has just ended
                self._take(kind, os.pread(descriptor, 4096, 0).decode("ascii"))

    def close(self) -> None:
        """Close the files."""
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files = {}

    def _take(self, kind: str, text: str) -> None:
        if kind == "memory":
            self.peak_memory = max(int(text), self.peak_memory or 0)
        elif kind == "nanoseconds":
            self.cpu_seconds = int(text) / 1e9
        else:  # cpu.stat: "usage_usec 1234" comes first
            self.cpu_seconds = int(text.split()[1]) / 1e6


def _files(container: str, pid: int) -> Iterator[tuple[str, Path]]:
    """Name the counters, there or not; none when ``pid`` is not the container's (a daemon on another machine)."""
    try:
        lines = Path("/proc", str(pid), "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if container not in group:
            continue
        yield from _candidates(controllers, group)


def _candidates(controllers: str, group: str) -> Iterator[tuple[str, Path]]:
    folder = _CGROUPS / controllers / group.lstrip("/")
    if not controllers:  # version 2
        yield "memory", folder / "memory.peak"
        yield "statistics", folder / "cpu.stat"
    elif "memory" in controllers.split(","):
        yield "memory", folder / "memory.max_usage_in_bytes"
    elif "cpuacct" in controllers.split(","):
        yield "nanoseconds", folder / "cpuacct.usage"
