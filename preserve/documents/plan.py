"""The plan: what a run does, nothing left open. No absolute path, no host name, no engine (rule 9)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from preserve.digest import Digest, FilePin
from preserve.documents import jsonform
from preserve.documents.lockfile import ImagePin, InputPin, SourcePin, image_pin
from preserve.documents.typed import typed
from preserve.documents.workflow import Author, Resources, Scalar, Value
from preserve.errors import PreserveError, UserError

SCHEMA = "preserve/plan/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedInput:
    """A file (or, with a trailing ``/``, a folder) that a step reads.

    ``producer`` is the id of the step that makes it; ``None`` for input data and for files of the repository.
    A path inside a folder product (``out/a.txt`` of ``out/``) has that folder's step as its producer.
    """

    path: str
    producer: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedStep:
    """One job: a step, or one value of its ``for_each``.

    ``id`` is unique and fit for a file name (``histogram@category=barrel``); ``command`` is the argv as executed;
    ``values`` are the ``for_each`` variables of this job. ``inputs`` are in the order declared, patterns expanded
    and sorted, no path twice.
    """

    id: str
    name: str
    stage: str
    image: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    inputs: tuple[PlannedInput, ...]
    outputs: tuple[str, ...]
    network: bool
    resources: Resources
    values: Mapping[str, Scalar]

    @property
    def upstream(self) -> tuple[str, ...]:
        """Ids of the steps whose products this one reads, each once, in order."""
        return tuple(dict.fromkeys(i.producer for i in self.inputs if i.producer is not None))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All jobs in an order in which they can run, and the pin of everything they start from.

    ``sources`` pins the repository's files that steps read; ``results`` maps a product to its rule as canonical JSON.
    """

    title: str
    authors: tuple[Author, ...]
    license: str | None
    parameters: Mapping[str, Value]
    images: Mapping[str, ImagePin]
    inputs: Mapping[str, InputPin]
    sources: Mapping[str, FilePin]
    steps: tuple[PlannedStep, ...]
    results: Mapping[str, str]
    source: SourcePin | None

    def to_bytes(self) -> bytes:
        """Give the bytes of plan.json."""
        return jsonform.dump({"schema": SCHEMA, **jsonform.members(self)})


def read_plan(data: bytes, file: str) -> Plan:
    """Read plan.json.

    Raises:
        UserError: it is damaged or of another version.
    """
    value = jsonform.load(data, file, schema=SCHEMA)
    try:
        plan = Plan(
            title=value["title"],
            authors=tuple(Author(**author) for author in value["authors"]),
            license=value["license"],
            parameters={k: tuple(v) if isinstance(v, list) else v for k, v in value["parameters"].items()},
            images={name: image_pin(pin) for name, pin in value["images"].items()},
            inputs={
                path: InputPin(**{**pin, "sha256": Digest(pin["sha256"])}) for path, pin in value["inputs"].items()
            },
            sources={path: FilePin(**{**p, "sha256": Digest(p["sha256"])}) for path, p in value["sources"].items()},
            steps=tuple(_step(step) for step in value["steps"]),
            results=value["results"],
            source=None if value["source"] is None else SourcePin(**value["source"]),
        )
        return typed(plan)
    except (KeyError, TypeError, ValueError, AttributeError, PreserveError) as error:
        raise UserError(f"{file}: damaged: {error}") from error


def _step(value: dict[str, Any]) -> PlannedStep:
    return PlannedStep(
        **{
            **value,
            "command": tuple(value["command"]),
            "inputs": tuple(PlannedInput(**i) for i in value["inputs"]),
            "outputs": tuple(value["outputs"]),
            "resources": Resources(**value["resources"]),
        }
    )


def as_written(plan: Plan) -> str:
    """Give the parameters for people: ``low=60.0, categories=[barrel, endcap]``."""
    return ", ".join(f"{name}={shown_value(value)}" for name, value in plan.parameters.items()) or "no parameters"


def shown_value(value: Value) -> str:
    """Give a parameter's value for people."""
    return f"[{', '.join(str(one) for one in value)}]" if isinstance(value, tuple) else str(value)
