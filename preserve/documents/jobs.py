"""The jobs of a step: one per combination of its ``for_each`` values, with an id, paths and a command."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from preserve.documents import expressions, paths, quoting
from preserve.documents.expressions import Problem, Scope, Template, as_text
from preserve.documents.faults import Faults
from preserve.documents.steps import locate
from preserve.documents.workflow import Scalar, StepDeclaration, Value, Workflow

MAX_SCRIPT = 100_000  # bytes; Linux takes at most 128 KiB as one argument
MAX_COMMAND = 1_000_000  # bytes of all arguments; Linux takes 2 MB with the environment
MAX_ID = 200  # bytes; file names have at most 255, and logs and records add to them
MAX_JOBS = 1_000_000

_UNSAFE = re.compile(r"[^A-Za-z0-9._+=@-]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job before its inputs are looked up: paths are filled in, patterns are not expanded."""

    id: str
    declaration: StepDeclaration
    scope: Scope
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Texts:
    """A step's texts, cut at their expressions once for all its jobs."""

    inputs: tuple[Template, ...]
    outputs: tuple[Template, ...]


def jobs_of(workflow: Workflow, parameters: Mapping[str, Value], faults: Faults) -> tuple[Job, ...]:
    """All jobs of all steps, in the order of declaration; faulty paths are noted and their jobs left out."""
    jobs: list[Job] = []
    for step in workflow.steps:
        combinations = _combinations(step, parameters, faults)
        texts = _Texts(inputs=_templates(step.inputs), outputs=_templates(step.outputs))
        ids = _ids(step, combinations, faults)
        for job_id, values in zip(ids, combinations, strict=True):
            scope = Scope(parameters=parameters, values=values, cpus=step.resources.cpus)
            inputs = _paths(step, "inputs", texts.inputs, scope, faults)
            outputs = _paths(step, "outputs", texts.outputs, scope, faults)
            jobs.append(Job(id=job_id, declaration=step, scope=scope, inputs=inputs, outputs=outputs))
    return tuple(jobs)


def _templates(texts: tuple[str, ...]) -> tuple[Template, ...]:
    return tuple(expressions.parse(text)[0] for text in texts)


def _combinations(step: StepDeclaration, parameters: Mapping[str, Value], faults: Faults) -> list[Mapping[str, Scalar]]:
    lists = [_values(step, name, declared, parameters, faults) for name, declared in step.for_each.items()]
    count = 1
    for values in lists:
        count *= len(values)
    if count > MAX_JOBS:
        faults.add(step.positions["for_each"], f"{count} combinations, more than {MAX_JOBS}", "use fewer values")
        return []
    return [dict(zip(step.for_each, values, strict=True)) for values in itertools.product(*lists)]


def _values(
    step: StepDeclaration,
    name: str,
    declared: tuple[Scalar, ...] | str,
    parameters: Mapping[str, Value],
    faults: Faults,
) -> tuple[Scalar, ...]:
    if isinstance(declared, tuple):
        return declared
    parameter = expressions.parse(declared)[0].expressions[0].name
    values, place = parameters[parameter], step.positions[f"for_each.{name}"]
    if not isinstance(values, tuple) or not values:
        message = f'the parameter "{parameter}" is {"an empty list" if values == () else "not a list"}'
        faults.add(place, message, "for_each needs a list of at least one value")
        return ()
    texts = [as_text(value) for value in values]
    if len(set(texts)) < len(texts):
        twice = next(text for text in texts if texts.count(text) > 1)
        faults.add(place, f'the value {twice} of the parameter "{parameter}" stands twice', "give each value once")
        return ()
    return values


def _ids(step: StepDeclaration, combinations: list[Mapping[str, Scalar]], faults: Faults) -> list[str]:
    """Ids that differ in more than case: where they would not, each value gets its digest."""
    ids = [_id(step.name, values, always=False) for values in combinations]
    shared = _shared(ids)
    ids = [
        _id(step.name, values, always=True) if job_id.casefold() in shared else job_id
        for job_id, values in zip(ids, combinations, strict=True)
    ]
    if _shared(ids):
        hint = "choose values that differ in more than case and special signs"
        faults.add(step.positions["for_each"], "two of these jobs would have the same name", hint)
    return ids


def _shared(ids: Iterable[str]) -> set[str]:
    seen: set[str] = set()
    twice: set[str] = set()
    for job_id in ids:
        folded = job_id.casefold()
        (twice if folded in seen else seen).add(folded)
    return twice


def _id(name: str, values: Mapping[str, Scalar], *, always: bool) -> str:
    if not values:
        return name
    whole = f"{name}@" + "+".join(f"{key}={_safe(as_text(value), always)}" for key, value in values.items())
    if len(whole) <= MAX_ID:
        return whole
    return whole[: MAX_ID - 9] + "-" + _hex(repr(sorted(values.items())))


def _safe(text: str, always: bool) -> str:
    safe = _UNSAFE.sub("-", text)
    return f"{safe}-{_hex(text)}" if always or safe != text or not text else text


def _hex(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _paths(
    step: StepDeclaration, kind: str, templates: tuple[Template, ...], scope: Scope, faults: Faults
) -> tuple[str, ...]:
    found = []
    for index, template in enumerate(templates):
        path = template.texts[0] if not template.expressions else _path(step, kind, index, template, scope, faults)
        if path is not None:
            found.append(path)
    return tuple(found)


def _path(step: StepDeclaration, kind: str, index: int, template: Template, scope: Scope, faults: Faults) -> str | None:
    key = f"{kind}[{index}]"
    path, problems = expressions.fill_path(template, scope)
    _note(step, key, problems, faults)
    check = paths.problem_of_product if kind == "outputs" else paths.problem
    problem = None if problems else check(path)
    if problem:
        faults.add_first(step.positions[key], *problem)
    return None if problems or problem else path


def _note(step: StepDeclaration, key: str, problems: tuple[Problem, ...], faults: Faults) -> None:
    for problem in problems:
        faults.add_first(locate(step, key, problem.offset), problem.message, problem.hint)


class Commands:
    """Makes the argv of a step's jobs; scripts are scanned once for all of them."""

    def __init__(self, step: StepDeclaration, setup: str | None, faults: Faults) -> None:
        self._step = step
        self._setup = setup
        self._faults = faults
        self._script = expressions.parse(step.run or "")[0]
        self._spots = quoting.spots(self._script.with_holes) if self._script.expressions else ()
        self._arguments = _templates(step.command or ())

    def command(self, job: Job, inputs: tuple[Value, ...]) -> tuple[str, ...]:
        """Give the argv of a job; ``inputs`` is what each declared input stands for. What can't be written is noted."""
        scope = replace(job.scope, inputs=inputs, outputs=job.outputs)
        argv = self._scripted(scope) if self._step.run is not None else self._direct(scope)
        longest, total = max(map(_size, argv), default=0), sum(map(_size, argv))
        if longest > MAX_SCRIPT or total > MAX_COMMAND:
            key = "run" if self._step.run is not None else "command"
            message = f"the {key} of {job.id} has {total} bytes, more than a program can be given"
            hint = "put it into a file of the repository, and name folders instead of many files"
            self._faults.add_first(self._step.positions[key], message, hint)
        return argv

    def _scripted(self, scope: Scope) -> tuple[str, ...]:
        script, problems = expressions.fill_script(self._script, self._spots, scope)
        _note(self._step, "run", problems, self._faults)
        if self._setup is not None:
            # Setup files of experiments rely on unset variables and failing tests, so they run without -eu.
            script = f"set +eu\n{self._setup.rstrip()}\nset -eu\n{script}"
        return ("/bin/sh", "-eu", "-c", script)

    def _direct(self, scope: Scope) -> tuple[str, ...]:
        argv: list[str] = []
        for index, template in enumerate(self._arguments):
            arguments, problems = expressions.fill_argument(template, scope)
            _note(self._step, f"command[{index}]", problems, self._faults)
            argv.extend(arguments)
        if self._setup is None:
            return tuple(argv)
        return ("/bin/sh", "-c", f'{self._setup.rstrip()}\nexec "$@"', "sh", *argv)


def _size(argument: str) -> int:
    return len(argument.encode()) + 1
