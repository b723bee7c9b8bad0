"""What a plan may say, whoever wrote it: an archive's does not come through the reader of preserve.yaml.

Paths lead nowhere but below the analysis folder, names are fit for files, and nothing is left for an engine to guess:
a plan that keeps these rules gives a stranger no more of a machine than its author's own has.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from preserve.documents import paths
from preserve.documents.jobs import MAX_ID
from preserve.documents.jsonform import load
from preserve.documents.plan import Plan, PlannedStep
from preserve.documents.rules import REQUIRE
from preserve.documents.steps import IMAGE_NAME
from preserve.documents.workflow import STAGES
from preserve.errors import UserError

STEP_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=@-]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ENGINES = ("APPTAINER", "SINGULARITY", "DOCKER")  # how their own variables begin
_GIT_ID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def faults_of_plan(plan: Plan) -> Iterator[str]:
    """Yield what no plan may say, in words for a person."""
    if not plan.steps:
        yield "it has no step"
    yield from _of_names(plan)
    yield from _of_paths(plan)
    yield from _of_repositories(plan)
    for step in plan.steps:
        yield from (f"step {step.id!a}: {fault}" for fault in _of_step(plan, step))
    yield from _of_order(plan)
    yield from _of_results(plan)
    if plan.source is not None and not all(map(_GIT_ID.fullmatch, (plan.source.commit, plan.source.tree))):
        yield "the commit or the tree of its code is not one of git's ids"


def _of_names(plan: Plan) -> Iterator[str]:
    seen: set[str] = set()
    for step in plan.steps:
        if not STEP_ID.fullmatch(step.id) or len(step.id) > MAX_ID:
            yield f"{step.id!a} is no name for a step"
        if step.id.casefold() in seen:
            yield f"two steps have the name {step.id!a}"
        seen.add(step.id.casefold())
    for name in plan.images:
        if not IMAGE_NAME.fullmatch(name):
            yield f"{name!a} is no name for an image"


def _of_paths(plan: Plan) -> Iterator[str]:
    """Every file has one path, its own, below the analysis folder."""
    started = [*plan.inputs, *plan.sources]
    made = [path for step in plan.steps for path in step.outputs]
    for path in started:
        if found := paths.astray(path):
            yield found
        elif path.endswith("/"):
            yield f"{path!a} is a folder, not a file to start from"
    yield from (found[0] for found in map(paths.problem_of_product, made) if found)
    # sorted, what lies in a folder comes right behind it
    for one, other in pairwise(sorted((*started, *made), key=lambda path: path.rstrip("/").split("/"))):
        if other.rstrip("/") == one.rstrip("/"):
            yield f"{other!a} stands twice among what it reads and makes"
        elif other.startswith(one.rstrip("/") + "/"):
            yield f"{other!a} lies in {one!a}, which is a file or a product of its own"


def _of_repositories(plan: Plan) -> Iterator[str]:
    """A folder with these three is a repository to git, whose settings name programs to be run."""
    inside: dict[str, set[str]] = {}
    for path in (*plan.inputs, *plan.sources, *(path for step in plan.steps for path in step.outputs)):
        parts = path.casefold().rstrip("/").split("/")
        for depth, part in enumerate(parts):
            inside.setdefault("/".join(parts[:depth]), set()).add(part)
    for folder, names in inside.items():
        if {"head", "objects", "refs"} <= names:
            yield f"its files would make a git repository of {folder or 'the analysis folder'}"


def _of_step(plan: Plan, step: PlannedStep) -> Iterator[str]:
    if step.image not in plan.images:
        yield f"there is no image {step.image!a}"
    if step.stage not in STAGES:
        yield f"there is no stage {step.stage!a}"
    if not step.outputs:
        yield "it makes nothing"
    if not step.command or not step.command[0] or any("\0" in word for word in step.command):
        yield "its command is none"
    for name, value in step.environment.items():
        if not _VARIABLE.fullmatch(name) or name.startswith(_ENGINES) or "\0" in value:
            yield f"{name!a} is no variable that a step may set"
    limits = (step.resources.cpus, step.resources.memory, step.resources.time)
    if any(limit is not None and limit < 1 for limit in limits):
        yield "it asks for less than one CPU, byte or second"


def _of_order(plan: Plan) -> Iterator[str]:
    """Each step reads what is there: files that the analysis starts from, and products of steps before it."""
    started = {**plan.inputs, **plan.sources}
    before: dict[str, tuple[str, ...]] = {}
    for step in plan.steps:
        for item in step.inputs:
            if item.producer is None:
                known = item.path in started
            else:
                known = any(_within(item.path, output) for output in before.get(item.producer, ()))
            if not known:
                yield f"step {step.id!a}: nothing before it makes {item.path!a}"
            elif found := paths.astray(item.path):
                yield f"step {step.id!a}: {found}"
        before[step.id] = step.outputs


def _of_results(plan: Plan) -> Iterator[str]:
    made = {path for step in plan.steps for path in step.outputs}
    for path, text in plan.results.items():
        if not any(_within(path, output) for output in made):
            yield f"the result {path!a} is made by no step"
        try:
            rule = load(text.encode(), path)
        except UserError:
            rule = {"require": None}
        if rule.get("require", REQUIRE[0]) not in REQUIRE:
            yield f"the rule for {path!a} cannot be read"


def _within(path: str, output: str) -> bool:
    return path == output or (output.endswith("/") and path.startswith(output))
