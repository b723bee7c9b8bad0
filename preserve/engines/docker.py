"""Docker through docker-py: one hardened container per step, no command-line client in between."""

from __future__ import annotations

import _thread
import contextlib
import os
import secrets
import select
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import requests
import urllib3
from docker import APIClient
from docker.errors import APIError, DockerException, NotFound

from preserve.digest import Digest
from preserve.documents.lockfile import ImagePin
from preserve.engines import docker_client, environment, terminal
from preserve.engines.docker_archive import archive, pinned_image
from preserve.engines.docker_container import host_config, write_own_files
from preserve.engines.docker_observation import Observation
from preserve.engines.frames import Demultiplexer
from preserve.engines.guard import Guard
from preserve.errors import DigestMismatch, MachineError
from preserve.interfaces import Execution, Mount, RunRequest
from preserve.oci import Layout

DEFAULT_HOST = "unix:///var/run/docker.sock"
LABEL = "preserve.run"
KILLED = 137  # 128 + SIGKILL
DAY = 86400  # seconds

_UNREACHABLE = (
    DockerException,
    requests.exceptions.RequestException,
    urllib3.exceptions.HTTPError,
    ConnectionError,
    TimeoutError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerFacts:
    """What a Docker engine is like, for ``doctor``: ``problem`` says why it cannot be used (``None``: it can)."""

    host: str
    version: str | None = None
    problem: str | None = None
    rootless: bool = False
    limits_enforced: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded:
    """An image in the daemon: the id it is run by, and its own environment."""

    id: str
    environment: Mapping[str, str]


class DockerEngine:
    """Runs containers on the Docker engine at ``host`` (URL; ``None``: the usual socket of this machine).

    Nothing is contacted before the first use. One client serves all threads. ``cache`` gets the files that containers
    without network find in /etc.
    """

    name = "docker"

    def __init__(self, *, host: str | None, cache: Path) -> None:
        self._host = host or DEFAULT_HOST
        self._cache = cache
        self._lock = threading.Lock()
        self._client: APIClient | None = None
        self._user = ""
        self._limits = False
        self._guard: Guard | None = None
        self._own: dict[str, tuple[Mount, ...]] = {}
        self._images: dict[Digest, _Loaded] = {}
        self._running: dict[str, None] = {}
        self._stopping = False

    def version(self) -> str:
        """The daemon's version.

        Raises:
            MachineError: no engine answers.
        """
        with self._door("its version"):
            return str(self._connection().version()["Version"])

    @property
    def limits_enforced(self) -> bool:
        """Whether memory and CPU limits hold on this engine (a rootless one may be without control groups).

        Raises:
            MachineError: no engine answers.
        """
        with self._door("its facts"):
            self._connection()
        return self._limits

    def load(self, image: ImagePin, layout: Path) -> None:
        """Give the image to the daemon unless it is there; every blob is hashed on its way.

        The archive's table of contents goes last: a daemon that was sent a wrong blob never learns of an image.

        Raises:
            DigestMismatch: a blob, or the id the daemon gives the image, is another than pinned.
            MachineError: the daemon does not answer or refuses.
        """
        with self._door(f"image {image.reference}"):
            found = self._find(image)
            if found is None:
                store = Layout(layout)
                described = pinned_image(store, image)
                for answer in self._connection().load_image(archive(store, described)):  # type: ignore[no-untyped-call]
                    if "error" in answer:
                        raise MachineError(f"Docker refused image {image.reference}: {answer['error']}")
                found = self._find(image)
            if found is None:
                raise DigestMismatch(
                    f"image {image.reference}: Docker loaded it under an id that is neither its manifest's digest "
                    f"{image.manifest_digest} nor its config's {image.config_digest}"
                )
            self._images[image.manifest_digest] = found

    def run(self, request: RunRequest, *, stdout: BinaryIO, stderr: BinaryIO) -> Execution:
        """Run one command in one container and wait; see ``Engine.run``.

        ``cpu_seconds`` and ``peak_memory`` come from samples, so they are ``None`` for a command of some
        milliseconds and can miss the last second of a long one; ``None`` as well for a daemon on another machine.

        Raises:
            MachineError: the container could not be started, or the daemon went away.
        """
        with self._door("a container"):
            client, image = self._connection(), self._loaded(request.image)
            guard = self._guarding()
            name = f"preserve-{secrets.token_hex(8)}"
            self._running[name] = None
            guard.watch("docker", name)
            try:
                if self._stopping:
                    return Execution(exit_code=KILLED, stopped=True)
                client.create_container_from_config(  # type: ignore[no-untyped-call]
                    self._configuration(client, request, image), name
                )
                return self._follow(client, name, request, stdout, stderr)
            finally:
                _remove(client, name)
                guard.forget("docker", name)
                del self._running[name]

    def stop(self) -> None:
        """End all containers of this engine object now; safe in a signal handler (no lock is taken here)."""
        self._stopping = True
        for name in tuple(self._running):
            # not threading.Thread: its start takes a lock that the interrupted code may hold
            _thread.start_new_thread(self._kill, (name,))

    def end_leftovers(self, label_prefix: str) -> tuple[str, ...]:
        """Remove containers whose label starts with ``label_prefix`` and that this object does not run; their names.

        For containers of runs that are known to be dead: the caller holds the analysis' lock.

        Raises:
            MachineError: the daemon does not answer.
        """
        with self._door("leftover containers"):
            client = self._connection()
            ended = []
            for found in client.containers(all=True, filters={"label": LABEL}):
                names = found["Names"] or [found["Id"]]  # one that is half removed may have lost its name
                name = names[0].lstrip("/")
                if found["Labels"][LABEL].startswith(label_prefix) and name not in self._running:
                    _remove(client, found["Id"])
                    ended.append(name)
            return tuple(ended)

    def close(self) -> None:
        """Close the connections and end the guard; not needed before the process ends."""
        if self._guard is not None:
            self._guard.close()
        if self._client is not None:
            self._client.close()
        self._guard = self._client = None

    def _follow(
        self, client: APIClient, name: str, request: RunRequest, stdout: BinaryIO, stderr: BinaryIO
    ) -> Execution:
        # attach before start: attaching to a container that has already ended waits for ever on Docker 20.10
        streams = {"stdout": 1, "stderr": 1, "stream": 1, "stdin": int(request.interactive)}
        attached = client.attach_socket(name, params=streams)
        try:
            client.start(name)
            deadline = None if request.resources.time is None else time.monotonic() + request.resources.time
            if self._stopping:  # stop() may have come before there was something to kill
                self._kill(name)
            with Observation(client, name) as seen:
                if request.interactive:
                    terminal.connect(attached.fileno(), lambda rows, columns: client.resize(name, rows, columns))
                    timed_out = False
                else:
                    timed_out = self._copy(
                        attached.fileno(), name, Demultiplexer(stdout=stdout, stderr=stderr), seen, deadline
                    )
                code, late = self._await(client, name, deadline)
            self._explain(client, name, code, timed_out or late, request, stderr)
        finally:
            _close(attached)
        return seen.execution(exit_code=code, timed_out=timed_out or late, stopped=self._stopping)

    def _copy(
        self, descriptor: int, name: str, output: Demultiplexer, seen: Observation, deadline: float | None
    ) -> bool:
        """Copy the streams until their end; give whether the deadline passed and the container was killed."""
        poller, pause, timed_out = select.poll(), 0.05, False
        poller.register(descriptor, select.POLLIN)
        while True:
            left = None if deadline is None or timed_out else deadline - time.monotonic()
            if left is not None and left <= 0:
                timed_out = True
                self._kill(name)
            if poller.poll(1000 * (pause if left is None else max(0.0, min(pause, left)))):
                data = os.read(descriptor, 1 << 18)
                if not data:
                    return timed_out
                output.feed(data)
            else:
                pause = min(2 * pause, 1.0)
            seen.sample()

    def _await(self, client: APIClient, name: str, deadline: float | None) -> tuple[int, bool]:
        """Exit code, and whether the deadline passed first: a command may close its streams and go on."""
        if deadline is not None:
            with contextlib.suppress(requests.exceptions.ConnectionError, requests.exceptions.ReadTimeout):
                left = 1 + int(max(0.0, deadline - time.monotonic()))
                return int(client.wait(name, timeout=left)["StatusCode"]), False
            self._kill(name)
        # process 1 holds the streams, which have ended; without a time-out a vanished daemon would go unnoticed
        return int(client.wait(name, timeout=DAY)["StatusCode"]), deadline is not None

    def _explain(
        self, client: APIClient, name: str, code: int, timed_out: bool, request: RunRequest, stderr: BinaryIO
    ) -> None:
        """Say in the step's own log that the memory limit ended it: the exit code alone does not."""
        if code != KILLED or timed_out or self._stopping or request.resources.memory is None:
            return
        if client.inspect_container(name)["State"].get("OOMKilled"):
            stderr.write(f"preserve: killed: over its memory limit of {request.resources.memory} bytes\n".encode())

    def _kill(self, name: str) -> None:
        # not yet started, already gone, or the daemon is: whoever waits for the container finds out
        with contextlib.suppress(*_UNREACHABLE):
            self._connection().kill(name)

    def _configuration(self, client: APIClient, request: RunRequest, image: _Loaded) -> dict[str, Any]:
        user = self._user if request.user is None else "{}:{}".format(*request.user)
        return dict(
            client.create_container_config(
                image.id,
                command=list(request.command),
                entrypoint=[],
                user=user,
                working_dir=request.working_folder,
                environment=environment.complete(image.environment, request),
                hostname=request.host_name,
                labels={LABEL: request.label},
                tty=request.interactive,
                stdin_open=request.interactive,
                # "none" alone has the daemon make and name a network of no interfaces: half of a container's start
                network_disabled=not request.network,
                host_config=host_config(client, request, self._own_files(request)),
            )
        )

    def _find(self, image: ImagePin) -> _Loaded | None:
        """Find the image by id: its config's digest with graph drivers, its manifest's with the containerd store."""
        for digest in (image.config_digest, image.manifest_digest):
            with contextlib.suppress(NotFound):
                found = self._connection().inspect_image(digest)  # type: ignore[no-untyped-call]
                if found["Id"] in (image.config_digest, image.manifest_digest):
                    settings = found.get("Config") or {}
                    return _Loaded(id=found["Id"], environment=environment.image_environment(settings.get("Env") or ()))
        return None

    def _loaded(self, image: ImagePin) -> _Loaded:
        found = self._images.get(image.manifest_digest) or self._find(image)
        if found is None:
            raise MachineError(f"image {image.reference} is not loaded in Docker", hint="load it first")
        self._images[image.manifest_digest] = found
        return found

    def _connection(self) -> APIClient:
        if self._client is None:
            with self._lock:
                if self._client is None:
                    self._client = self._connect()
        return self._client

    def _connect(self) -> APIClient:
        client = docker_client.connect(self._host)
        info = client.info()
        rootless = "name=rootless" in (info.get("SecurityOptions") or ())
        self._limits = bool(info.get("MemoryLimit"))
        # root inside a rootless engine is the caller outside
        self._user = "0:0" if rootless else f"{os.getuid()}:{os.getgid()}"
        return client

    def _guarding(self) -> Guard:
        if self._guard is None:
            with self._lock:
                if self._guard is None:
                    self._guard = Guard(self._host)
        return self._guard

    def _own_files(self, request: RunRequest) -> tuple[Mount, ...]:
        """Give the files of /etc that the daemon writes only with one of its networks."""
        if request.network:
            return ()
        with self._lock:
            if request.host_name not in self._own:
                self._own[request.host_name] = write_own_files(self._cache, request.host_name)
            return self._own[request.host_name]

    @contextlib.contextmanager
    def _door(self, what: str) -> Iterator[None]:
        """Translate what docker-py and requests raise."""
        try:
            yield
        except APIError as error:
            raise MachineError(f"Docker refused {what}: {error.explanation or error}") from error
        except _UNREACHABLE as error:
            raise MachineError(
                f"no Docker engine answers at {self._host}: {error}",
                hint="start Docker, join the group docker, or use another engine: --engine apptainer",
            ) from error


def facts(host: str | None) -> DockerFacts:
    """See what answers at ``host``; never raises."""
    engine = DockerEngine(host=host, cache=Path("/"))
    address = host or DEFAULT_HOST
    try:
        with engine._door("its facts"):
            info = engine._connection().info()
        return DockerFacts(
            host=address,
            version=str(info["ServerVersion"]),
            rootless="name=rootless" in (info.get("SecurityOptions") or ()),
            limits_enforced=bool(info.get("MemoryLimit")),
        )
    except MachineError as error:
        return DockerFacts(host=address, problem=error.message)
    finally:
        engine.close()


def _remove(client: APIClient, name: str) -> None:
    """Kill and remove a container, if nobody has or does."""
    try:
        client.remove_container(name, force=True, v=True)
    except NotFound:
        return
    except APIError as error:
        if "already in progress" not in str(error.explanation):  # by the guard of a run that was killed just now
            raise


def _close(attached: Any) -> None:
    """Close the hijacked connection whole: closing only the file object leaves the socket to the collector."""
    attached._response.close()  # where docker-py keeps it
