"""The process in which Snakemake runs: the only door to it. Started by chain.py, in Python's isolated mode.

It imports Snakemake at once, reads one request (a line of JSON) from stdin, and writes lines of JSON to stdout:
``["start", N]`` when job N may start and ``["end", WHAT WENT WRONG]`` at last. The caller runs the jobs and answers
``[N, DONE]`` for each. When stdin ends, the caller is gone, and so is this process.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from logging import ERROR, LogRecord
from pathlib import Path
from typing import Any, BinaryIO

if __name__ == "__main__":
    # one signal for all processes of a batch job: the caller ends this one when it is time
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    TO_CALLER = os.dup(1)
    os.dup2(2, 1)  # what anything else prints is not for the caller
    sys.path[:] = json.loads(sys.argv[1])  # what the caller imports from; this file's folder is not for importing
    gc.disable()  # imports make no garbage: an eighth less time

from preserve.scheduler.light_import import import_snakemake, module_of

if __name__ == "__main__":
    import_snakemake()

from snakemake import api
from snakemake.scheduling.greedy import SchedulerSettings as GreedySettings
from snakemake.settings import types as settings
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.executors.real import RealExecutor
from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry
from snakemake_interface_executor_plugins.settings import CommonSettings, ExecMode, ExecutorSettingsBase
from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.registry import LoggerPluginRegistry
from snakemake_interface_logger_plugins.settings import LogHandlerSettingsBase
from snakemake_interface_scheduler_plugins.base import SchedulerBase
from snakemake_interface_scheduler_plugins.registry import SchedulerPluginRegistry
from snakemake_interface_scheduler_plugins.settings import SchedulerSettingsBase

PLUGIN = "preserve"
SNAKEFILE = Path(__file__).with_name("chain.smk")
DEPTH = 20_000  # Snakemake walks the graph recursively: a chain of 3,000 jobs needs more than Python's 1,000 frames


@dataclass
class Caller:
    """The other end: it is told which job may start, and calls back when one has ended."""

    reading: BinaryIO
    writing: BinaryIO
    ended: dict[int, Callable[[bool], None]] = field(default_factory=dict)

    def say(self, what: str, value: int | str) -> None:
        """Write one line (Snakemake's scheduler calls from one thread)."""
        self.writing.write(json.dumps([what, value]).encode() + b"\n")
        self.writing.flush()

    def start(self, number: int, ended: Callable[[bool], None]) -> None:
        """Let a job start; ``ended`` is called with whether it did its work."""
        self.ended[number] = ended
        self.say("start", number)

    def listen(self) -> None:
        """Hand on what the caller says, until it is gone; an error here would else leave all waiting for ever."""
        try:
            for line in self.reading:
                number, done = json.loads(line)
                self.ended.pop(number)(done)
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(1)


@dataclass
class ExecutorSettings(ExecutorSettingsBase):  # type: ignore[misc]
    """How the executor finds the caller."""

    caller: Caller | None = None


class Executor(RealExecutor):  # type: ignore[misc]
    """Has each job run by the caller."""

    def __post_init__(self) -> None:
        """Nothing to prepare."""

    @property
    def cores(self) -> int:
        """How many jobs of one core may be with the caller at a time."""
        return int(self.workflow.resource_settings.cores)

    def get_exec_mode(self) -> Any:
        """As if in a process of its own: Snakemake then touches nothing of the job's."""
        return ExecMode.SUBPROCESS

    def get_python_executable(self) -> str:
        """What would run Snakemake again; it is not used."""
        return sys.executable

    def run_job_pre(self, job: Any) -> None:
        """Print nothing: the caller has its own progress."""

    def run_job(self, job: Any) -> None:
        """Let the caller run it."""
        info = SubmittedJobInfo(job=job)
        self.report_job_submission(info, register_job=False)
        self.executor_settings.caller.start(_number(job), lambda done: self._ended(info, done))

    def _ended(self, info: Any, done: bool) -> None:
        if done:
            Path(str(info.job.output[0])).touch()
            self.report_job_success(info)
        else:
            self.workflow.scheduler.error_callback(info.job)

    def shutdown(self) -> None:
        """Nothing to end."""

    def cancel(self) -> None:
        """The caller ends its jobs itself."""


@dataclass
class LogHandlerSettings(LogHandlerSettingsBase):  # type: ignore[misc]
    """Where errors are kept."""

    said: list[str] | None = None


class LogHandler(LogHandlerBase):  # type: ignore[misc]
    """Keeps Snakemake's errors for the case that it fails itself; takes the place of its own output."""

    writes_to_stream = True
    writes_to_file = False
    has_filter = True
    has_formatter = True
    needs_rulegraph = False

    def emit(self, record: LogRecord) -> None:
        """Keep an error."""
        if record.levelno >= ERROR and self.settings.said is not None:
            self.settings.said.append(record.getMessage())


@dataclass
class FirstFitSettings(SchedulerSettingsBase):  # type: ignore[misc]
    """How many of Snakemake's cores are for jobs that the caller keeps waiting until it has room."""

    ahead: int = 0


class FirstFit(SchedulerBase):  # type: ignore[misc]
    """First fit in the order of the plan: nearly linear in the ready jobs, where Snakemake's own two are not.

    A job is released ahead only when all that stand before it in the plan are released: whichever is ready next, none
    of those will come too late.
    """

    def __post_init__(self) -> None:
        """Begin: nothing is released, and the plan's first job would be the next."""
        self._released: set[int] = set()
        self._next = 0

    def select_jobs(self, selectable: Any, remaining: Any, available: Any, sizes: Any) -> list[Any]:
        """Choose jobs until the cores are used up."""
        chosen, free = [], available["_cores"] - self.settings.ahead
        for job in sorted(selectable, key=_number):
            is_next = _number(job) == self._next
            if free <= 0 and not is_next:
                break
            wanted = job.scheduler_resources.get("_cores", 0)
            if wanted <= free + (self.settings.ahead if is_next else 0):
                free -= wanted
                chosen.append(job)
                self._release(_number(job))
        return chosen

    def _release(self, number: int) -> None:
        self._released.add(number)
        while self._next in self._released:
            self._released.remove(self._next)
            self._next += 1


def _number(job: Any) -> int:
    """Give a job's place in the plan."""
    return int(job.params.number)


def register() -> None:
    """Make the three plug-ins known to Snakemake."""
    common = CommonSettings(
        non_local_exec=False,
        implies_no_shared_fs=False,
        job_deploy_sources=False,
        auto_deploy_default_storage_provider=False,
    )
    executor = module_of(PLUGIN, Executor=Executor, ExecutorSettings=ExecutorSettings, common_settings=common)
    ExecutorPluginRegistry().register_plugin(PLUGIN, executor)
    LoggerPluginRegistry().register_plugin(
        PLUGIN, module_of(PLUGIN, LogHandler=LogHandler, LogHandlerSettings=LogHandlerSettings)
    )
    first_fit = module_of(PLUGIN, Scheduler=FirstFit, SchedulerSettings=FirstFitSettings)
    SchedulerPluginRegistry().register_plugin(PLUGIN, first_fit)


def run(request: dict[str, Any], caller: Caller, said: list[str]) -> None:
    """Have all jobs of a request run.

    Raises:
        Exception: what Snakemake raises when a job or Snakemake itself failed.
    """
    with api.SnakemakeApi(
        settings.OutputSettings(log_handler_settings={PLUGIN: LogHandlerSettings(said=said)}, enable_file_logging=False)
    ) as snakemake:
        workflow = snakemake.workflow(
            resource_settings=settings.ResourceSettings(cores=request["cores"] + request["ahead"]),
            config_settings=settings.ConfigSettings(config={"jobs": request["jobs"]}),
            snakefile=SNAKEFILE,
            workdir=Path(request["folder"]),
        )
        dag = workflow.dag(
            settings.DAGSettings(
                force_incomplete=True,
                rerun_triggers=frozenset({settings.RerunTrigger.MTIME}),
                targets=frozenset(f"receipts/{number}" for number in range(request["count"])),
            )
        )
        dag.execute_workflow(
            executor=PLUGIN,
            executor_settings=ExecutorSettings(caller=caller),
            execution_settings=settings.ExecutionSettings(
                latency_wait=0, lock=False, keep_going=request["keep_going"], keep_metadata=False
            ),
            scheduling_settings=settings.SchedulingSettings(scheduler=PLUGIN),
            scheduler_settings=FirstFitSettings(ahead=request["ahead"]),
            greedy_scheduler_settings=GreedySettings(),  # asked for even where another scheduler is chosen
        )


def main(to_caller: int) -> None:
    """Serve one request from stdin, with answers to the descriptor ``to_caller``."""
    caller = Caller(reading=sys.stdin.buffer, writing=os.fdopen(to_caller, "wb"))
    sys.setrecursionlimit(DEPTH)
    register()
    gc.freeze()
    gc.enable()
    line = caller.reading.readline()
    if not line:
        return
    request = json.loads(line)
    said: list[str] = []
    os.environ |= dict.fromkeys(("HOME", "TMPDIR", "XDG_CACHE_HOME"), request["folder"])  # it leaves files there
    threading.Thread(target=caller.listen, daemon=True).start()
    try:
        run(request, caller, said)
    except Exception as error:
        caller.say("end", "\n".join([f"{type(error).__name__}: {error}", *said[-5:]]))
    else:
        caller.say("end", "")
    os._exit(0)  # the caller has all it waits for; taking Snakemake apart takes a fifth of a second


if __name__ == "__main__":
    main(TO_CALLER)
