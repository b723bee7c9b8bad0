"""The workflow: what the author declares in preserve.yaml, as frozen values.

Reading the file is documents/reading.py's; making a plan of it is documents/planning.py's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from preserve.digest import Digest

STAGES = ("environment", "preparation", "processing", "postprocessing", "assembly")

Scalar = str | int | float | bool
Value = Scalar | tuple[Scalar, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where something stands in preserve.yaml; line and column count from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Author:
    """A person: name and, if given, ORCID iD (``0000-0002-1825-0097``)."""

    name: str
    orcid: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSource:
    """Where an image comes from: a ``reference`` or a recipe folder (``build``); ``setup`` goes before each script."""

    reference: str | None = None
    build: str | None = None
    setup: str | None = None
    position: Position


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSource:
    """Where input data come from: fetched from ``url``, or a local file; ``sha256`` as declared."""

    url: str | None = None
    sha256: Digest | None = None
    position: Position


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What one job may use: CPUs, memory in bytes, wall time in seconds (``None``: no limit)."""

    cpus: int = 1
    memory: int | None = None
    time: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDeclaration:
    """One step as written: expressions not yet replaced. Exactly one of ``run`` and ``command`` is set."""

    name: str
    stage: str
    image: str
    run: str | None = None
    command: tuple[str, ...] | None = None
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    for_each: Mapping[str, tuple[Scalar, ...] | str] = field(default_factory=dict)
    network: bool = False
    resources: Resources = Resources()
    position: Position
    positions: Mapping[str, Position]  # of "run", "command[0]", "inputs[2]", "outputs[0]", "for_each.category" …


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultRule:
    """How a replay judges one result: ``require`` and the rest as written (read by the comparators)."""

    require: str = "equivalent"
    text: str = "{}"  # the whole declaration as canonical JSON
    position: Position


@dataclass(frozen=True, slots=True, kw_only=True)
class Workflow:
    """preserve.yaml. ``file`` is the name used in messages; ``data`` the bytes as read."""

    file: str
    data: bytes
    title: str
    authors: tuple[Author, ...] = ()
    license: str | None = None
    images: Mapping[str, ImageSource]
    parameters: Mapping[str, Value]
    inputs: Mapping[str, InputSource]
    steps: tuple[StepDeclaration, ...]
    results: Mapping[str, ResultRule]
