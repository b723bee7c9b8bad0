"""The engines' parts that decide: no engine needed."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import secrets
import signal
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preserve.digest import Digest
from preserve.documents.lockfile import ImagePin
from preserve.engines.apptainer import ApptainerEngine
from preserve.engines.apptainer import facts as apptainer_facts
from preserve.engines.apptainer_command import mount_option
from preserve.engines.apptainer_program import read_version
from preserve.engines.docker import facts as docker_facts
from preserve.engines.environment import complete, image_environment
from preserve.engines.frames import Demultiplexer
from preserve.engines.guard_process import end_carriers
from preserve.engines.network import no_routes
from preserve.engines.prepared import fingerprint, remove_tree
from preserve.errors import MachineError
from preserve.interfaces import Mount, RunRequest


@given(
    frames=st.lists(st.tuples(st.sampled_from((1, 2)), st.binary(max_size=50)), max_size=20),
    cuts=st.lists(st.integers(1, 9), min_size=1, max_size=50),
)
def test_frames_are_taken_apart_wherever_the_connection_cuts_them(
    frames: list[tuple[int, bytes]], cuts: list[int]
) -> None:
    data = b"".join(struct.pack(">BxxxL", stream, len(body)) + body for stream, body in frames)
    out, err = io.BytesIO(), io.BytesIO()
    demultiplexer, place = Demultiplexer(stdout=out, stderr=err), 0
    while place < len(data):
        length = cuts[place % len(cuts)]
        demultiplexer.feed(data[place : place + length])
        place += length
    assert out.getvalue() == b"".join(body for stream, body in frames if stream == 1)
    assert err.getvalue() == b"".join(body for stream, body in frames if stream == 2)


@given(source=st.text(st.characters(exclude_characters="\0\r", exclude_categories=("Cs",)), min_size=1))
def test_a_mount_is_one_csv_record(source: str) -> None:
    option = mount_option(Mount(source=Path("/") / source, target=f"/work/{source}"))
    (fields,) = csv.reader(io.StringIO(option, newline=""))
    assert fields == ["type=bind", f"source={Path('/') / source}", f"destination=/work/{source}", "ro"]


def test_a_writable_mount_does_not_say_ro() -> None:
    assert mount_option(Mount(source=Path("/a"), target="/b", read_only=False)).endswith('"destination=/b"')


@pytest.mark.parametrize(
    ("text", "flavour", "version"),
    [
        ("apptainer version 1.4.5-2\n", "apptainer", "1.4.5-2"),
        ("singularity-ce version 4.1.0-jammy", "singularity", "4.1.0-jammy"),
        ("singularity version 3.11.4", "singularity", "3.11.4"),
    ],
)
def test_versions_are_read(text: str, flavour: str, version: str) -> None:
    found = read_version("/p", text)
    assert (found.flavour, found.version) == (flavour, version)


@pytest.mark.parametrize("text", ["", "fish, version 3.6", "apptainer version 1.0.3", "singularity version 3.8.7"])
def test_other_programs_and_old_ones_are_refused(text: str) -> None:
    with pytest.raises(MachineError) as refused:
        read_version("/p", text)
    assert refused.value.hint is not None


def test_environment_is_layered() -> None:
    image = image_environment(["PATH=/i", "A=1=2", "nonsense", "B="])
    digest = Digest.of(b"")
    pin = ImagePin(reference="x", platform="y", manifest_digest=digest, config_digest=digest, diff_ids=())
    request = RunRequest(image=pin, command=(), environment={"B": "x"})
    assert complete(image, request) == {
        "PATH": "/i", "HOME": "/tmp", "HOSTNAME": "preserve", "A": "1=2", "B": "x",
    }  # fmt: skip
    assert complete({}, replace(request, interactive=True))["TERM"] == "xterm"
    assert complete({}, replace(request, host_name="elsewhere"))["HOSTNAME"] == "elsewhere"


def test_routes_are_read_by_name() -> None:
    assert no_routes(["Ip: Forwarding OutNoRoutes", "Ip: 1 7", "Icmp: InMsgs", "Icmp: 0"]) == 7
    assert no_routes(["Ip: Forwarding", "Ip: 1"]) is None
    assert no_routes([]) is None


def test_fingerprint_sees_a_change_that_hides_its_time(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "d").mkdir(parents=True)
    file = tree / "d" / "f"
    file.write_text("good")
    before, status = fingerprint(tree), file.stat()
    assert fingerprint(tree) == before
    file.write_text("evil")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert fingerprint(tree) != before
    assert fingerprint(tmp_path / "none") != before


def test_read_only_trees_are_removed(tmp_path: Path) -> None:
    (tmp_path / "t" / "closed" / "deep").mkdir(parents=True)
    (tmp_path / "t" / "closed" / "deep" / "f").touch()
    (tmp_path / "t" / "closed" / "deep").chmod(0o500)
    (tmp_path / "t" / "closed").chmod(0o000)
    remove_tree(tmp_path / "t")
    assert not (tmp_path / "t").exists()


SESSION = """
import subprocess, sys
sleep = ["sleep", "1000"]
for environment in ({}, {"MARK": sys.argv[2]}):
    print(subprocess.Popen(sleep, env=environment).pid, flush=True)
if sys.argv[1] == "leader":
    import os
    os.execve("/bin/sleep", sleep, {"MARK": sys.argv[2]})
"""


@pytest.mark.parametrize(
    ("leader", "known", "dies"),
    [("leader", True, True), ("gone", True, True), ("gone", False, False), ("gone and beside", True, False)],
)
def test_a_session_is_ended_only_if_it_was_made_for_the_container(*, leader: str, known: bool, dies: bool) -> None:
    """A carrier (marked) and another process in a session: its leader is a carrier, or gone; or it is the parent's."""
    mark = secrets.token_hex(8)
    argv = [sys.executable, "-c", SESSION, leader, mark]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, start_new_session=True) as shell:
        assert shell.stdout is not None
        other, carrier = (int(shell.stdout.readline()) for _ in range(2))
        if leader != "leader":
            shell.wait()
        try:
            beside = (shell.pid if leader == "gone and beside" else os.getsid(0)) if known else None
            end_carriers(mark, beside=beside)
            assert not alive(carrier)
            assert alive(other) is not dies
        finally:
            for pid in (other, carrier):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def alive(pid: int) -> bool:
    """Whether a process is there, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_facts_give_a_reason_and_do_not_raise(tmp_path: Path) -> None:
    nobody = docker_facts(f"unix://{tmp_path}/none.sock")
    assert nobody.version is None
    assert "no Docker engine answers" in (nobody.problem or "")
    for address in (
        f"unix:///{'x' * 200}/docker.sock",
        "unix:///etc/passwd/x",
        "tcp://h:abc",
        "tcp://[::1",
        "http://[",
        "nonsense://x",
    ):
        assert f"no Docker engine answers at {address}" in (docker_facts(address).problem or "")
    nothing = apptainer_facts(None, str(tmp_path))
    assert nothing.program is None
    assert "no program apptainer or singularity" in (nothing.problem or "")


@pytest.mark.parametrize(
    ("says", "version"), [("apptainer version 1.4.5", "1.4.5"), ("singularity-ce version 4.1.0", "singularity 4.1.0")]
)
def test_facts_give_the_version_as_a_run_records_it(tmp_path: Path, says: str, version: str) -> None:
    program = tmp_path / "apptainer"
    program.write_text(f"#!/bin/sh\necho {says}\n")
    program.chmod(0o755)
    engine = ApptainerEngine(cache=tmp_path, search_path=f"{tmp_path}:/usr/bin:/bin")
    assert apptainer_facts(None, f"{tmp_path}:/usr/bin:/bin").version == engine.version() == version
