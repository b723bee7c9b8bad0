"""What every engine promises (preserve.interfaces.Engine), asked of the real ones.

Run as root, ``test_as_ordinary_user`` runs this file again as a user without any privilege.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import secrets
import select
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from conftest import PATH, ROOT, AsUser, TinyImage, _add, _json
from docker.transport.unixconn import UnixHTTPConnection

from preserve.digest import Digest, hash_file
from preserve.documents.lockfile import ImagePin
from preserve.documents.workflow import Resources
from preserve.engines import BUILT_IN, apptainer_engine, docker_engine, environment
from preserve.errors import DigestMismatch, MachineError
from preserve.interfaces import Engine, Execution, Mount, RunRequest
from preserve.oci import CONFIG, LAYER, MANIFEST, Layout

KINDS = (
    pytest.param("docker", marks=pytest.mark.docker),
    pytest.param("apptainer-folder", marks=pytest.mark.apptainer),
    pytest.param("apptainer-sif", marks=pytest.mark.apptainer),
)
ODD = ["a b", "", "$HOME", "$(id)", "`id`", "'", '"', "\\", "*", "new\nline", "é☃", "--", "-c", "a,b", "~", "!x", "\t"]


@dataclass(frozen=True, kw_only=True)
class Bench:
    """An engine with the tiny image loaded, and a label of its own."""

    kind: str
    engine: Engine
    image: TinyImage
    label: str
    place: Path  # a folder that the containers' user may write in
    make: Callable[[], Engine]

    def request(self, *command: str, **rest: object) -> RunRequest:
        return replace(RunRequest(image=self.image.pin, command=command, label=self.label), **rest)

    def run(self, *command: str, **rest: object) -> tuple[Execution, bytes, bytes]:
        return run(self.engine, self.request(*command, **rest))

    def out(self, *command: str, **rest: object) -> str:
        """Standard output of a command that succeeds."""
        execution, out, err = self.run(*command, **rest)
        assert execution.exit_code == 0, err.decode()
        return out.decode()


def run(engine: Engine, request: RunRequest) -> tuple[Execution, bytes, bytes]:
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        execution = engine.run(request, stdout=stdout, stderr=stderr)
        stdout.seek(0)
        stderr.seek(0)
        return execution, stdout.read(), stderr.read()


@pytest.fixture(scope="module", params=KINDS)
def bench(request: pytest.FixtureRequest, tiny_image: TinyImage) -> Iterator[Bench]:
    kind = request.param
    with tempfile.TemporaryDirectory(prefix="preserve-bench-") as folder:
        host = request.getfixturevalue("docker_host") if kind == "docker" else None
        if host is None:
            request.getfixturevalue("apptainer")

        def make() -> Engine:
            if host is not None:
                return docker_engine(host=host, cache=Path(folder))
            form = "sif" if kind == "apptainer-sif" else "folder"
            return apptainer_engine(cache=Path(folder) / "cache", search_path=PATH, form=form)

        engine = make()
        engine.load(tiny_image.pin, tiny_image.layout)
        label = f"test-{secrets.token_hex(6)}"
        made = Bench(kind=kind, engine=engine, image=tiny_image, label=label, place=Path(folder), make=make)
        yield made
        assert containers(made) == []
        engine.close()


@pytest.fixture
def folder(bench: Bench) -> Iterator[Path]:
    place = Path(tempfile.mkdtemp(dir=bench.place))
    yield place
    shutil.rmtree(place)


def containers(bench: Bench) -> list[str]:
    """Every container of this bench that is there, running or not (by label; by scratch folder)."""
    if bench.kind == "docker":
        labelled = {"label": f"preserve.run={bench.label}"}  # the daemon may have other tests' containers
        return [found["Names"][0] for found in bench.engine._connection().containers(all=True, filters=labelled)]
    scratch = bench.engine._cache / "scratch"
    return [found.name for found in scratch.iterdir()] if scratch.is_dir() else []


def alive(marker: str) -> list[int]:
    """Processes on this machine, no zombies, with ``marker`` in their command line, other than our own helpers."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
            if marker.encode() in words and words[0].endswith(b"sleep"):
                found.append(int(entry.name))
    return found


def image_servers() -> set[str]:
    """Processes of this user that serve a SIF's file system to a container: the engine starts one for each."""
    found = set()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and entry.stat().st_uid == os.getuid():
                words = (entry / "cmdline").read_bytes()  # empty for a zombie
                found |= {entry.name} if b"squashfuse" in words else set()
    return found


def unique() -> str:
    """A duration that no other process sleeps for."""
    return f"{300 + secrets.randbelow(10**9) / 10**9:.9f}"


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


@contextlib.contextmanager
def interrupted_when(condition: Callable[[], bool]) -> Iterator[None]:
    """Have a signal's handler raise KeyboardInterrupt in the main thread once ``condition`` holds."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    def ring() -> None:
        within(20, condition)
        os.kill(os.getpid(), signal.SIGALRM)

    handler, waker = signal.signal(signal.SIGALRM, interrupt), threading.Thread(target=ring)
    waker.start()
    try:
        yield
    finally:
        waker.join()
        signal.signal(signal.SIGALRM, handler)


class Running:
    """``engine.run`` in a thread."""

    def __init__(self, engine: Engine, request: RunRequest) -> None:
        self.outcome: Execution | Exception | None = None
        self._thread = threading.Thread(target=self._work, args=(engine, request))
        self._thread.start()

    def _work(self, engine: Engine, request: RunRequest) -> None:
        try:
            self.outcome = run(engine, request)[0]
        except Exception as error:
            self.outcome = error

    def result(self) -> Execution:
        self._thread.join(30)
        assert isinstance(self.outcome, Execution), self.outcome
        return self.outcome


def start_sleeping(bench: Bench, engine: Engine | None = None) -> tuple[Running, str]:
    marker = unique()
    running = Running(engine or bench.engine, bench.request("sh", "-c", f"sleep {marker} & sleep {marker}"))
    assert within(20, lambda: len(alive(marker)) == 2), running.outcome
    return running, marker


# --- what a command gets and gives -----------------------------------------------------------------------------


def test_built_in_engines_are_made_without_contact(tmp_path: Path) -> None:
    made = {
        name: make(host="unix:///nowhere", cache=tmp_path, program="none", search_path="/nowhere")
        for name, make in BUILT_IN.items()
    }
    assert {name: engine.name for name, engine in made.items()} == {"docker": "docker", "apptainer": "apptainer"}
    for engine in made.values():
        with pytest.raises(MachineError):
            engine.version()


def test_docker_is_asked_over_connections_that_are_kept(
    docker_host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, made = docker_engine(host=docker_host, cache=tmp_path), []
    engine.version()
    real = UnixHTTPConnection.connect
    monkeypatch.setattr(UnixHTTPConnection, "connect", lambda self: (made.append(self), real(self))[1])
    for _ in range(5):
        engine.version()
        engine.end_leftovers("nobody's")
    engine.close()
    assert made == []
    engine.version()
    assert len(made) > 0  # what is counted is what is used
    engine.close()


def test_version(bench: Bench) -> None:
    assert bench.engine.version()[0].isdigit()


@pytest.mark.parametrize("code", [0, 1, 126, 137, 255])
def test_exit_code_is_the_commands(bench: Bench, code: int) -> None:
    execution, _, _ = bench.run("sh", "-c", f"exit {code}")
    assert (execution.exit_code, execution.timed_out, execution.stopped) == (code, False, False)


def test_signal_is_128_more(bench: Bench) -> None:
    assert bench.run("sh", "-c", "kill -9 $$")[0].exit_code == 137
    assert bench.run("sh", "-c", "kill -15 $$")[0].exit_code == 143


def test_command_that_is_not_in_the_image(bench: Bench) -> None:
    execution, _, err = bench.run("/no/such/program")
    assert execution.exit_code == 127
    assert b"/no/such/program" in err


def test_command_that_is_no_program(bench: Bench) -> None:
    """It is there, and may not be executed: another mistake than a program that is missing."""
    execution, _, err = bench.run("/etc/passwd")
    assert execution.exit_code == 126
    assert b"/etc/passwd" in err
    assert bench.run("passwd-that-is-not-there")[0].exit_code == 127


def test_streams_are_apart_and_complete(bench: Bench) -> None:
    count = 400_000
    execution, out, err = bench.run("sh", "-c", f"seq {count} & seq {count} >&2; wait; echo end")
    expected = "".join(f"{n}\n" for n in range(1, count + 1)).encode()
    assert execution.exit_code == 0
    assert out == expected + b"end\n"
    assert err == expected


def test_streams_come_while_it_runs(bench: Bench, folder: Path) -> None:
    (folder / "in").mkdir()
    mounts = (Mount(source=folder / "in", target="/work/in"),)
    request = bench.request("sh", "-c", "echo first; until test -e /work/in/go; do sleep 0.05; done", mounts=mounts)
    with (folder / "out").open("wb", buffering=0) as stdout, (folder / "err").open("wb", buffering=0) as stderr:
        thread = threading.Thread(target=bench.engine.run, args=(request,), kwargs={"stdout": stdout, "stderr": stderr})
        thread.start()
        seen = within(20, lambda: (folder / "out").read_bytes() == b"first\n")
        (folder / "in" / "go").touch()
        thread.join(30)
    assert seen


def test_argv_is_exact(bench: Bench) -> None:
    assert bench.out("printf", "%s|", *ODD) == "".join(f"{word}|" for word in ODD)


def test_environment_is_exact_and_the_same_everywhere(bench: Bench) -> None:
    wanted = {f"V{number}": value for number, value in enumerate(ODD) if "\n" not in value}
    wanted |= {"HOME": "/work", "LD_LIBRARY_PATH": "/a:/b", "PREPEND_PATH": "x", "TZ": "UTC", "IMAGE_OTHER": "1"}
    lines = bench.out("env", environment=wanted).splitlines()
    found = dict(line.split("=", 1) for line in lines)
    if bench.kind != "docker":  # these two are read-only in the engine's interpreter: empty is all that can be had
        assert (found.pop("APPTAINER_NAME"), found.pop("APPTAINER_CONTAINER")) == ("", "")
    assert found == {"PATH": PATH, "HOSTNAME": "preserve", "IMAGE_VARIABLE": "kept", **wanted}


def test_environment_keeps_new_lines_and_overrides_the_image(bench: Bench) -> None:
    given = {"A": "one\ntwo\n", "IMAGE_VARIABLE": "mine", "PATH": "/bin:/opt"}
    assert bench.out("sh", "-c", 'printf "%s|" "$A" "$IMAGE_VARIABLE" "$PATH"', environment=given) == (
        "one\ntwo\n|mine|/bin:/opt|"
    )


def test_nothing_of_the_hosts_environment_gets_in(bench: Bench, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    for prefix in ("APPTAINER", "SINGULARITY"):
        monkeypatch.setenv(f"{prefix}_BIND", f"{folder}:/canary")
        monkeypatch.setenv(f"{prefix}ENV_CANARY", "leaked")
    monkeypatch.setenv("CANARY", "leaked")
    monkeypatch.setenv("HTTP_PROXY", "leaked")
    assert "leaked" not in bench.out("env")
    assert bench.run("test", "-e", "/canary")[0].exit_code == 1


def test_working_folder(bench: Bench) -> None:
    assert bench.out("pwd") == "/work\n"
    assert bench.out("pwd", working_folder="/var") == "/var\n"


# --- what of this machine it sees -------------------------------------------------------------------------------


def test_hosts_files_are_not_visible(bench: Bench, folder: Path) -> None:
    (folder / "secret").write_text("x")
    for path in (folder, Path.home() / ".bashrc", ROOT):
        assert bench.run("test", "-e", str(path))[0].exit_code == 1
    assert bench.out("cat", "/etc/passwd") == "root:x:0:0:root:/root:/bin/sh\n"
    assert bench.out("ls", "-A", "/tmp", "/var/tmp").split() == ["/tmp:", "/var/tmp:"]


def test_inputs_cannot_be_written(bench: Bench, folder: Path) -> None:
    (folder / "a.txt").write_text("kept")
    (folder / "deep").mkdir()
    mounts = (Mount(source=folder, target="/work/in"), Mount(source=folder / "a.txt", target="/work/a.txt"))
    for attempt in (
        "echo x > /work/in/a.txt",
        "rm /work/in/a.txt",
        "touch /work/in/deep/b",
        "echo x > /work/a.txt",
        "chmod 777 /work/in",
        "mount -o remount,rw /work/in",
    ):
        assert bench.run("sh", "-c", attempt, mounts=mounts)[0].exit_code != 0, attempt
    assert [(path.name, path.is_dir()) for path in sorted(folder.iterdir())] == [("a.txt", False), ("deep", True)]
    assert (folder / "a.txt").read_text() == "kept"


def test_products_belong_to_the_caller(bench: Bench, folder: Path) -> None:
    mounts = (Mount(source=folder, target="/work/out", read_only=False),)
    bench.out("sh", "-c", "mkdir /work/out/d && echo x > /work/out/d/p", mounts=mounts)
    product = (folder / "d" / "p").stat()
    assert (product.st_uid, product.st_gid) == (os.getuid(), os.getgid())


@pytest.mark.parametrize("name", ["a b", "a,b", "a:b", 'a"b', "a'b", "a=b", "$(id)", "back\\slash", "é☃", "new\nline"])
def test_mounts_with_odd_names(bench: Bench, folder: Path, name: str) -> None:
    (folder / name).write_text(name)
    mounts = (Mount(source=folder / name, target=f"/work/{name}"),)
    assert bench.out("cat", f"/work/{name}", mounts=mounts) == name


def test_inner_mounts_lie_in_outer_ones(bench: Bench, folder: Path) -> None:
    for name in ("outer", "inner"):
        (folder / name).mkdir()
    (folder / "outer" / "in").mkdir()
    (folder / "inner" / "data").write_text("x")
    mounts = (
        Mount(source=folder / "outer", target="/work", read_only=False),
        Mount(source=folder / "inner", target="/work/in"),
    )
    assert bench.out("sh", "-c", "cat in/data; touch new; ls", mounts=mounts) == "xin\nnew\n"
    assert bench.run("touch", "in/new", mounts=mounts)[0].exit_code != 0


def test_missing_mount_is_refused(bench: Bench, folder: Path) -> None:
    with pytest.raises(MachineError):
        bench.run("true", mounts=(Mount(source=folder / "none", target="/work/none"),))
    assert containers(bench) == []


def test_root_is_read_only_and_tmp_is_not(bench: Bench) -> None:
    for path in ("/x", "/etc/x", "/work/x", "/bin/x"):
        assert bench.run("touch", path)[0].exit_code != 0, path
    script = "for f in /tmp /var/tmp /dev/shm; do echo '#!/bin/sh\necho ran' > $f/x; done; chmod +x /tmp/x; /tmp/x"
    assert bench.out("sh", "-c", script) == "ran\n"
    assert bench.out("sh", "-c", "dd if=/dev/zero of=/tmp/big bs=1M count=200 2>/dev/null && echo fits") == "fits\n"


@pytest.mark.parametrize("network", [False, True])
def test_name_of_the_host(bench: Bench, network: bool) -> None:
    script = "hostname; echo $HOSTNAME; cat /etc/hostname"
    assert bench.out("sh", "-c", script, network=network) == 3 * "preserve\n"
    assert bench.out("sh", "-c", script, network=network, host_name="elsewhere") == 3 * "elsewhere\n"


def test_chosen_cpus(bench: Bench) -> None:
    here = os.sched_getaffinity(0)
    for cpu in sorted(here)[:2]:
        lines = bench.out("cat", "/proc/self/status", cpus_allowed=(cpu,)).splitlines()
        assert f"Cpus_allowed_list:\t{cpu}" in lines
    assert bench.out("nproc") == f"{len(here)}\n"
    assert os.sched_getaffinity(0) == here


def test_another_user_where_the_engine_can(bench: Bench) -> None:
    if bench.kind == "docker":
        assert bench.out("sh", "-c", "id -u; id -g", user=(12345, 23456)).split() == ["12345", "23456"]
    else:
        with pytest.raises(MachineError, match="as the caller"):
            bench.run("true", user=(12345, 23456))


def test_no_privileges(bench: Bench) -> None:
    status = dict(line.split(":\t", 1) for line in bench.out("cat", "/proc/self/status").splitlines())
    assert {name: int(value, 16) for name, value in status.items() if name.startswith("Cap")} == {
        "CapInh": 0,
        "CapPrm": 0,
        "CapEff": 0,
        "CapBnd": 0,
        "CapAmb": 0,
    }
    assert status["NoNewPrivs"] == "1"
    assert status["Uid"].split()[0] == str(os.getuid())


def test_processes_are_its_own(bench: Bench) -> None:
    assert len([entry for entry in bench.out("ls", "/proc").split() if entry.isdigit()]) < 5


def test_limits_on_files_and_core(bench: Bench) -> None:
    assert bench.out("sh", "-c", "ulimit -n; ulimit -Hn; ulimit -c").split() == ["1024", "4096", "0"]


# --- network ----------------------------------------------------------------------------------------------------


def interfaces(text: str) -> set[str]:
    return {line.split(":")[0].strip() for line in text.splitlines()[2:]}


def test_no_network_unless_declared(bench: Bench) -> None:
    assert interfaces(bench.out("cat", "/proc/net/dev")) == {"lo"}
    here = interfaces(Path("/proc/net/dev").read_text())
    assert interfaces(bench.out("cat", "/proc/net/dev", network=True)) == here


def test_without_network_a_name_is_this_machines_or_nobodys(bench: Bench) -> None:
    """The same two files on every engine, for every user; nothing of this machine's."""
    for name, text in environment.OFFLINE_FILES.items():
        assert bench.out("cat", f"/etc/{name}") == text
        assert bench.out("stat", "-c", "%a", f"/etc/{name}") == "644\n"
        assert bench.run("sh", "-c", f"echo x >> /etc/{name}")[0].exit_code != 0
    assert bench.out("cat", "/etc/hosts", network=True) != environment.OFFLINE_FILES["hosts"]


def test_programs_of_a_step_can_talk_to_each_other(bench: Bench) -> None:
    script = "echo heard > /tmp/said; httpd -p 127.0.0.1:8080 -h /tmp; wget -q -O - http://localhost:8080/said"
    assert bench.out("sh", "-c", script) == "heard\n"


def test_network_attempts_are_counted(bench: Bench) -> None:
    quiet, _, _ = bench.run("sleep", "0.4")
    assert quiet.network_attempts == 0
    script = "sleep 0.4; wget http://10.9.8.7/; nslookup physics.example; true"
    eager, _, _ = bench.run("sh", "-c", script)
    assert eager.network_attempts is not None
    assert eager.network_attempts >= 2


# --- limits, ends -----------------------------------------------------------------------------------------------


def test_usage_is_observed(bench: Bench) -> None:
    execution, _, _ = bench.run("sh", "-c", "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; sleep 0.3")
    assert execution.cpu_seconds is not None
    assert 0.05 < execution.cpu_seconds < 20
    assert execution.peak_memory is not None
    assert 500_000 < execution.peak_memory < 500_000_000


def test_memory_limit(bench: Bench) -> None:
    resources = Resources(memory=64_000_000)
    execution, out, err = bench.run(
        "sh", "-c", "dd if=/dev/zero of=/dev/null bs=200M count=1; echo code $?", resources=resources
    )
    if bench.engine.limits_enforced:
        assert execution.exit_code == 137 or b"code 137" in out, (execution, out, err)
    else:
        assert bench.kind != "docker"
        assert os.geteuid() != 0
        assert out == b"code 0\n"


def test_time_limit(bench: Bench) -> None:
    marker, before = unique(), image_servers()
    started = time.monotonic()
    execution, out, _ = bench.run("sh", "-c", f"echo on; sleep {marker} & sleep {marker}", resources=Resources(time=1))
    assert 1 <= time.monotonic() - started < 5
    assert (execution.exit_code, execution.timed_out, execution.stopped) == (137, True, False)
    assert out == b"on\n"
    assert not alive(marker)
    assert image_servers() <= before
    assert containers(bench) == []


def test_time_limit_of_a_command_that_closed_its_streams(bench: Bench) -> None:
    marker = unique()
    execution, _, _ = bench.run("sh", "-c", f"exec >&- 2>&-; sleep {marker}; true", resources=Resources(time=1))
    assert execution.timed_out
    assert not alive(marker)


def test_background_processes_end_with_the_command(bench: Bench) -> None:
    marker = unique()
    execution, out, _ = bench.run("sh", "-c", f"setsid sleep {marker} & sleep 0.1; echo over")
    assert (execution.exit_code, out) == (0, b"over\n")
    assert within(2, lambda: not alive(marker))


@pytest.mark.parametrize("built", ["elsewhere", "there"])
def test_a_kernel_without_descriptors_of_processes(bench: Bench, monkeypatch: pytest.MonkeyPatch, built: str) -> None:
    """Before Linux 5.3, as is a Python built there: the end of the engine's process is looked for, not waited for."""

    def unknown(pid: int) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    if built == "there":
        monkeypatch.delattr(os, "pidfd_open")
    else:
        monkeypatch.setattr(os, "pidfd_open", unknown)
    marker = unique()
    assert bench.run("sh", "-c", "sleep 0.2; exit 3")[0].exit_code == 3
    assert bench.run("sleep", marker, resources=Resources(time=1))[0].timed_out
    assert not alive(marker)


def test_an_exception_leaves_nothing_running(bench: Bench) -> None:
    """Ctrl-C where nothing catches it: a signal's handler raises while the main thread waits for the container."""
    marker, before = unique(), image_servers()
    with interrupted_when(lambda: bool(alive(marker))), pytest.raises(KeyboardInterrupt):
        bench.run("sh", "-c", f"sleep {marker} & sleep {marker}")
    assert within(2, lambda: not alive(marker))
    assert image_servers() <= before
    assert containers(bench) == []


@pytest.mark.apptainer
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # spython leaves pipes to the collector
def test_an_image_that_was_interrupted_is_built_no_further(
    apptainer: str, tiny_image: TinyImage, tmp_path: Path
) -> None:
    engine = apptainer_engine(cache=tmp_path / "cache", search_path=PATH)

    def builders() -> list[int]:
        found = []
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words = entry.read_bytes()
                found += [int(entry.parent.name)] if b"build" in words and os.fsencode(tmp_path) in words else []
        return found

    def halted() -> bool:
        """Stop the build: it would be done before anyone looks."""
        for pid in builders():
            os.kill(pid, signal.SIGSTOP)
        return bool(builders())

    with interrupted_when(halted), pytest.raises(KeyboardInterrupt):
        engine.load(tiny_image.pin, tiny_image.layout)
    try:
        assert builders() == []
    finally:
        for pid in builders():
            os.kill(pid, signal.SIGKILL)
    assert list((tmp_path / "cache" / "images").glob(".building-*")) == []
    engine.load(tiny_image.pin, tiny_image.layout)
    engine.close()


def test_a_full_disk_is_not_taken_for_an_engine_that_does_not_answer(bench: Bench) -> None:
    with Path("/dev/full").open("wb", buffering=0) as full, Path("/dev/null").open("wb") as stderr:
        try:
            execution = bench.engine.run(bench.request("echo", "on"), stdout=full, stderr=stderr)
        except OSError as error:  # the engine that copies the streams itself
            assert error.errno == errno.ENOSPC
        else:
            assert execution.exit_code == 1
    assert containers(bench) == []


def test_stop_ends_all_and_later_runs_too(bench: Bench) -> None:
    engine = bench.make()
    first, one = start_sleeping(bench, engine)
    second, two = start_sleeping(bench, engine)
    started = time.monotonic()
    engine.stop()
    assert within(3, lambda: not alive(one) and not alive(two))
    for running in (first, second):
        assert (running.result().stopped, running.result().exit_code) == (True, 137)
    assert time.monotonic() - started < 3
    assert run(engine, bench.request("true"))[0].stopped
    assert containers(bench) == []
    engine.close()


def test_several_threads(bench: Bench) -> None:
    outputs: list[str] = []
    threads = [
        threading.Thread(target=lambda n=n: outputs.append(bench.out("sh", "-c", f"sleep 0.2; echo {n}")))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(outputs) == ["0\n", "1\n", "2\n", "3\n"]


def test_container_killed_from_outside(bench: Bench) -> None:
    running, marker = start_sleeping(bench)
    if bench.kind == "docker":
        bench.engine._connection().kill(containers(bench)[0].lstrip("/"))
    else:
        os.kill(engine_process(), signal.SIGKILL)
    execution = running.result()
    assert (execution.exit_code, execution.stopped, execution.timed_out) == (137, False, False)
    assert within(2, lambda: not alive(marker))
    assert containers(bench) == []


def engine_process() -> int:
    """The one child of ours that is the engine's client."""
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text().split():
            if b"runtime parent" in Path(f"/proc/{child}/cmdline").read_bytes():
                return int(child)
    raise AssertionError("no engine process found")


CHILD = """
import json, sys
from pathlib import Path
sys.path[:0] = json.loads(sys.argv[1])
from preserve.digest import Digest
from preserve.documents.lockfile import ImagePin
from preserve.engines import apptainer_engine, docker_engine
from preserve.interfaces import RunRequest
kind, host, cache, digests, command, label, interactive = json.loads(sys.argv[2])
pin = ImagePin(reference="oci:tiny", platform="linux/amd64", manifest_digest=Digest(digests[0]),
               config_digest=Digest(digests[1]), diff_ids=())
if kind == "docker":
    engine = docker_engine(host=host, cache=Path(cache))
else:
    form = "sif" if kind == "apptainer-sif" else "folder"
    engine = apptainer_engine(cache=Path(cache), search_path=sys.argv[3], form=form)
with open("/dev/null", "wb") as nowhere:
    request = RunRequest(image=pin, command=tuple(command), label=label, interactive=interactive)
    code = engine.run(request, stdout=nowhere, stderr=nowhere).exit_code
sys.exit(code)
"""


def child_process(
    bench: Bench, *command: str, interactive: bool = False, before: tuple[str, ...] = (), **keywords: object
) -> subprocess.Popen[bytes]:
    """A process of its own that runs one command in a container; ``before`` is put before its command line."""
    host, cache = bench.engine._host if bench.kind == "docker" else None, str(bench.engine._cache)
    pin = bench.image.pin
    task = [bench.kind, host, cache, [pin.manifest_digest, pin.config_digest], command, bench.label, interactive]
    argv = [*before, sys.executable, "-c", CHILD, json.dumps(sys.path), json.dumps(task), PATH]
    return subprocess.Popen(argv, **keywords)


def test_nothing_outlives_a_killed_caller(bench: Bench) -> None:
    marker = unique()
    process = child_process(bench, "sh", "-c", f"setsid sleep {marker} & sleep {marker}", stdin=subprocess.DEVNULL)
    assert within(30, lambda: len(alive(marker)) == 2)
    process.kill()
    process.wait()
    assert within(5, lambda: not alive(marker))
    assert within(5, lambda: containers(bench) == [])


@pytest.mark.parametrize("delay", [0.2, 0.3, 0.4, 0.5, 0.6])
def test_nothing_outlives_a_caller_killed_while_it_starts(bench: Bench, delay: float) -> None:
    marker = unique()
    process = child_process(bench, "sleep", marker, stdin=subprocess.DEVNULL)
    time.sleep(delay)
    process.kill()
    process.wait()
    time.sleep(0.5)
    assert within(6, lambda: not alive(marker) and containers(bench) == [])


def test_leftovers_are_ended_by_label(bench: Bench) -> None:
    other = bench.make()
    running, marker = start_sleeping(bench, other)
    assert bench.engine.end_leftovers("another-label") == ()
    assert alive(marker)
    assert len(bench.engine.end_leftovers(bench.label[:8])) == 1
    assert within(3, lambda: not alive(marker))
    running._thread.join(30)
    assert containers(bench) == []
    other.close()


def test_leftovers_may_be_ended_by_several_at_once(bench: Bench) -> None:
    """A run begun at once after another was killed meets that one's guard."""
    sleeping = [start_sleeping(bench, bench.make()) for _ in range(3)]
    problems: list[Exception] = []

    def end(engine: Engine) -> None:
        try:
            engine.end_leftovers(bench.label)
        except Exception as error:
            problems.append(error)

    engines = [bench.make() for _ in range(4)]
    threads = [threading.Thread(target=end, args=(engine,)) for engine in engines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert within(5, lambda: not any(alive(marker) for _, marker in sleeping))
    assert within(5, lambda: containers(bench) == [])
    for running, _ in sleeping:
        running._thread.join(30)
    for engine in engines:
        engine.close()


def test_the_session_of_a_users_shell_outlives_the_container_with_its_terminal(bench: Bench) -> None:
    marker, mine, before = unique(), unique(), image_servers()
    ours, theirs = os.openpty()
    # a shell with a job of its own, in which somebody kills what has the container
    script = f'sleep {mine} & "$@" & echo $!; wait $!; exec sleep {mine}'
    shell = child_process(
        bench,
        *("sh", "-c", f"sleep {marker} & sleep {marker}"),
        before=("sh", "-c", script, "sh"),
        interactive=True,
        stdin=theirs,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        assert within(30, lambda: len(alive(marker)) == 2)
        os.kill(int(shell.stdout.readline()), signal.SIGKILL)
        assert within(5, lambda: not alive(marker))
        assert within(5, lambda: containers(bench) == [])
        assert within(5, lambda: image_servers() <= before)
        assert within(5, lambda: len(alive(mine)) == 2)
    finally:
        for pid in (*alive(mine), *alive(marker)):
            os.kill(pid, signal.SIGKILL)
        shell.stdout.close()
        shell.wait()
        os.close(ours)


def test_interactive_connects_the_terminal(bench: Bench) -> None:
    ours, theirs = os.openpty()
    command = ("sh", "-c", 'test -t 0 && test -t 1 && read line && echo "got <$line>"; exit 3')
    process = child_process(bench, *command, interactive=True, stdin=theirs, stdout=theirs, start_new_session=True)
    os.close(theirs)
    try:
        os.write(ours, b"hello\n")
        seen = read_until(ours, b"got <hello>")
        assert process.wait(30) == 3, seen
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert b"got <hello>" in seen


def read_until(terminal: int, wanted: bytes) -> bytes:
    """What comes from a terminal up to ``wanted``, its end, or half a minute."""
    seen, end = b"", time.monotonic() + 30
    with contextlib.suppress(OSError):  # EIO: the other side is closed
        while wanted not in seen and select.select([terminal], [], [], max(0, end - time.monotonic()))[0]:
            seen += os.read(terminal, 4096)
    return seen


# --- images -----------------------------------------------------------------------------------------------------


@pytest.fixture
def fresh_image(bench: Bench, folder: Path) -> Iterator[TinyImage]:
    """An image that no engine has seen, with a layer that holds /marker."""
    yield write_marked_image(bench.image, folder / "layout")
    if bench.kind == "docker":
        for image in bench.engine._connection().images(filters={"label": "preserve.test"}):
            bench.engine._connection().remove_image(image["Id"], force=True)


def write_marked_image(base: TinyImage, place: Path) -> TinyImage:
    place.mkdir()
    layout = Layout(place).create()
    old = Layout(base.layout).image(base.pin.manifest_digest)
    buffer, text = io.BytesIO(), f"good {secrets.token_hex(8)}\n".encode()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        header = tarfile.TarInfo("marker")
        header.size, header.mode = len(text), 0o644
        tar.addfile(header, io.BytesIO(text))
    below = [_add(layout, LAYER, Layout(base.layout).read(layer.digest)) for layer in old.layers]
    layers = [*below, _add(layout, LAYER, buffer.getvalue())]
    system, _, architecture = base.pin.platform.partition("/")
    config = {"architecture": architecture, "os": system, "rootfs": {"type": "layers"}}
    config["rootfs"]["diff_ids"] = [layer["digest"] for layer in layers]
    config["config"] = {**old.settings, "Labels": {"preserve.test": "1"}, "Entrypoint": ["/bin/false"]}
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": _add(layout, CONFIG, _json(config)),
        "layers": layers,
    }
    image = layout.image(Digest(_add(layout, MANIFEST, _json(manifest))["digest"]))
    pin = ImagePin(
        reference="oci:marked",
        platform=image.platform,
        manifest_digest=image.manifest.digest,
        config_digest=image.config.digest,
        diff_ids=image.diff_ids,
    )
    return TinyImage(layout=place, pin=pin)


def test_altered_layer_is_refused_and_poisons_nothing(bench: Bench, fresh_image: TinyImage) -> None:
    blob = Layout(fresh_image.layout).blob(fresh_image.pin.diff_ids[-1])
    good = blob.read_bytes()
    blob.write_bytes(good.replace(b"good", b"evil"))
    with pytest.raises(DigestMismatch) as refused:
        bench.engine.load(fresh_image.pin, fresh_image.layout)
    assert fresh_image.pin.diff_ids[-1] in refused.value.message
    with pytest.raises(MachineError):
        bench.run("cat", "/marker", image=fresh_image.pin)
    blob.write_bytes(good)
    bench.engine.load(fresh_image.pin, fresh_image.layout)
    assert bench.out("cat", "/marker", image=fresh_image.pin).startswith("good ")  # and the entrypoint is not used


def test_missing_layer_and_wrong_pin_are_refused(bench: Bench, fresh_image: TinyImage) -> None:
    wrong = Digest.of(b"another")
    for pin in (
        replace(fresh_image.pin, manifest_digest=wrong),
        replace(fresh_image.pin, config_digest=wrong),
        replace(fresh_image.pin, diff_ids=(wrong,)),
    ):
        with pytest.raises(DigestMismatch):
            bench.engine.load(pin, fresh_image.layout)
    Layout(fresh_image.layout).blob(fresh_image.pin.diff_ids[0]).unlink()
    with pytest.raises(DigestMismatch):
        bench.engine.load(fresh_image.pin, fresh_image.layout)


def test_loaded_image_is_not_read_again(bench: Bench, fresh_image: TinyImage) -> None:
    bench.engine.load(fresh_image.pin, fresh_image.layout)
    shutil.rmtree(fresh_image.layout / "blobs")
    started = time.monotonic()
    bench.engine.load(fresh_image.pin, fresh_image.layout)
    assert time.monotonic() - started < 0.5
    assert bench.out("cat", "/marker", image=fresh_image.pin).startswith("good ")


@pytest.mark.parametrize("bench", KINDS[1:], indirect=True)  # Docker's store is the daemon's own affair
def test_changed_prepared_image_is_made_again(bench: Bench, fresh_image: TinyImage) -> None:
    bench.engine.load(fresh_image.pin, fresh_image.layout)
    prepared = bench.engine._prepared[fresh_image.pin.manifest_digest].path
    changed = prepared / "marker" if prepared.is_dir() else prepared
    before = changed.stat()
    data = changed.read_bytes()
    changed.write_bytes(data.replace(b"good", b"evil") if prepared.is_dir() else data[:-8] + b"evilevil")
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert stat.S_IMODE(changed.stat().st_mode) == stat.S_IMODE(before.st_mode)
    engine = bench.make()
    with pytest.raises(MachineError):  # a run never takes it as it is
        run(engine, bench.request("cat", "/marker", image=fresh_image.pin))
    engine.load(fresh_image.pin, fresh_image.layout)
    assert run(engine, bench.request("cat", "/marker", image=fresh_image.pin))[1].startswith(b"good ")
    engine.close()


@pytest.mark.docker
@pytest.mark.apptainer
def test_two_engines_make_the_same_product(
    docker_host: str, apptainer: str, tiny_image: TinyImage, tmp_path: Path
) -> None:
    assert apptainer
    made = {}
    for name, constructor in BUILT_IN.items():
        engine = constructor(host=docker_host, cache=tmp_path / "cache", program=None, search_path=PATH)
        engine.load(tiny_image.pin, tiny_image.layout)
        out = tmp_path / name
        out.mkdir()
        request = RunRequest(
            image=tiny_image.pin,
            command=("sh", "-c", "(seq 1000 | sha256sum; hostname; pwd; id -u; umask; ulimit -n) > out/product"),
            mounts=(Mount(source=out, target="/work/out", read_only=False),),
        )
        assert run(engine, request)[0].exit_code == 0
        made[name] = hash_file(out / "product")
        engine.close()
    assert made["docker"] == made["apptainer"]


@pytest.mark.apptainer
def test_as_ordinary_user(as_user: AsUser, apptainer: str) -> None:
    """The same suite without any privilege: uid of a system user, no capabilities, no groups."""
    assert apptainer
    if os.geteuid() != 0:
        status = Path("/proc/self/status").read_text()
        assert "CapEff:\t0000000000000000\n" in status  # this whole run is that run
        return
    here = as_user.home / "suite"
    here.mkdir()
    for name in ("preserve", "tests"):
        shutil.copytree(ROOT / name, here / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", here)
    as_user.give(here)
    python = readable_python(as_user)
    done = as_user(
        [
            *python,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "tests/contract/test_engines.py",
            "-m",
            "apptainer and not docker",
            "-k",
            "not as_ordinary",
        ],
        cwd=here,
        env={"PYTHONPATH": f"{here}:{here / 'tests'}:{sysconfig.get_path('purelib')}", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    passed = int(done.stdout.rpartition(" passed")[0].split()[-1])
    assert passed >= 100, done.stdout


def readable_python(as_user: AsUser) -> list[str]:
    """An interpreter of this version that the user may run: this one, or the system's (root's own may be closed)."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (Path(sys.executable).resolve(), Path(f"/usr/bin/python{version}")):
        with contextlib.suppress(OSError):
            if as_user([str(candidate), "-c", ""], capture_output=True).returncode == 0:
                return [str(candidate)]
    pytest.fail(f"no Python {version} that an ordinary user may run", pytrace=False)
