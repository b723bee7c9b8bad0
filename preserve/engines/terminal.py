"""The caller's terminal connected to a container's: raw bytes both ways, and the window's size."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator


def connect(remote: int, resize: Callable[[int, int], object]) -> None:
    """Copy between standard input and output and the descriptor ``remote`` until ``remote`` ends.

    ``resize`` is called with rows and columns at the start and when the window changes.
    """
    local = sys.stdin.fileno()
    with _raw(local), _resizing(local, resize):
        _copy(local, sys.stdout.fileno(), remote)


def _copy(local: int, output: int, remote: int) -> None:
    poller = select.poll()
    poller.register(remote, select.POLLIN)
    poller.register(local, select.POLLIN)
    while True:
        for descriptor, _ in poller.poll():
            try:
                data = os.read(descriptor, 1 << 16)
            except BlockingIOError:
                continue
            if descriptor == local:
                _write(remote, data)
                if not data:  # end of input: what the container still says is wanted
                    poller.unregister(local)
            elif not data:
                return
            else:
                _write(output, data)


def _write(descriptor: int, data: bytes) -> None:
    poller = select.poll()
    poller.register(descriptor, select.POLLOUT)
    while data:
        poller.poll()
        with contextlib.suppress(BlockingIOError):
            data = data[os.write(descriptor, data) :]


@contextlib.contextmanager
def _raw(local: int) -> Iterator[None]:
    """Let every key, Ctrl-C too, go to the container; the terminal is as before afterwards."""
    if not os.isatty(local):
        yield
        return
    before = termios.tcgetattr(local)
    try:
        tty.setraw(local, termios.TCSADRAIN)  # not TCSAFLUSH: what was typed ahead is for the container
        yield
    finally:
        termios.tcsetattr(local, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _resizing(local: int, resize: Callable[[int, int], object]) -> Iterator[None]:
    def tell(*_: object) -> None:
        size = os.get_terminal_size(local)
        resize(size.lines, size.columns)

    if not os.isatty(local):
        yield
        return
    tell()
    if threading.current_thread() is not threading.main_thread():  # only the main thread hears of changes
        yield
        return
    before = signal.signal(signal.SIGWINCH, tell)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
