"""A file is read by another process first: libraries written in C may crash, loop or take all memory on a damaged one.

One process serves all files, started when the first is read and replaced when it was lost. What it survives is then
read here; fingerprints it takes itself, and only their text comes back.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import resource
import signal
import subprocess
import sys
import threading
from contextvars import ContextVar
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from preserve.comparators.leaves import Limits, MissingExtra, TooMuch, Unreadable
from preserve.digest import Digest, FilePin

_PATIENCE = 30  # seconds for a file, and for each
_PER_SECOND = 5 << 20  # bytes of it a second more
_TO_TAKE = 4  # times as long for a fingerprint: every number is read, and a million leaves are written
_MEMORY = 4 << 30  # bytes that can be written to; of mere addresses, some libraries reserve much more
# The other process finds the same modules as this one, without an environment and wherever this one is.
_BEGIN = "import sys; sys.path[:] = sys.argv[1:]; from preserve.comparators.trial import serve; serve()"
_inside = ContextVar("inside", default=False)  # whether this is the other process
_KINDS: dict[str, type[Exception]] = {"TooMuch": TooMuch, "Unreadable": Unreadable, "MissingExtra": MissingExtra}


def survive(reader: str, file: Path, limits: Limits) -> None:
    """Let the other process read a file with the built-in reader of that name (its method ``attempt``).

    Raises:
        TooMuch: a limit was passed, or the time that a file of its size may take.
        Unreadable: the file is broken; or it broke its reader.
        MissingExtra: a library is not installed.
    """
    if not _inside.get():
        _answer({"reader": reader}, file, limits)


def fingerprint(name: str, file: Path, pin: FilePin, limits: Limits) -> bytes:
    """Let the other process take a file's fingerprint; ``name`` is what it is called in the analysis.

    Raises:
        TooMuch: the time that a file of its size may take was passed.
        Unreadable: the file broke its reader.
    """
    wanted = {"fingerprint": name, "sha256": pin.sha256, "size": pin.size}
    answer = _answer(wanted, file, limits, times=_TO_TAKE)
    return str(answer["document"]).encode()


def _answer(wanted: dict[str, Any], file: Path, limits: Limits, *, times: int = 1) -> dict[str, Any]:
    seconds = times * (_PATIENCE + file.stat().st_size // _PER_SECOND)
    answer = _trial().ask(wanted, file, limits, seconds)
    kind, message = answer.get("kind"), str(answer.get("message"))
    if kind is not None:
        raise _KINDS[kind](message) if kind in _KINDS else Unreadable(f"cannot be read: {kind}: {message}")
    return answer


class _Trial:
    """The other process, and who speaks to it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.end)

    def ask(self, wanted: dict[str, Any], file: Path, limits: Limits, seconds: int) -> dict[str, Any]:
        """Give the answer: empty, a ``document``, or the ``kind`` of an exception and its ``message``."""
        request = {**wanted, "file": str(file.absolute()), "limits": asdict(limits), "seconds": seconds}
        with self._lock:
            process = self._process = self._process or _start()
            line = _exchanged(process, json.dumps(request).encode() + b"\n")
            if line:
                answer: dict[str, Any] = json.loads(line)
                return answer
            self.end()
        if process.returncode == -signal.SIGALRM:
            return {"kind": "TooMuch", "message": f"its reader was not done after {seconds} seconds"}
        return {"kind": "Unreadable", "message": f"is damaged: its reader died of it ({process.returncode})"}

    def end(self) -> None:
        """Take the process away: there is no more to read, or it is lost."""
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):  # what was still to be written to it, nobody reads
                if pipe is not None:
                    pipe.close()
        process.wait()


@cache
def _trial() -> _Trial:
    return _Trial()


def _start() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        (sys.executable, "-I", "-c", _BEGIN, *(place for place in sys.path if place)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"LC_ALL": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1"},
    )


def _exchanged(process: subprocess.Popen[bytes], request: bytes) -> bytes:
    """Give the answer's line; empty if the process is gone."""
    if process.stdin is None or process.stdout is None:
        raise ValueError("a process without pipes")
    try:
        process.stdin.write(request)
        process.stdin.flush()
        return process.stdout.readline()
    except BrokenPipeError:
        return b""


def serve() -> None:
    """Be the other process: read what standard input names, a line each, and answer with a line."""
    answers = sys.stdout.buffer
    _inside.set(True)
    gc.set_threshold(50_000, 20, 20)  # a million leaves are no garbage
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin.buffer:
        request = json.loads(line)
        signal.alarm(request["seconds"])  # ends this process, whatever it is doing then
        answers.write(json.dumps(_attempted(request)).encode() + b"\n")
        signal.alarm(0)
        answers.flush()


def _attempted(request: dict[str, Any]) -> dict[str, Any]:
    limits = Limits(**request["limits"])
    try:
        return _taken(request, limits) if "fingerprint" in request else _read(request, limits)
    except MemoryError:
        return {"kind": "TooMuch", "message": f"needs more than {_MEMORY} bytes of memory"}
    # Libraries raise anything on a damaged file, and whatever it is reaches who asked, as "cannot be read: ...": with
    # less, one file would end the process that serves all.
    except Exception as error:
        return {"kind": type(error).__name__, "message": str(error)}


def _read(request: dict[str, Any], limits: Limits) -> dict[str, Any]:
    from preserve.comparators.readers import reader  # noqa: PLC0415  readers import this module

    for _ in reader(request["reader"]).attempt(Path(request["file"]), limits):  # type: ignore[attr-defined]
        continue
    return {}


def _taken(request: dict[str, Any], limits: Limits) -> dict[str, Any]:
    from preserve.comparators.fingerprint import take  # noqa: PLC0415  as above

    pin = FilePin(sha256=Digest(request["sha256"]), size=request["size"])
    return {"document": take(Path(request["file"]), request["fingerprint"], pin, limits).to_bytes().decode()}
