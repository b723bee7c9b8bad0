"""What all parts of the crate share: how entities are named and how their values are written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from preserve.documents.archive import Contents
from preserve.documents.plan import PlannedStep

Entity = dict[str, Any]

RUN_TERMS = "https://w3id.org/ro/terms/workflow-run#"
PARAMETER = "https://bioschemas.org/profiles/FormalParameter/1.0-RELEASE"
ROOT = "./"
RUN = "#run"
PRESERVE = "#preserve"


def set_values(entity: Entity, term: str, values: Sequence[Any]) -> None:
    """RO-Crate wants a single value bare, and no empty arrays."""
    if values:
        entity[term] = values[0] if len(values) == 1 else list(values)


def set_references(entity: Entity, term: str, ids: Sequence[str]) -> None:
    """Refer to other entities by their ids."""
    set_values(entity, term, [{"@id": identifier} for identifier in ids])


def iso_time(text: str) -> str:
    """``2026-11-23T09:00:00.123456Z`` as the profiles write times: to the millisecond, with an offset."""
    return re.sub(r"(?:(\.\d{3})\d*)?Z$", lambda found: f"{found[1] or ''}+00:00", text)


def formal_parameter(identifier: str, name: str, kind: str) -> Entity:
    """A formal parameter; ``kind`` is File or, for values, a schema.org data type."""
    return {
        "@id": identifier,
        "@type": "FormalParameter",
        "additionalType": kind,
        "conformsTo": {"@id": PARAMETER},
        "name": name,
    }


def jobs_by_name(contents: Contents) -> dict[str, list[PlannedStep]]:
    """The jobs of each declared step, in the plan's order."""
    jobs: dict[str, list[PlannedStep]] = {}
    for step in contents.plan.steps:
        jobs.setdefault(step.name, []).append(step)
    return jobs


def formal_id(kind: str, name: str) -> str:
    """Id of a formal parameter of the workflow: kind input, parameter or result."""
    return f"#{kind}/{quoted(name)}"


def value_id(key: str) -> str:
    """Id of a parameter's value."""
    return f"#value/{quoted(key)}"


def image_id(name: str) -> str:
    """Id of an image by its name in the plan."""
    return f"#image/{quoted(name)}"


def step_id(name: str) -> str:
    """Id of a declared step."""
    return f"#step/{quoted(name)}"


def tool_id(name: str) -> str:
    """Id of what a declared step executes."""
    return f"#tool/{quoted(name)}"


def action_id(step: str) -> str:
    """Id of the execution of a job."""
    return f"#run/{quoted(step)}"


def quoted(name: str) -> str:
    """A name as a part of an ``@id``."""
    return quote(name, safe="/@=+,:", errors="replace")
