"""Why a step may have failed, where its record and its last words tell: the commonest mistakes, each with its cure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from preserve.documents.plan import PlannedStep
from preserve.documents.record import Record

_PATH = re.compile(r"[\w.+=@/-]+")


def reasons_for_failure(root: Path, step: PlannedStep, record: Record, printed: Sequence[str]) -> tuple[str, ...]:
    """Give hints for a failed step of the analysis in ``root``; ``printed`` are the last lines of its output."""
    return tuple(dict.fromkeys((*_undeclared_files(root, step, printed), *_network(step, record))))


def _undeclared_files(root: Path, step: PlannedStep, printed: Sequence[str]) -> Iterator[str]:
    """A file that the step speaks of, and that is there, but not for the step."""
    declared = tuple(item.path for item in step.inputs)
    for word in (word for line in printed for word in _PATH.findall(line)):
        path = word.removeprefix(f"{root}/").removeprefix("./").rstrip(".")
        if path in declared or path in step.outputs or path.startswith(("/", ".preserve/")):
            continue
        inside = any(name.endswith("/") and path.startswith(name) for name in (*declared, *step.outputs))
        if "/../" not in f"/{path}/" and not inside and (root / path).is_file():
            yield f"{path} is in the analysis folder, but not among the inputs of {step.name}: add it there"


def _network(step: PlannedStep, record: Record) -> Iterator[str]:
    if record.network_attempts and not step.network:
        yield f"{step.name} tried to reach the network: if it has to, declare it: network: true"
