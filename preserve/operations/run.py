"""preserve run: do what is not yet done, record everything."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from types import FrameType
from typing import Self

from preserve.documents import jsonform
from preserve.documents.plan import Plan, PlannedStep
from preserve.documents.record import Artifact, EngineUsed, Record
from preserve.documents.workflow import Value
from preserve.errors import DigestMismatch, Interrupted, MachineError, StepFailed
from preserve.interfaces import Engine, LastingEngine, Progress
from preserve.operations.failures import reasons_for_failure
from preserve.operations.fingerprints import take_fingerprints
from preserve.operations.folder import Folder, look, materials, pin_of, write_file
from preserve.operations.places import Settings, bring, choose_engine
from preserve.operations.placing import place, place_all, refuse_strangers, would_place
from preserve.operations.reasons import reasons_to_run
from preserve.operations.run_state import RunState
from preserve.operations.run_step import INTERRUPTED, StepContext, remove_work, run_step
from preserve.operations.status import undeclared
from preserve.operations.surroundings import image_used, read_machine
from preserve.scheduler.chain import Job, Scheduler

LEFT = 7 * 86400  # seconds after which what a run left is a dead one's
GO_ON = "run the same command again to go on"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to run: CPUs at a time; go on after a failure; ignore earlier runs; only say what would be done; steps.

    ``trace_inputs``: watch which of its declared inputs each step opens; ``fingerprints``: take those of results.
    """

    jobs: int = 1
    keep_going: bool = False
    no_cache: bool = False
    dry_run: bool = False
    only: tuple[str, ...] = ()
    trace_inputs: bool = False
    fingerprints: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run did: ``reasons`` why steps had to be looked at, ``ran`` those that ran, records, notes for the user.

    ``moved``: whether products of steps that were done before were (or, by a dry run, would be) put in their places.
    A step after one that ran need not run itself: what it reads may have come out the same.
    """

    plan: Plan
    reasons: Mapping[str, str]
    ran: tuple[str, ...]
    records: Mapping[str, Record]
    run: Path | None
    notes: tuple[str, ...]
    moved: bool


def run(
    folder: Folder,
    settings: Settings,
    options: Options,
    *,
    scheduler: Scheduler,
    parameters: Callable[[Folder], Mapping[str, Value]],
    progress: Progress,
    say: Callable[[str], None],
) -> Outcome:
    """Run the steps whose result is not known yet and put all products in their places.

    ``scheduler`` may have been prepared; ``say`` takes lines for the user (engine chosen, products made again).

    Raises:
        UserError: workflow, lock or command line are wrong; or a file stands where a product belongs.
        MachineError: no engine, no room.
        StepFailed: a step failed; the message ends with its log.
        Interrupted: the user stopped it.
    """
    with folder.held():
        hashes = folder.hashes(anew=options.no_cache)
        try:
            situation = look(folder, hashes, parameters(folder))
            state = RunState.at_start(folder, situation, hashes)
            return run_plan(state, settings, options, scheduler=scheduler, progress=progress, say=say)
        finally:
            hashes.save()


def run_plan(
    state: RunState,
    settings: Settings,
    options: Options,
    *,
    scheduler: Scheduler,
    progress: Progress,
    say: Callable[[str], None],
) -> Outcome:
    """Run a plan in a folder that the caller holds; see ``run``."""
    reasons = reasons_to_run(state, only=options.only, no_cache=options.no_cache)
    refuse_strangers(state, state.plan)
    if options.dry_run:
        moved = would_place(state)
        return _outcome(state, reasons, None, moved=moved)
    moved = place_all(state)
    run_folder = None
    try:
        if reasons:
            run_folder = _execute(state, reasons, settings, options, scheduler, progress, say)
        elif not options.only and _is_news(state):
            run_folder = _new_run(state)
    finally:
        write_file(state.folder.state / "placed.json", jsonform.dump(state.placed))
    if options.fingerprints:
        state.notes += take_fingerprints(state.folder, state.plan, state.records.values(), state.store, say=say)
    return _outcome(state, reasons, run_folder, moved=moved)


def _is_news(state: RunState) -> bool:
    """Whether no run folder says yet that this plan is done."""
    runs = state.folder.runs()
    if not runs:
        return True
    # a power cut may have left one empty
    done = all(_size(runs[-1] / "records" / f"{step.id}.json") for step in state.plan.steps)
    return not done or not _same(runs[-1] / "plan.json", state.plan.to_bytes())


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _same(path: Path, data: bytes) -> bool:
    return path.exists() and path.read_bytes() == data


def _outcome(state: RunState, reasons: Mapping[str, str], run_folder: Path | None, *, moved: bool) -> Outcome:
    return Outcome(
        plan=state.plan,
        reasons=reasons,
        ran=tuple(name for name in reasons if name in state.ran),
        records=state.records,
        run=run_folder,
        notes=tuple(state.notes),
        moved=moved,
    )


def _execute(
    state: RunState,
    reasons: Mapping[str, str],
    settings: Settings,
    options: Options,
    scheduler: Scheduler,
    progress: Progress,
    say: Callable[[str], None],
) -> Path:
    todo = [step for step in state.plan.steps if step.id in reasons]
    with _Interruption() as interruption:
        engine = _ready_engine(state, todo, settings, progress, say)
        context = _context(state, todo, engine, options)
        _announce(state, todo)
        for line in _too_wide(todo, options.jobs):
            say(line)
        interruption.end(engine, scheduler, state)
        by_id = {step.id: step for step in todo}
        try:
            scheduler.run(
                _jobs(todo),
                execute=lambda name: _one(state, context, by_id[name], options, progress),
                cores=options.jobs,
                folder=context.run / "scheduler",
                keep_going=options.keep_going,
            )
        except MachineError:
            if not state.stopping:  # then it is of what was ended
                raise
        except DigestMismatch as error:
            if not state.failures:
                raise
            failed = _failed(state, context.run)
            raise DigestMismatch(
                f"{error.message}\n{failed.message}", hint=f"{error.hint}\n    {failed.hint}"
            ) from error
        finally:
            for name in ("scheduler", "work"):
                shutil.rmtree(context.run / name, ignore_errors=True)
    if state.stopping:
        raise Interrupted("interrupted; the containers are gone", hint=GO_ON)
    if state.failures:
        raise _failed(state, context.run)
    return context.run


def _ready_engine(
    state: RunState, todo: list[PlannedStep], settings: Settings, progress: Progress, say: Callable[[str], None]
) -> LastingEngine:
    """Choose the engine and load the images of all steps that are to run."""
    engine, why = choose_engine(state.folder, settings)
    say(why)
    engine.end_leftovers(owner(state.folder))  # of runs that died: this process holds the folder
    _remove_leftovers(state.folder)
    images = state.plan.images
    for name in _images(todo):
        bring(images[name], state.folder, settings, progress)
        say(f"image {name}: {images[name].reference}")
        engine.load(images[name], state.folder.layout)
    return engine


def _remove_leftovers(folder: Folder) -> None:
    """Remove what only a run, or another command that holds the folder, has while it goes on.

    What is not old may be of one that goes on: another machine's, on a file system whose locks hold on one machine.
    """
    before = time.time() - LEFT
    for pattern in ("runs/*/work", "runs/*/scheduler", "archive-*", "dumps-*"):
        for left in folder.state.glob(pattern):
            if left.stat().st_mtime < before:
                remove_work(left)


def _images(todo: list[PlannedStep]) -> tuple[str, ...]:
    """Names of the images that steps run in, each once."""
    return tuple(dict.fromkeys(step.image for step in todo))


def owner(folder: Folder) -> str:
    """Give the mark of the containers of this analysis folder, without its path."""
    return sha256(str(folder.root).encode()).hexdigest()[:16] + "/"


def _context(state: RunState, todo: list[PlannedStep], engine: Engine, options: Options) -> StepContext:
    run_folder = _new_run(state)
    return StepContext(
        folder=state.folder,
        plan=state.plan,
        run=run_folder,
        engine=engine,
        engine_used=EngineUsed(name=engine.name, version=engine.version()),
        machine=read_machine(),
        images={name: image_used(state.folder, name, state.plan.images[name]) for name in _images(todo)},
        hashes=state.hashes,
        store=state.store,
        label=owner(state.folder) + run_folder.name,
        trace_inputs=options.trace_inputs,
    )


def _announce(state: RunState, todo: list[PlannedStep]) -> None:
    """Write down which files will be ours, so that a run killed before it says so finds them again."""
    for path in (path for step in todo for path in step.outputs):
        state.placed.setdefault(path, "")
    write_file(state.folder.state / "placed.json", jsonform.dump(state.placed))


def _jobs(todo: list[PlannedStep]) -> list[Job]:
    names = {step.id for step in todo}
    return [
        Job(name=step.id, after=tuple(up for up in step.upstream if up in names), cpus=step.resources.cpus)
        for step in todo
    ]


def _too_wide(todo: list[PlannedStep], jobs: int) -> list[str]:
    """Name the steps that ask for more CPUs than the run has, each once."""
    wide = {step.name: step.resources.cpus for step in todo if step.resources.cpus > jobs}
    return [f"note: step {name} asks for {cpus} CPUs, -j gives {jobs}: it runs alone" for name, cpus in wide.items()]


def _new_run(state: RunState) -> Path:
    """Begin a run's folder: what is asked for, and what is known already."""
    folder = state.folder.state / "runs" / datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    (folder / "records").mkdir(parents=True)
    write_file(folder / "plan.json", state.plan.to_bytes())
    for name, data in state.documents.items():
        write_file(folder / name, data)
    for record in state.records.values():
        _adopt(state, folder, record)
    return folder


def _adopt(state: RunState, run_folder: Path, record: Record) -> None:
    """Take an earlier run's record and log into this run."""
    (run_folder / "records" / f"{record.step}.json").write_bytes(record.to_bytes())
    for log in record.logs.values():
        state.store.place(pin_of(log), run_folder / log.path)


def _one(state: RunState, context: StepContext, step: PlannedStep, options: Options, progress: Progress) -> bool:
    """One job in a thread of the scheduler."""
    if state.stopping:
        return False
    with state.lock:
        known = dict(state.known) if any(i.path.endswith("/") for i in step.inputs) else state.known
        read = materials(step, known)
    if read is None:  # what its inputs are was planned, and what makes them has ended well
        raise MachineError(f"step {step.id} was begun before its inputs were there", hint="please report this")
    record = None if options.no_cache else state.usable(step, read)
    outcome = "reused"
    if record is None:
        progress.step_started(step.id)
        record = run_step(context, step, read, _origins(state, read))
        state.ran.add(step.id)
        outcome = "done" if record.failure is None else INTERRUPTED if record.failure == INTERRUPTED else "failed"
        state.notes.extend(undeclared(context.run, record))
    else:
        _adopt(state, context.run, record)
    progress.step_finished(step.id, outcome=outcome, seconds=record.wall_seconds)
    if record.failure is not None:
        state.failures[step.id] = record
        return False
    state.learn(step, record)
    with state.lock:
        place(state, record)
    return True


def _origins(state: RunState, read: tuple[Artifact, ...]) -> dict[str, Path]:
    """Where the bytes of a step's materials lie: input data and code in the folder, products in the store."""
    return {a.path: state.folder.root / a.path if a.path in state.pins else state.store.path(pin_of(a)) for a in read}


class _Interruption:
    """Ctrl-C, SIGTERM and SIGHUP: an exception while nothing runs, later the end of all containers."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self._running: tuple[Engine, Scheduler, RunState] | None = None

    def __enter__(self) -> Self:
        # one that is ignored stays so: nohup
        numbers = [number for number in self.SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._stop) for number in numbers}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def end(self, engine: Engine, scheduler: Scheduler, state: RunState) -> None:
        """From now on stop these, and tell ``state``: the main thread waits for them."""
        self._running = engine, scheduler, state

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self._running is None:
            raise Interrupted("interrupted before the first step", hint=GO_ON)
        engine, scheduler, state = self._running
        state.stopping = True
        engine.stop()
        scheduler.stop()


def _failed(state: RunState, run_folder: Path) -> StepFailed:
    lines, hints = [], []
    steps = {step.id: step for step in state.plan.steps}
    for name, record in state.failures.items():
        printed = tail(run_folder / "logs" / name)
        lines.append(f"step {name} failed: {record.failure}")
        # the mark keeps a line from being a command to the CI that shows it (::set-output and the like)
        lines += [f"    | {line}" for line in printed]
        hints += [*reasons_for_failure(state.folder.root, steps[name], record, printed), f"preserve log {name}"]
    return StepFailed("\n".join(lines), hint="\n    ".join(hints))


def tail(logs: Path, lines: int = 15) -> list[str]:
    """Give the last lines of a step's stderr, or of its stdout when that is empty."""
    for name in ("stderr", "stdout"):
        path = logs / name
        if path.exists() and path.stat().st_size:
            with path.open("rb") as stream:
                stream.seek(max(0, path.stat().st_size - 8192))
                return stream.read().decode(errors="replace").splitlines()[-lines:]
    return ["(it printed nothing)"]
