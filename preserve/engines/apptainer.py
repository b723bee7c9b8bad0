"""Apptainer and Singularity: prepared images run by the engine's program, as root and as an ordinary user."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Literal

from spython.utils import run_command

from preserve.documents.lockfile import ImagePin
from preserve.engines import environment
from preserve.engines.apptainer_command import SPECIAL, argv, start_script
from preserve.engines.apptainer_program import INSTALL, PROGRAMS, Program, find_program
from preserve.engines.guard import Guard
from preserve.engines.guard_process import end_carriers, end_scratch, kill_session
from preserve.engines.prepared import PreparedImage, PreparedImages, remove_tree
from preserve.engines.process import ContainerProcess, kill_group, lower_limits
from preserve.errors import MachineError
from preserve.interfaces import Execution, RunRequest

KILLED = 137  # 128 + SIGKILL
# Go's collector would take a tenth of the engine's own CPU time, for garbage that goes with the process anyway
_NO_COLLECTING = {"GOGC": "off", "GOMEMLIMIT": "256MiB"}
_CGROUPS = (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup/cgroup.subtree_control"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ApptainerFacts:
    """What there is of Apptainer or Singularity, for ``doctor``: ``problem`` says why it cannot be used."""

    program: str | None = None
    version: str | None = None
    problem: str | None = None
    user_namespaces: bool = False
    fuse: bool = False
    limits_enforced: bool = False


class ApptainerEngine:
    """Runs containers with Apptainer or Singularity; prepared images and scratch folders lie under ``cache``.

    ``program`` is a name or a path (``None``: apptainer, else singularity), looked up in ``search_path``
    (as ``PATH`` is written), which is also the only variable the engine gets from its caller.
    ``limits_enforced``: whether a memory limit holds here (control groups need root); the caller says so if not.
    """

    name = "apptainer"

    def __init__(
        self,
        *,
        cache: Path,
        form: Literal["folder", "sif"] = "folder",
        program: str | None = None,
        search_path: str,
    ) -> None:
        self._cache, self._form, self._wanted, self._search_path = cache.absolute(), form, program, search_path
        self._lock = threading.Lock()
        self._program: Program | None = None
        self._guard: Guard | None = None
        self._prepared: dict[str, PreparedImage] = {}
        self._running: dict[str, int] = {}  # scratch folder's name: process group, 0 before it is known
        self._stopping = False

    @property
    def limits_enforced(self) -> bool:
        """Whether memory and CPU limits hold for containers of this process."""
        return os.geteuid() == 0 and any(os.access(path, os.W_OK) for path in _CGROUPS)

    def version(self) -> str:
        """The program's version, as ``1.4.5`` or ``singularity 4.1.0``.

        Raises:
            MachineError: there is no such program, or it is too old.
        """
        return self._found().told

    def load(self, image: ImagePin, layout: Path) -> None:
        """Prepare the image from verified blobs unless a prepared one is there, unchanged.

        Raises:
            DigestMismatch: the layout is not the pinned image. Nothing was built or started.
            MachineError: the engine cannot build it.
        """
        images = self._images()
        self._prepared[image.manifest_digest] = images.find(image) or images.make(image, layout)

    def run(self, request: RunRequest, *, stdout: BinaryIO, stderr: BinaryIO) -> Execution:
        """Run one command in one container and wait; see ``Engine.run``.

        ``cpu_seconds`` includes the engine's own (some 0.05 s); ``peak_memory`` is the largest process's resident set,
        at least the engine's own (some 40 MB).

        Raises:
            MachineError: the command was never started; the engine's own message says why.
        """
        program, image, guard = self._found(), self._loaded(request.image), self._guarding()
        if request.user is not None:
            raise MachineError("Apptainer runs containers as the caller", hint="another user: --engine docker")
        with self._scratch(guard, request.label) as scratch:
            if self._stopping:
                return Execution(exit_code=KILLED, stopped=True)
            container = ContainerProcess(self._start(program, image, request, scratch, (stdout, stderr)), request)
            self._running[scratch.name] = container.group
            if self._stopping:  # stop() may have come before there was something to kill
                container.kill()
            execution = container.wait(lambda: self._running.pop(scratch.name), stopped=lambda: self._stopping)
            if execution.timed_out or execution.exit_code >= KILLED:
                kill_session(container.group)  # the engine could not end what it started for the image
                end_carriers(str(scratch))  # killed, they may take a moment: nothing runs on when this returns
            self._require_start(scratch, execution, stderr)
            return execution

    def stop(self) -> None:
        """End all containers of this engine object now; safe in a signal handler (no lock is taken)."""
        self._stopping = True
        for group in tuple(self._running.values()):
            kill_group(group)

    def end_leftovers(self, label_prefix: str) -> tuple[str, ...]:
        """End containers whose label starts with ``label_prefix`` and that this object does not run; their names.

        For containers of runs that are known to be dead: the caller holds the analysis' lock.
        """
        folder, ended = self._cache / "scratch", []
        for scratch in sorted(folder.iterdir()) if folder.is_dir() else ():
            with contextlib.suppress(OSError):  # ended meanwhile
                if scratch.name not in self._running and (scratch / "label").read_text().startswith(label_prefix):
                    end_scratch(str(scratch))
                    ended.append(scratch.name)
        return tuple(ended)

    def close(self) -> None:
        """End the guard; not needed before the process ends."""
        if self._guard is not None:
            self._guard.close()
        self._guard = None

    @contextlib.contextmanager
    def _scratch(self, guard: Guard, label: str) -> Iterator[Path]:
        """Make a folder for one run: /tmp of the container, the mark that its command started, its label."""
        scratch = self._cache / "scratch" / f"preserve-{secrets.token_hex(8)}"
        self._running[scratch.name] = 0
        guard.watch("scratch", str(scratch))
        try:
            (scratch / "work").mkdir(parents=True)
            (scratch / "started").touch()
            (scratch / "label").write_text(label)
            with _no_survivor(scratch):
                yield scratch
        finally:
            remove_tree(scratch)
            guard.forget("scratch", str(scratch))
            self._running.pop(scratch.name, None)

    def _start(
        self,
        program: Program,
        image: PreparedImage,
        request: RunRequest,
        scratch: Path,
        streams: tuple[BinaryIO, BinaryIO],
    ) -> subprocess.Popen[bytes]:
        for stream in streams:
            stream.flush()
        limits = self.limits_enforced and request.resources.memory is not None
        with _on_cpus(request.cpus_allowed):
            try:
                process = subprocess.Popen(
                    argv(program, image, request, scratch, limits=limits),
                    stdin=None if request.interactive else subprocess.DEVNULL,
                    stdout=None if request.interactive else streams[0],
                    stderr=None if request.interactive else streams[1],
                    env=self._child_environment(program, image, request, scratch),
                    start_new_session=not request.interactive,
                )
            except OSError as error:
                raise MachineError(f"{program.path} could not be started: {error.strerror}", hint=INSTALL) from error
        lower_limits(process.pid)
        return process

    def _child_environment(
        self, program: Program, image: PreparedImage, request: RunRequest, scratch: Path
    ) -> dict[str, str]:
        """Give the engine's environment: the container's variables in the form it hands on exactly, and our mark."""
        prefix = program.flavour.upper()
        seen = environment.complete(image.environment, request)
        inside = {f"PRESERVE_{name}" if name in SPECIAL else name: value for name, value in seen.items()}
        # the engine sets these two to the image's place on this machine; they cannot be unset inside
        inside |= {f"{prefix}_NAME": "", f"{prefix}_CONTAINER": ""}
        return {
            **self._engine_environment(scratch),
            "PRESERVE_SCRATCH": str(scratch),  # by this the guard finds the processes
            **{f"{prefix}ENV_{name}": value for name, value in inside.items()},
        }

    def _engine_environment(self, scratch: Path) -> dict[str, str]:
        own = {"CACHEDIR": str(scratch), "TMPDIR": str(scratch), "CONFIGDIR": str(scratch), "DISABLE_CACHE": "1"}
        return {
            "PATH": self._search_path,
            "HOME": str(scratch),  # the user's own settings and keys are not the analysis'
            "TMPDIR": str(scratch),
            **_NO_COLLECTING,
            **{f"{program.upper()}_{name}": value for program in PROGRAMS for name, value in own.items()},
        }

    def _require_start(self, scratch: Path, execution: Execution, stderr: BinaryIO) -> None:
        ended_by_signal = 128 < execution.exit_code < 255
        if execution.stopped or execution.timed_out or ended_by_signal:
            return
        if (scratch / "started").stat().st_size == 0:
            said = _last_line(stderr)
            raise MachineError(f"Apptainer could not start the container: {said or execution.exit_code}")

    def _images(self) -> PreparedImages:
        program = self._found()
        folder = self._cache / "images"
        return PreparedImages(folder, form=self._form, script=start_script(program.flavour), build=self._build)

    def _build(self, arguments: tuple[str, ...], scratch: Path) -> None:
        program = self._found()
        quick = () if "--sandbox" in arguments or program.flavour != "apptainer" else _QUICK_SIF
        command = [program.path, "--silent", "build", *quick, *arguments]
        guard = self._guarding()
        guard.watch("scratch", str(scratch))
        try:
            with _no_survivor(scratch):
                done = run_command(command, quiet=True, environ=self._engine_environment(scratch))
        finally:
            guard.forget("scratch", str(scratch))
        if done["return_code"] != 0:
            said = "".join(done["message"]).strip().splitlines() or [f"exit code {done['return_code']}"]
            raise MachineError(f"{program.path} could not build the image: {_bare(said[-1])}")

    def _loaded(self, image: ImagePin) -> PreparedImage:
        found = self._prepared.get(image.manifest_digest) or self._images().find(image)
        if found is None:
            raise MachineError(f"image {image.reference} is not prepared for Apptainer", hint="load it first")
        self._prepared[image.manifest_digest] = found
        return found

    def _found(self) -> Program:
        if self._program is None:
            with self._lock:
                self._program = self._program or find_program(self._wanted, self._search_path)
        return self._program

    def _guarding(self) -> Guard:
        if self._guard is None:
            with self._lock:
                if self._guard is None:
                    self._guard = Guard()
        return self._guard


_QUICK_SIF = ("--mksquashfs-args", "-comp zstd -Xcompression-level 1")  # a quarter of gzip's time, a tenth larger


def facts(program: str | None, search_path: str) -> ApptainerFacts:
    """See what there is; never raises."""
    engine = ApptainerEngine(cache=Path("/"), program=program, search_path=search_path)
    there = ApptainerFacts(
        user_namespaces=_user_namespaces(),
        fuse=os.access("/dev/fuse", os.R_OK | os.W_OK),
        limits_enforced=engine.limits_enforced,
    )
    try:
        found = find_program(program, search_path)
    except MachineError as error:
        return replace(there, problem=error.message)
    problem = None
    if os.geteuid() != 0 and not there.user_namespaces:
        problem = "the kernel forbids user namespaces to ordinary users"
    return replace(there, program=found.path, version=found.told, problem=problem)


def _user_namespaces() -> bool:
    forbidding = {"user/max_user_namespaces": "0", "kernel/unprivileged_userns_clone": "0"}
    forbidding["kernel/apparmor_restrict_unprivileged_userns"] = "1"
    for name, forbidden in forbidding.items():
        with contextlib.suppress(OSError):
            if Path("/proc/sys", name).read_text().strip() == forbidden:
                return False
    return True


@contextlib.contextmanager
def _on_cpus(allowed: tuple[int, ...]) -> Iterator[None]:
    """Keep this thread on some CPUs (none: wherever it is): what it starts meanwhile stays there."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, allowed or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def _no_survivor(scratch: Path) -> Iterator[None]:
    """End what carries ``scratch`` in its environment where an exception leaves it running: of a signal's handler."""
    try:
        yield
    except BaseException:
        end_carriers(str(scratch))
        raise


def _last_line(stream: BinaryIO) -> str:
    """Last line of a file that is open for writing only; empty when it cannot be read again."""
    with contextlib.suppress(OSError):
        text = Path(f"/proc/self/fd/{stream.fileno()}").read_bytes()[-4096:].decode(errors="replace")
        return _bare(text.strip().rpartition("\n")[2])
    return ""


def _bare(line: str) -> str:
    """A message of the engine without its colour and level."""
    return re.sub(r"\x1b\[\d*m", "", line).removeprefix("FATAL:").strip()
