"""A started engine process: waited for, killed with all its group, observed from outside."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator

from preserve.engines.guard_process import kill_session
from preserve.engines.network import NetworkCounter, first_child
from preserve.interfaces import Execution, RunRequest

_SETTING_UP = 20.0  # milliseconds in which no engine has its container's first process yet
_LOOK = 8.0  # milliseconds between looks for it then: it may not live long


class ContainerProcess:
    """A started engine process, its process group, and what can be seen of the container from outside."""

    def __init__(self, process: subprocess.Popen[bytes], request: RunRequest) -> None:
        self._process = process
        self.group = 0 if request.interactive else process.pid  # at a terminal it stays in the caller's group
        self._deadline = None if request.resources.time is None else time.monotonic() + request.resources.time
        self._network: NetworkCounter | None = None
        self._watch_network = not request.network
        self._next_look = _SETTING_UP
        self._give_up = time.monotonic() + 2  # a kernel may not list children: then there is no count

    def kill(self) -> None:
        """Send SIGKILL to the engine and, through its process 1, to all that runs in the container."""
        kill_group(self.group) if self.group else self._process.kill()

    def wait(self, before_reaping: Callable[[], object], *, stopped: Callable[[], bool]) -> Execution:
        """Wait for the end; ``before_reaping`` is called while the process group cannot yet be another's."""
        try:
            timed_out = self._wait_for_end()
        except BaseException:  # a signal's handler raised, or something has run out: nobody will wait for it again
            self.kill()
            before_reaping()
            self._process.wait()
            kill_session(self.group)  # what the engine started for the image may have a group of its own
            raise
        kill_group(self.group)  # the engine's process was killed alone: end the rest of its group
        before_reaping()
        _, status, used = os.wait4(self._process.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        self._process.returncode = code  # subprocess must not wait for it again
        return Execution(
            exit_code=code if code >= 0 else 128 - code,
            cpu_seconds=used.ru_utime + used.ru_stime,
            peak_memory=used.ru_maxrss * 1024,
            network_attempts=self._network.read_and_close() if self._network else None,
            timed_out=timed_out,
            stopped=stopped(),
        )

    def _wait_for_end(self) -> bool:
        with _end_of(self._process.pid) as ended:
            while not ended(self._pause()):
                if self._deadline is not None and time.monotonic() >= self._deadline:
                    self.kill()
                    ended(None)
                    return True
                self._look_for_network()
            return False

    def _pause(self) -> float | None:
        """Milliseconds until the next look: short while the container is being set up, then until the deadline."""
        if self._watch_network:
            pause, self._next_look = self._next_look, _LOOK
            return pause
        return None if self._deadline is None else max(0.0, 1000 * (self._deadline - time.monotonic()))

    def _look_for_network(self) -> None:
        if self._watch_network and (child := first_child(self._process.pid)):
            self._network = NetworkCounter.of_process(child)
            self._watch_network = self._network is None
        if time.monotonic() > self._give_up:
            self._watch_network = False


@contextlib.contextmanager
def _end_of(pid: int) -> Iterator[Callable[[float | None], bool]]:
    """Give what waits for the end of a child, milliseconds or for ever, and says whether it came; nothing is reaped."""
    try:
        descriptor = os.pidfd_open(pid)
    except (OSError, AttributeError):  # before Linux 5.3; a Python that was built there
        yield lambda pause: _has_ended(pid, pause)
        return
    try:
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        yield lambda pause: bool(poller.poll(pause))
    finally:
        os.close(descriptor)


def _has_ended(pid: int, pause: float | None) -> bool:
    until = None if pause is None else time.monotonic() + pause / 1000
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        if until is not None and time.monotonic() >= until:
            return False
        time.sleep(0.005)
    return True


def lower_limits(pid: int) -> None:
    """Set the limits Docker's containers have (core files none, files 1024 to 4096), none above what we have."""
    for kind, wanted in ((resource.RLIMIT_CORE, (0, 0)), (resource.RLIMIT_NOFILE, (1024, 4096))):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            hard = resource.getrlimit(kind)[1]
            ceiling = wanted[1] if hard == resource.RLIM_INFINITY else min(wanted[1], hard)
            resource.prlimit(pid, kind, (min(wanted[0], ceiling), ceiling))


def kill_group(group: int) -> None:
    """Send SIGKILL to a process group that may be gone; 0 is none."""
    if group:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
