"""The record: what one step did, in in-toto's words (materials it read, products it made)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from preserve.digest import Digest
from preserve.documents import jsonform
from preserve.documents.plan import PlannedStep
from preserve.documents.typed import typed
from preserve.errors import PreserveError, UserError

SCHEMA = "preserve/record/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A file by path, sha256, size in bytes and executable bit."""

    path: str
    sha256: Digest
    size: int
    executable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineUsed:
    """The container engine: name (docker, apptainer) and version."""

    name: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What of the machine can move a result. No host name.

    ``cpu_id``: the processor's vendor, family, model and stepping (``GenuineIntel-6-55-4``: decimal, then hexadecimal);
    ``cpus``: how many CPUs may be used, by which libraries choose how many threads they start; ``kernel``: its release.
    """

    architecture: str
    cpu_model: str
    cpu_id: str
    cpu_flags: tuple[str, ...]
    cpus: int
    kernel: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """A numeric library of an image: ``name`` (``OpenBLAS``, ``glibc``), ``version``, path of its ``file``.

    ``name`` is ``libblas.so.3`` for what programs find by this name. ``version`` is empty where the file does not tell.
    ``kernels``: for which processors an OpenBLAS has been built, in its own words (``HASWELL``), sorted.
    """

    name: str
    version: str
    file: str
    kernels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageUsed:
    """The image by the plan's name, manifest digest and config digest, and what of it can move a result.

    ``libraries``: its numeric libraries, sorted by name and file; ``None``: its layers could not be read (zstd).
    ``variables``: those of its own environment that steer such libraries; a step's own stand before them.
    """

    name: str
    manifest_digest: Digest
    config_digest: Digest
    libraries: tuple[Library, ...] | None = ()
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One execution of one step. Times are UTC, ``2026-11-23T09:00:00.123456Z``; durations seconds; sizes bytes.

    ``products`` lists files; a folder product is listed by its files. ``cpu_seconds``, ``peak_memory`` and
    ``network_attempts`` are ``None`` where the engine could not observe them. ``logs`` maps ``stdout`` and
    ``stderr`` to their pins (path within the run's folder).
    """

    step: str
    key: Digest
    command: tuple[str, ...]
    environment: Mapping[str, str]
    image: ImageUsed
    engine: EngineUsed
    machine: Machine
    materials: tuple[Artifact, ...]
    products: tuple[Artifact, ...]
    network: bool
    network_attempts: int | None
    started: str
    ended: str
    exit_code: int
    wall_seconds: float
    cpu_seconds: float | None
    peak_memory: int | None
    logs: Mapping[str, Artifact]
    failure: str | None = None  # why a step with exit code 0 failed, or "timed out", "interrupted"

    def to_bytes(self) -> bytes:
        """Give the bytes of records/<step>.json."""
        return jsonform.dump({"schema": SCHEMA, **jsonform.members(self)})


def read_record(data: bytes, file: str) -> Record:
    """Read a record.

    Raises:
        UserError: it is damaged or of another version.
    """
    value = jsonform.load(data, file, schema=SCHEMA)
    value.pop("schema")
    try:
        record = Record(
            **{
                **value,
                "key": Digest(value["key"]),
                "command": tuple(value["command"]),
                "image": _image(value["image"]),
                "engine": EngineUsed(**value["engine"]),
                "machine": machine_of(value["machine"]),
                "materials": tuple(_artifact(a) for a in value["materials"]),
                "products": tuple(_artifact(a) for a in value["products"]),
                "logs": {name: _artifact(log) for name, log in value["logs"].items()},
            }
        )
        return typed(record)
    except (KeyError, TypeError, ValueError, AttributeError, PreserveError) as error:
        raise UserError(f"{file}: damaged: {error}") from error


def machine_of(value: Mapping[str, Any]) -> Machine:
    """Read the member ``machine`` of a document; what is wrong with it shows as a built-in exception."""
    return Machine(**{**value, "cpu_flags": tuple(value["cpu_flags"])})


def library_of(value: Mapping[str, Any]) -> Library:
    """Read one of ``libraries``; what is wrong with it shows as a built-in exception."""
    return Library(**{**value, "kernels": tuple(value["kernels"])})


def _image(value: Mapping[str, Any]) -> ImageUsed:
    libraries = value["libraries"]
    return ImageUsed(
        **{
            **value,
            "manifest_digest": Digest(value["manifest_digest"]),
            "config_digest": Digest(value["config_digest"]),
            "libraries": None if libraries is None else tuple(library_of(one) for one in libraries),
            "variables": value["variables"],
        }
    )


def _artifact(value: dict[str, Any]) -> Artifact:
    return Artifact(**{**value, "sha256": Digest(value["sha256"])})


def step_key(step: PlannedStep, config_digest: Digest, materials: tuple[Artifact, ...]) -> Digest:
    """Give what decides whether a step has to run: image, command, environment, network, outputs, and what it reads.

    Not in it: the engine, the limits, the step's name and stage, any clock or path of a machine.
    """
    return Digest.of(
        jsonform.canonical(
            {
                "image": config_digest,
                "command": step.command,
                "environment": dict(step.environment),
                "network": step.network,
                "outputs": step.outputs,
                "materials": sorted([a.path, a.sha256, a.executable] for a in materials),
            }
        )
    )
