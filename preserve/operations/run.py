"""preserve run: do what is not yet done, record everything."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from types import FrameType

from preserve.digest import Digest, FilePin
from preserve.documents import jsonform
from preserve.documents.plan import Plan, PlannedStep
from preserve.documents.record import Artifact, EngineUsed, Record, read_record, step_key
from preserve.documents.workflow import Value
from preserve.errors import Interrupted, StepFailed, UserError
from preserve.interfaces import Engine, Progress
from preserve.operations.folder import (
    Folder,
    Situation,
    look,
    materials,
    pin_of,
    write_file,
)
from preserve.operations.places import Settings, bring, choose_engine
from preserve.operations.run_step import StepContext, read_machine, run_step
from preserve.scheduler.chain import Job, run_jobs
from preserve.stores.hashes import HashMemory
from preserve.stores.objects import ObjectStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to run: CPUs at a time; go on after a failure; ignore earlier runs; only say what would be done; steps."""

    jobs: int = 1
    keep_going: bool = False
    no_cache: bool = False
    dry_run: bool = False
    only: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run did: ``reasons`` why each step (had) to run, the records of all steps, notes for the user."""

    plan: Plan
    reasons: Mapping[str, str]
    records: Mapping[str, Record]
    run: Path | None
    notes: tuple[str, ...]


@dataclass(slots=True)
class _State:
    """What is known while a run goes on; changed only under ``lock``."""

    folder: Folder
    situation: Situation
    hashes: HashMemory
    store: ObjectStore
    known: dict[str, FilePin]
    placed: dict[str, str]
    records: dict[str, Record] = field(default_factory=dict)
    failures: dict[str, Record] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    stopping: bool = False


def run(
    folder: Folder,
    settings: Settings,
    options: Options,
    *,
    parameters: Callable[[Folder], Mapping[str, Value]],
    progress: Progress,
    say: Callable[[str], None],
) -> Outcome:
    """Run the steps whose result is not known yet and put all products in their places.

    ``say`` takes lines for the user (engine chosen, products made again).

    Raises:
        UserError: workflow, lock or command line are wrong; or a file stands where a product belongs.
        MachineError: no engine, no room.
        StepFailed: a step failed; the message ends with its log.
        Interrupted: the user stopped it.
    """
    with folder.held():
        hashes = folder.hashes()
        try:
            return _run(folder, settings, options, hashes, parameters(folder), progress, say)
        finally:
            hashes.save()


def _run(
    folder: Folder,
    settings: Settings,
    options: Options,
    hashes: HashMemory,
    parameters: Mapping[str, Value],
    progress: Progress,
    say: Callable[[str], None],
) -> Outcome:
    situation = look(folder, hashes, parameters)
    placed = folder.placed()
    state = _State(
        folder=folder,
        situation=situation,
        hashes=hashes,
        store=folder.store(hashes),
        known=dict(situation.pins),
        placed=placed,
    )
    reasons = _reasons(state, options)
    _refuse_strangers(state, situation.plan)
    if options.dry_run:
        return _outcome(state, reasons, None)
    for record in state.records.values():
        _place(state, record)
    run_folder = None
    try:
        if reasons:
            run_folder = _execute(state, reasons, settings, options, progress, say)
    finally:
        write_file(folder.state / "placed.json", jsonform.dump(state.placed))
    return _outcome(state, reasons, run_folder)


def _outcome(state: _State, reasons: Mapping[str, str], run_folder: Path | None) -> Outcome:
    plan = state.situation.plan
    return Outcome(plan=plan, reasons=reasons, records=state.records, run=run_folder, notes=tuple(state.notes))


def _reasons(state: _State, options: Options) -> dict[str, str]:
    """Why each step that has to run must; the records of the others go into ``state``."""
    reasons: dict[str, str] = {}
    wanted = _wanted(state.situation.plan, options.only)
    last = _last_records(state.folder)
    for step in state.situation.plan.steps:
        if step.id not in wanted:
            continue
        read = materials(step, state.known)
        if read is None:
            first = next((name for name in step.upstream if name in reasons), "an earlier step")
            reasons[step.id] = f"after {first}"
            continue
        record = None if options.no_cache else _usable(state, step, read)
        if record is not None:
            _learn(state, step, record)
        else:
            reasons[step.id] = "asked for (--no-cache)" if options.no_cache else _reason(state, step, read, last)
    return reasons


def _wanted(plan: Plan, only: tuple[str, ...]) -> frozenset[str]:
    """The steps named (by step or job), with all that they need; without names, all."""
    if not only:
        return frozenset(step.id for step in plan.steps)
    by_id = {step.id: step for step in plan.steps}
    found: set[str] = set()
    for name in only:
        chosen = [step.id for step in plan.steps if name in (step.id, step.name)]
        if not chosen:
            raise UserError(
                f"there is no step {name!r}", hint=f"one of: {', '.join(sorted({s.name for s in plan.steps}))}"
            )
        todo = chosen
        while todo:
            step = by_id[todo.pop()]
            if step.id not in found:
                found.add(step.id)
                todo += step.upstream
    return frozenset(found)


def _usable(state: _State, step: PlannedStep, read: tuple[Artifact, ...]) -> Record | None:
    """The record of an earlier run of just this, if all its products are still here."""
    record = state.folder.find_record(step_key(step, _config(state, step), read))
    if record is None or not all(state.store.holds(pin_of(product)) for product in record.products):
        return None
    return record


def _config(state: _State, step: PlannedStep) -> Digest:
    return state.situation.plan.images[step.image].config_digest


def _learn(state: _State, step: PlannedStep, record: Record) -> None:
    with state.lock:
        state.records[step.id] = record
        state.known.update({product.path: pin_of(product) for product in record.products})


def _last_records(folder: Folder) -> Path | None:
    runs = folder.runs()
    return runs[-1] / "records" if runs else None


def _reason(state: _State, step: PlannedStep, read: tuple[Artifact, ...], last: Path | None) -> str:
    """What is new since this step last ran."""
    path = last / f"{step.id}.json" if last else None
    if path is None or not path.exists():
        return "has not run yet"
    before = read_record(path.read_bytes(), str(path))
    if before.failure is not None:
        return f"failed last time ({before.failure})"
    new = {
        "image": before.image.config_digest != _config(state, step),
        "command": before.command != step.command,
        "environment": dict(before.environment) != dict(step.environment),
    }
    if any(new.values()):
        return f"its {next(name for name, differs in new.items() if differs)} changed"
    old = {a.path: a.sha256 for a in before.materials}
    changed = [a.path for a in read if old.get(a.path) != a.sha256] or sorted(set(old) - {a.path for a in read})
    if changed:
        return f"{changed[0]} changed" + (f" and {len(changed) - 1} more" if len(changed) > 1 else "")
    return "a product was changed or is gone from the store"


def _refuse_strangers(state: _State, plan: Plan) -> None:
    """Refuse to run where a file that no run made stands in a product's place."""
    root = state.folder.root
    strange = [
        path
        for step in plan.steps
        for path in step.outputs
        if not path.endswith("/") and os.path.lexists(root / path) and path not in state.placed
    ]
    # a run killed before it wrote down what it placed: the file is what the records say
    strange = [path for path in strange if not _is_known_product(state, path)]
    if strange:
        raise UserError(
            f"{strange[0]} stands where a step puts its product, and no run of preserve made it"
            + (f" (and {len(strange) - 1} more)" if len(strange) > 1 else ""),
            hint=f"move it away: mv {strange[0]} {strange[0]}.mine",
        )


def _is_known_product(state: _State, path: str) -> bool:
    target = state.folder.root / path
    return target.is_file() and not target.is_symlink() and state.store.path(state.hashes.pin(target)).exists()


def _place(state: _State, record: Record) -> None:
    """Put a step's products in their places in the analysis folder; what was edited by hand is kept aside."""
    for product in record.products:
        target = state.folder.root / product.path
        pin = pin_of(product)
        if target.is_file() and not target.is_symlink():
            found = state.hashes.pin(target)
            if found.sha256 == pin.sha256:
                state.placed[product.path] = pin.sha256
                continue
            if state.placed.get(product.path) != found.sha256:
                _set_aside(state, product.path)
        elif os.path.lexists(target):
            _set_aside(state, product.path)
        state.store.place(pin, target)
        state.placed[product.path] = pin.sha256


def _set_aside(state: _State, path: str) -> None:
    kept = state.folder.state / "displaced" / datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f") / path
    kept.parent.mkdir(parents=True)
    (state.folder.root / path).replace(kept)
    shown = kept.relative_to(state.folder.root)
    state.notes.append(f"{path} was changed after it was made; it is made again (what stood there: {shown})")


def _execute(
    state: _State,
    reasons: Mapping[str, str],
    settings: Settings,
    options: Options,
    progress: Progress,
    say: Callable[[str], None],
) -> Path:
    plan = state.situation.plan
    engine, why = choose_engine(state.folder, settings)
    say(why)
    owner = sha256(str(state.folder.root).encode()).hexdigest()[:16] + "/"
    engine.end_leftovers(owner)  # type: ignore[attr-defined]  # of runs that died: this process holds the folder
    todo = [step for step in plan.steps if step.id in reasons]
    for name in dict.fromkeys(step.image for step in todo):
        bring(plan.images[name], state.folder, settings, progress)
        engine.load(plan.images[name], state.folder.layout)
    run_folder = _new_run(state, plan)
    for path in (path for step in todo for path in step.outputs):
        state.placed.setdefault(path, "")  # known as ours even when this process is killed before it says so
    write_file(state.folder.state / "placed.json", jsonform.dump(state.placed))
    context = StepContext(
        folder=state.folder,
        plan=plan,
        run=run_folder,
        engine=engine,
        engine_used=EngineUsed(name=engine.name, version=engine.version()),
        machine=read_machine(),
        store=state.store,
        label=owner + run_folder.name,
    )
    jobs = [Job(name=s.id, after=tuple(u for u in s.upstream if u in reasons), cpus=s.resources.cpus) for s in todo]
    by_id = {step.id: step for step in todo}
    with _interruptible(state, engine):
        run_jobs(
            jobs,
            execute=lambda name: _one(state, context, by_id[name], options, progress),
            cores=options.jobs,
            folder=run_folder / "scheduler",
            keep_going=options.keep_going,
        )
    _clean(run_folder)
    if state.stopping:
        raise Interrupted("interrupted; the containers are gone", hint="run the same command again to go on")
    if state.failures:
        raise _failed(state, run_folder)
    return run_folder


def _new_run(state: _State, plan: Plan) -> Path:
    folder = state.folder.state / "runs" / datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    folder.mkdir(parents=True)
    write_file(folder / "plan.json", plan.to_bytes())
    (folder / "records").mkdir()
    for record in state.records.values():
        (folder / "records" / f"{record.step}.json").write_bytes(record.to_bytes())
    return folder


def _one(state: _State, context: StepContext, step: PlannedStep, options: Options, progress: Progress) -> bool:
    """One job in a thread of the scheduler."""
    if state.stopping:
        return False
    with state.lock:
        known = dict(state.known) if any(i.path.endswith("/") for i in step.inputs) else state.known
        read = materials(step, known)
    if read is None:
        missing = next(i.path for i in step.inputs if i.path not in known)
        raise UserError(f"step {step.id}: {missing} is not among the products of the step that should make it")
    record = None if options.no_cache else _usable(state, step, read)
    outcome = "reused"
    if record is None:
        progress.step_started(step.id)
        record = run_step(context, step, read, _origins(state, read))
        outcome = "done" if record.failure is None else "failed"
    else:
        write_file(context.run / "records" / f"{step.id}.json", record.to_bytes())
    progress.step_finished(step.id, outcome=outcome, seconds=record.wall_seconds)
    if record.failure is not None:
        state.failures[step.id] = record
        return False
    _learn(state, step, record)
    with state.lock:
        _place(state, record)
    return True


def _origins(state: _State, read: tuple[Artifact, ...]) -> dict[str, Path]:
    """Where the bytes of a step's materials lie: input data and code in the folder, products in the store."""
    return {
        a.path: state.folder.root / a.path if a.path in state.situation.pins else state.store.path(pin_of(a))
        for a in read
    }


@contextmanager
def _interruptible(state: _State, engine: Engine) -> Iterator[None]:
    """On Ctrl-C, SIGTERM and SIGHUP end all containers and start no more."""

    def stop(number: int, frame: FrameType | None) -> None:
        state.stopping = True
        engine.stop()

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, stop) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def _clean(run_folder: Path) -> None:
    shutil.rmtree(run_folder / "scheduler", ignore_errors=True)
    shutil.rmtree(run_folder / "work", ignore_errors=True)


def _failed(state: _State, run_folder: Path) -> StepFailed:
    lines = []
    for name, record in state.failures.items():
        lines.append(f"step {name} failed: {record.failure}")
        lines += [f"    {line}" for line in tail(run_folder / "logs" / name)]
    first = next(iter(state.failures))
    return StepFailed("\n".join(lines), hint=f"its whole output: preserve log {first}")


def tail(logs: Path, lines: int = 15) -> list[str]:
    """Give the last lines of a step's stderr, or of its stdout when that is empty."""
    for name in ("stderr", "stdout"):
        path = logs / name
        if path.exists() and path.stat().st_size:
            with path.open("rb") as stream:
                stream.seek(max(0, path.stat().st_size - 8192))
                return stream.read().decode(errors="replace").splitlines()[-lines:]
    return ["(it printed nothing)"]
