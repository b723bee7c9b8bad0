"""The archived analysis as it is to run here: as it is, or with other parameters and inputs in place of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from preserve.digest import FilePin, hash_file
from preserve.documents.lockfile import InputPin, Lock
from preserve.documents.plan import Plan
from preserve.documents.planning import accepting, make_plan
from preserve.documents.reading import parse_parameter, read_workflow
from preserve.errors import UserError
from preserve.operations.folder import Situation
from preserve.operations.opened import Opened
from preserve.operations.replay_choices import Choices


def situation_of(opened: Opened, choices: Choices) -> Situation:
    """Give the archived plan, or, for a recast, the plan with what is replaced.

    Raises:
        UserError: there is no such parameter or input, or a file given for one cannot be read.
    """
    plan, lock = _replaced(opened, choices)
    documents = {**opened.documents, "preserve.lock": lock.to_bytes()}
    programs = {path for path, pin in opened.contents.pins.items() if pin.executable}
    pins = {
        path: FilePin(sha256=pin.sha256, size=pin.size, executable=path in programs)
        for path, pin in plan.inputs.items()
    }
    return Situation(plan=plan, documents=documents, pins={**pins, **plan.sources})


def _replaced(opened: Opened, choices: Choices) -> tuple[Plan, Lock]:
    """Give plan and lock with parameters and inputs replaced; the archived ones where nothing is."""
    plan, lock = opened.contents.plan, opened.contents.lock
    replaced = {path: _pin(path, file) for path, file in choices.inputs.items()}
    if unknown := sorted(replaced.keys() - plan.inputs.keys() - plan.sources.keys()):
        known = ", ".join(sorted((*plan.inputs, *plan.sources)))
        raise UserError(f"the archived analysis reads no file {unknown[0]}", hint=f"it reads: {known}")
    archived = opened.contents.pins
    replaced = {path: pin for path, pin in replaced.items() if pin.sha256 != archived[path].sha256}
    if not replaced and not choices.parameters:
        return plan, lock
    data = {path: pin for path, pin in replaced.items() if path in plan.inputs}
    inputs = {path: InputPin(sha256=pin.sha256, size=pin.size) for path, pin in data.items()}
    lock = replace(lock, inputs={**lock.inputs, **inputs})
    workflow = accepting(read_workflow(opened.documents["preserve.yaml"], "preserve.yaml of the archive"), lock)
    given = dict(parse_parameter(text, workflow) for text in choices.parameters)
    draft = make_plan(workflow, lock, tracked=frozenset(plan.sources), parameters={**plan.parameters, **given})
    code = {path: pin for path, pin in replaced.items() if path in plan.sources}
    return draft.pinned({**plan.sources, **code}), lock


def _pin(path: str, file: Path) -> FilePin:
    try:
        return hash_file(file)
    except OSError as error:
        raise UserError(f"{file}, which is to take the place of {path}: {error.strerror}") from error
