"""The parent's side of the guard process: no container outlives this process, not even after kill -9."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import weakref
from pathlib import Path

_SCRIPT = Path(__file__).with_name("guard_process.py")


class Guard:
    """A process in a session of its own (Ctrl-C does not reach it) that is told what runs.

    It sees the end of this process as the end of its pipe, and then ends what was not taken back.
    """

    def __init__(self, *arguments: str) -> None:
        reading, self._writing = os.pipe()
        try:
            pid = _spawn(reading, arguments)
        finally:
            os.close(reading)
        # weakref.finalize also acts at the interpreter's end; the guard then finds nothing to do
        self._finish = weakref.finalize(self, _end, self._writing, pid)

    def watch(self, kind: str, name: str) -> None:
        """Say that a container is about to start."""
        self._tell("+", kind, name)

    def forget(self, kind: str, name: str) -> None:
        """Say that it is gone."""
        self._tell("-", kind, name)

    def close(self) -> None:
        """End the guard; what it was told and not taken back is ended first."""
        self._finish()

    def _tell(self, sign: str, kind: str, name: str) -> None:
        line = json.dumps([sign, kind, name]).encode() + b"\n"
        with contextlib.suppress(BrokenPipeError):  # a guard killed by hand protects no more; the run goes on
            os.write(self._writing, line)  # one write below PIPE_BUF is atomic: no lock


def _spawn(reading: int, arguments: tuple[str, ...]) -> int:
    quiet = [(os.POSIX_SPAWN_OPEN, number, "/dev/null", os.O_WRONLY, 0) for number in (1, 2)]
    return os.posix_spawn(
        sys.executable,
        (sys.executable, "-I", "-S", str(_SCRIPT), str(os.getsid(0)), *arguments),
        {"LD_LIBRARY_PATH": f"{sys.base_prefix}/lib"},  # where an interpreter in a place of its own has its library
        file_actions=[(os.POSIX_SPAWN_DUP2, reading, 0), *quiet],
        setsid=True,
    )


def _end(writing: int, pid: int) -> None:
    os.close(writing)
    with contextlib.suppress(ChildProcessError):  # somebody else reaped it
        os.waitpid(pid, 0)
