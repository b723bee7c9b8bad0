"""What a replay is to run: the user's choices, and which steps follow from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from preserve.documents.archive import DATA, Contents
from preserve.documents.counted import some
from preserve.documents.plan import Plan, PlannedStep
from preserve.documents.record import Record
from preserve.errors import UserError
from preserve.operations.reasons import wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What to replay and how.

    ``only`` names the steps to run (others are taken from the archive); ``start`` the step to begin with;
    ``parameters`` (``NAME=VALUE``) and ``inputs`` (path: file that takes its place) make it a recast. ``keep`` is the
    folder to work in (``None``: one that is removed). ``network`` lets steps that declare it reach the network.
    """

    only: tuple[str, ...] = ()
    start: str | None = None
    parameters: tuple[str, ...] = ()
    inputs: Mapping[str, Path] = field(default_factory=dict)
    keep: Path | None = None
    network: bool = False
    jobs: int = 1
    allowed_signers: Path | None = None
    require_signature: bool = False


def may_run(contents: Contents, plan: Plan, chosen: frozenset[str], choices: Choices) -> frozenset[str]:
    """Ids of all steps that this replay could come to run: an archived product is taken only if it fits.

    It fits if nothing was replaced, its bytes are inside, and no step before it runs (and makes something else).
    """
    asked = wanted(plan, choices.only)
    if plan != contents.plan:
        return asked
    found: set[str] = set()
    for step in plan.steps:  # in an order in which they can run
        again = step.id in chosen or found.intersection(step.upstream)
        if step.id in asked and (again or not is_inside(contents, contents.records[step.id])):
            found.add(step.id)
    return frozenset(found)


def refuse_network(plan: Plan, running: frozenset[str]) -> None:
    """See that no step that may come to run reaches the network.

    Raises:
        UserError: one declares it.
    """
    wanting = [step.id for step in plan.steps if step.network and step.id in running]
    if wanting:
        raise UserError(
            f"step {wanting[0]} declares that it uses the network",
            hint="if you trust the archive with your network: --allow-network",
        )


def steps_to_run(plan: Plan, choices: Choices, *, recast: bool) -> frozenset[str]:
    """Ids of the steps that must run here even if the archive has their products.

    Raises:
        UserError: a step was named that there is not.
    """
    if choices.only:
        return frozenset(step.id for name in choices.only for step in _named(plan, name))
    if choices.start is not None:
        found = {step.id for step in _named(plan, choices.start)}
        for step in plan.steps:  # in an order in which they can run
            if found.intersection(step.upstream):
                found.add(step.id)
        return frozenset(found)
    return frozenset() if recast else frozenset(step.id for step in plan.steps)


def refuse_left_out(contents: Contents, plan: Plan, choices: Choices, chosen: frozenset[str]) -> None:
    """See that what the chosen steps build on is inside; made again here, it might be something else.

    Raises:
        UserError: it was left out.
    """
    before = wanted(plan, tuple(chosen)) - chosen if choices.only or choices.start is not None else frozenset[str]()
    for step in (step.id for step in plan.steps if step.id in before):
        absent = [product.path for product in contents.records[step].products if product.path in contents.left_out]
        if absent:
            option = "--only" if choices.only else "--from"
            raise UserError(
                f"{option} needs what step {step} made, and of that {some(absent, 1)} was left out of the archive",
                hint=f"run that step here as well: {option} {step}; or replay the whole archive",
            )


def _named(plan: Plan, name: str) -> list[PlannedStep]:
    found = [step for step in plan.steps if name in (step.id, step.name)]
    if not found:
        names = ", ".join(sorted({step.name for step in plan.steps}))
        raise UserError(f"the archived analysis has no step {name!r}", hint=f"one of: {names}")
    return found


def is_inside(contents: Contents, record: Record) -> bool:
    """Whether the archive has all that a step made and printed."""
    return all(name in contents.payload for name in files_of(contents, record))


def files_of(contents: Contents, record: Record) -> list[str]:
    """Names in the archive of what a step made and printed."""
    return [contents.names[product.path] for product in record.products] + [
        DATA + log.path for log in record.logs.values()
    ]
