"""preserve probe: which step is not reproducible, under which variation, and how far its products move."""

from __future__ import annotations

import contextlib
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from preserve.digest import hash_file
from preserve.documents.archive import is_result
from preserve.documents.plan import Plan, PlannedStep
from preserve.documents.probe import Finding, Movement, Probe, ProbedStep, read_probe
from preserve.documents.record import Artifact, EngineUsed, Record
from preserve.engines import BUILT_IN
from preserve.engines.environment import image_environment
from preserve.errors import Interrupted, MachineError, UserError
from preserve.interfaces import Engine, LastingEngine, Progress, RunRequest
from preserve.oci import Layout
from preserve.operations.folder import Folder, pin_of, write_file
from preserve.operations.moving import largest, movements
from preserve.operations.places import Settings, bring, choose_engine, engine_named
from preserve.operations.probe_step import probe_step
from preserve.operations.run import owner
from preserve.operations.run_step import remove_work
from preserve.operations.status import last_run, record_of
from preserve.operations.surroundings import read_machine
from preserve.operations.trials import Bench, Trial, Trials, available_cpus, scratch_folder
from preserve.operations.variations import LOOK, PLAIN, Surroundings, Variation, catalogue, read_look
from preserve.stores.hashes import HashMemory
from preserve.stores.objects import ObjectStore

FILE = "probe.json"  # in the run's folder
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
RUN_FIRST = "run: preserve run"
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """The run that is probed: where its files lie, and its records by step id."""

    folder: Folder
    path: Path
    plan: Plan
    records: Mapping[str, Record]
    store: ObjectStore
    hashes: HashMemory

    def file(self, artifact: Artifact) -> Path:
        """Where the recorded bytes of a material or product lie.

        Raises:
            UserError: they are no longer there.
        """
        product = self.store.path(pin_of(artifact))
        if self.store.holds(pin_of(artifact)):
            return product
        here = self.folder.root / artifact.path
        try:
            found = self.hashes.pin(here).sha256
        except OSError as error:
            raise UserError(f"{artifact.path} cannot be read: {error.strerror}", hint=RUN_FIRST) from error
        if found != artifact.sha256:
            raise UserError(f"{artifact.path} changed since the run", hint=f"{RUN_FIRST}, or bring the file back")
        return here

    def files(self, artifacts: tuple[Artifact, ...]) -> dict[str, Path]:
        """Where the recorded bytes lie, by path, sorted."""
        return {one.path: self.file(one) for one in sorted(artifacts, key=lambda one: one.path)}


def probe(
    folder: Folder, settings: Settings, names: tuple[str, ...], *, progress: Progress, say: Say
) -> tuple[Probe, tuple[ProbedStep, ...]]:
    """Probe steps of the last run (none named: all), and keep what is found in the run's folder.

    Gives what is now known of the run, and the steps that were probed now.

    Raises:
        UserError: nothing has run, a step is unknown or not done, or files that it read have changed.
        MachineError: no engine, no room.
        Interrupted: the user stopped it; nothing of it is kept.
    """
    with folder.held():
        hashes, label = folder.hashes(), owner(folder) + "probe"
        scratch = scratch_folder(folder.state, label)
        before = [signal.signal(number, _interrupt) for number in SIGNALS]
        try:
            run = _last_run(folder, hashes)
            steps = _chosen(run, names, say)
            engine, why = choose_engine(folder, settings)
            say(why)
            engine.end_leftovers(owner(folder))  # of runs that died: this process holds the folder
            _load(engine, run, steps, settings, progress)
            bench = Bench(plan=run.plan, engine=engine, scratch=scratch, label=label, progress=progress)
            other = _other_engine(run, engine, steps, settings, progress)
            made = _probed(run, bench, steps, other)
            write_file(run.path / FILE, made.to_bytes())
        finally:
            for number, handler in zip(SIGNALS, before, strict=True):
                signal.signal(number, handler)
            hashes.save()
            remove_work(scratch)
    now = {step.id for step in steps}
    return made, tuple(step for step in made.steps if step.step in now)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted(
        "interrupted; the containers are gone, nothing is kept", hint="probe one step: preserve probe STEP"
    )


def _probed(run: _Run, bench: Bench, steps: tuple[PlannedStep, ...], other: tuple[Engine | None, str]) -> Probe:
    started = _now()
    around = {name: _surroundings(run, bench, name) for name in dict.fromkeys(step.image for step in run.plan.steps)}
    probed = []
    for step in steps:
        record = run.records[step.id]
        with Trials(bench=bench, step=step, sources=run.files(record.materials)) as trials:
            probed.append(probe_step(trials, run.files(record.products), around[step.image], other))
    made = Probe(
        run=run.path.name,
        engine=EngineUsed(name=bench.engine.name, version=bench.engine.version()),
        machine=read_machine(),
        software={name: found.software for name, found in around.items()},
        started=started,
        ended=started,
        steps=tuple(probed),
    )
    before = _earlier(run, made)
    if before is not None:
        made = _with_earlier(run, before, made)
        if before.culprits == made.culprits and not any(step.findings for step in probed):
            return replace(made, results=before.results, ended=_now())
    return replace(made, results=tuple(_carried(run, bench, around, made)), ended=_now())


def _earlier(run: _Run, made: Probe) -> Probe | None:
    """Give an earlier probe of this run, on this engine and machine."""
    path, before = run.path / FILE, None
    with contextlib.suppress(FileNotFoundError, UserError):  # one that cannot be read is replaced
        before = read_probe(path.read_bytes(), str(path))
    same = before is not None and (before.engine, before.machine) == (made.engine, made.machine)
    return before if same else None


def _with_earlier(run: _Run, before: Probe, made: Probe) -> Probe:
    """Keep what an earlier probe found of other steps."""
    known = {step.step: step for step in (*before.steps, *made.steps)}
    steps = tuple(known[step.id] for step in run.plan.steps if step.id in known)
    return replace(made, steps=steps, started=before.started)


def _last_run(folder: Folder, hashes: HashMemory) -> _Run:
    path, plan = last_run(folder)
    found = {step.id: record_of(path, step.id) for step in plan.steps}
    records = {name: record for name, record in found.items() if record is not None and record.failure is None}
    store = folder.store(hashes)
    return _Run(folder=folder, path=path, plan=plan, records=records, store=store, hashes=hashes)


def _chosen(run: _Run, names: tuple[str, ...], say: Say) -> tuple[PlannedStep, ...]:
    """Give the steps to probe, in the order of the plan."""
    known = {name for step in run.plan.steps for name in (step.id, step.name)}
    if unknown := [name for name in names if name not in known]:
        raise UserError(f"there is no step {unknown[0]!r}", hint=f"one of: {', '.join(sorted(known))}")
    steps = [step for step in run.plan.steps if not names or step.id in names or step.name in names]
    undone = [step.id for step in steps if step.id not in run.records]
    if undone and (names or len(undone) == len(steps)):
        raise UserError(f"step {undone[0]} is not done", hint=RUN_FIRST)
    for step in undone:
        say(f"note: step {step} is not done: it is not probed")
    return tuple(step for step in steps if step.id in run.records)


def _load(
    engine: LastingEngine, run: _Run, steps: tuple[PlannedStep, ...], settings: Settings, progress: Progress
) -> None:
    for name in dict.fromkeys(step.image for step in (*steps, *run.plan.steps)):
        image = run.plan.images[name]
        bring(image, run.folder, settings, progress)
        engine.load(image, run.folder.layout)


def _other_engine(
    run: _Run, engine: Engine, steps: tuple[PlannedStep, ...], settings: Settings, progress: Progress
) -> tuple[Engine | None, str]:
    """Give the second engine and its name, or nothing and the reason."""
    name = next(one for one in BUILT_IN if one != engine.name)
    try:
        found = engine_named(name, run.folder, settings)
        version = found.version()
        _load(found, run, steps, settings, progress)
    except MachineError as error:
        return None, f"{name}: {error.message}"
    return found, f"{name} {version}"


def _surroundings(run: _Run, bench: Bench, name: str) -> Surroundings:
    """Ask the image, in a container of its own, for a shell and for what numpy chooses by."""
    pin = run.plan.images[name]
    request = RunRequest(image=pin, command=LOOK, label=bench.label, working_folder="/")
    with tempfile.TemporaryFile(dir=bench.scratch) as stdout, tempfile.TemporaryFile(dir=bench.scratch) as stderr:
        execution = bench.engine.run(request, stdout=stdout, stderr=stderr)
        stdout.seek(0)
        said = stdout.read(1 << 16).decode(errors="replace")
    features, software = read_look(said)
    variables = Layout(run.folder.layout).image(pin.manifest_digest).settings.get("Env") or ()
    return Surroundings(
        architecture=read_machine().architecture,
        engine=bench.engine.name,
        cpus=available_cpus(),
        has_shell=execution.exit_code == 0,
        features=features,
        software=software,
        image_environment=frozenset(image_environment(variables)),
    )


def _carried(run: _Run, bench: Bench, around: Mapping[str, Surroundings], made: Probe) -> Iterator[Finding]:
    """Carry what each culprit moves through the steps behind, to the results."""
    findings = [finding for step in made.steps for finding in step.findings]
    for name, culprits in made.culprits.items():
        moved = _carry(run, bench, around, name, frozenset(culprits))
        if moved:
            first = next(one for one in findings if one.variation == name)
            listed, more = largest(moved)
            yield replace(first, confirmed=True, failure=None, movements=listed, more=more)


def _carry(
    run: _Run, bench: Bench, around: Mapping[str, Surroundings], name: str, culprits: frozenset[str]
) -> tuple[Movement, ...]:
    """Run the culprits under their variation, and all steps that read what moved; nothing, if one of them fails."""
    moved: dict[str, Path] = {}
    kept: list[Trials] = []
    try:
        for step in run.plan.steps:
            record = run.records.get(step.id)
            if record is None or not (step.id in culprits or any(one.path in moved for one in record.materials)):
                continue
            sources = {path: moved.get(path, file) for path, file in run.files(record.materials).items()}
            trials = Trials(bench=bench, step=step, sources=sources)
            kept.append(trials)
            trial = trials.run(_variation(step, around[step.image], name))
            if trial.failure is not None:
                return ()
            moved |= _changed(record, trial)
        return movements(*_results(run, moved))
    finally:
        for trials in kept:
            trials.close()


def _variation(step: PlannedStep, around: Surroundings, name: str) -> Variation:
    """Give the variation of that name for a step; nothing where it cannot be tried or moves by itself."""
    found = next((one for one in catalogue(step, around)[0] if one.name == name), None)
    return found or Variation(name=name, setting=PLAIN.setting)


def _changed(record: Record, trial: Trial) -> dict[str, Path]:
    """Give the products whose bytes are not the recorded ones."""
    recorded = {one.path: one.sha256 for one in record.products}
    return {path: file for path, file in trial.products.items() if hash_file(file).sha256 != recorded.get(path)}


def _results(run: _Run, moved: Mapping[str, Path]) -> tuple[dict[str, Path], dict[str, Path]]:
    recorded = {one.path: one for record in run.records.values() for one in record.products}
    paths = [path for path in moved if is_result(run.plan, path)]
    return {path: run.file(recorded[path]) for path in paths if path in recorded}, {path: moved[path] for path in paths}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
