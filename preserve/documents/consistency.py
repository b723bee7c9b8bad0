"""Do plan, lock and records tell one story? Rules over the documents of an archive."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from preserve.digest import Digest, FilePin
from preserve.documents import paths
from preserve.documents.archive import BUNDLE, LOCK, PLAN, WORKFLOW, Contents, expected_files, record_name
from preserve.documents.lockfile import Lock
from preserve.documents.plan import Plan, PlannedStep
from preserve.documents.plan_rules import faults_of_plan
from preserve.documents.planning import plan_again
from preserve.documents.record import Artifact, Record, step_key
from preserve.documents.verification import Finding
from preserve.errors import PreserveError

MAX_SECONDS = 1e10  # three hundred years of one step
_LOGS = ("stdout", "stderr")
_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"


def contradictions(contents: Contents) -> Iterator[Finding]:
    """Yield what does not fit together, or what no plan may say: then nothing else of it is looked at."""
    faults = tuple(faults_of_plan(contents.plan))
    if faults:
        yield from (Finding(path=PLAN, problem=fault) for fault in faults)
        return
    yield from _of_lock(contents.plan, contents.lock)
    known = {path: pin.sha256 for path, pin in contents.pins.items()}
    made: dict[str, str] = {}
    for step in contents.plan.steps:
        record = contents.records.get(step.id)
        if record is None:
            yield Finding(path=record_name(step.id), problem="the record of a planned step is missing")
            continue
        yield from _of_record(contents.plan, step, record, known)
        for product in record.products:
            if made.setdefault(product.path, step.id) != step.id:
                yield _about(step.id, f"its product {product.path} is also one of {made[product.path]}")
    planned = {step.id for step in contents.plan.steps}
    for name in sorted(contents.records.keys() - planned):
        yield Finding(path=record_name(name), problem="a record of a step that the plan does not have")


def missing_files(contents: Contents) -> Iterator[Finding]:
    """Yield the files that must be inside and are not, or have other content than the documents say."""
    if contents.plan.source is not None and not contents.bundled:
        yield Finding(path=BUNDLE, problem="is not in the archive")
    for name, pin in sorted(expected_files(contents).items()):
        found = contents.payload.get(name)
        if found is None:
            yield Finding(path=name, problem="is not in the archive", expected=pin.sha256)
        elif shown_content(found) != shown_content(pin):
            yield Finding(
                path=name,
                problem="is not what the records say",
                expected=shown_content(pin),
                found=shown_content(found),
            )


def other_plan(contents: Contents, workflow: bytes) -> Iterator[Finding]:
    """Yield that preserve.yaml does not give the plan, if so: somebody would read one thing and run another."""
    try:
        again = plan_again(workflow, contents.lock, contents.plan)
    except PreserveError as error:
        yield Finding(path=WORKFLOW, problem=f"gives no plan: {error.message}")
        return
    if again != contents.plan:
        yield Finding(path=WORKFLOW, problem="gives another plan than plan.json, with this preserve.lock")
        yield Finding(path=PLAN, problem="is not the plan that preserve.yaml and preserve.lock give")


def shown_content(pin: FilePin) -> str:
    """Give a file's content for a finding: digest, size in bytes, whether it is a program."""
    return f"{pin.sha256} ({pin.size} bytes{', executable' if pin.executable else ''})"


def _of_lock(plan: Plan, lock: Lock) -> Iterator[Finding]:
    for name, image in plan.images.items():
        if lock.images.get(name) != image:
            yield Finding(path=LOCK, problem=f"its image {name!a} is not that of the plan")
    for path, pin in plan.inputs.items():
        if lock.inputs.get(path) != pin:
            yield Finding(path=LOCK, problem=f"its input {path!a} is not that of the plan")
    if plan.source != lock.source:
        yield Finding(path=LOCK, problem="names another commit of the code than the plan")


def _of_record(plan: Plan, step: PlannedStep, record: Record, known: Mapping[str, Digest]) -> Iterator[Finding]:
    image = plan.images[step.image]
    if record.step != step.id:
        yield _about(step.id, "is the record of another step", step.id, record.step)
    if not _is_time(record.started) or not _is_time(record.ended):
        yield _about(step.id, "its times are no times in the form of UTC that records have")
    if not _measurable(record):
        yield _about(step.id, "what it measured cannot be: a duration or a size below zero, or beyond all bounds")
    if record.failure is not None or record.exit_code != 0:
        yield _about(step.id, f"the step failed ({record.failure or record.exit_code})")
    same = {
        "command": (step.command, record.command),
        "environment": (dict(step.environment), dict(record.environment)),
        "network": (step.network, record.network),
        "image": (
            (image.manifest_digest, image.config_digest),
            (record.image.manifest_digest, record.image.config_digest),
        ),
    }
    for what, (planned, recorded) in same.items():
        if planned != recorded:
            yield _about(step.id, f"its {what} is not the plan's", str(planned), str(recorded))
    key = step_key(step, image.config_digest, record.materials)
    if record.key != key:
        yield _about(step.id, "its key is not that of its contents", key, record.key)
    yield from _of_files(step, record, known)
    yield from _of_places(step, record)


def _is_time(text: str) -> bool:
    """Whether there is such a moment, and it is written as records write it."""
    try:
        return datetime.strptime(text, _TIME).strftime(_TIME) == text
    except ValueError:
        return False


def _measurable(record: Record) -> bool:
    """Whether durations (seconds) and sizes (bytes) are such as can be; they are summed up and shown."""
    seconds = (record.wall_seconds, record.cpu_seconds or 0.0)
    files = (*record.products, *record.materials, *record.logs.values())
    counts = (record.peak_memory or 0, record.network_attempts or 0, *(file.size for file in files))
    return all(0 <= one < MAX_SECONDS for one in seconds) and min(counts) >= 0


def _of_places(step: PlannedStep, record: Record) -> Iterator[Finding]:
    """Records name files that are written when the archive is replayed: each has its place."""
    for file in (*record.products, *record.materials):
        if problem := paths.astray(file.path):
            yield _about(step.id, problem)
    for name, log in record.logs.items():
        if name not in _LOGS or log.path != f"logs/{step.id}/{name}":
            yield _about(step.id, f"its log {log.path!a} is not in its place")


def _of_files(step: PlannedStep, record: Record, known: Mapping[str, Digest]) -> Iterator[Finding]:
    for material in record.materials:
        if known.get(material.path) != material.sha256:
            yield _about(
                step.id, f"it read {material.path} with other content", str(known.get(material.path)), material.sha256
            )
    read = {material.path for material in record.materials}
    for wanted in step.inputs:
        if not _covered(wanted.path, read):
            yield _about(step.id, f"it does not say with which content it read {wanted.path}")
    made = {product.path for product in record.products}
    for output in step.outputs:
        if not _covered(output, made):
            yield _about(step.id, f"it does not have its product {output}")
    for product in record.products:
        if not _declared(product, step.outputs):
            yield _about(step.id, f"its product {product.path} is not one that the plan declares")


def _covered(path: str, files: set[str]) -> bool:
    return any(file.startswith(path) for file in files) if path.endswith("/") else path in files


def _declared(product: Artifact, outputs: tuple[str, ...]) -> bool:
    return product.path in outputs or any(o.endswith("/") and product.path.startswith(o) for o in outputs)


def _about(step: str, problem: str, expected: str = "", found: str = "") -> Finding:
    return Finding(path=record_name(step), problem=problem, expected=expected, found=found)
