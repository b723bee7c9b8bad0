"""One step: lay out its inputs, run its container, take its products into the store, write its record."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from preserve.documents.layout import is_writable, layout_of
from preserve.documents.paths import closed
from preserve.documents.plan import Plan, PlannedStep
from preserve.documents.reach import Reach, unopened_inputs
from preserve.documents.record import Artifact, EngineUsed, ImageUsed, Machine, Record, step_key
from preserve.errors import DigestMismatch, MachineError
from preserve.interfaces import Engine, Execution, Mount, RunRequest
from preserve.operations.folder import Folder, artifact, link_file, pin_of, write_file
from preserve.operations.made_instead import made_instead, shown
from preserve.operations.watching import InputWatch
from preserve.stores.hashes import HashMemory
from preserve.stores.objects import ObjectStore

WORK = "/work"
LOGS = ("stdout", "stderr")
INTERRUPTED = "interrupted"  # the failure of a step that the user stopped


@dataclass(frozen=True, slots=True, kw_only=True)
class StepContext:
    """What all steps of a run share. ``run`` is the run's folder, ``label`` what its containers are marked with.

    ``images``: what is known of those its steps use, by name; ``trace_inputs``: watch which inputs each step opens.
    """

    folder: Folder
    plan: Plan
    run: Path
    engine: Engine
    engine_used: EngineUsed
    machine: Machine
    images: Mapping[str, ImageUsed]
    hashes: HashMemory
    store: ObjectStore
    label: str
    trace_inputs: bool = False


def run_step(
    context: StepContext, step: PlannedStep, read: tuple[Artifact, ...], source_of: Mapping[str, Path]
) -> Record:
    """Run one step and return its record, written to ``records/<step>.json`` of the run whatever came of it.

    ``read`` are its materials; ``source_of`` says where their bytes lie. A step that fails has ``failure`` set or an
    exit code other than 0, and no products.

    Raises:
        DigestMismatch: a file that the step reads is not (or was not to the end) what it was when the run began.
        MachineError: the engine could not start the container, or the disk is full.
    """
    work = context.run / "work" / step.id
    try:
        return _recorded(context, step, read, source_of, work)
    except MachineError as error:
        raise MachineError(f"step {step.id}: {error.message}", hint=error.hint) from error
    except OSError as error:
        where = error.filename or context.run
        raise MachineError(f"step {step.id}: {error.strerror}: {where}", hint=f"see: df -h {where}") from error
    finally:
        remove_work(work)


def _recorded(
    context: StepContext, step: PlannedStep, read: tuple[Artifact, ...], source_of: Mapping[str, Path], work: Path
) -> Record:
    logs = context.run / "logs" / step.id
    logs.mkdir(parents=True, exist_ok=True)
    mounts = lay_out(step, {a.path: source_of[a.path] for a in read}, work)
    laid_out = _laid_out(read, mounts, work)
    given = {path: _inode(place) for path, place in laid_out.items()}
    _require_unchanged(context, step, read, source_of, laid_out)
    started, clock = datetime.now(UTC), time.monotonic()
    request = request_of(context.plan, step, mounts, label=context.label)
    watch = _watch(context, laid_out, work)
    with watch, (logs / "stdout").open("wb") as stdout, (logs / "stderr").open("wb") as stderr:
        execution = context.engine.run(request, stdout=stdout, stderr=stderr)
    seconds = time.monotonic() - clock
    if not execution.stopped:
        # a mounted file that was replaced by another meanwhile is still the one that was mounted
        same = tuple(one for one in read if _inode(laid_out[one.path]) == given[one.path])
        _require_unchanged(context, step, same, source_of, laid_out)
    products, failure = _collect(context, step, read, work, execution)
    if failure is None:
        _write_reach(context, step, read, watch, work)
    image = context.images[step.image]
    record = Record(
        step=step.id,
        key=step_key(step, image.config_digest, read),
        command=step.command,
        environment=step.environment,
        image=image,
        engine=context.engine_used,
        machine=context.machine,
        materials=read,
        products=products,
        network=step.network,
        network_attempts=execution.network_attempts,
        started=_utc(started),
        ended=_utc(datetime.now(UTC)),
        exit_code=execution.exit_code,
        wall_seconds=round(seconds, 6),
        cpu_seconds=execution.cpu_seconds,
        peak_memory=execution.peak_memory,
        logs={name: artifact(f"logs/{step.id}/{name}", context.store.keep(logs / name)) for name in LOGS},
        failure=failure,
    )
    written = context.run / "records" / f"{step.id}.json"
    write_file(written, record.to_bytes())
    if failure is None:
        link_file(written, context.folder.record_of(record.key))
    return record


def _laid_out(read: tuple[Artifact, ...], mounts: tuple[Mount, ...], work: Path) -> dict[str, Path]:
    """Where the files lie that a step sees: links that were made for it, or what is mounted from elsewhere."""
    elsewhere = {m.target.removeprefix(f"{WORK}/"): m.source for m in mounts if not m.source.is_relative_to(work)}
    return {one.path: elsewhere.get(one.path, work / "in" / one.path) for one in read}


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


def _require_unchanged(
    context: StepContext,
    step: PlannedStep,
    read: tuple[Artifact, ...],
    source_of: Mapping[str, Path],
    laid_out: Mapping[str, Path],
) -> None:
    """See that the step reads what its record will say: the author may have saved a file since the run began."""
    for one in read:
        if not context.hashes.is_still(source_of[one.path], pin_of(one), at=laid_out[one.path]):
            raise DigestMismatch(
                f"step {step.id}: {one.path} was changed while the run went on; what the step made of it is not kept",
                hint="run the same command again: it begins with the files as they are then",
            )


def lay_out(step: PlannedStep, sources: Mapping[str, Path], work: Path) -> tuple[Mount, ...]:
    """Prepare what a step sees at /work below the folder ``work``, and return the mounts, outer before inner.

    Inputs are hard links in ``in/``, mounted read-only; the folders of its outputs are empty and writable in ``out/``;
    an input that stands in such a folder is mounted over it, read-only. Files come in the order of ``sources``.

    Raises:
        OSError: no room or no right to write.
    """
    inside, outside = work / "in", work / "out"
    inside.mkdir(parents=True)
    outside.mkdir()
    direct = {path: source for path, source in sources.items() if not _link(source, inside / path)}
    layout = layout_of(tuple(sources), step.outputs)
    for name in layout.writable:
        (outside / name).mkdir(parents=True, exist_ok=True)
    mounts: list[Mount] = []
    if "." in layout.writable:
        mounts.append(Mount(source=outside, target=WORK, read_only=False))
    else:
        for name in layout.writable:
            (inside / name).mkdir(parents=True, exist_ok=True)
        mounts.append(Mount(source=inside, target=WORK))
        mounts += [Mount(source=outside / name, target=f"{WORK}/{name}", read_only=False) for name in layout.mounted]
    for path in layout.islands:
        if path not in direct:
            _place_for_mount(outside / path, folder=(inside / path).is_dir())
            mounts.append(Mount(source=inside / path, target=f"{WORK}/{path}"))
    for path, source in sorted(direct.items()):
        place = outside if is_writable(path, layout.writable) else inside
        _place_for_mount(place / path, folder=False)
        mounts.append(Mount(source=source, target=f"{WORK}/{path}"))
    return tuple(mounts)


def _watch(context: StepContext, laid_out: Mapping[str, Path], work: Path) -> InputWatch | contextlib.nullcontext[None]:
    """Watch the inputs as they are laid out, if that is asked for."""
    if not context.trace_inputs:
        return contextlib.nullcontext()
    elsewhere = {path: place for path, place in laid_out.items() if not place.is_relative_to(work)}
    return InputWatch(work / "in", elsewhere)


def _write_reach(
    context: StepContext,
    step: PlannedStep,
    read: tuple[Artifact, ...],
    watch: InputWatch | contextlib.nullcontext[None],
    work: Path,
) -> None:
    """Write ``reach/<step>.json`` of the run if the step did not keep to its declaration."""
    files = tuple(one.path for one in read)
    unopened: tuple[str, ...] = ()
    if isinstance(watch, InputWatch):
        unopened = unopened_inputs(tuple(one.path for one in step.inputs), watch.unopened(files), files)
    reach = Reach(
        step=step.id,
        unopened=unopened,
        strays=tuple(shown(path) for path in _strays(work / "out", frozenset(files))),
    )
    if reach.lines:
        write_file(reach_file(context.run, step.id), reach.to_bytes())


def reach_file(run: Path, step: str) -> Path:
    """Where a run's folder says what a step did beyond its declaration."""
    return run / "reach" / f"{step}.json"


def _strays(top: Path, inputs: frozenset[str]) -> tuple[str, ...]:
    """Files left below ``top`` once the products are gone, other than those that inputs were mounted over."""
    found = (Path(parent, name).relative_to(top).as_posix() for parent, _, names in os.walk(top) for name in names)
    return tuple(sorted(path for path in found if path not in inputs))


def request_of(plan: Plan, step: PlannedStep, mounts: tuple[Mount, ...], *, label: str) -> RunRequest:
    """Ask an engine for a step as it is planned; ``label`` is what its container is marked with."""
    return RunRequest(
        image=plan.images[step.image],
        command=step.command,
        environment=step.environment,
        mounts=mounts,
        working_folder=WORK,
        network=step.network,
        resources=step.resources,
        label=label,
    )


def _link(source: Path, target: Path) -> bool:
    """Link a file where the step will find it; ``False`` where it has to be mounted by itself."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(strict=True), target)
    except OSError:  # another file system, or somebody else's file
        return False
    return True


def _place_for_mount(path: Path, *, folder: bool) -> None:
    """Make the empty file or folder that a mount goes over."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if folder:
        path.mkdir(exist_ok=True)
    elif not path.exists():
        path.touch()


def _collect(
    context: StepContext, step: PlannedStep, read: tuple[Artifact, ...], work: Path, execution: Execution
) -> tuple[tuple[Artifact, ...], str | None]:
    """Take the products into the store; the reason when the step failed."""
    if execution.stopped:
        return (), INTERRUPTED
    if execution.timed_out:
        return (), f"timed out after {step.resources.time} s"
    if execution.exit_code != 0:
        return (), f"exit code {execution.exit_code}"
    found: list[Artifact] = []
    for output in step.outputs:
        files, problem = product_files(work / "out", output)
        if problem == _missing(output):
            return (), f"{problem}; {made_instead(output, _undeclared(step, read, work))}"
        if problem:
            return (), problem
        found += [artifact(path, context.store.take(work / "out" / path)) for path in files]
    return tuple(sorted(found, key=lambda a: a.path)), None


def product_files(top: Path, output: str) -> tuple[list[str], str | None]:
    """Give the files of one declared product below ``top``; or what is wrong with it."""
    if problem := _led_astray(top, output):
        return [], problem
    if not output.endswith("/"):
        problem = _problem(top / output, output)
        return [] if problem else [output], problem
    files = []
    for parent, folders, names in os.walk(top / output):
        for name in (*folders, *names):
            path = Path(parent) / name
            relative = path.relative_to(top).as_posix()
            if problem := _problem(path, relative, folder=name in folders):
                return [], problem
            if name not in folders:
                files.append(relative)
    return sorted(files), None if files else _missing(output)


def _missing(output: str) -> str:
    """What is wrong with a product that is not there."""
    what = "left its product {} empty" if output.endswith("/") else "did not make its product {}"
    return f"the step ended well but {what.format(output)}"


def _undeclared(step: PlannedStep, read: tuple[Artifact, ...], work: Path) -> list[str]:
    """Files that a step left where it may write, other than its products."""
    left = _strays(work / "out", frozenset(one.path for one in read))
    folders = tuple(output for output in step.outputs if output.endswith("/"))
    return [path for path in left if path not in step.outputs and not path.startswith(folders)]


def _led_astray(top: Path, output: str) -> str | None:
    """A step may put a link in place of a folder that is to hold its product: what is behind it is not the step's."""
    place = top
    for part in PurePosixPath(output if output.endswith("/") else PurePosixPath(output).parent).parts:
        place /= part
        if place.is_symlink():
            name = place.relative_to(top).as_posix()
            return f"the step put a link in place of the folder {name}, where its product {output} was to be"
    return None


def _problem(path: Path, name: str, *, folder: bool = False) -> str | None:
    if any("\ud800" <= sign <= "\udfff" for sign in name):  # bytes that Python could not decode
        return f"its product {shown(name)} has a name that is not UTF-8: give it another one"
    if (inside := closed(name)) is not None:
        return f"its product {name} is {inside} or inside it, which git would obey: remove it in the step"
    try:
        mode = path.lstat().st_mode
    except OSError:
        return _missing(name)
    if (stat.S_ISDIR(mode) if folder else stat.S_ISREG(mode)) and not path.is_symlink():
        return None
    return f"its product {name} is not a plain {'folder' if folder else 'file'} (a link, a device or a folder)"


def remove_work(work: Path) -> None:
    """Remove a step's working folders; it may have taken its own rights to them."""
    try:
        shutil.rmtree(work)
    except FileNotFoundError:
        return
    except OSError:
        for parent, _, _ in os.walk(work):
            with contextlib.suppress(OSError):
                Path(parent).chmod(0o700)
        shutil.rmtree(work, ignore_errors=True)


def _utc(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
