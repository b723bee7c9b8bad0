"""Which steps have to run, and why: nothing is decided by clocks, all by what a step reads and is."""

from __future__ import annotations

from preserve.documents.counted import some
from preserve.documents.plan import Plan, PlannedStep
from preserve.documents.record import Artifact, Record, read_record, step_key
from preserve.errors import UserError
from preserve.operations.folder import Folder, materials
from preserve.operations.run_state import RunState
from preserve.operations.run_step import INTERRUPTED

LOOKED_AT = 20  # runs, the last ones: an older one than these is no help to say what is new


def reasons_to_run(state: RunState, *, only: tuple[str, ...], no_cache: bool) -> dict[str, str]:
    """Say why each step that has to run must; the records of the others go into ``state``.

    ``only`` names steps or jobs to run with all that they need (empty: all); ``no_cache`` takes nothing for done.

    Raises:
        UserError: there is no such step.
    """
    reasons: dict[str, str] = {}
    asked = wanted(state.plan, only)
    last = _Last(state.folder)
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


class _Last:
    """The newest record of each step, as runs left them."""

    def __init__(self, folder: Folder) -> None:
        self._runs = folder.runs()[: -LOOKED_AT - 1 : -1]

    def of(self, step: str) -> Record | None:
        """Give it; ``None``: the step has not run lately.

        Raises:
            UserError: it cannot be read.
        """
        for run in self._runs:
            path = run / "records" / f"{step}.json"
            if path.exists():
                return read_record(path.read_bytes(), str(path))
        return None


def _reason(state: RunState, step: PlannedStep, read: tuple[Artifact, ...], last: _Last) -> str:
    """What is new since this step last ran."""
    try:
        before = last.of(step.id)
    except UserError:
        return "its last record cannot be read"
    if before is None:
        return "has not run yet"
    if before.failure is not None:
        return "was interrupted" if before.failure == INTERRUPTED else f"failed last time ({before.failure})"
    if found := _new_in_step(state, step, before) or _new_in_materials(before, read):
        return found
    if before.key != step_key(step, state.config_digest(step), read):
        return "its outputs changed"  # all else that the key is made of was compared
    return "a product was changed or is gone from the store"


def _new_in_step(state: RunState, step: PlannedStep, before: Record) -> str | None:
    if before.image.config_digest != state.config_digest(step):
        return "its image changed"
    if before.command != step.command:
        return "its command changed"
    old, new = before.environment, step.environment
    if names := sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name)):
        return f"its environment changed ({some(names, 3)})"
    if before.network != step.network:
        return f"network is {str(step.network).lower()} now"
    return None


def _new_in_materials(before: Record, read: tuple[Artifact, ...]) -> str | None:
    old, new = ({one.path: one for one in files} for files in (before.materials, read))
    other = [path for path, one in new.items() if path not in old or old[path].sha256 != one.sha256]
    if changed := other or sorted(old.keys() - new.keys()):
        return f"{some(changed, 1)} changed"
    if turned := [path for path, one in new.items() if old[path].executable != one.executable]:
        return f"{some(turned, 1)} {'may be' if new[turned[0]].executable else 'is not to be'} executed now"
    return None
