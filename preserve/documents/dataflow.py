"""Who makes what and who reads it: products by path, inputs looked up among them, an order without cycles."""

from __future__ import annotations

import heapq
import shlex
from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from preserve.documents import paths
from preserve.documents.faults import Faults
from preserve.documents.jobs import Job
from preserve.documents.plan import PlannedInput
from preserve.documents.workflow import STAGES, Position, Workflow


@dataclass(frozen=True, slots=True, kw_only=True)
class _Maker:
    """The job that makes a product, and where that is said."""

    job: Job
    place: Position


class Products:
    """All products of all jobs by path. Two that touch (the same path, or one inside the other) are noted."""

    def __init__(self, jobs: Sequence[Job], workflow: Workflow, tracked: Collection[str], faults: Faults) -> None:
        self._makers: dict[str, _Maker] = {}
        for job in jobs:
            for index, path in enumerate(job.outputs):
                self._add(
                    path, job, job.declaration.positions.get(f"outputs[{index}]", job.declaration.position), faults
                )
        for path, maker in self._makers.items():
            self._check_enclosing(path, maker, faults)
        self._check_given(workflow, tracked, faults)

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def maker(self, path: str) -> str | None:
        """Id of the job that makes ``path``: the file, the folder, or a folder around it."""
        for candidate in (path, *_folders(path)):
            if candidate in self._makers:
                return self._makers[candidate].job.id
        return None

    def _add(self, path: str, job: Job, place: Position, faults: Faults) -> None:
        first = self._makers.setdefault(path, _Maker(job=job, place=place))
        if first.job is job and first.place is place:
            return
        if first.job.declaration is job.declaration and first.job is not job:
            message = f'the jobs {first.job.id} and {job.id} both make "{path}"'
            faults.add_first(place, message, "put the for_each variables into the path: ${{ NAME }}")
        else:
            message = f'"{path}" is made twice: by {first.job.id} (line {first.place.line}) and by {job.id}'
            faults.add_first(place, message, "exactly one step makes a file: rename one of the two")

    def _check_enclosing(self, path: str, maker: _Maker, faults: Faults) -> None:
        if path + "/" in self._makers:
            message = f'"{path}" of {maker.job.id} is also a folder, a product of {self._makers[path + "/"].job.id}'
            faults.add_first(maker.place, message, "rename one of the two")
        for folder in _folders(path):
            around = self._makers.get(folder) or self._makers.get(folder[:-1])
            if around is not None:
                made = folder if folder in self._makers else folder[:-1]
                message = f'"{path}" lies inside "{made}", a product of {around.job.id} (line {around.place.line})'
                faults.add_first(maker.place, message, "write the two into different folders")

    def _check_given(self, workflow: Workflow, tracked: Collection[str], faults: Faults) -> None:
        given = dict.fromkeys(tracked, "a file of the repository")
        given.update((path, "declared under inputs:") for path in workflow.inputs)
        folders = {folder: path for path in given for folder in _folders(path)}
        for path, maker in self._makers.items():
            if path in given:
                message = f'the output "{path}" of {maker.job.id} is {given[path]}'
                faults.add_first(maker.place, message, _remedy(path, tracked))
            elif (inside := folders.get(path) or folders.get(path + "/")) is not None:
                message = f'the output "{path}" of {maker.job.id} would replace "{inside}", {given[inside]}'
                faults.add_first(maker.place, message, "use another folder for products")
            elif around := next((folder[:-1] for folder in _folders(path) if folder[:-1] in given), None):
                message = f'the output "{path}" of {maker.job.id} lies below "{around}", which is a file'
                faults.add_first(maker.place, message, "use another folder for products")


def _remedy(path: str, tracked: Collection[str]) -> str:
    """What to do about an output that is there already."""
    if path in tracked:
        return (
            f"if a run made it: git rm --cached {shlex.quote(path)}, list it in .gitignore, and commit;"
            " else rename the output: a step never writes what was there before"
        )
    return "a step never writes what was there before: rename the output"


class Inputs:
    """Looks up what a declared input stands for; each text is looked up once, however many jobs have it."""

    def __init__(self, products: Products, workflow: Workflow, tracked: Collection[str], faults: Faults) -> None:
        self._products = products
        self._declared = workflow.inputs
        self._tracked = frozenset(tracked)
        self._faults = faults
        self._planned = sorted({*products, *workflow.inputs})
        self._all = sorted({*self._planned, *self._tracked})
        self._found: dict[str, tuple[PlannedInput, ...]] = {}

    def find(self, path: str, place: Position) -> tuple[PlannedInput, ...]:
        """Give the files and folders that ``path`` stands for, sorted; that there are none is noted."""
        found = self._found.get(path)
        if found is None:
            found = self._found[path] = tuple(PlannedInput(path=p, producer=self._maker(p)) for p in self._match(path))
        if not found:
            self._faults.add_first(place, *self._complaint(path))
        return found

    def _maker(self, path: str) -> str | None:
        return None if path in self._declared or path in self._tracked else self._products.maker(path)

    def _match(self, path: str) -> list[str]:
        if paths.is_pattern(path):
            return _matches(path, self._planned)
        if path in self._declared or path in self._tracked or self._products.maker(path) is not None:
            return [path]
        return list(_below(self._all, path)) if path.endswith("/") else []

    def _complaint(self, path: str) -> tuple[str, str]:
        if paths.is_pattern(path):
            message = f'the pattern "{path}" matches no product and no declared input'
            if _matches(path, sorted(self._tracked)):
                hint = "patterns do not look at the repository's files: name each, or their folder with / at its end"
            else:
                hint = "patterns look at the outputs of steps and at inputs:, not at the disk"
            return message, hint
        if path.endswith("/"):
            message = f'the folder "{path}" has no file that a step makes, inputs: declares or git tracks'
            return message, self._suggestion(path, "git add its files, or declare them under inputs:")
        if path + "/" in self._products or next(_below(self._all, path + "/"), None):
            return f'"{path}" is a folder', f'write it with a / at its end: "{path}/"'
        message = f'nobody makes "{path}": no step, no entry under inputs:, no file tracked by git'
        return message, self._suggestion(path, "git add it, or declare it under inputs:")

    def _suggestion(self, path: str, otherwise: str) -> str:
        near = self._faults.suggest(path, self._all)
        return f"{near} Else {otherwise}" if near else otherwise


def check_stages(
    job: Job, place: Position, found: tuple[PlannedInput, ...], jobs: Mapping[str, Job], faults: Faults
) -> None:
    """Note what ``job`` reads of a later stage."""
    own = STAGES.index(job.declaration.stage)
    for item in found:
        producer = jobs.get(item.producer) if item.producer else None
        if producer is not None and STAGES.index(producer.declaration.stage) > own:
            stage = producer.declaration.stage
            message = (
                f'{job.id} ({job.declaration.stage}) reads "{item.path}" of {producer.id}, of the later stage {stage}'
            )
            faults.add_first(place, message, f"the stages are, in this order: {', '.join(STAGES)}")
            return


def order(upstream: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Give an order in which all can run, the declared one where possible; what is on or behind a cycle is left out."""
    waiting = [len(sources) for sources in upstream]
    downstream: list[list[int]] = [[] for _ in upstream]
    for index, sources in enumerate(upstream):
        for source in sources:
            downstream[source].append(index)
    ready = [index for index, count in enumerate(waiting) if not count]
    found = []
    while ready:
        index = heapq.heappop(ready)
        found.append(index)
        for follower in downstream[index]:
            waiting[follower] -= 1
            if not waiting[follower]:
                heapq.heappush(ready, follower)
    return tuple(found)


def cycles(upstream: Sequence[tuple[int, ...]], left: Collection[int]) -> list[list[int]]:
    """Cycles among the jobs that ``order`` left out, each in the direction of the data, its first declared first."""
    remaining, seen, found = set(left), set[int](), []
    for start in sorted(remaining):
        path: dict[int, None] = {}
        at = start
        while at not in seen:
            seen.add(at)
            path[at] = None
            at = next(source for source in upstream[at] if source in remaining)
        if at in path:
            walked = list(path)
            cycle = walked[walked.index(at) :][::-1]
            first = cycle.index(min(cycle))
            found.append(cycle[first:] + cycle[:first])
    return found


def _matches(pattern: str, candidates: Sequence[str]) -> list[str]:
    compiled = paths.compile_pattern(pattern)
    prefix = paths.literal_prefix(pattern)
    return [path for path in _below(candidates, prefix) if compiled.fullmatch(path)]


def _below(ordered: Sequence[str], prefix: str) -> Iterator[str]:
    at = bisect_left(ordered, prefix)
    while at < len(ordered) and ordered[at].startswith(prefix):
        yield ordered[at]
        at += 1


def _folders(path: str) -> Iterator[str]:
    """Folders around a path, with ``/`` at the end."""
    at = path.find("/")
    while 0 <= at < len(path) - 1:
        yield path[: at + 1]
        at = path.find("/", at + 1)
