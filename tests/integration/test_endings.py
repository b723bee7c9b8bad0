"""How a run ends when something is done to it: signals, a process of it killed, a failing step, a second run.

Each test works in its own copy of a small analysis whose image lies in an OCI layout beside it: nothing is built.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import ENGINES, SCRIPTS, AsUser, TinyImage
from sessions import (
    LONG,
    PATIENCE,
    SECONDS,
    Analysis,
    Napping,
    command_lines,
    lock_analysis,
    napping,
    own_copy,
    wait_until,
)

STEPS = (
    """\
format: 1
title: One long step, and a fan beside a step that fails
images:
  tiny: oci:image
parameters: {seconds: 0}
steps:
"""
    + LONG.replace("inputs: [", "inputs: [code/words.txt, ")
    + """\
  - name: reader
    stage: postprocessing
    image: tiny
    inputs: [nap/nap.txt, code/words.txt]
    outputs: [read/words.txt]
    run: cat nap/nap.txt code/words.txt > ${{ outputs[0] }}
  - name: slow
    stage: preparation
    image: tiny
    outputs: [slow/slow.txt]
    run: sleep 2; echo slow > ${{ outputs[0] }}
  - name: broken
    stage: preparation
    image: tiny
    outputs: [broken/never.txt]
    run: exit 3
  - name: piece
    stage: processing
    image: tiny
    for_each: {number: [1, 2, 3]}
    inputs: [slow/slow.txt]
    outputs: ["pieces/${{ number }}.txt"]
    run: cat slow/slow.txt > ${{ outputs[0] }}; echo ${{ number }} >> ${{ outputs[0] }}
  - name: merge
    stage: postprocessing
    image: tiny
    inputs: [broken/never.txt, pieces/*.txt]
    outputs: [merged/all.txt]
    run: cat pieces/*.txt > ${{ outputs[0] }}
"""
)
PIECES = {f"piece@number={number}" for number in (1, 2, 3)}


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory, tiny_image: TinyImage) -> Path:
    """The analysis, committed and locked."""
    root = tmp_path_factory.mktemp("endings") / "template"
    return lock_analysis(root, tiny_image.layout, {"preserve.yaml": STEPS, "code/words.txt": "old\n"})


@pytest.fixture
def chain(engine: str, docker_address: str, template: Path, tmp_path: Path) -> Analysis:
    """The analysis on each engine."""
    return own_copy(template, tmp_path / "chain", engine, docker_address)


@pytest.fixture
def asleep(chain: Analysis) -> Iterator[Napping]:
    """A run in the middle of its long step, on each engine."""
    with napping(chain) as found:
        yield found


def children(process: subprocess.Popen[str], word: str) -> list[int]:
    """Children of a process that have ``word`` in their command line."""
    lists = Path(f"/proc/{process.pid}/task").glob("*/children")
    pids = {int(pid) for path in lists for pid in path.read_text().split()}
    return [pid for pid, line in command_lines() if pid in pids and word in " ".join(line)]


def sleepers(run: Napping) -> list[int]:
    """The process in the container, as this machine sees it."""
    return [pid for pid, line in command_lines() if line[-2:] == ["sleep", str(run.seconds)]]


def edit(path: Path, *, in_place: bool) -> None:
    """Give a file another content of the same length."""
    path.chmod(0o644)
    if not in_place:
        path.rename(path.with_name("away"))
    path.write_text("new\n" if path.name == "words.txt" else "later\n")


def kill_guard(run: Napping) -> None:
    (guard,) = children(run.process, "guard_process")
    os.kill(guard, signal.SIGKILL)


def assert_goes_on(analysis: Analysis) -> None:
    """The same command again runs the step that was under way, and nothing else."""
    found = analysis.run("--step", "nap", "-p", "seconds=0")
    assert set(found["reasons"]) == {"nap"}
    assert (analysis.root / "nap" / "nap.txt").read_text() == "first\n"


class TestSignals:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
    def test_it_leaves_nothing_and_goes_on_where_it_was(self, asleep: Napping, number: signal.Signals) -> None:
        attendants = children(asleep.process, "")
        asleep.process.send_signal(number)
        code, stderr = asleep.end()
        assert code == 130, stderr
        assert "interrupted" in stderr
        assert asleep.traces() == []
        assert sleepers(asleep) == []
        assert not [pid for pid in attendants if Path(f"/proc/{pid}").exists()]
        assert_goes_on(asleep.analysis)

    @pytest.mark.parametrize("chain", ENGINES[1:], indirect=True)  # no engine hears of it
    def test_one_that_is_ignored_stays_so(self, chain: Analysis) -> None:
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
        try:
            with napping(chain) as run:
                run.process.send_signal(signal.SIGHUP)
                time.sleep(1)
                assert run.process.poll() is None
                (sleeper,) = sleepers(run)
                os.kill(sleeper, signal.SIGTERM)
                code, stderr = run.end()
        finally:
            signal.signal(signal.SIGHUP, before)
        assert code == 0, stderr

    def test_three_at_once_are_one(self, asleep: Napping) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            asleep.process.send_signal(number)
        code, stderr = asleep.end()
        assert code == 130, stderr
        assert asleep.traces() == []


class TestFilesChangedMeanwhile:
    """What a record names is what its step read: nothing of the new file is kept under the old one's key."""

    @pytest.mark.parametrize(
        ("name", "step"), [("code/words.txt", "nap"), ("code/words.txt", "reader"), ("first/first.txt", "nap")]
    )
    def test_it_is_said_and_nothing_is_kept(self, chain: Analysis, name: str, step: str) -> None:
        with napping(chain, step=step) as run:
            edit(chain.root / name, in_place=step == "nap")
            os.kill(sleepers(run)[0], signal.SIGTERM)
            code, said = run.end()
        assert (code, f"step {step}: {name} was changed while the run went on" in said) == (5, True), said
        run.assert_clean()
        if step == "nap":
            assert not (chain.root / "nap/nap.txt").exists()
        if name == "code/words.txt":
            (chain.root / name).write_text("old\n")
        found = chain.run("--step", "reader", "-p", "seconds=0")
        assert {"nap", "reader"} <= found["reasons"].keys()
        assert (chain.root / "read/words.txt").read_text() == "first\nold\n"

    def test_a_file_replaced_under_a_step_that_runs_is_not_the_one_it_reads(self, chain: Analysis) -> None:
        with napping(chain) as run:
            edit(chain.root / "code/words.txt", in_place=False)
            os.kill(sleepers(run)[0], signal.SIGTERM)
            assert run.end()[0] == 0
        again = chain.run("-n", "--step", "nap", "-p", f"seconds={run.seconds}")
        assert again["reasons"] == {"nap": "code/words.txt changed"}


class TestGuardKilled:
    def test_the_step_ends_well_all_the_same(self, asleep: Napping) -> None:
        kill_guard(asleep)
        (sleeper,) = sleepers(asleep)
        os.kill(sleeper, signal.SIGTERM)
        code, stderr = asleep.end()
        assert code == 0, stderr
        assert asleep.traces() == []
        assert (asleep.analysis.root / "nap" / "nap.txt").read_text() == "first\n"

    def test_ctrl_c_still_ends_the_containers(self, asleep: Napping) -> None:
        kill_guard(asleep)
        asleep.process.send_signal(signal.SIGINT)
        code, stderr = asleep.end()
        assert code == 130, stderr
        assert asleep.traces() == []

    def test_with_the_run_killed_too_the_next_run_ends_what_they_left(self, asleep: Napping) -> None:
        kill_guard(asleep)
        asleep.process.kill()
        assert asleep.end()[0] == -signal.SIGKILL
        assert asleep.traces()
        assert_goes_on(asleep.analysis)
        asleep.assert_clean()


class TestSchedulerKilled:
    def test_what_runs_comes_to_its_end_and_is_kept(self, asleep: Napping) -> None:
        (scheduler,) = children(asleep.process, "snakemake_process")
        os.kill(scheduler, signal.SIGKILL)
        (sleeper,) = sleepers(asleep)
        os.kill(sleeper, signal.SIGTERM)
        code, stderr = asleep.end()
        assert code == 3, stderr
        assert "Snakemake failed: its process ended by itself (exit code -9)" in stderr
        assert asleep.traces() == []
        again = asleep.analysis.run("--step", "nap", "-p", f"seconds={asleep.seconds}")
        assert again["reasons"] == {}
        assert (asleep.analysis.root / "nap" / "nap.txt").read_text() == "first\n"

    def test_ctrl_c_ends_what_runs(self, asleep: Napping) -> None:
        (scheduler,) = children(asleep.process, "snakemake_process")
        os.kill(scheduler, signal.SIGKILL)
        asleep.process.send_signal(signal.SIGINT)
        code, stderr = asleep.end()
        assert code == 130, stderr
        assert asleep.traces() == []
        assert_goes_on(asleep.analysis)

    def test_it_ends_with_a_run_that_is_killed(self, asleep: Napping) -> None:
        (scheduler,) = children(asleep.process, "snakemake_process")
        asleep.process.kill()
        asleep.end()
        assert wait_until(lambda: not Path(f"/proc/{scheduler}").exists(), PATIENCE)


class TestOneRunAtATime:
    def test_a_second_is_refused_until_the_first_is_gone(self, asleep: Napping) -> None:
        for command in ("run", "lock"):
            started = time.monotonic()
            refused = asleep.analysis(command)
            assert refused.returncode == 3, refused.stderr
            assert f"another preserve works in this folder (process {asleep.process.pid})" in refused.stderr
            assert time.monotonic() - started < 5
        assert asleep.traces()

        asleep.process.kill()
        asleep.end()
        assert_goes_on(asleep.analysis)


@pytest.mark.parametrize("engine", ENGINES[1:], indirect=True)  # no engine knows of other steps
class TestKeepGoing:
    def test_without_it_nothing_new_is_started(self, chain: Analysis) -> None:
        failed = chain("run", "-j", "2", "--step", "broken", "--step", "piece")
        assert failed.returncode == 4, failed.stderr
        assert "step broken failed: exit code 3" in failed.stderr
        assert states(chain) == {"slow": "done", "broken": "failed"}

    def test_with_it_all_runs_that_does_not_need_the_failed_step(self, chain: Analysis) -> None:
        wanted = ("run", "-k", "-j", "2", "--step", "broken", "--step", "merge")
        failed = chain(*wanted)
        assert failed.returncode == 4, failed.stderr
        assert "step broken failed: exit code 3" in failed.stderr
        assert states(chain) == {"slow": "done", "broken": "failed", **dict.fromkeys(PIECES, "done")}
        assert (chain.root / "pieces" / "3.txt").read_text() == "slow\n3\n"

        again = chain("run", "-n", "--json", *wanted[2:])
        assert json.loads(again.stdout)["reasons"] == {
            "broken": "failed last time (exit code 3)",
            "merge": "after broken",
        }


def states(analysis: Analysis) -> dict[str, str]:
    """What came of the steps of the last run that were started."""
    steps = json.loads(analysis("status", "--json").stdout)["steps"]
    return {step["step"]: step["state"] for step in steps if step["record"] is not None}


@dataclass(frozen=True, kw_only=True)
class Daemon:
    """A Docker engine that may be killed."""

    folder: Path

    @property
    def host(self) -> str:
        return f"unix://{self.folder}/docker.sock"

    def start(self) -> None:
        subprocess.run([SCRIPTS / "docker-up", self.folder], check=True, capture_output=True)

    def kill(self) -> None:
        """End it without a word, and wait until it is gone."""
        pid = int((self.folder / "docker.pid").read_text())
        os.kill(pid, signal.SIGKILL)
        assert wait_until(lambda: not Path(f"/proc/{pid}").exists(), PATIENCE)


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    folder = Path(tempfile.mkdtemp(prefix="preserve-daemon-"))  # a socket's name is short
    found = Daemon(folder=folder)
    try:
        found.start()
        yield found
    finally:
        found.start()  # containers outlive a killed daemon: only a running one ends them
        subprocess.run([SCRIPTS / "docker-down", folder], check=True, capture_output=True)


@pytest.fixture
def asleep_there(daemon: Daemon, template: Path, tmp_path: Path) -> Iterator[Napping]:
    """A run in the middle of its long step, on that engine."""
    with napping(own_copy(template, tmp_path / "chain", "docker", daemon.host)) as found:
        yield found


@pytest.mark.docker
class TestDaemonKilled:
    def test_with_the_daemon_soon_back_nothing_is_left(self, asleep_there: Napping, daemon: Daemon) -> None:
        """The guard goes on asking while its run ends."""
        daemon.kill()
        daemon.start()
        code, stderr = asleep_there.end()
        assert code in (3, 4), stderr
        asleep_there.assert_clean()
        assert sleepers(asleep_there) == []
        assert_goes_on(asleep_there.analysis)

    def test_with_the_daemon_gone_for_long_the_next_run_ends_what_is_left(
        self, asleep_there: Napping, daemon: Daemon
    ) -> None:
        daemon.kill()
        code, stderr = asleep_there.end()
        assert code == 3, stderr
        assert "step nap" in stderr
        assert "no Docker engine answers" in stderr
        daemon.start()
        assert_goes_on(asleep_there.analysis)
        asleep_there.assert_clean()
        assert sleepers(asleep_there) == []


@pytest.mark.apptainer
class TestApptainer:
    def test_a_sif_gives_the_same_products_as_a_folder(self, apptainer: str, template: Path, tmp_path: Path) -> None:
        products = {}
        for form in ("folder", "sif"):
            analysis = own_copy(template, tmp_path / form, "apptainer", "")
            options = ("--sif",) if form == "sif" else ()
            products[form] = analysis.run("--step", "nap", *options)["products"]
            made = list((analysis.root / ".preserve" / "images" / "apptainer").rglob("*.sif"))
            assert bool(made) == (form == "sif")
        assert products["sif"] == products["folder"]
        assert set(products["sif"]) == {"first/first.txt", "nap/nap.txt"}

    @pytest.mark.parametrize("form", [(), ("--sif",)], ids=["folder", "sif"])
    def test_an_ordinary_user_needs_nothing_but_the_program(
        self, apptainer: str, template: Path, as_user: AsUser, form: tuple[str, ...]
    ) -> None:
        with tempfile.TemporaryDirectory(dir=as_user.home) as folder:
            root = Path(folder)
            analysis = own_copy(template, root / "chain", "apptainer", "")
            (analysis.root / "preserve.lock").unlink()
            shutil.rmtree(analysis.root / ".preserve")
            as_user.give(root)
            run = ("run", "--json", "-j", "2", "--step", "piece", *form)
            for command in (analysis.argv("lock"), analysis.argv(*run)):
                done = as_user(command, cwd=analysis.root, capture_output=True, text=True)
                assert done.returncode == 0, done.stderr
            made = json.loads(done.stdout)["products"]
            expected = {f"pieces/{number}.txt": f"slow\n{number}\n" for number in (1, 2, 3)}
            assert {name: (analysis.root / name).read_text() for name in made} == {
                "slow/slow.txt": "slow\n",
                **expected,
            }
            assert analysis.products(*made) == made
            assert {(analysis.root / name).stat().st_uid for name in made} == {as_user.ids.uid}


@contextmanager
def deaf(way: str) -> Iterator[tuple[int, Callable[[], None]]]:
    """Where a run may write its messages, and what makes the reader go away: a closed terminal, or a closed pipe."""
    reading, writing = os.openpty() if way == "terminal" else os.pipe()
    left = {reading, writing}

    def close(descriptor: int) -> None:
        if descriptor in left:
            left.remove(descriptor)
            os.close(descriptor)

    try:
        yield writing, lambda: (close(writing), close(reading))[0]
    finally:
        close(writing)
        close(reading)


@pytest.mark.parametrize("engine", ENGINES[1:], indirect=True)
@pytest.mark.parametrize("way", ["terminal", "pipe"])
class TestNobodyListens:
    @pytest.mark.parametrize(("number", "expected"), [(signal.SIGHUP, 130), (None, 0)], ids=["hung up", "left alone"])
    def test_the_run_ends_as_it_would(
        self, chain: Analysis, way: str, number: signal.Signals | None, expected: int
    ) -> None:
        seconds = next(SECONDS)
        argv = chain.argv("run", "--step", "nap", "-p", f"seconds={seconds}")
        with deaf(way) as (writing, close):
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=writing,
                stderr=writing,
                cwd=chain.root,
                env=dict(chain.environment),
            )
            run = Napping(analysis=chain, process=process, seconds=seconds)
            assert wait_until(run.started, PATIENCE), "the step did not start"
            close()
            if number is not None:
                process.send_signal(number)
            else:
                os.kill(sleepers(run)[0], signal.SIGTERM)  # the step wakes and ends well
            assert process.wait(PATIENCE) == expected
        run.assert_clean()
        assert (chain.root / "nap" / "nap.txt").exists() == (expected == 0)
