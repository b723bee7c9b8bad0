"""A user's session in an analysis, as tests have it: commands to their end, and a run in the middle of a long step."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import docker
import pytest
from conftest import PATH

PATIENCE = 30.0  # seconds for a container to start
CLEAN_UP = 10.0  # seconds for a container to be gone after its run was killed
SECONDS = itertools.count(10_000_000 + os.getpid())  # how long a nap takes: a number that no other process bears
# The beginning of a list of steps: the second takes as long as the parameter says, and ends well when it is woken.
LONG = """\
  - name: first
    stage: preparation
    image: tiny
    outputs: [first/first.txt]
    run: echo first > ${{ outputs[0] }}
  - name: nap
    stage: processing
    image: tiny
    inputs: [first/first.txt]
    outputs: [nap/nap.txt]
    run: |
      sleep ${{ parameters.seconds }} || echo woken
      cp first/first.txt ${{ outputs[0] }}
"""


def finished(argv: Sequence[str], root: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command of preserve to its end; whatever comes of it, the user sees no traceback."""
    done = subprocess.run(
        argv,
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        cwd=root,
        env=dict(environment),
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def commit(root: Path, message: str = "Start", *, what: str = ".") -> None:
    """Commit all there is, or ``what``."""
    identity = ("-c", "user.name=Tester", "-c", "user.email=tester@example.org")
    times = {"GIT_AUTHOR_DATE": "@1700000000 +0000", "GIT_COMMITTER_DATE": "@1700000000 +0000"}
    for command in (("init", "-q"), ("add", what), ("commit", "-q", "-m", message)):
        subprocess.run(["git", *identity, *command], check=True, cwd=root, env={"PATH": PATH, **times})


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """An analysis folder and the session in which a user works there."""

    root: Path
    engine: str
    environment: Mapping[str, str]

    def __call__(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one command of preserve to its end; whatever comes of it, the user sees no traceback."""
        return finished(self.argv(command, *arguments), self.root, self.environment)

    def argv(self, command: str, *arguments: str) -> tuple[str, ...]:
        """Command line, with the engine where one is chosen."""
        engine = ("--engine", self.engine) if command == "run" else ()
        return (sys.executable, "-m", "preserve", command, *engine, *arguments)

    def run(self, *arguments: str) -> dict[str, Any]:
        """A run that must succeed, as its JSON."""
        done = self("run", "--json", *arguments)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def assert_nothing_to_do(self) -> None:
        done = self("run")
        assert (done.returncode, "nothing to do" in done.stderr) == (0, True), done.stderr

    def products(self, *names: str) -> dict[str, str]:
        """Digests of the files as they lie in the folder."""
        return {name: f"sha256:{sha256((self.root / name).read_bytes()).hexdigest()}" for name in names}


def lock_analysis(root: Path, layout: Path, files: Mapping[str, str]) -> Path:
    """Write an analysis whose image ``oci:image`` lies beside it, commit it and lock it."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    shutil.copytree(layout, root / "image")
    commit(root)
    done = Analysis(root=root, engine="none", environment={"PATH": PATH, "HOME": str(root)})("lock")
    assert done.returncode == 0, done.stderr
    return root


def own_copy(template: Path, root: Path, engine: str, docker_host: str) -> Analysis:
    """Copy an analysis to ``root``, to be run with ``engine``."""
    shutil.copytree(template, root, symlinks=True)
    return Analysis(root=root, engine=engine, environment={"PATH": PATH, "HOME": str(root), "DOCKER_HOST": docker_host})


@dataclass(frozen=True, kw_only=True)
class Napping:
    """A run in the middle of its long step."""

    analysis: Analysis
    process: subprocess.Popen[str]
    seconds: int

    def traces(self) -> list[str]:
        """What there is of its container: of the engine that has a server, containers; of the other, processes."""
        if self.analysis.engine == "docker":
            return [entry["Id"] for entry in self._containers()]
        return [f"{pid}: {line!r}" for pid, line in command_lines() if f"sleep {self.seconds}" in " ".join(line)]

    def started(self) -> bool:
        wanted = ["sleep", str(self.seconds)]
        if self.analysis.engine == "docker":
            running = self._containers(status="running")  # the step before may still be among them
            return any(f"sleep {self.seconds}" in entry["Command"] for entry in running)
        return any(line[-2:] == wanted for _, line in command_lines())

    def _containers(self, **filters: str) -> list[dict[str, Any]]:
        owner = sha256(str(self.analysis.root).encode()).hexdigest()[:16]
        client = docker.DockerClient(self.analysis.environment["DOCKER_HOST"])
        with contextlib.closing(client):
            found = client.api.containers(all=True, filters={"label": "preserve.run", **filters})
        return [entry for entry in found if entry["Labels"]["preserve.run"].startswith(owner)]

    def end(self) -> tuple[int, str]:
        """Exit code and standard error."""
        _, stderr = self.process.communicate(timeout=PATIENCE)
        assert "Traceback" not in stderr, stderr
        return self.process.returncode, stderr

    def assert_clean(self) -> None:
        assert wait_until(lambda: not self.traces(), CLEAN_UP), self.traces()


def command_lines() -> Iterator[tuple[int, list[str]]]:
    """Number and command line of every process."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            yield int(path.parent.name), path.read_bytes().decode(errors="replace").rstrip("\0").split("\0")


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


@contextmanager
def napping(analysis: Analysis, *, step: str = "nap") -> Iterator[Napping]:
    """A run, up to ``step``, in the middle of its long step."""
    seconds = next(SECONDS)
    with subprocess.Popen(
        analysis.argv("run", "--step", step, "-p", f"seconds={seconds}"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=analysis.root,
        env=dict(analysis.environment),
    ) as process:
        found = Napping(analysis=analysis, process=process, seconds=seconds)
        try:
            wait_until(lambda: found.started() or process.poll() is not None, PATIENCE)
            if not found.started():
                process.kill()
                pytest.fail(f"the step did not start: {process.communicate()[1]}")
            yield found
        finally:
            process.kill()
