"""Which steps have to run, and why: nothing is decided by clocks, all by what a step reads and is."""

from __future__ import annotations

from pathlib import Path

from preserve.documents.counted import some
from preserve.documents.plan import Plan, PlannedStep
from preserve.documents.record import Artifact, read_record
from preserve.errors import UserError
from preserve.operations.folder import Folder, materials
from preserve.operations.run_state import RunState
from preserve.operations.run_step import INTERRUPTED


def reasons_to_run(state: RunState, *, only: tuple[str, ...], no_cache: bool) -> dict[str, str]:
    """Say why each step that has to run must; the records of the others go into ``state``.

    ``only`` names steps or jobs to run with all that they need (empty: all); ``no_cache`` takes nothing for done.

    Raises:
        UserError: there is no such step.
    """
    reasons: dict[str, str] = {}
    asked = wanted(state.plan, only)
    last = _last_records(state.folder)
    for step in state.plan.steps:
        if step.id not in asked:
            continue
        read = materials(step, state.known)
        if read is None:
            first = next((name for name in step.upstream if name in reasons), "an earlier step")
            reasons[step.id] = f"after {first}"
            continue
        record = None if no_cache else state.usable(step, read)
        if record is not None:
            state.learn(step, record)
        else:
            reasons[step.id] = "asked for (--no-cache)" if no_cache else _reason(state, step, read, last)
    return reasons


def wanted(plan: Plan, only: tuple[str, ...]) -> frozenset[str]:
    """Give the ids of the steps named (by step or job), with all that they need; without names, of all.

    Raises:
        UserError: there is no such step.
    """
    if not only:
        return frozenset(step.id for step in plan.steps)
    by_id = {step.id: step for step in plan.steps}
    found: set[str] = set()
    for name in only:
        chosen = [step.id for step in plan.steps if name in (step.id, step.name)]
        if not chosen:
            raise UserError(
                f"there is no step {name!r}", hint=f"one of: {', '.join(sorted({s.name for s in plan.steps}))}"
            )
        todo = chosen
        while todo:
            step = by_id[todo.pop()]
            if step.id not in found:
                found.add(step.id)
                todo += step.upstream
    return frozenset(found)


def _last_records(folder: Folder) -> Path | None:
    runs = folder.runs()
    return runs[-1] / "records" if runs else None


def _reason(state: RunState, step: PlannedStep, read: tuple[Artifact, ...], last: Path | None) -> str:
    """What is new since this step last ran."""
    path = last / f"{step.id}.json" if last else None
    if path is None or not path.exists():
        return "has not run yet"
    try:
        before = read_record(path.read_bytes(), str(path))
    except UserError:
        return "its last record cannot be read"
    if before.failure is not None:
        return "was interrupted" if before.failure == INTERRUPTED else f"failed last time ({before.failure})"
    new = {
        "image": before.image.config_digest != state.config_digest(step),
        "command": before.command != step.command,
        "environment": dict(before.environment) != dict(step.environment),
    }
    if any(new.values()):
        return f"its {next(name for name, differs in new.items() if differs)} changed"
    old = {a.path: a.sha256 for a in before.materials}
    changed = [a.path for a in read if old.get(a.path) != a.sha256] or sorted(set(old) - {a.path for a in read})
    if changed:
        return f"{some(changed, 1)} changed"
    return "a product was changed or is gone from the store"
