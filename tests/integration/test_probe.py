"""The probe on the chain with planted faults, on both engines: each step and its variation, by name."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from archived import Session, commit, here, session
from conftest import ROOT, AsUser

EXAMPLE = ROOT / "examples" / "probe-faults"
FAULTS = {  # what was planted, by step: docs/guide/probe.md has the table
    "sound": set(),
    "dated": {"clock"},
    "unordered": {"hash-seed"},
    "threaded": {"threads", "blas-kernel"},
    "listed": {"input-order"},
    "unfilled": {"memory"},
    "calling": set(),
    "summarise": set(),
}
if len(os.sched_getaffinity(0)) == 1:  # BLAS has no second thread there
    FAULTS["threaded"] -= {"threads"}


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, committed and locked; not to be changed."""
    root = tmp_path_factory.mktemp("faults") / "probe-faults"
    shutil.copytree(EXAMPLE, root, ignore=shutil.ignore_patterns("made", "results", ".preserve", "preserve.lock"))
    commit(root)
    # the way to package mirrors is the caller's
    lock = replace(session(root, "none"), environment={**os.environ, "DOCKER_HOST": "unix:///nowhere"})
    lock("lock")
    return root


def found(document: dict[str, Any]) -> dict[str, set[str]]:
    return {step["step"]: {finding["variation"] for finding in step["findings"]} for step in document["steps"]}


@pytest.fixture(scope="module")
def on_docker(locked: Path, docker_host: str, apptainer: str) -> Session:
    """The example run with Docker, and probed there."""
    target = locked.parent / "docker"
    shutil.copytree(locked, target, symlinks=True)
    made = session(target, "docker", docker_host)
    made("run")
    made("probe", "--engine", "docker", "-q", expect=1)
    return made


def probed(analysis: Session) -> dict[str, Any]:
    runs = sorted((analysis.root / ".preserve" / "runs").iterdir())
    document: dict[str, Any] = json.loads((runs[-1] / "probe.json").read_bytes())
    return document


@pytest.mark.docker
@pytest.mark.apptainer
class TestOnDocker:
    def test_names_each_step_and_variation(self, on_docker: Session) -> None:
        document = probed(on_docker)
        assert found(document) == FAULTS
        assert all(finding["confirmed"] for step in document["steps"] for finding in step["findings"])
        assert {step["step"] for step in document["steps"] if step["network_attempts"]} == {"calling"}
        for step in document["steps"]:
            assert {"user", "engine", "cpu-count", "numpy-dispatch"} <= set(step["tried"]), step["untried"]

    def test_tells_how_far_the_results_move(self, on_docker: Session) -> None:
        results = {finding["variation"]: finding for finding in probed(on_docker)["results"]}
        assert set(results) == {"clock", "hash-seed", "threads", "blas-kernel", "input-order", "memory"}
        (moved,) = results["blas-kernel"]["movements"]
        assert (moved["product"], moved["leaf"]) == ("results/summary.json", "/threaded/chi2")
        assert 1e-17 < moved["max_rel"] < 1e-13

    def test_touches_nothing(self, on_docker: Session) -> None:
        assert on_docker("status").code == 0
        assert "nothing to do" in on_docker("run").err
        assert not list((on_docker.root / ".preserve").glob("probe-*"))

    def test_one_steady_step_is_no_finding_and_what_is_known_of_others_stays(self, on_docker: Session) -> None:
        done = on_docker("probe", "--engine", "docker", "sound")
        assert done.out.splitlines()[0].split()[:2] == ["sound", "steady"]
        assert done.out.splitlines()[-1] == "reproducible: nothing moved in 1 step"
        assert found(probed(on_docker)) == FAULTS

    def test_goes_into_the_archive(self, on_docker: Session, tmp_path: Path) -> None:
        on_docker("archive", "-o", str(tmp_path / "faults.crate.zip"))
        assert here("verify", str(tmp_path / "faults.crate.zip")).code == 0
        inside = subprocess.run(
            ["unzip", "-p", str(tmp_path / "faults.crate.zip"), "data/probe.json"], check=True, capture_output=True
        )
        assert json.loads(inside.stdout) == probed(on_docker)

    def test_explains_why_a_replay_differs(self, on_docker: Session, tmp_path: Path) -> None:
        archive = tmp_path / "faults.crate.zip"
        on_docker("archive", "-o", str(archive))
        document = on_docker("replay", "--json", str(archive), expect=1).document
        assert document["begins_in"] == ["dated"]
        assert [(cause["path"], cause["variation"]) for cause in document["causes"]] == [
            ("results/summary.json", "clock")
        ]

    def test_calibrates(self, on_docker: Session) -> None:
        done = on_docker("probe", "--engine", "docker", "--calibrate", "-q", "sound")  # what is known of others counts
        assert 'match: "/threaded/chi2", rtol: ' in done.out
        assert '# "/dated/made" differs under clock: no tolerance covers that' in done.out
        text = (on_docker.root / "preserve.yaml").read_text()
        changed = on_docker.root.with_name("calibrated")
        shutil.copytree(EXAMPLE, changed, ignore=shutil.ignore_patterns("made", "results", ".preserve"))
        (changed / "preserve.yaml").write_text(text[: text.index("results:")] + done.out)
        assert here("validate", "-C", str(changed)).code == 0


@pytest.mark.apptainer
def test_with_apptainer_as_an_ordinary_user(locked: Path, as_user: AsUser, apptainer: str) -> None:
    root = as_user.home / "probe-faults"
    shutil.copytree(locked, root, symlinks=True)
    as_user.give(root)
    command = (sys.executable, "-m", "preserve")
    environment = {"PATH": os.defpath, "DOCKER_HOST": "unix:///nowhere"}
    try:
        for arguments, code in ((("run",), 0), (("probe", "-q"), 1)):
            argv = (*command, *arguments, "--engine", "apptainer")
            done = as_user(argv, cwd=root, env=environment, capture_output=True, text=True)
            assert done.returncode == code, done.stderr
        document = probed(session(root, "apptainer"))
        assert found(document) == FAULTS
        assert {step["step"] for step in document["steps"] if step["network_attempts"]} == {"calling"}
        untried = {one["variation"]: one["reason"] for step in document["steps"] for one in step["untried"]}
        assert untried["user"] == "Apptainer runs containers as the caller"
        assert untried["engine"].startswith("docker: no Docker engine answers")
    finally:
        remove(root)


def remove(root: Path) -> None:
    """Remove an analysis folder; prepared images have read-only folders."""
    for parent, _, _ in os.walk(root):
        Path(parent).chmod(0o700)
    shutil.rmtree(root)


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Session]:
    (tmp_path / "preserve.yaml").write_text((EXAMPLE / "preserve.yaml").read_text())
    yield session(tmp_path, "docker")


def test_nothing_has_run(empty: Session) -> None:
    assert "nothing has run here yet" in empty("probe", expect=2).err
