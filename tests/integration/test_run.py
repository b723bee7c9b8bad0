"""The command as a user types it, on real engines: whole runs, what runs again and what does not, and every way to end.

Each test works in its own copy of an analysis that was committed and locked once per session.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import docker
import pytest
from conftest import PATH, ROOT

ENGINES = [
    pytest.param("docker", marks=pytest.mark.docker),
    pytest.param("apptainer", marks=pytest.mark.apptainer),
]
PATIENCE = 30.0  # seconds for a container to start
CLEAN_UP = 10.0  # seconds for a container to be gone after its run was killed
SECONDS = itertools.count(10_000_000 + os.getpid())  # how long a nap takes: a number that no other process bears
NAP = """\
format: 1
title: One long step, and two that fail
authors: [{name: The preserve developers}]
license: CC0-1.0
images:
  tiny: {build: image/}
parameters: {seconds: 0}
steps:
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
    run: sleep ${{ parameters.seconds }}; cp ${{ inputs[0] }} ${{ outputs[0] }}
  - name: forgetful
    stage: processing
    image: tiny
    outputs: [nothing/there.txt]
    run: echo all is well
  - name: failing
    stage: processing
    image: tiny
    outputs: [never/made.txt]
    run: |
      echo the detector was off >&2
      exit 3
"""


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """An analysis folder and the session in which a user works there."""

    root: Path
    engine: str
    environment: Mapping[str, str]

    def __call__(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one command of preserve to its end; whatever comes of it, the user sees no traceback."""
        done = subprocess.run(
            self.argv(command, *arguments),
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            cwd=self.root,
            env=dict(self.environment),
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

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


Make = Callable[..., Analysis]


@dataclass(frozen=True, kw_only=True)
class Locked:
    """Makes analyses: committed and locked once per name, run once per name and engine, copied for each test."""

    place: Path
    docker_host: str
    made: dict[str, Path] = field(default_factory=dict)

    def copy(self, name: str, engine: str, target: Path, *, done: bool = False) -> Analysis:
        template = self._done(name, engine) if done else self._locked(name)
        shutil.copytree(template, target, symlinks=True)
        return self._analysis(target, engine)

    def _analysis(self, root: Path, engine: str) -> Analysis:
        environment = {"PATH": PATH, "HOME": str(self.place), "DOCKER_HOST": self.docker_host}
        return Analysis(root=root, engine=engine, environment=environment)

    def _done(self, name: str, engine: str) -> Path:
        key = f"{name}.{engine}"
        if key not in self.made:
            analysis = self.copy(name, engine, self.place / key)
            analysis.run()
            self.made[key] = analysis.root
        return self.made[key]

    def _locked(self, name: str) -> Path:
        if name not in self.made:
            root = self.place / name
            self._write(name, root)
            analysis = self._analysis(root, "none")
            # the way to a package mirror is the caller's
            done = replace(analysis, environment={**os.environ, **analysis.environment})("lock")
            assert done.returncode == 0, done.stderr
            self.made[name] = root
        return self.made[name]

    def _write(self, name: str, root: Path) -> None:
        shutil.copytree(ROOT / "workflows" / ("five-stages" if name == "nap" else name), root)
        if name == "nap":
            (root / "preserve.yaml").write_text(NAP)
        for command in (("init", "-q"), ("add", "."), ("commit", "-q", "-m", "Start")):
            identity = ("-c", "user.name=Tester", "-c", "user.email=tester@example.org")
            subprocess.run(["git", *identity, *command], check=True, cwd=root, env={"PATH": PATH})
        if name != "five-stages":  # all have the same image: it is built once
            shutil.copytree(self._locked("five-stages") / ".preserve" / "cache", root / ".preserve" / "cache")
            (root / ".preserve" / ".gitignore").write_text("*\n")


@pytest.fixture(scope="session")
def locked(tmp_path_factory: pytest.TempPathFactory, docker_host: str) -> Locked:
    return Locked(place=tmp_path_factory.mktemp("analyses"), docker_host=docker_host)


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name == "apptainer":
        request.getfixturevalue("apptainer")
    return name


@pytest.fixture
def five(locked: Locked, engine: str, tmp_path: Path) -> Analysis:
    """The five stages, locked."""
    return locked.copy("five-stages", engine, tmp_path / "five")


@pytest.fixture
def done(locked: Locked, engine: str, tmp_path: Path) -> Analysis:
    """The five stages, locked and run."""
    return locked.copy("five-stages", engine, tmp_path / "done", done=True)


@pytest.fixture
def nap(locked: Locked, engine: str, tmp_path: Path) -> Analysis:
    """One long step, and two that fail."""
    return locked.copy("nap", engine, tmp_path / "nap")


class TestWholeRuns:
    @pytest.mark.docker
    @pytest.mark.apptainer
    @pytest.mark.parametrize(("name", "steps"), [("five-stages", 5), ("fan-out-merge", 9)])
    def test_both_engines_make_the_same_bytes(
        self, locked: Locked, apptainer: str, tmp_path: Path, name: str, steps: int
    ) -> None:
        products = []
        for engine in ("docker", "apptainer"):
            analysis = locked.copy(name, engine, tmp_path / engine)
            found = analysis.run("-j", "2")
            assert len(found["reasons"]) == steps
            assert analysis.products(*found["products"]) == found["products"]
            products.append(found["products"])
            analysis.assert_nothing_to_do()
        assert products[0] == products[1]
        assert len(products[0]) >= steps


class TestWhatRunsAgain:
    def test_a_comment_and_new_times_run_nothing(self, done: Analysis) -> None:
        done.assert_nothing_to_do()
        workflow = done.root / "preserve.yaml"
        workflow.write_text("# a thought\n" + workflow.read_text())
        done.assert_nothing_to_do()
        for path in done.root.rglob("*"):
            if path.is_file() and not {".git", ".preserve"} & set(path.relative_to(done.root).parts):
                os.utime(path)
        done.assert_nothing_to_do()

    def test_a_parameter_runs_what_depends_on_it_and_going_back_needs_no_engine(
        self, done: Analysis, tmp_path: Path
    ) -> None:
        before = done.run()["products"]
        expected = {"process": "its command changed", "fit": "after process", "assemble": "after fit"}
        assert done.run("-n", "-p", "bin_width=4.0")["reasons"] == expected
        assert done.products(*before) == before

        found = done.run("-p", "bin_width=4.0")
        assert set(found["reasons"]) == set(expected)
        assert found["products"]["results/peak.json"] != before["results/peak.json"]
        assert done.products(*before) == found["products"]

        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "git").symlink_to(str(shutil.which("git")))
        nowhere = {"PATH": str(tmp_path / "bin"), "DOCKER_HOST": f"unix://{tmp_path}/no.sock"}
        replace(done, environment={**done.environment, **nowhere}).assert_nothing_to_do()
        assert done.products(*before) == before

    def test_an_edited_step_runs_with_what_follows(self, done: Analysis) -> None:
        code = done.root / "code" / "moments.awk"
        text = code.read_text()
        code.write_text(text + "# another thought\n")
        reasons = done.run("-n")["reasons"]
        assert reasons["fit"] == "code/moments.awk changed"
        assert set(reasons) == {"fit", "assemble"}
        code.write_text(text)
        done.assert_nothing_to_do()


class TestProductsInTheFolder:
    @pytest.mark.parametrize("way", ["replaced", "in place"])
    def test_an_edited_product_is_restored_and_the_edit_kept(self, five: Analysis, way: str) -> None:
        before = five.run()["products"]
        product = five.root / "results" / "peak.json"
        edited = product.read_bytes().replace(b"1", b"2")
        if way == "replaced":
            product.unlink()
        product.write_bytes(edited)
        after = five("run")
        assert after.returncode == 0, after.stderr
        assert "results/peak.json was changed after it was made" in after.stderr
        assert five.products(*before) == before
        # in place, the bytes of fit/peak.json changed too: one file in the store has both names
        kept = list((five.root / ".preserve" / "displaced").glob("*/results/peak.json"))
        assert [path.read_bytes() for path in kept] == [edited]

    def test_a_foreign_file_is_refused_and_kept(self, five: Analysis) -> None:
        mine = five.root / "results" / "peak.json"
        mine.parent.mkdir()
        mine.write_text("my own notes\n")
        refused = five("run")
        assert refused.returncode == 2, refused.stderr
        assert "results/peak.json stands where" in refused.stderr
        assert mine.read_text() == "my own notes\n"


class TestFailures:
    def test_a_step_without_its_product(self, nap: Analysis) -> None:
        failed = nap("run", "--step", "forgetful")
        assert failed.returncode == 4, failed.stderr
        assert "step forgetful failed" in failed.stderr
        assert "nothing/there.txt" in failed.stderr

    def test_a_failing_step_shows_the_end_of_its_log(self, nap: Analysis) -> None:
        failed = nap("run", "--step", "failing")
        assert failed.returncode == 4, failed.stderr
        assert "step failing failed: exit code 3" in failed.stderr
        assert "the detector was off" in failed.stderr
        assert nap("log", "failing").stderr == "the detector was off\n"


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


@pytest.fixture
def napping(nap: Analysis) -> Iterator[Napping]:
    seconds = next(SECONDS)
    process = subprocess.Popen(
        nap.argv("run", "--step", "nap", "-p", f"seconds={seconds}"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=nap.root,
        env=dict(nap.environment),
    )
    found = Napping(analysis=nap, process=process, seconds=seconds)
    try:
        assert wait_until(found.started, PATIENCE), "the step did not start"
        yield found
    finally:
        process.kill()
        process.communicate()


class TestInterruption:
    def test_killed_it_leaves_no_container_and_goes_on_where_it_was(self, napping: Napping) -> None:
        napping.process.kill()
        assert napping.end()[0] == -signal.SIGKILL
        napping.assert_clean()
        found = napping.analysis.run("--step", "nap", "-p", "seconds=0")
        assert set(found["reasons"]) == {"nap"}
        assert (napping.analysis.root / "nap" / "nap.txt").read_text() == "first\n"

    def test_ctrl_c_ends_the_containers(self, napping: Napping) -> None:
        napping.process.send_signal(signal.SIGINT)
        code, stderr = napping.end()
        assert code == 130, stderr
        assert "interrupted" in stderr
        assert napping.traces() == []

    @pytest.mark.parametrize("engine", ENGINES[1:], indirect=True)
    def test_the_engine_killed_is_a_failed_step(self, napping: Napping) -> None:
        children = f"/proc/{napping.process.pid}/task"
        pids = {int(pid) for path in Path(children).glob("*/children") for pid in path.read_text().split()}
        clients = [pid for pid, line in command_lines() if pid in pids and "pptainer" in line[0]]
        assert clients
        for pid in clients:
            os.kill(pid, signal.SIGKILL)
        code, stderr = napping.end()
        assert code == 4, stderr
        assert "step nap failed" in stderr
        napping.assert_clean()


def test_help_waits_for_no_library() -> None:
    program = """
import contextlib, io, sys
from preserve.cli import main
with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.suppress(SystemExit):
    main(["run", "--help"])
assert "--dry-run" in text.getvalue()
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=ROOT)
    modules = set(done.stdout.split())
    assert "preserve" in modules
    assert not modules & {"snakemake", "docker", "git", "yaml", "rich", "spython", "requests", "jinja2"}
