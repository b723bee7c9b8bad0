"""Run jobs in the order of their dependencies, as many at a time as there are cores, by Snakemake in this process.

The only door to Snakemake. It runs in a thread of its own, so that the main thread stays free for signals; jobs run
in threads that Snakemake's scheduler starts through the executor below. Measured against a launcher process per job
in docs/decisions/0003-steps-in-threads.md.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from logging import ERROR, LogRecord
from pathlib import Path
from types import ModuleType
from typing import Any

from preserve.errors import MachineError

SNAKEFILE = Path(__file__).with_name("chain.smk")
PLUGIN = "preserve"
DEPTH = 20_000  # Snakemake walks the graph recursively: a chain of 3,000 jobs needs more than Python's 1,000 frames


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job: its name, the names of the jobs it waits for, and the cores it occupies."""

    name: str
    after: tuple[str, ...] = ()
    cpus: int = 1


def run_jobs(
    jobs: Sequence[Job],
    *,
    execute: Callable[[str], bool],
    cores: int,
    folder: Path,
    keep_going: bool = False,
) -> None:
    """Call ``execute`` with the name of each job once its ``after`` have returned ``True``; wait for all.

    A job that returns ``False`` holds back what waits for it and, unless ``keep_going``, every job not yet started.
    ``folder`` is empty and for this run alone. A job that wants more than ``cores`` gets all of them.

    Raises:
        MachineError: Snakemake itself failed; the message ends with what it said.
        Exception: whatever ``execute`` raised first; nothing more was started.
    """
    (folder / "receipts").mkdir(parents=True)
    _write_jobs(folder / "jobs.json", jobs, cores)
    calls = _Calls(names=tuple(job.name for job in jobs), execute=execute, folder=folder)
    said: list[str] = []
    thread = threading.Thread(target=_in_thread, args=(calls, said, folder, cores, keep_going), name="snakemake")
    thread.start()
    while thread.is_alive():
        thread.join(timeout=0.2)  # signal handlers run between the waits
    if calls.error is not None:
        raise calls.error
    if calls.scheduler_error is not None:
        details = "\n".join(said[-5:])
        raise MachineError(f"Snakemake failed: {calls.scheduler_error}\n{details}".rstrip()) from calls.scheduler_error


class _Calls:
    """What the executor calls, and what came of it."""

    def __init__(self, *, names: tuple[str, ...], execute: Callable[[str], bool], folder: Path) -> None:
        self.names, self._execute, self._folder = names, execute, folder
        self.error: BaseException | None = None
        self.scheduler_error: Exception | None = None
        self.failed = False

    def run(self, number: int) -> None:
        """Run one job and leave its receipt.

        Raises:
            RuntimeError: it failed; the reason is with the caller.
        """
        try:
            done = self.error is None and self._execute(self.names[number])
        except BaseException as error:
            self.error = self.error or error
            raise
        if not done:
            self.failed = True
            raise RuntimeError("the job failed")
        (self._folder / "receipts" / str(number)).touch()


def _write_jobs(path: Path, jobs: Sequence[Job], cores: int) -> None:
    numbers = {job.name: number for number, job in enumerate(jobs)}
    rows = [{"after": [numbers[name] for name in job.after], "cpus": min(job.cpus, cores)} for job in jobs]
    path.write_text(json.dumps(rows))


def _in_thread(calls: _Calls, said: list[str], folder: Path, cores: int, keep_going: bool) -> None:
    sys.setrecursionlimit(max(sys.getrecursionlimit(), DEPTH))
    try:
        _snakemake(calls, said, folder, cores, keep_going)
    except Exception as error:
        # a failed job ends in an exception of Snakemake as well, which says nothing that is not known better here
        if calls.error is None and not calls.failed:
            calls.scheduler_error = error


def _snakemake(calls: _Calls, said: list[str], folder: Path, cores: int, keep_going: bool) -> None:
    from snakemake import api  # noqa: PLC0415  (half a second: only when there is something to run)
    from snakemake.settings import types as settings  # noqa: PLC0415

    executor, log, schedule = _plugins()
    with api.SnakemakeApi(
        settings.OutputSettings(
            log_handler_settings={PLUGIN: log.LogHandlerSettings(said=said)}, enable_file_logging=False
        )
    ) as snakemake:
        workflow = snakemake.workflow(
            resource_settings=settings.ResourceSettings(cores=cores),
            config_settings=settings.ConfigSettings(config={"jobs": str(folder / "jobs.json")}),
            snakefile=SNAKEFILE,
            workdir=folder,
        )
        dag = workflow.dag(
            settings.DAGSettings(
                force_incomplete=True,
                rerun_triggers=frozenset({settings.RerunTrigger.MTIME}),
                targets=frozenset(f"receipts/{number}" for number in range(len(calls.names))),
            )
        )
        try:
            dag.execute_workflow(
                executor=PLUGIN,
                executor_settings=executor.ExecutorSettings(calls=calls),
                execution_settings=settings.ExecutionSettings(
                    latency_wait=0, lock=False, keep_going=keep_going, keep_metadata=False
                ),
                scheduling_settings=settings.SchedulingSettings(scheduler=PLUGIN),
                scheduler_settings=schedule.SchedulerSettings(),
                greedy_scheduler_settings=_greedy_settings(),
            )
        finally:
            # private, but else its temporary folder is left to the interpreter's end, which warns
            workflow._workflow.sourcecache.runtime_cache.cleanup()


def _greedy_settings() -> Any:
    from snakemake.scheduling.greedy import SchedulerSettings  # noqa: PLC0415

    return SchedulerSettings()  # asked for even where another scheduler is chosen


def _plugins() -> tuple[Any, Any, Any]:
    """Register our three plug-ins, once, and return their modules."""
    from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry  # noqa: PLC0415
    from snakemake_interface_logger_plugins.registry import LoggerPluginRegistry  # noqa: PLC0415
    from snakemake_interface_scheduler_plugins.registry import SchedulerPluginRegistry  # noqa: PLC0415

    made = (_executor_plugin(), _logger_plugin(), _scheduler_plugin())
    registries = (ExecutorPluginRegistry(), LoggerPluginRegistry(), SchedulerPluginRegistry())
    for registry, module in zip(registries, made, strict=True):
        registry.plugins.pop(PLUGIN, None)  # the registries live as long as the process
        registry.register_plugin(PLUGIN, module)
    return made


def _executor_plugin() -> Any:
    from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo  # noqa: PLC0415
    from snakemake_interface_executor_plugins.executors.real import RealExecutor  # noqa: PLC0415
    from snakemake_interface_executor_plugins.settings import (  # noqa: PLC0415
        CommonSettings,
        ExecMode,
        ExecutorSettingsBase,
    )

    @dataclass
    class ExecutorSettings(ExecutorSettingsBase):  # type: ignore[misc]
        calls: _Calls | None = None

    class Executor(RealExecutor):  # type: ignore[misc]
        """Runs each job as a call in a thread of this process."""

        def __post_init__(self) -> None:
            self.pool = ThreadPoolExecutor(max_workers=self.cores, thread_name_prefix="step")

        @property
        def cores(self) -> int:
            return int(self.workflow.resource_settings.cores)

        def get_exec_mode(self) -> Any:
            return ExecMode.SUBPROCESS

        def get_python_executable(self) -> str:
            return sys.executable

        def run_job_pre(self, job: Any) -> None:
            """Print nothing: the caller has its own progress."""

        def run_job(self, job: Any) -> None:
            info = SubmittedJobInfo(job=job)
            self.report_job_submission(info, register_job=False)
            future = self.pool.submit(self.executor_settings.calls.run, int(job.params.number))
            future.add_done_callback(lambda done: self._report(info, done))

        def _report(self, info: Any, future: Future[None]) -> None:
            if future.cancelled() or future.exception() is not None:
                self.workflow.scheduler.error_callback(info.job)
            else:
                self.report_job_success(info)

        def shutdown(self) -> None:
            self.pool.shutdown()

        def cancel(self) -> None:
            self.pool.shutdown(cancel_futures=True)

    return _module(
        ExecutorSettings=ExecutorSettings,
        Executor=Executor,
        common_settings=CommonSettings(
            non_local_exec=False,
            implies_no_shared_fs=False,
            job_deploy_sources=False,
            auto_deploy_default_storage_provider=False,
        ),
    )


def _logger_plugin() -> Any:
    from snakemake_interface_logger_plugins.base import LogHandlerBase  # noqa: PLC0415
    from snakemake_interface_logger_plugins.settings import LogHandlerSettingsBase  # noqa: PLC0415

    @dataclass
    class LogHandlerSettings(LogHandlerSettingsBase):  # type: ignore[misc]
        said: list[str] | None = None

    class LogHandler(LogHandlerBase):  # type: ignore[misc]
        """Keeps Snakemake's errors for the case that it fails itself; takes the place of its own output."""

        writes_to_stream = True
        writes_to_file = False
        has_filter = True
        has_formatter = True
        needs_rulegraph = False

        def emit(self, record: LogRecord) -> None:
            if record.levelno >= ERROR and self.settings.said is not None:
                self.settings.said.append(record.getMessage())

    return _module(LogHandlerSettings=LogHandlerSettings, LogHandler=LogHandler)


def _scheduler_plugin() -> Any:
    from snakemake_interface_scheduler_plugins.base import SchedulerBase  # noqa: PLC0415
    from snakemake_interface_scheduler_plugins.settings import SchedulerSettingsBase  # noqa: PLC0415

    @dataclass
    class SchedulerSettings(SchedulerSettingsBase):  # type: ignore[misc]
        pass

    class Scheduler(SchedulerBase):  # type: ignore[misc]
        """First fit in the order of the plan: linear in the ready jobs, where Snakemake's own two are not."""

        def select_jobs(self, selectable: Any, remaining: Any, available: Any, sizes: Any) -> list[Any]:
            free, chosen = available["_cores"], []
            for job in sorted(selectable, key=lambda job: int(job.params.number)):
                wanted = job.scheduler_resources.get("_cores", 0)
                if wanted <= free:
                    free -= wanted
                    chosen.append(job)
                if free <= 0:
                    break
            return chosen

    return _module(SchedulerSettings=SchedulerSettings, Scheduler=Scheduler)


def _module(**names: Any) -> ModuleType:
    module = ModuleType(f"preserve_{PLUGIN}")
    for name, value in names.items():
        setattr(module, name, value)
    return module
