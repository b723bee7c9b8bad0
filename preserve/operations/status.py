"""preserve status and log: what ran, how long, what failed, and what it printed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from preserve.documents.plan import Plan, read_plan
from preserve.documents.record import Record, read_record
from preserve.errors import UserError
from preserve.operations.folder import Folder


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStatus:
    """One step of the last run: ``state`` is done, failed, running, waiting or interrupted."""

    step: str
    stage: str
    state: str
    record: Record | None


def status(folder: Folder) -> tuple[Path, tuple[StepStatus, ...]]:
    """Give the last run's folder and its steps in the order of the plan.

    Raises:
        UserError: nothing has run here yet.
    """
    run, plan = last_run(folder)
    busy = folder.is_held()
    steps = []
    for step in plan.steps:
        record = record_of(run, step.id)
        if record is not None:
            state = "done" if record.failure is None else "failed"
        elif (run / "logs" / step.id).exists():
            state = "running" if busy else "interrupted"
        else:
            state = "waiting"
        steps.append(StepStatus(step=step.id, stage=step.stage, state=state, record=record))
    return run, tuple(steps)


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
    raise UserError(f"there is no log of a step {step!r}", hint=f"one of: {', '.join(names[:20])}")


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
