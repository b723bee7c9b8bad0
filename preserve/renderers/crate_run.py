"""The run as the crate has it: an action for each job and for all, what they used, and who orchestrated them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from preserve.documents import archive
from preserve.documents.archive import Contents
from preserve.documents.plan import PlannedStep
from preserve.documents.record import Record
from preserve.renderers.crate_entities import (
    PRESERVE,
    RUN,
    Entity,
    action_id,
    image_id,
    iso_time,
    jobs_by_name,
    quoted,
    set_references,
    set_values,
    step_id,
    tool_id,
    value_id,
)
from preserve.renderers.crate_files import Files

_ORCHESTRATION = "#orchestration"


def actions(contents: Contents, files: Files) -> Iterator[Entity]:
    """One action for each job that has a record, and one for the whole run."""
    for step in contents.plan.steps:
        record = contents.records.get(step.id)
        if record is not None:
            usage = tuple(_usage(record))
            yield _job_action(step, record, files, usage)
            yield from usage
    yield _run_action(contents, files)


def _job_action(step: PlannedStep, record: Record, files: Files, usage: Sequence[Entity]) -> Entity:
    engine = f"{record.engine.name} {record.engine.version}"
    entity: Entity = {
        "@id": action_id(step.id),
        "@type": "CreateAction",
        "name": f"Run of {step.id}",
        "description": f"Exit code {record.exit_code}, {engine}, {record.machine.architecture}",
        "instrument": {"@id": tool_id(step.name)},
        "containerImage": {"@id": image_id(step.image)},
        **_outcome(record.started, record.ended, _failure(record)),
    }
    set_values(entity, "object", files.references(record.materials))
    set_values(entity, "result", files.references(record.products))
    set_references(entity, "resourceUsage", [used["@id"] for used in usage])
    return entity


def _failure(record: Record) -> str | None:
    return record.failure or (f"exit code {record.exit_code}" if record.exit_code else None)


def _outcome(started: str, ended: str, failure: str | None) -> Entity:
    status = "CompletedActionStatus" if failure is None else "FailedActionStatus"
    members = {
        "startTime": iso_time(started),
        "endTime": iso_time(ended),
        "actionStatus": f"http://schema.org/{status}",  # a text: the profiles' shapes take no reference here
    }
    return members if failure is None else members | {"error": failure}


def _usage(record: Record) -> Iterator[Entity]:
    """What a job used, in the words of its record; what the engine could not observe is left out."""
    seconds, byte = "https://qudt.org/vocab/unit/SEC", "https://qudt.org/vocab/unit/BYTE"
    measured: tuple[tuple[str, str, float | None, str], ...] = (
        ("wall_seconds", "wall-clock time", record.wall_seconds, seconds),
        ("cpu_seconds", "processor time", record.cpu_seconds, seconds),
        ("peak_memory", "peak memory", record.peak_memory, byte),
    )
    for term, name, value, unit in measured:
        if value is not None:
            yield {
                "@id": f"#usage/{quoted(record.step)}/{term}",
                "@type": "PropertyValue",
                "name": name,
                "propertyID": term,
                "unitCode": unit,
                "value": str(value),
            }


def _run_action(contents: Contents, files: Files) -> Entity:
    records = contents.records.values()
    failures = [failure for record in records if (failure := _failure(record)) is not None]
    entity: Entity = {
        "@id": RUN,
        "@type": "CreateAction",
        "name": f"Run of {contents.plan.title}",
        "description": f"All {len(contents.records)} jobs of the workflow",
        "instrument": {"@id": archive.WORKFLOW},
        **_outcome(min(record.started for record in records), contents.ended, failures[0] if failures else None),
    }
    used = [files.reference(path) for path in sorted({*contents.plan.inputs, *contents.plan.sources})]
    set_values(entity, "object", [*used, *({"@id": value_id(key)} for key in sorted(contents.plan.parameters))])
    set_values(entity, "result", [files.reference(path) for path in contents.results])
    return entity


def orchestration(contents: Contents) -> Iterator[Entity]:
    """Who had what executed: one control action for each declared step, all in one organize action."""
    controls = []
    for name, jobs in jobs_by_name(contents).items():
        identifier = f"#control/{quoted(name)}"
        controls.append(identifier)
        entity: Entity = {
            "@id": identifier,
            "@type": "ControlAction",
            "name": f"Orchestration of {name}",
            "instrument": {"@id": step_id(name)},
        }
        set_references(entity, "object", [action_id(job.id) for job in jobs if job.id in contents.records])
        yield entity
    organization: Entity = {
        "@id": _ORCHESTRATION,
        "@type": "OrganizeAction",
        "name": f"Orchestration by {contents.agent}",
        "instrument": {"@id": PRESERVE},
        "result": {"@id": RUN},
    }
    set_references(organization, "object", controls)
    yield organization
