"""Jobs through the real Snakemake: order, width, failure, depth."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from preserve.errors import MachineError
from preserve.scheduler.chain import Job, Scheduler


def run(jobs: list[Job], *, execute: Callable[[str], bool], cores: int, folder: Path, keep_going: bool = False) -> None:
    """All jobs by one scheduler."""
    with Scheduler(os.environ) as scheduler:
        scheduler.run(jobs, execute=execute, cores=cores, folder=folder, keep_going=keep_going)


def snakemake() -> int:
    """The process in which Snakemake runs."""
    lists = (path.read_text().split() for path in Path("/proc/self/task").glob("*/children"))
    pids = {int(pid) for pids in lists for pid in pids}
    (found,) = (pid for pid in pids if b"snakemake_process" in Path(f"/proc/{pid}/cmdline").read_bytes())
    return found


def chain(length: int) -> list[Job]:
    """Jobs that wait for one another."""
    return [Job(name=f"j{n}", after=(f"j{n - 1}",) if n else ()) for n in range(length)]


def test_a_job_runs_after_what_it_waits_for(tmp_path: Path) -> None:
    """The order is that of the dependencies, not of the list."""
    seen: list[str] = []

    def execute(name: str) -> bool:
        seen.append(name)
        return True

    jobs = [Job(name="last", after=("a", "b")), Job(name="b", after=("a",)), Job(name="a")]
    run(jobs, execute=execute, cores=2, folder=tmp_path / "run")
    assert seen == ["a", "b", "last"]


def test_a_chain_deeper_than_pythons_stack(tmp_path: Path) -> None:
    """Snakemake's recursion has room for it."""
    seen: list[str] = []

    def execute(name: str) -> bool:
        seen.append(name)
        return True

    run(chain(1200), execute=execute, cores=1, folder=tmp_path / "run")
    assert seen == [f"j{n}" for n in range(1200)]


def test_a_failed_job_holds_back_what_waits_for_it(tmp_path: Path) -> None:
    """With keep_going the others still run."""
    seen: list[str] = []

    def execute(name: str) -> bool:
        seen.append(name)
        return name != "bad"

    jobs = [Job(name="bad"), Job(name="after", after=("bad",)), Job(name="other"), Job(name="more", after=("other",))]
    run(jobs, execute=execute, cores=1, folder=tmp_path / "run", keep_going=True)
    assert sorted(seen) == ["bad", "more", "other"]


def test_a_failed_job_holds_back_all_that_had_not_started(tmp_path: Path) -> None:
    """Also what was ready to start."""
    seen: list[str] = []
    run([Job(name="bad"), *chain(1)], execute=lambda name: bool(seen.append(name)), cores=1, folder=tmp_path / "run")
    assert seen == ["bad"]


def test_an_exception_of_a_job_reaches_the_caller(tmp_path: Path) -> None:
    """It is the very exception, and nothing more is started."""
    seen: list[str] = []

    def execute(name: str) -> bool:
        seen.append(name)
        raise LookupError(name)

    with pytest.raises(LookupError, match="j0"):
        run(chain(3), execute=execute, cores=1, folder=tmp_path / "run")
    assert seen == ["j0"]


def test_what_snakemake_says_when_it_fails_itself_is_told(tmp_path: Path) -> None:
    """Jobs that wait for one another cannot be ordered."""
    jobs = [Job(name="a", after=("b",)), Job(name="b", after=("a",))]
    with pytest.raises(MachineError, match=r"Snakemake failed: .*[Cc]ycl"):
        run(jobs, execute=lambda _: True, cores=1, folder=tmp_path / "run")


def test_nothing_is_left_in_the_users_home_or_folder(tmp_path: Path) -> None:
    """Snakemake keeps caches and temporary files: they go where the run's folder is."""
    before = set(Path.cwd().iterdir()) | set(Path.home().rglob("*snakemake*"))
    run(chain(2), execute=lambda _: True, cores=1, folder=tmp_path / "run")
    assert set(Path.cwd().iterdir()) | set(Path.home().rglob("*snakemake*")) == before


def test_an_error_between_the_jobs_ends_the_run(tmp_path: Path) -> None:
    """Nobody waits for a Snakemake that cannot say any more what is done."""

    def execute(_: str) -> bool:
        shutil.rmtree(tmp_path / "run" / "receipts")
        return True

    with pytest.raises(MachineError, match="FileNotFoundError"):
        run(chain(2), execute=execute, cores=1, folder=tmp_path / "run")


def test_what_was_not_run_is_told_where_the_scheduler_died(tmp_path: Path) -> None:
    """With keep_going a failed job is no explanation."""
    with Scheduler(os.environ) as scheduler:

        def execute(name: str) -> bool:
            if name == "kill":
                scheduler.stop()
            return name != "bad"

        jobs = [Job(name="bad"), Job(name="kill"), Job(name="other", after=("kill",))]
        with pytest.raises(MachineError, match=r"ended by itself \(exit code -9\)"):
            scheduler.run(jobs, execute=execute, cores=1, folder=tmp_path / "run", keep_going=True)


@pytest.mark.parametrize("end", ["killed", "stopped", "interrupted", "raised"])
@pytest.mark.parametrize("keep_going", [True, False])
def test_nothing_is_begun_once_a_run_is_over(tmp_path: Path, end: str, keep_going: bool) -> None:
    """Whatever ended it; what runs is waited for."""
    seen: list[str] = []

    def execute(name: str) -> bool:
        seen.append(name)
        time.sleep(0.5)  # by now the main thread waits
        if end == "killed":
            os.kill(snakemake(), signal.SIGKILL)
        elif end == "stopped":
            scheduler.stop()
        elif end == "interrupted":
            signal.raise_signal(signal.SIGINT)
        else:
            raise LookupError(name)
        time.sleep(0.5)  # by now the main thread has heard of it
        seen.append("ended")
        return True

    expected = {"interrupted": KeyboardInterrupt, "raised": LookupError}.get(end, MachineError)
    jobs = [Job(name=name) for name in "abcd"]
    with Scheduler(os.environ) as scheduler, pytest.raises(expected):
        scheduler.run(jobs, execute=execute, cores=1, folder=tmp_path / "run", keep_going=keep_going)
    assert seen == (["a"] if end == "raised" else ["a", "ended"])


def test_signals_to_it_alone_do_nothing(tmp_path: Path) -> None:
    """Batch systems send them to each process of a job."""
    seen: list[str] = []

    def execute(name: str) -> bool:
        child = snakemake()
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            os.kill(child, number)
        seen.append(name)
        return True

    run(chain(30), execute=execute, cores=2, folder=tmp_path / "run")
    assert len(seen) == 30


@pytest.mark.parametrize("usable", [True, False])
def test_the_database_toolkit_is_imported_only_where_it_must_be(usable: bool) -> None:
    """It would take more than half of the time of importing Snakemake."""
    stand_ins = "light_import.STAND_INS" if usable else "{'sqlalchemy': {}}"
    program = (
        "import sys; from preserve.scheduler import light_import; "
        f"light_import.import_snakemake({stand_ins}); from snakemake import api; print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    modules = set(done.stdout.split())
    assert {"snakemake.workflow", "snakemake.persistence.file"} <= modules
    assert ("sqlalchemy.orm" in modules) != usable


@pytest.mark.parametrize("kind", ["executor", "logger", "scheduler"])
def test_plug_ins_that_others_installed_are_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Snakemake would import all it finds: a broken one would be the end of every run."""
    _install_broken_plug_in(tmp_path, kind)
    monkeypatch.syspath_prepend(tmp_path)
    seen: list[str] = []
    run(chain(1), execute=lambda name: not seen.append(name), cores=1, folder=tmp_path / "run")
    assert seen == ["j0"]


def test_nor_where_stand_ins_do_not_do(tmp_path: Path) -> None:
    """Snakemake is imported a second time then, as it is."""
    _install_broken_plug_in(tmp_path, "executor")
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from preserve.scheduler import light_import; "
        "light_import.import_snakemake({'sqlalchemy': {}}); from snakemake import api"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def _install_broken_plug_in(folder: Path, kind: str) -> None:
    plug_in = folder / f"snakemake_{kind}_plugin_broken"
    plug_in.mkdir()
    (plug_in / "__init__.py").write_text("raise RuntimeError('broken')")


@pytest.mark.parametrize("alive", [True, False])
def test_a_signal_that_another_thread_took_is_heard(tmp_path: Path, alive: bool) -> None:
    """Of several at once the kernel gives some to a step's thread; handlers run in the main one, which has to wake."""
    heard, in_time = threading.Event(), []

    def execute(_: str) -> bool:
        if not alive:
            os.kill(snakemake(), signal.SIGKILL)
        time.sleep(0.5)  # by now the main thread waits
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
        in_time.append(heard.wait(10))
        return True

    before = signal.signal(signal.SIGUSR1, lambda *_: heard.set())
    ending = contextlib.nullcontext() if alive else pytest.raises(MachineError, match="exit code -9")
    try:
        with ending:
            run([Job(name="only")], execute=execute, cores=1, folder=tmp_path / "run")
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert in_time == [True]


@pytest.mark.parametrize("wide", [False, True])
def test_no_more_cores_than_given_are_used(tmp_path: Path, wide: bool) -> None:
    """Two cores: two small jobs at a time, and a job that wants eight has them to itself."""
    lock, now, most = threading.Lock(), [0], [0]
    costs = {"wide": 2}

    def execute(name: str) -> bool:
        with lock:
            now[0] += costs.get(name, 1)
            most[0] = max(most[0], now[0])
        threading.Event().wait(0.02)
        with lock:
            now[0] -= costs.get(name, 1)
        return True

    jobs = [Job(name=f"j{n}") for n in range(6)] + ([Job(name="wide", cpus=8)] if wide else [])
    run(jobs, execute=execute, cores=2, folder=tmp_path / "run")
    assert most[0] == 2


@pytest.mark.parametrize("cores", [1, 2])
def test_a_job_is_not_overtaken_by_what_comes_after_it_in_the_plan(tmp_path: Path, cores: int) -> None:
    """What can run only after another is ready when that ends: it comes before all that is later."""
    seen: list[str] = []
    ended = threading.Barrier(cores)

    def execute(name: str) -> bool:
        seen.append(name)
        ended.wait(10)  # all that runs ends at the same time
        return True

    others = [Job(name=f"x{n}") for n in range(4 * cores - 4 if cores > 1 else 3)]
    run([*chain(4), *others], execute=execute, cores=cores, folder=tmp_path / "run")
    assert [seen.index(f"j{n}") // cores for n in range(4)] == [0, 1, 2, 3]


@pytest.mark.parametrize(("jobs", "waits"), [([Job(name=name) for name in "abc"], True), (chain(3), False)])
def test_a_free_core_finds_a_job_that_waits_for_it(tmp_path: Path, jobs: list[Job], waits: bool) -> None:
    """A job that waits for no other is there before its turn: it runs although Snakemake can do nothing."""
    seen: list[str] = []

    def execute(name: str) -> bool:
        seen.append(name)
        if len(seen) == 1:
            time.sleep(0.2)  # what is released ahead has come
            child = snakemake()
            os.kill(child, signal.SIGSTOP)
            threading.Timer(1, lambda: (counts.append(len(seen)), os.kill(child, signal.SIGCONT))).start()
        return True

    counts: list[int] = []
    run(jobs, execute=execute, cores=1, folder=tmp_path / "run")
    assert seen == [job.name for job in jobs]
    assert counts == [2 if waits else 1]
