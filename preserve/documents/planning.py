"""Make a plan of a workflow and a lock: every job, every path, nothing left open."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from preserve.digest import FilePin
from preserve.documents.dataflow import Inputs, Products, check_stages, cycles, order
from preserve.documents.faults import Faults, did_you_mean
from preserve.documents.jobs import Commands, Job, jobs_of
from preserve.documents.lockfile import ImagePin, InputPin, Lock, SourcePin
from preserve.documents.plan import Plan, PlannedInput, PlannedStep
from preserve.documents.reading import fit, read_workflow
from preserve.documents.workflow import Author, ImageSource, Value, Workflow
from preserve.errors import UserError

LOCK_AGAIN = "run: preserve lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A plan that lacks only the pins of the repository's files: ``sources``, sorted."""

    title: str
    authors: tuple[Author, ...]
    license: str | None
    parameters: Mapping[str, Value]
    images: Mapping[str, ImagePin]
    inputs: Mapping[str, InputPin]
    sources: tuple[str, ...]
    steps: tuple[PlannedStep, ...]
    results: Mapping[str, str]
    source: SourcePin | None

    def pinned(self, pins: Mapping[str, FilePin]) -> Plan:
        """Give the plan with the pins of ``sources``.

        Raises:
            ValueError: a pin is missing.
        """
        if missing := [path for path in self.sources if path not in pins]:
            raise ValueError(f"no pin for {missing}")
        return Plan(
            title=self.title,
            authors=self.authors,
            license=self.license,
            parameters=self.parameters,
            images=self.images,
            inputs=self.inputs,
            sources={path: pins[path] for path in self.sources},
            steps=self.steps,
            results=self.results,
            source=self.source,
        )


def expand(
    workflow: Workflow, *, tracked: Collection[str], parameters: Mapping[str, Value] | None = None
) -> tuple[PlannedStep, ...]:
    """Give all jobs in an order in which they can run, the declared order where possible.

    ``tracked`` are the repository's files relative to the folder of preserve.yaml; ``parameters`` replace declared
    values. SOURCE_DATE_EPOCH is 0, since no lock says otherwise.

    Raises:
        DocumentError: all faults of the dataflow.
        UserError: a parameter that is not declared, or of another kind.
    """
    return _expand(workflow, tracked, _merged(workflow, parameters or {}), epoch=0)


def make_plan(
    workflow: Workflow, lock: Lock, *, tracked: Collection[str], parameters: Mapping[str, Value] | None = None
) -> Draft:
    """Make the plan of ``workflow`` with the pins of ``lock``; the caller supplies those of ``Draft.sources``.

    Raises:
        DocumentError: all faults of the dataflow.
        UserError: the lock does not fit the workflow, or a parameter does not.
    """
    merged = _merged(workflow, parameters or {})
    steps = _expand(workflow, tracked, merged, epoch=lock.epoch)
    _check_lock(workflow, lock)
    read = {item.path for step in steps for item in step.inputs if item.producer is None}
    return Draft(
        title=workflow.title,
        authors=workflow.authors,
        license=workflow.license,
        parameters=merged,
        images=dict(lock.images),
        inputs={path: pin for path, pin in lock.inputs.items() if path in read},
        sources=tuple(sorted(read - workflow.inputs.keys())),
        steps=steps,
        results={path: rule.text for path, rule in workflow.results.items()},
        source=lock.source,
    )


def plan_again(workflow: bytes, lock: Lock, plan: Plan) -> Plan:
    """Make a plan anew of the documents that an archive has beside it, with its own parameters and code.

    Raises:
        UserError: preserve.yaml is faulty, or the documents do not go together.
    """
    declared = accepting(read_workflow(workflow, "preserve.yaml"), lock)
    draft = make_plan(declared, lock, tracked=frozenset(plan.sources), parameters=plan.parameters)
    if set(draft.sources) != set(plan.sources):
        raise UserError("preserve.yaml and plan.json do not read the same code")
    return draft.pinned(plan.sources)


def accepting(workflow: Workflow, lock: Lock) -> Workflow:
    """Give the workflow with the lock's inputs for those that it declares: a recast replaces them in the lock."""
    inputs = {
        path: replace(source, url=lock.inputs[path].url, sha256=lock.inputs[path].sha256)
        for path, source in workflow.inputs.items()
        if path in lock.inputs
    }
    return replace(workflow, inputs={**workflow.inputs, **inputs})


def image_reference(source: ImageSource) -> str:
    """Give an image's reference as a lock records it: as written, or ``build:`` and the recipe's folder."""
    return source.reference if source.reference is not None else f"build:{source.build}"


def _merged(workflow: Workflow, given: Mapping[str, Value]) -> dict[str, Value]:
    merged = dict(workflow.parameters)
    for name, value in given.items():
        if name not in merged:
            hint = did_you_mean(name, merged) or f"declared are: {', '.join(merged) or 'none'}"
            raise UserError(f"{workflow.file}: no parameter {name!r}", hint=hint)
        fitted = fit(value, merged[name])
        if fitted is None:
            message = f"{workflow.file}: {value!r} is of another kind than the parameter {name}"
            raise UserError(message, hint=f"its declared value is {merged[name]!r}")
        merged[name] = fitted
    return merged


def _expand(
    workflow: Workflow, tracked: Collection[str], parameters: Mapping[str, Value], *, epoch: int
) -> tuple[PlannedStep, ...]:
    faults = Faults(workflow.file)
    jobs = jobs_of(workflow, parameters, faults)
    faults.raise_any()  # a path that is none would be missed by those who read it
    products = Products(jobs, workflow, tracked, faults)
    steps = _planned(workflow, jobs, Inputs(products, workflow, tracked, faults), epoch, faults)
    _check_results(workflow, products, faults)
    ordered = _in_order(steps, jobs, faults)
    faults.raise_any()
    return ordered


def _planned(
    workflow: Workflow, jobs: tuple[Job, ...], inputs: Inputs, epoch: int, faults: Faults
) -> list[PlannedStep]:
    by_id = {job.id: job for job in jobs}
    commands: dict[str, Commands] = {}
    environments: dict[int, Mapping[str, str]] = {}
    steps = []
    for job in jobs:
        declaration = job.declaration
        if declaration.name not in commands:
            setup = workflow.images[declaration.image].setup
            commands[declaration.name] = Commands(declaration, setup, faults)
        cpus = declaration.resources.cpus
        found = _look_up(job, inputs, by_id, faults)
        values = tuple(_stands_for(path, items) for path, items in zip(job.inputs, found, strict=True))
        step = PlannedStep(
            id=job.id,
            name=declaration.name,
            stage=declaration.stage,
            image=declaration.image,
            command=commands[declaration.name].command(job, values),
            environment=environments.setdefault(cpus, _environment(cpus, epoch)),
            inputs=tuple({item.path: item for items in found for item in items}.values()),
            outputs=job.outputs,
            network=declaration.network,
            resources=declaration.resources,
            values=job.scope.values,
        )
        steps.append(step)
    return steps


def _look_up(job: Job, inputs: Inputs, by_id: Mapping[str, Job], faults: Faults) -> list[tuple[PlannedInput, ...]]:
    found = []
    for index, path in enumerate(job.inputs):
        place = job.declaration.positions[f"inputs[{index}]"]
        items = inputs.find(path, place)
        check_stages(job, place, items, by_id, faults)
        found.append(items)
    return found


def _stands_for(path: str, items: tuple[PlannedInput, ...]) -> Value:
    """Value of ``inputs[N]``: the path as written, or what a pattern matched."""
    if len(items) == 1 and items[0].path == path:
        return path
    return path if path.endswith("/") else tuple(item.path for item in items)


def _environment(cpus: int, epoch: int) -> Mapping[str, str]:
    return {
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "HOME": "/tmp",  # noqa: S108 - in the container, private to the step
        "SOURCE_DATE_EPOCH": str(epoch),
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": str(cpus),
    }


def _in_order(steps: list[PlannedStep], jobs: tuple[Job, ...], faults: Faults) -> tuple[PlannedStep, ...]:
    numbers = {step.id: number for number, step in enumerate(steps)}
    upstream = [tuple(numbers[producer] for producer in step.upstream) for step in steps]
    ordered = order(upstream)
    for cycle in cycles(upstream, set(range(len(steps))) - set(ordered)):
        names = " → ".join(steps[number].id for number in (*cycle, cycle[0]))
        what = "a step reads its own product" if len(cycle) == 1 else "a cycle: each needs the one before"
        place = jobs[cycle[0]].declaration.positions["inputs"]
        faults.add(place, f"{what}: {names}", "remove the input that closes the circle, or narrow a pattern")
    return tuple(steps[number] for number in ordered)


def _check_results(workflow: Workflow, products: Products, faults: Faults) -> None:
    for path, rule in workflow.results.items():
        if products.maker(path) is None:
            hint = faults.suggest(path, products, "name an output of a step")
            faults.add_first(rule.position, f'the result "{path}" is made by no step', hint)


def _check_lock(workflow: Workflow, lock: Lock) -> None:
    for kind, declared, locked in (
        ("image", workflow.images.keys(), lock.images.keys()),
        ("input", workflow.inputs.keys(), lock.inputs.keys()),
    ):
        if missing := [name for name in declared if name not in locked]:
            raise UserError(f'the lock lacks the {kind} "{missing[0]}"', hint=LOCK_AGAIN)
        if superfluous := [name for name in locked if name not in declared]:
            message = f'the lock has the {kind} "{superfluous[0]}", which {workflow.file} does not declare'
            raise UserError(message, hint=LOCK_AGAIN)
    _check_references(workflow, lock)


def _check_references(workflow: Workflow, lock: Lock) -> None:
    for name, image in workflow.images.items():
        written, locked = image_reference(image), lock.images[name].reference
        if written != locked:
            message = f'the image "{name}" is {written} in {workflow.file}, and {locked} in the lock'
            raise UserError(message, hint=LOCK_AGAIN)
    for path, declared in workflow.inputs.items():
        pin = lock.inputs[path]
        if declared.url != pin.url:
            message = f'the input "{path}" comes from {declared.url} in {workflow.file}, and from {pin.url} in the lock'
            raise UserError(message, hint=LOCK_AGAIN)
        if declared.sha256 is not None and declared.sha256 != pin.sha256:
            message = f'the input "{path}" has {declared.sha256} in {workflow.file}, and {pin.sha256} in the lock'
            raise UserError(message, hint=LOCK_AGAIN)
