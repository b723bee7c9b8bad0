"""Which product goes where: the tools' formal parameters and the connections between them.

As in CWL, what comes into a step is connected at that step, and what the workflow gives out at the workflow. A tool
has one formal parameter for each of its outputs and one for each thing that any of its jobs reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from preserve.documents.archive import Contents
from preserve.documents.plan import PlannedStep
from preserve.renderers.crate_entities import Entity, formal_id, formal_parameter, quoted


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataflow:
    """Formal parameters by the name of the tool's step; connections by the step they lead into; examples by file.

    ``results`` are the connections that lead to the workflow's own outputs. All are ids, in order.
    """

    inputs: Mapping[str, Sequence[str]]
    outputs: Mapping[str, Sequence[str]]
    connections: Mapping[str, Sequence[str]]
    results: Sequence[str]
    examples: Mapping[str, Sequence[str]]
    entities: Sequence[Entity]


def dataflow(contents: Contents) -> Dataflow:
    """Follow the plan's dataflow."""
    builder = _Builder(contents)
    for job in contents.plan.steps:
        builder.add_products(job)
    for job in contents.plan.steps:
        builder.add_inputs(job)
    results = tuple(builder.result_connections())
    return Dataflow(
        inputs=_sorted(builder.inputs),
        outputs=_sorted(builder.outputs),
        connections=_sorted(builder.connections),
        results=results,
        examples=_sorted(builder.examples),
        entities=tuple(builder.entities.values()),
    )


def _sorted(ids: Mapping[str, set[str]]) -> dict[str, Sequence[str]]:
    return {name: sorted(found) for name, found in ids.items()}


class _Builder:
    """Sets of ids that grow while the plan is walked: first all products, then what is read of them."""

    def __init__(self, contents: Contents) -> None:
        self.inputs: dict[str, set[str]] = {}
        self.outputs: dict[str, set[str]] = {}
        self.connections: dict[str, set[str]] = {}
        self.examples = _examples_of_workflow(contents)
        self.entities: dict[str, Entity] = {}
        self._contents = contents
        self._files: dict[str, Sequence[str]] = {}  # by planned path: itself, or the files of a folder
        self._formal: dict[str, str] = {path: formal_id("input", path) for path in contents.plan.inputs}
        self._names = {formal: path for path, formal in self._formal.items()}

    def add_products(self, job: PlannedStep) -> None:
        """A formal parameter for each output; all jobs of a step share them."""
        record = self._contents.records.get(job.id)
        products = {product.path for product in record.products} if record is not None else set()
        for number, output in enumerate(job.outputs, start=1):
            formal = f"#output/{quoted(job.name)}/{number}"
            self._add_formal(formal, f"output {number} of {job.name}")
            self.outputs.setdefault(job.name, set()).add(formal)
            self._formal[output] = formal
            self._files[output] = _files_of(output, products)
            self._add_examples(formal, self._files[output])

    def add_inputs(self, job: PlannedStep) -> None:
        """A formal parameter for each thing that a job reads, connected to where it comes from."""
        for planned in job.inputs:
            source = self._source(planned.path)
            if source is None:
                continue  # a file of the repository: nothing leads to it
            target = f"#input-of/{quoted(job.name)}/{source.removeprefix('#')}"
            self._add_formal(target, f"{job.name} reads {self._names[source]}")
            self.inputs.setdefault(job.name, set()).add(target)
            self.connections.setdefault(job.name, set()).add(self._connect(source, target))
            self._add_examples(target, self._files.get(planned.path, (planned.path,)))

    def result_connections(self) -> Iterator[str]:
        """Connect products to the workflow's results."""
        for path in sorted(self._contents.plan.results):
            source = self._source(path)
            if source is not None:
                yield self._connect(source, formal_id("result", path))

    def _source(self, path: str) -> str | None:
        """The formal parameter whose value a path is, or lies in."""
        while path not in self._formal:
            path = path.rstrip("/").rpartition("/")[0] + "/"
            if path == "/":
                return None
        return self._formal[path]

    def _add_formal(self, identifier: str, name: str) -> None:
        if identifier not in self.entities:
            self._names[identifier] = name
            self.entities[identifier] = formal_parameter(identifier, name, "File")

    def _add_examples(self, formal: str, paths: Sequence[str]) -> None:
        for path in paths:
            self.examples.setdefault(path, set()).add(formal)

    def _connect(self, source: str, target: str) -> str:
        identifier = f"#connection/{target.removeprefix('#')}"
        self.entities[identifier] = {
            "@id": identifier,
            "@type": "ParameterConnection",
            "sourceParameter": {"@id": source},
            "targetParameter": {"@id": target},
        }
        return identifier


def _files_of(output: str, products: set[str]) -> Sequence[str]:
    if output.endswith("/"):
        return sorted(path for path in products if path.startswith(output))
    return [output] if output in products else []


def _examples_of_workflow(contents: Contents) -> dict[str, set[str]]:
    """The workflow's own formal parameters that each file is the value of, by path."""
    found = {path: {formal_id("input", path)} for path in contents.plan.inputs}
    folders = tuple(path for path in contents.plan.results if path.endswith("/"))
    for path in contents.results:
        named = {path} & contents.plan.results.keys() | {folder for folder in folders if path.startswith(folder)}
        found.setdefault(path, set()).update(formal_id("result", name) for name in named)
    return found
