"""What differs between two executions of an analysis, by their records: where a different result may come from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from preserve.documents.comparison import Change
from preserve.documents.plan import Plan, shown_value
from preserve.documents.record import Artifact, Record

NONE = "none"


def changes(recorded: Mapping[str, Record], found: Mapping[str, Record]) -> tuple[Change, ...]:
    """Compare engines, images, machines, commands, environments step by step; a change of many steps comes once."""
    steps: dict[tuple[str, str, str], list[str]] = {}
    for step in (*recorded, *(step for step in found if step not in recorded)):
        for change in _of_step(recorded.get(step), found.get(step)):
            steps.setdefault(change, []).append(step)
    return tuple(
        Change(steps=tuple(names), what=what, recorded=before, found=after)
        for (what, before, after), names in steps.items()
    )


def changed_plan(recorded: Plan, found: Plan) -> tuple[Change, ...]:
    """Compare what two plans start from: parameters, input data and files of the repository."""
    before, after = _start(recorded), _start(found)
    return tuple(
        Change(steps=(), what=what, recorded=before.get(what, NONE), found=after.get(what, NONE))
        for what in dict.fromkeys((*before, *after))
        if before.get(what) != after.get(what)
    )


def _start(plan: Plan) -> dict[str, str]:
    return {
        **{f"parameter {name}": shown_value(value) for name, value in plan.parameters.items()},
        **{f"input {path}": pin.sha256 for path, pin in plan.inputs.items()},
        **{f"input {path}": pin.sha256 for path, pin in plan.sources.items()},
    }


def beginnings(recorded: Mapping[str, Record], found: Mapping[str, Record]) -> tuple[str, ...]:
    """Give the steps that read the same files and made others: where differences begin, in the order of execution."""
    both = [(step, recorded[step], found[step]) for step in recorded if step in found]
    begun = [
        (before.started, step)
        for step, before, after in both
        if _contents(before.materials) == _contents(after.materials)
        and _contents(before.products) != _contents(after.products)
    ]
    return tuple(step for _, step in sorted(begun))


def _of_step(recorded: Record | None, found: Record | None) -> Iterator[tuple[str, str, str]]:
    if recorded is None or found is None:
        yield "step", "ran" if recorded else NONE, "ran" if found else NONE
        return
    before, after = _facts(recorded), _facts(found)
    for what in (*before, *(what for what in after if what not in before)):
        if before.get(what) != after.get(what):
            yield what, before.get(what, NONE), after.get(what, NONE)
    yield from _flags(recorded.machine.cpu_flags, found.machine.cpu_flags)


def _facts(record: Record) -> dict[str, str]:
    machine = record.machine
    return {
        "engine": f"{record.engine.name} {record.engine.version}",
        "image": record.image.config_digest,
        "architecture": machine.architecture,
        "CPU": machine.cpu_model,
        "kernel": machine.kernel,
        "network": "allowed" if record.network else NONE,
        "command": " ".join(map(repr, record.command)),
        **{f"variable {name}": value for name, value in sorted(record.environment.items())},
    }


def _flags(recorded: Sequence[str], found: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Say which instructions only one of the processors has."""
    gone, new = sorted(set(recorded) - set(found)), sorted(set(found) - set(recorded))
    if gone or new:
        yield "CPU flags", f"only there: {' '.join(gone) or NONE}", f"only here: {' '.join(new) or NONE}"


def _contents(files: Sequence[Artifact]) -> set[tuple[str, str]]:
    return {(file.path, file.sha256) for file in files}
