"""preserve status and log: what ran, how long, what failed, and what it printed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from preserve.documents.counted import counted
from preserve.documents.plan import Plan, read_plan
from preserve.documents.reach import read_reach
from preserve.documents.record import Record, read_record
from preserve.errors import UserError
from preserve.operations.folder import Folder
from preserve.operations.run_step import INTERRUPTED, reach_file


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStatus:
    """One step of the last run: ``state`` is done, failed, running, waiting or interrupted.

    ``undeclared`` are lines on what it did beyond its declaration, or left undone of it.
    """

    step: str
    stage: str
    state: str
    record: Record | None
    undeclared: tuple[str, ...] = ()


def status(folder: Folder) -> tuple[Path, Plan, tuple[StepStatus, ...]]:
    """Give the last run's folder, its plan, and its steps in the order of the plan.

    Raises:
        UserError: nothing has run here yet.
    """
    run, plan = last_run(folder)
    busy = folder.is_held()
    steps = []
    for step in plan.steps:
        record = record_of(run, step.id)
        if record is not None:
            state = "done" if record.failure is None else INTERRUPTED if record.failure == INTERRUPTED else "failed"
        elif (run / "logs" / step.id).exists():
            state = "running" if busy else "interrupted"
        else:
            state = "waiting"
        lines = undeclared(run, record) if record is not None else ()
        steps.append(StepStatus(step=step.id, stage=step.stage, state=state, record=record, undeclared=lines))
    return run, plan, tuple(steps)


def log(folder: Folder, step: str) -> tuple[Path, Path]:
    """Give the files with the newest stdout and stderr of a step.

    Raises:
        UserError: there is no such step, or it has not run.
    """
    for run in reversed(folder.runs()):
        found = run / "logs" / step
        if found.is_dir():
            return found / "stdout", found / "stderr"
    _, plan = last_run(folder)
    names = sorted(s.id for s in plan.steps)
    if step in names:
        raise UserError(f"step {step} has not run yet", hint="run: preserve run")
    raise UserError(f"there is no log of a step {step!r}", hint=f"one of: {', '.join(names[:20])}")


def undeclared(run: Path, record: Record) -> tuple[str, ...]:
    """Say what a step of a run did beyond its declaration: network, inputs never opened, files not declared."""
    found = []
    if record.network_attempts:
        packets = counted(record.network_attempts, "packet")
        found.append(f"step {record.step} tried to reach the network: {packets} found no route")
    path = reach_file(run, record.step)
    if path.exists():
        found += read_reach(path.read_bytes(), str(path)).lines
    return tuple(found)


def last_run(folder: Folder) -> tuple[Path, Plan]:
    """Give the last run's folder and plan.

    Raises:
        UserError: nothing has run here yet.
    """
    for run in reversed(folder.runs()):
        path = run / "plan.json"
        if path.exists():
            return run, read_plan(path.read_bytes(), str(path))
    raise UserError("nothing has run here yet", hint="run: preserve run")


def record_of(run: Path, step: str) -> Record | None:
    """Read a step's record in a run's folder; ``None``: there is none."""
    path = run / "records" / f"{step}.json"
    return read_record(path.read_bytes(), str(path)) if path.exists() else None
