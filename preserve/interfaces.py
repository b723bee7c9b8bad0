"""Everything that can be plugged in, on one page. Read this first. (Readers of result files: comparators/leaves.py.)

Each interface has a dict of built-ins in its room, and one contract suite in tests/contract/.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

from preserve.documents.lockfile import ImagePin
from preserve.documents.workflow import Resources


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A file or folder of this machine (``source``, absolute) seen in the container at ``target`` (absolute)."""

    source: Path
    target: str
    read_only: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """One command in one container.

    ``mounts`` come outer before inner; ``label`` names the run, so that what an unclean end leaves is found again.
    ``interactive`` connects the caller's terminal instead of stdout and stderr. ``cpus_allowed`` are the numbers of
    the CPUs it may run on (none: all); ``user`` (uid, gid) is somebody else than the caller, where an engine can.
    """

    image: ImagePin
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    working_folder: str = "/work"
    network: bool = False
    resources: Resources = Resources()
    label: str = ""
    interactive: bool = False
    host_name: str = "preserve"
    cpus_allowed: tuple[int, ...] = ()
    user: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """How a command ended. ``None``: this engine could not observe it here.

    ``exit_code`` is the command's (128 + n when signal n ended it); ``cpu_seconds`` user plus system;
    ``peak_memory`` bytes; ``network_attempts`` packets that found no route.
    """

    exit_code: int
    cpu_seconds: float | None = None
    peak_memory: int | None = None
    network_attempts: int | None = None
    timed_out: bool = False
    stopped: bool = False


class Engine(Protocol):
    """Runs containers, all with the same isolation (docs/reference/isolation.md).

    Read-only root, no network unless asked, only the request's environment plus the image's own, the request's host
    name (``preserve``), the caller's uid and gid, no capabilities, no new privileges, private /tmp, nothing of the host
    but the mounts. ``run`` may be called from several threads at once. No way out of ``run`` leaves a container:
    not an exception, a time-out, ``stop`` or the death (kill -9) of this process or of the engine's client.
    """

    name: str

    def version(self) -> str:
        """The engine's version.

        Raises:
            MachineError: it is missing, refuses or is too old; the hint says what to install.
        """

    def load(self, image: ImagePin, layout: Path) -> None:
        """Make ``image`` runnable from the OCI layout; every blob is hashed first; nothing to do when loaded.

        Raises:
            DigestMismatch: a blob or what the engine made of it has another digest. Nothing was started.
            MachineError: the engine failed.
        """

    def run(self, request: RunRequest, *, stdout: BinaryIO, stderr: BinaryIO) -> Execution:
        """Run and wait; both streams are written as they come, apart and complete, to files open for writing.

        Raises:
            MachineError: the container could not be started, or the engine cannot give it the ``user`` asked for.
        """

    def stop(self) -> None:
        """End all containers of this engine object now; their ``run`` returns with ``stopped``; later runs do too."""


class LastingEngine(Engine, Protocol):
    """An engine whose containers could outlast the process that started them."""

    def end_leftovers(self, label_prefix: str) -> tuple[str, ...]:
        """End containers of dead runs, those whose label starts with ``label_prefix``; give their names.

        Raises:
            MachineError: the engine does not answer.
        """


class Transport(Protocol):
    """Finds and copies images of one kind of place (``scheme``: docker, docker-daemon, oci, build)."""

    scheme: str

    def resolve(self, reference: str, *, platform: str) -> ImagePin:
        """Pin what ``reference`` names now for ``platform`` (``linux/amd64``).

        Raises:
            UserError: the reference is malformed or names nothing.
            MachineError: the place cannot be reached or refuses.
        """

    def copy_to_layout(self, image: ImagePin, layout: Path) -> None:
        """Copy the image bit-exactly into the OCI layout at ``layout``, every blob hashed; present blobs are kept.

        Raises:
            DigestMismatch: the place gave other bytes than the pin says.
            MachineError: the place cannot be reached or refuses.
        """


class Archive(Protocol):
    """The files of an archive, packed or not, by their names in it. Threads may read at once.

    What stands there is what its form says (no links, no names that lead elsewhere, nothing hidden); that it is also
    what the manifests say is for the reader to see to.
    """

    def files(self) -> Mapping[str, int]:
        """Sizes in bytes by name, in the archive's order."""

    def executable(self, name: str) -> bool:
        """Whether the file may be executed.

        Raises:
            DigestMismatch: it is not there.
        """

    def open(self, name: str) -> BinaryIO:
        """Give a seekable reader of just this file; it does not compare what it reads with a checksum.

        Raises:
            DigestMismatch: it is not there, or its form is not right.
            MachineError: it cannot be read.
        """

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield the file's bytes, at most a MiB at a time; the archive's own checksum is compared at the end.

        Raises:
            DigestMismatch: it is not there, or not what the archive says.
            MachineError: it cannot be read.
        """


class Progress(Protocol):
    """Hears what happens. Empty by default (``Silent``); only the command line draws."""

    def step_started(self, step: str) -> None:
        """A step's container is about to start."""

    def step_finished(self, step: str, *, outcome: str, seconds: float) -> None:
        """A step ended: ``outcome`` is done, reused, failed or interrupted."""

    def bytes_done(self, what: str, done: int, total: int | None) -> None:
        """``done`` of ``total`` bytes of a long transfer or hash; ``total`` is ``None`` when unknown."""


class Silent:
    """A progress that nobody watches."""

    def step_started(self, step: str) -> None:
        """Ignore it."""

    def step_finished(self, step: str, *, outcome: str, seconds: float) -> None:
        """Ignore it."""

    def bytes_done(self, what: str, done: int, total: int | None) -> None:
        """Ignore it."""
