"""Run jobs in the order of their dependencies, as many at a time as there are cores, by Snakemake in a process beside.

Jobs run in threads of this process; Snakemake says over a socket which may start and is told which have ended
(snakemake_process.py). Why it has a process to itself: docs/decisions/0009-snakemake-in-a-process-beside.md.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from preserve.errors import MachineError

WAKING = 200  # milliseconds
LOADER = ("LD_LIBRARY_PATH",)  # without it an interpreter of an experiment's software stack does not start
_PROGRAM = Path(__file__).with_name("snakemake_process.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job: its name, the names of the jobs it waits for, and the cores it occupies."""

    name: str
    after: tuple[str, ...] = ()
    cpus: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What Snakemake is asked for: the file of jobs (as chain.smk reads it), how many, cores, a folder of its own.

    ``ahead``: how many jobs may be released before their turn, to wait here.
    """

    jobs: str
    count: int
    cores: int
    ahead: int
    folder: str
    keep_going: bool


class Scheduler:
    """Snakemake in a process of its own, good for one ``run``.

    Use as a context manager: the process ends with the block, and by itself when this process dies. ``environment``
    are the caller's variables; it gets of them what the interpreter needs to start.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._process: _Process | None = None
        self._calls: _Calls | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._process is not None:
            self._process.end()

    def prepare(self) -> None:
        """Have Snakemake imported (half a second) while the caller does other things."""
        self._process = self._process or _Process(self._environment)

    def stop(self) -> None:
        """Have nothing more started: ``run`` waits for the jobs that run, and raises; safe in a signal handler."""
        if self._calls is not None:
            self._calls.over = True
        if self._process is not None:
            self._process.kill()

    def run(
        self,
        jobs: Sequence[Job],
        *,
        execute: Callable[[str], bool],
        cores: int,
        folder: Path,
        keep_going: bool = False,
    ) -> None:
        """Call ``execute`` with the name of each job once its ``after`` have returned ``True``; wait for all.

        A job that returns ``False`` holds back what waits for it and, unless ``keep_going``, every job not yet started.
        ``folder`` is empty and for this run alone. A job that wants more than ``cores`` gets all of them.

        Raises:
            MachineError: Snakemake itself failed or was killed; jobs that ran were waited for.
            Exception: whatever ``execute`` raised first; nothing more was started.
        """
        (folder / "receipts").mkdir(parents=True)
        _write_jobs(folder / "jobs.json", jobs, cores)
        # a thread that is free finds its next job here; where a job takes several cores, Snakemake alone counts them
        ahead = cores if all(min(job.cpus, cores) == 1 for job in jobs) else 0
        request = Request(
            jobs=str(folder / "jobs.json"),
            count=len(jobs),
            cores=cores,
            ahead=ahead,
            folder=str(folder),
            keep_going=keep_going,
        )
        self._process = process = self._process or _Process(self._environment)
        names = tuple(job.name for job in jobs)
        self._calls = calls = _Calls(names=names, execute=execute, tell=process.tell, keep_going=keep_going)
        process.tell(asdict(request))
        with ThreadPoolExecutor(cores, thread_name_prefix="step") as pool:
            futures: list[Future[None]] = []
            try:
                said, died = process.listen(lambda number: futures.append(pool.submit(calls.run, number)))
            finally:
                calls.over = True  # it is done, it died, or a handler of signals raised
            while wait(futures, timeout=WAKING / 1000).not_done:
                pass  # handlers of signals run between the waits
        if calls.error is not None:
            raise calls.error
        # a failed job ends in a failure of Snakemake's as well, which says nothing that is not known better here
        if said and (not calls.failed or (died and keep_going)):
            raise MachineError(f"Snakemake failed: {said}", hint="run the same command again to go on")


class _Process:
    """Snakemake's process, and the line to it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        with contextlib.ExitStack() as opened:
            self._printed = opened.enter_context(tempfile.TemporaryFile())
            self._socket, theirs = socket.socketpair()
            opened.enter_context(self._socket)
            with theirs:
                # isolated: it imports from where this process does, and obeys no other setting of Python's
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-X", "utf8", str(_PROGRAM), json.dumps(sys.path)],
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    stderr=self._printed,
                    env={"PATH": os.defpath} | {name: environment[name] for name in LOADER if name in environment},
                    start_new_session=True,  # a Ctrl-C at the terminal is for this process
                )
            opened.pop_all()

    def tell(self, what: object) -> None:
        """Write one line; where nobody is there to read it, ``listen`` finds out."""
        with contextlib.suppress(ConnectionError):
            self._socket.sendall(json.dumps(what).encode() + b"\n")

    def listen(self, start: Callable[[int], object]) -> tuple[str, bool]:
        """Start the jobs that Snakemake names until it is done; give what went wrong, and whether it died of it."""
        with contextlib.suppress(ConnectionError):
            for line in self._lines():
                what, value = json.loads(line)
                if what == "end":
                    return str(value), False
                start(value)
        ended = f"its process ended by itself (exit code {self._process.wait()})"
        self._printed.seek(0)
        return "\n".join([ended, *self._printed.read().decode(errors="replace").splitlines()[-5:]]), True

    def _lines(self) -> Iterator[bytes]:
        """Yield what it says, line by line; handlers of signals run meanwhile, not later than ``WAKING`` after them.

        A plain wait would miss some: of several signals at once (a second Ctrl-C, a window that is closed) the kernel
        gives one to another thread, which takes them all and only notes them, while this one, whose part it is to run
        the handlers, sleeps on.
        """
        poller, begun = select.poll(), b""
        poller.register(self._socket, select.POLLIN)
        while True:
            if not poller.poll(WAKING):
                continue
            data = self._socket.recv(1 << 16)
            if not data:
                return
            *lines, begun = (begun + data).split(b"\n")
            yield from lines

    def kill(self) -> None:
        """End it, whatever it does."""
        self._process.kill()

    def end(self) -> None:
        """End it, and the line to it."""
        self._process.kill()
        self._process.wait()
        self._socket.close()
        self._printed.close()


class _Calls:
    """The jobs, and what came of them."""

    def __init__(
        self,
        *,
        names: tuple[str, ...],
        execute: Callable[[str], bool],
        tell: Callable[[object], None],
        keep_going: bool,
    ) -> None:
        self._names, self._execute, self._tell, self._keep_going = names, execute, tell, keep_going
        self._lock = threading.Lock()
        self.error: BaseException | None = None
        self.failed = False
        self.over = False  # nothing more is begun

    def run(self, number: int) -> None:
        """Run one job, unless nothing more is to be begun, and tell how it ended."""
        done = False
        if not self.over:
            try:
                done = self._execute(self._names[number])
            except BaseException as error:  # it is the caller's: raised again in its thread
                self.error = self.error or error
            if not done:
                self.failed = True
                if self.error is not None or not self._keep_going:
                    self.over = True
        with self._lock:
            self._tell([number, done])


def _write_jobs(path: Path, jobs: Sequence[Job], cores: int) -> None:
    numbers = {job.name: number for number, job in enumerate(jobs)}
    rows = [{"after": [numbers[name] for name in job.after], "cpus": min(job.cpus, cores)} for job in jobs]
    path.write_text(json.dumps(rows))
