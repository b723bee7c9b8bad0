"""Why a step may have failed, where its record and its last words tell: the commonest mistakes, each with its cure."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from preserve.documents.plan import PlannedStep
from preserve.documents.record import Record
from preserve.operations.run_step import WORK

_PATH = re.compile(r"[\w.+=@/-]+")
CANNOT_EXECUTE, NOT_FOUND = 126, 127  # what a shell ends with (POSIX, XCU 2.8.2)
KILLED = 137  # 128 + SIGKILL: how Linux ends a process that wants more memory than there is
_LIBRARY = re.compile(r"error while loading shared libraries: ([\w.+-]+)")
_MODULE = re.compile(r"No module named '([\w.]+)'")  # as Python says it
_READ_ONLY = "Read-only file system"
# as ash, dash, bash, env, tini and our start in Apptainer say that a program is not there, or not for execution
_PROGRAM = re.compile(
    r"(?:^|[\s'‘])([\w.+@/-]+)['’]?(?: failed)?: "
    r"(?:not found|command not found|not executable|No such file or directory|Permission denied)"
)


def reasons_for_failure(root: Path, step: PlannedStep, record: Record, printed: Sequence[str]) -> tuple[str, ...]:
    """Give hints for a failed step of the analysis in ``root``; ``printed`` are the last lines of its output."""
    missed = (*_undeclared_files(root, step, printed), *_undeclared_modules(root, step, printed))
    own = (*_programs(step, record, printed), *_killed(step, record), *_network(step, record))
    return tuple(dict.fromkeys((*missed, *_read_only(step, printed), *own)))


def _undeclared_files(root: Path, step: PlannedStep, printed: Sequence[str]) -> Iterator[str]:
    """A file that the step speaks of, and that is there, but not for the step."""
    for word in (word for line in printed for word in _PATH.findall(line)):
        path = word.removeprefix(f"{root}/").removeprefix(f"{WORK}/").removeprefix("./").rstrip(".")
        yield from _undeclared(root, step, path)


def _undeclared_modules(root: Path, step: PlannedStep, printed: Sequence[str]) -> Iterator[str]:
    """A module of Python's that lies beside what the step reads."""
    beside = dict.fromkeys(PurePosixPath(item.path).parent for item in step.inputs)
    for name in (found[1].replace(".", "/") for line in printed if (found := _MODULE.search(line))):
        for folder in beside:
            yield from _undeclared(root, step, f"{folder / name}.py")
            yield from _undeclared(root, step, f"{folder / name}/__init__.py")


def _undeclared(root: Path, step: PlannedStep, path: str) -> Iterator[str]:
    declared = tuple(item.path for item in step.inputs)
    if path in declared or path in step.outputs or path.startswith(("/", ".preserve/")):
        return
    inside = any(name.endswith("/") and path.startswith(name) for name in (*declared, *step.outputs))
    # not Path.is_file: it raises where a word of the log is too long for a name
    if "/../" not in f"/{path}/" and not inside and os.path.isfile(root / path):  # noqa: PTH113
        yield f"{path} is in the analysis folder, but not among the inputs of {step.name}: add it there"


def _read_only(step: PlannedStep, printed: Sequence[str]) -> Iterator[str]:
    """A file written where nothing may be."""
    if any(_READ_ONLY in line for line in printed):
        folders = dict.fromkeys(
            path if path.endswith("/") else f"{PurePosixPath(path).parent}/" for path in step.outputs
        )
        yield f"{step.name} may write in /tmp and in the folders of its outputs: {', '.join(folders)}"


def _programs(step: PlannedStep, record: Record, printed: Sequence[str]) -> Iterator[str]:
    """A program that could not be started."""
    if record.exit_code not in (CANNOT_EXECUTE, NOT_FOUND):
        return
    look = f"look with: preserve shell {step.id}"
    libraries = [found[1] for line in printed if (found := _LIBRARY.search(line))]
    programs = [found[1] for line in printed if (found := _PROGRAM.search(line))]
    program = programs[-1] if programs else "a program of its command"
    if libraries:
        yield f"the image {step.image} lacks the library {libraries[-1]}; {look}"
    elif record.exit_code == CANNOT_EXECUTE:
        yield f"{program} may not be executed: chmod +x it, or start it with its interpreter; {look}"
    elif program in (item.path for item in step.inputs):
        yield f"{program} is there, but not the interpreter that its first line names; {look}"
    else:
        yield f"{program} is not in the image {step.image}, or not on its PATH; {look}"


def _killed(step: PlannedStep, record: Record) -> Iterator[str]:
    """The kernel's way with a process that wants more memory than it may have."""
    if record.failure != f"exit code {KILLED}":  # and not interrupted or timed out
        return
    limit = step.resources.memory
    why = "this machine ran out of memory (dmesg tells)"
    if limit is not None:
        why = f"it needs more than its resources give it: memory: {limit / 1e6:.0f} MB"
    yield f"{step.name} was killed: most often {why}"


def _network(step: PlannedStep, record: Record) -> Iterator[str]:
    if record.network_attempts and not step.network:
        yield f"{step.name} tried to reach the network: if it has to, declare it: network: true"
