"""A terminal for tests: a program at a pseudo-terminal of its own, its keys and what it shows."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

CTRL_C, CTRL_D = "\x03", "\x04"


@dataclass(kw_only=True)
class Terminal:
    """A program at a terminal; ``text`` is all that it has shown so far."""

    process: subprocess.Popen[bytes]
    master: int
    text: str = ""
    _bytes: bytes = field(default=b"", repr=False)

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self.master, keys.encode())

    def wait_for(self, words: str, *, seconds: float = 30, times: int = 1) -> None:
        """Read until ``words`` were shown, or fail with what was shown instead."""
        end = time.monotonic() + seconds
        while self.text.count(words) < times:
            assert time.monotonic() < end, f"{words!r} was not shown within {seconds} s: {self.text!r}"
            assert self._read(0.2), f"the program ended and had not shown {words!r}: {self.text!r}"

    def end(self, *, seconds: float = 30) -> int:
        """Read what is still shown; the exit code."""
        end = time.monotonic() + seconds
        while self._read(0.2):
            assert time.monotonic() < end, f"the program did not end within {seconds} s: {self.text!r}"
        return self.process.wait(timeout=seconds)

    def close(self) -> None:
        """Close the window: the program gets SIGHUP."""
        os.close(self.master)
        self.master = -1

    def settings(self) -> object:
        """The terminal's modes (echo, signals, line editing)."""
        return termios.tcgetattr(self.master)[:4]

    def _read(self, seconds: float) -> bool:
        """Take what has come; ``False`` once nobody has the terminal open any more."""
        if select.select([self.master], [], [], seconds)[0]:
            try:
                self._bytes += os.read(self.master, 1 << 16)
            except OSError:  # EIO: the last program closed it
                return False
            self.text = self._bytes.decode(errors="replace")
        return True


@contextmanager
def at_terminal(
    argv: Sequence[str], folder: Path, environment: Mapping[str, str], *, columns: int = 80
) -> Iterator[Terminal]:
    """Start a program as a terminal's own, so that Ctrl-C reaches it and all that it started, as in a shell."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        ["setsid", "--ctty", *argv],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        cwd=folder,
        env={"TERM": "xterm-256color", **environment},
    )
    os.close(slave)
    terminal = Terminal(process=process, master=master)
    try:
        yield terminal
    finally:
        process.kill()
        process.wait()
        if terminal.master >= 0:
            terminal.close()
