"""What a probe found: which step is not reproducible, under which variation, and by how much its products move."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from preserve.documents import jsonform
from preserve.documents.record import EngineUsed, Machine, machine_of
from preserve.documents.typed import typed
from preserve.errors import PreserveError, UserError

SCHEMA = "preserve/probe/1"
ALIKE = 10.0  # two movements are alike if one is at most this many times the other


@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    """One leaf of a product that is not what it was.

    ``leaf`` is its path within the file (empty: the file as a whole); ``kind`` is numbers, content, missing or extra;
    ``max_abs`` and ``max_rel`` are the largest differences of finite numbers (relative to the value before; ``None``:
    there is none, or it was 0 before).
    """

    product: str
    leaf: str
    kind: str
    max_abs: float | None = None
    max_rel: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What moves under one variation.

    ``setting`` says what was done; ``held``: every run of preserve has the same setting, so that a replay does not
    move by this; ``confirmed``: a second run moved as well; ``failure``: the step failed instead. Of ``movements`` the
    largest are listed, ``more`` counts the others.
    """

    variation: str
    setting: str
    held: bool
    confirmed: bool
    failure: str | None = None
    movements: tuple[Movement, ...] = ()
    more: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Untried:
    """A variation that could not be tried, and why."""

    variation: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbedStep:
    """One step: how often it ran, what was tried, what was found, what was not tried.

    ``network_attempts`` is the largest count of one run (``None``: the engine could not see it).
    """

    step: str
    runs: int
    network_attempts: int | None
    tried: tuple[str, ...]
    findings: tuple[Finding, ...]
    untried: tuple[Untried, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A probe of a run (by its folder's name). Times are UTC, ``2026-11-23T09:00:00Z``.

    ``results`` tells what each variation that some step moves under does to the analysis' results, when the movement
    is carried through the steps behind. ``software`` names, by image, what its own Python told of what computes:
    ``glibc``, ``numpy``, ``blas`` and its kernel for this CPU.
    """

    run: str
    engine: EngineUsed
    machine: Machine
    started: str
    ended: str
    steps: tuple[ProbedStep, ...]
    results: tuple[Finding, ...] = ()
    software: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def culprits(self) -> Mapping[str, tuple[str, ...]]:
        """Give, by variation, the steps that surely move under it."""
        found: dict[str, tuple[str, ...]] = {}
        for step in self.steps:
            for one in step.findings:
                if one.confirmed and one.failure is None:
                    found[one.variation] = (*found.get(one.variation, ()), step.step)
        return found

    def to_bytes(self) -> bytes:
        """Give the bytes of probe.json."""
        return jsonform.dump({"schema": SCHEMA, **jsonform.members(self)})


def read_probe(data: bytes, file: str) -> Probe:
    """Read probe.json.

    Raises:
        UserError: it is damaged or of another version.
    """
    value = jsonform.load(data, file, schema=SCHEMA)
    value.pop("schema")
    try:
        probe = Probe(
            **{
                **value,
                "engine": EngineUsed(**value["engine"]),
                "machine": machine_of(value["machine"]),
                "steps": tuple(_step(step) for step in value["steps"]),
                "results": tuple(_finding(finding) for finding in value["results"]),
            }
        )
        return typed(probe)
    except (KeyError, TypeError, ValueError, AttributeError, PreserveError) as error:
        raise UserError(f"{file}: damaged: {error}") from error


def explanations(probe: Probe, product: str, moved: Iterable[Movement]) -> tuple[Finding, ...]:
    """Give the findings that move ``product`` in the same way as ``moved``, of a replay or another run.

    The same way: every leaf that moved here moved there too, and no number more than ten times as far. Findings of the
    step that makes the product, and those carried to a result; the closest first.
    """
    here = {one.leaf: one for one in moved if one.product == product}
    if not here:
        return ()
    found: dict[str, tuple[float, Finding]] = {}
    for finding in (*probe.results, *(finding for step in probe.steps for finding in step.findings)):
        there = {one.leaf: one for one in finding.movements if one.product == product}
        if finding.variation not in found and all(_alike(there.get(leaf), one) for leaf, one in here.items()):
            found[finding.variation] = (_distance(here, there), finding)
    return tuple(finding for _, finding in sorted(found.values(), key=lambda pair: (pair[0], pair[1].variation)))


def _alike(there: Movement | None, here: Movement) -> bool:
    if there is None or there.kind != here.kind:
        return False
    if here.max_abs is None or there.max_abs is None:
        return True
    return here.max_abs <= ALIKE * there.max_abs


def _distance(here: dict[str, Movement], there: dict[str, Movement]) -> float:
    """Give how many leaves moved there alone, and how far apart the sizes are."""
    sizes = [(here[leaf].max_abs or 0.0, there[leaf].max_abs or 0.0) for leaf in here]
    ratios = [abs(one - other) / max(one, other) for one, other in sizes if max(one, other) > 0]
    return len(there.keys() - here.keys()) + max(ratios, default=0.0)


def _step(value: dict[str, Any]) -> ProbedStep:
    return ProbedStep(
        **{
            **value,
            "tried": tuple(value["tried"]),
            "findings": tuple(_finding(finding) for finding in value["findings"]),
            "untried": tuple(Untried(**untried) for untried in value["untried"]),
        }
    )


def _finding(value: dict[str, Any]) -> Finding:
    return Finding(**{**value, "movements": tuple(Movement(**movement) for movement in value["movements"])})
