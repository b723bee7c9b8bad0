"""The workflow as the crate has it: language, formal parameters, images, steps and their tools."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from preserve.documents import archive
from preserve.documents.archive import Contents
from preserve.documents.counted import counted
from preserve.documents.lockfile import ImagePin
from preserve.documents.workflow import Value
from preserve.renderers.crate_dataflow import Dataflow
from preserve.renderers.crate_entities import (
    PRESERVE,
    RUN_TERMS,
    Entity,
    formal_id,
    formal_parameter,
    image_id,
    jobs_by_name,
    set_references,
    set_values,
    step_id,
    tool_id,
    value_id,
)
from preserve.renderers.media_types import media_type

BIOSCHEMAS = "https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE"

_LANGUAGE = "#preserve-workflow-language"
_NAMED = re.compile(r"(?:docker://)?(?!build:|oci:|docker-daemon:)(?P<name>[^@]*[^@:/])(?:@sha256:[0-9a-f]{64})?")


def workflow(contents: Contents, flow: Dataflow) -> Iterator[Entity]:
    """The workflow, its language and the program that ran it."""
    plan, pin = contents.plan, contents.payload.get(archive.WORKFLOW)
    names = list(jobs_by_name(contents))
    entity: Entity = {
        "@id": archive.WORKFLOW,
        "@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"],
        "name": plan.title,
        "conformsTo": {"@id": BIOSCHEMAS},
        "encodingFormat": media_type(archive.WORKFLOW),
        "programmingLanguage": {"@id": _LANGUAGE},
        "url": {"@id": archive.WORKFLOW},
        "version": _version(contents),
    }
    if pin is not None:
        entity |= {"sha256": pin.sha256.hex, "contentSize": str(pin.size)}
    formal = {formal_id("input", path) for path in plan.inputs}
    formal |= {formal_id("parameter", key) for key in plan.parameters}
    set_references(entity, "input", sorted(formal))
    set_references(entity, "output", [formal_id("result", path) for path in sorted(plan.results)])
    set_references(entity, "connection", flow.results)
    set_references(entity, "hasPart", [tool_id(name) for name in names])
    set_references(entity, "step", [step_id(name) for name in names])
    yield entity
    yield {"@id": _LANGUAGE, "@type": "ComputerLanguage", "name": "preserve.yaml", "version": "1"}
    name, _, version = contents.agent.partition(" ")
    yield {"@id": PRESERVE, "@type": "SoftwareApplication", "name": name, "softwareVersion": version}


def _version(contents: Contents) -> str:
    """The code's commit; without git, the plan's digest."""
    source = contents.plan.source
    if source is None:
        return str(contents.payload[archive.PLAN].sha256) if archive.PLAN in contents.payload else "unversioned"
    return source.commit if source.clean else f"{source.commit} with uncommitted changes"


def parameters(contents: Contents) -> Iterator[Entity]:
    """What the workflow takes and gives, and the values that its parameters had."""
    plan = contents.plan
    for key, value in plan.parameters.items():
        formal, actual = formal_id("parameter", key), value_id(key)
        yield formal_parameter(formal, key, _kind(value)) | {"workExample": {"@id": actual}}
        entity = {"@id": actual, "@type": "PropertyValue", "name": key, "exampleOfWork": {"@id": formal}}
        set_values(entity, "value", value if isinstance(value, tuple) else (value,))
        yield entity
    for path in plan.inputs:
        yield formal_parameter(formal_id("input", path), path, "File")
    for path in plan.results:
        yield formal_parameter(formal_id("result", path), path, "File")


def _kind(value: Value) -> str:
    kinds: Mapping[type, str] = {bool: "Boolean", int: "Integer", float: "Float", str: "Text"}
    return kinds.get(type(value), "PropertyValue")


def images(contents: Contents) -> Iterator[Entity]:
    """The container images by what a registry serves them by."""
    for name, pin in contents.plan.images.items():
        yield _image_entity(name, pin)


def _image_entity(name: str, pin: ImagePin) -> Entity:
    entity: Entity = {
        "@id": image_id(name),
        "@type": "ContainerImage",
        "additionalType": {"@id": RUN_TERMS + "DockerImage"},
        "name": pin.reference,
        "sha256": pin.manifest_digest.hex,
        "identifier": str(pin.manifest_digest),
        "description": f"{name}: {pin.platform}, config {pin.config_digest}",
    }
    found = _NAMED.fullmatch(pin.reference)
    if found is not None:
        entity |= _registry_members(found["name"])
    return entity


def _registry_members(name: str) -> Entity:
    """Registry, repository and tag of ``[host/]repository[:tag]``, as Docker reads it."""
    host, slash, rest = name.partition("/")
    if not slash or not (set(host) & set(".:") or host == "localhost"):
        host, rest = "docker.io", name
    repository, colon, tag = rest.partition(":")
    return {"registry": host, "name": repository} | ({"tag": tag} if colon else {})


def steps(contents: Contents, flow: Dataflow) -> Iterator[Entity]:
    """The declared steps and what each executes."""
    for position, (name, jobs) in enumerate(jobs_by_name(contents).items(), start=1):
        step: Entity = {
            "@id": step_id(name),
            "@type": "HowToStep",
            "name": name,
            "description": f"stage {jobs[0].stage}, {counted(len(jobs), 'job')}",
            "position": str(position),
            "workExample": {"@id": tool_id(name)},
        }
        set_references(step, "connection", flow.connections.get(name, ()))
        yield step
        tool: Entity = {
            "@id": tool_id(name),
            "@type": "SoftwareSourceCode",
            "name": name,
            "description": f"What step {name} executes in image {jobs[0].image}",
            "url": {"@id": archive.PLAN},
            "version": _version(contents),
        }
        set_references(tool, "input", flow.inputs.get(name, ()))
        set_references(tool, "output", flow.outputs.get(name, ()))
        yield tool
