"""preserve replay: run what an archive holds again, here, and say whether the result is the same."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from preserve.digest import hash_file
from preserve.documents.archive import BUNDLE, OCI, PATCH, Contents, is_result
from preserve.documents.changes import beginnings, changed_plan, changes
from preserve.documents.comparison import Comparison, Judged
from preserve.documents.plan import Plan
from preserve.documents.verification import Verification
from preserve.errors import DigestMismatch, Interrupted, MachineError, UserError
from preserve.interfaces import Progress
from preserve.operations.causes import causes
from preserve.operations.dumping import Dumper
from preserve.operations.folder import Folder, Situation, pin_of, write_file
from preserve.operations.judged import (
    Pair,
    Version,
    archived_versions,
    declared_policy,
    judged,
    recorded_files,
    refuse_rules_for_nothing,
)
from preserve.operations.opened import Opened, open_archive
from preserve.operations.origin import code_file, is_replayed, write_origin
from preserve.operations.places import Settings, bring
from preserve.operations.recast import situation_of
from preserve.operations.replay_choices import (
    Choices,
    files_of,
    is_inside,
    may_run,
    refuse_left_out,
    refuse_network,
    steps_to_run,
)
from preserve.operations.run import Options, Outcome, run_plan
from preserve.operations.run_state import RunState
from preserve.operations.sides import archived_probe
from preserve.operations.verify import Choices as Checks
from preserve.operations.verify import require_intact, verify
from preserve.scheduler.chain import Scheduler
from preserve.stores.unpacking import unpack


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What came of it: how far the archive is trusted, the comparison, which steps ran here, where the products are."""

    verification: Verification
    comparison: Comparison
    ran: tuple[str, ...]
    folder: Path | None


def replay(
    path: Path, settings: Settings, choices: Choices, *, progress: Progress, say: Callable[[str], None]
) -> Replayed:
    """Verify the archive, run its plan from its own bytes, and compare the results with the recorded ones.

    Raises:
        UserError: no such archive, step, parameter or input; --only and --from; the folder to keep is not empty.
        DigestMismatch: the archive is damaged, or not signed by whom it should be. Nothing was run.
        StepFailed: a step failed here.
        MachineError: no engine, no room.
        Interrupted: the user stopped it.
    """
    if choices.only and choices.start is not None:
        raise UserError("--only and --from do not go together", hint="--only names each step to run; --from the first")
    verification = _verified(path, settings, choices, progress)
    say(f"archive {verification.archive_id}: {verification.trust}")
    with contextlib.ExitStack() as stack:
        opened = stack.enter_context(open_archive(path))
        _require_same(path, opened, verification)
        situation = situation_of(opened, choices)
        changed = situation.plan != opened.contents.plan
        chosen = steps_to_run(situation.plan, choices, recast=changed)
        if not choices.network:
            refuse_network(situation.plan, may_run(opened.contents, situation.plan, chosen, choices))
        _refuse_rules_for_nothing(opened)
        _require_inputs(opened, choices)
        refuse_left_out(opened.contents, situation.plan, choices, chosen)
        folder = stack.enter_context(_working_folder(choices.keep))
        stack.enter_context(folder.held())
        scheduler = stack.enter_context(Scheduler(settings.environment))
        scheduler.prepare()
        _lay_out(opened, folder, situation, settings, choices, progress)
        state = RunState.at_start(folder, situation, folder.hashes())
        _seed(opened, state, chosen, progress)
        outcome = _run(state, settings, choices, scheduler, progress, say)
        pairs = _pairs(opened.contents, folder, outcome, chosen, choices)
        dumper = Dumper(folder=folder, plan=outcome.plan, settings=settings, progress=progress, say=say)
        comparison = replace(_compared(opened, outcome, _judged(opened, pairs, dumper)), recast=changed)
    return Replayed(verification=verification, comparison=comparison, ran=outcome.ran, folder=choices.keep)


def _verified(path: Path, settings: Settings, choices: Choices, progress: Progress) -> Verification:
    checks = Checks(
        allowed_signers=choices.allowed_signers,
        require_signature=choices.require_signature,
        search_path=settings.search_path,
    )
    verification = verify(path, checks, progress=progress)
    require_intact(path, verification, done="run")
    return verification


def _run(
    state: RunState,
    settings: Settings,
    choices: Choices,
    scheduler: Scheduler,
    progress: Progress,
    say: Callable[[str], None],
) -> Outcome:
    options = Options(jobs=choices.jobs, only=choices.only, fingerprints=choices.keep is not None)
    try:
        return run_plan(state, settings, options, scheduler=scheduler, progress=progress, say=say)
    except Interrupted as error:
        raise Interrupted(error.message, hint=_after_interruption(choices.keep)) from error
    finally:
        state.hashes.save()


def _after_interruption(keep: Path | None) -> str:
    """Say how to go on: the same command would refuse a folder that is not empty any more."""
    if keep is None:
        return "nothing of it is left; the same command begins anew (with --keep FOLDER, what is done stays)"
    return f"rm -r {shlex.quote(str(keep))}, and the same command begins anew"


def _require_same(path: Path, opened: Opened, verification: Verification) -> None:
    """See that what is read from now on is what was verified: every byte hangs on the archive's id."""
    if opened.archive_id != verification.archive_id:
        raise DigestMismatch(f"{path} changed while it was verified; nothing was run", hint="leave it alone meanwhile")


@contextlib.contextmanager
def _working_folder(keep: Path | None) -> Iterator[Folder]:
    """Yield an analysis folder to work in; without ``keep`` it is removed afterwards."""
    if keep is not None:
        keep = keep.absolute()
        if keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
            raise UserError(f"{keep} exists and is not an empty folder", hint=_another_place(keep))
        keep.mkdir(parents=True, exist_ok=True)
        yield Folder(root=keep)
        return
    temporary = Path(tempfile.mkdtemp(prefix="preserve-replay-")).resolve()
    try:
        yield Folder(root=temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _another_place(keep: Path) -> str:
    """Say where to replay instead; what a replay left may go, and nobody is told to remove another folder."""
    another = "name a new one: --keep FOLDER"
    if not is_replayed(Folder(root=keep)):
        return another
    return f"a replay left it: rm -r {shlex.quote(str(keep))}, or {another}"


def _refuse_rules_for_nothing(opened: Opened) -> None:
    contents = opened.contents
    with recorded_files(opened, contents.results) as files:
        known = archived_versions(opened, files)
        refuse_rules_for_nothing(contents.plan, {path: known[path] for path in contents.results})


def _lay_out(
    opened: Opened, folder: Folder, situation: Situation, settings: Settings, choices: Choices, progress: Progress
) -> None:
    """Put images, inputs, code and documents where a run looks for them."""
    contents = opened.contents
    write_origin(folder, opened.archive_id)  # first: what an interruption leaves is known for a replay's
    places = {contents.names[path]: path for path in situation.pins if path not in choices.inputs}
    places |= {name: _below(folder, code_file(folder, name)) for name in (BUNDLE, PATCH)}
    images = _below(folder, folder.layout)
    places |= {name: f"{images}/{name.removeprefix(OCI)}" for name in contents.payload if name.startswith(OCI)}
    inside = {name: contents.payload[name] for name in places if name in contents.payload}
    unpack(opened.store, folder.root, inside, places={name: places[name] for name in inside}, progress=progress)
    for path, file in choices.inputs.items():
        (folder.root / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, folder.root / path)
        if hash_file(folder.root / path).sha256 != situation.pins[path].sha256:
            raise DigestMismatch(f"{file} changed while it was copied to {path}", hint="leave it alone meanwhile")
        (folder.root / path).chmod(0o755 if situation.pins[path].executable else 0o644)
    for name, data in situation.documents.items():
        write_file(folder.root / name, data)
    if "images" in contents.without:
        _fetch_images(folder, situation.plan, settings, progress)


def _fetch_images(folder: Folder, plan: Plan, settings: Settings, progress: Progress) -> None:
    """Get the images of an archive without images from where they came, each by its digest."""
    for name in sorted({step.image for step in plan.steps}):
        pin = plan.images[name]
        try:
            bring(pin, folder, settings, progress)
        except (UserError, MachineError) as error:
            raise MachineError(
                f"the archive was made without images, and {name} ({pin.manifest_digest}) cannot be had from "
                f"{pin.reference}: {error.message}",
                hint="ask its author for an archive with images",
            ) from error


def _below(folder: Folder, path: Path) -> str:
    return path.relative_to(folder.root).as_posix()


def _require_inputs(opened: Opened, choices: Choices) -> None:
    """Say which inputs an archive without inputs needs."""
    contents = opened.contents
    missing = [path for path in contents.plan.inputs if path not in choices.inputs and not contents.holds(path)]
    if missing:
        pin = contents.plan.inputs[missing[0]]
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise UserError(
            f"the archive was made without inputs: {missing[0]} ({pin.sha256}) is needed{more}",
            hint=f"get it from {pin.url or 'its author'}, then: --input {missing[0]}=FILE",
        )


def _seed(opened: Opened, state: RunState, chosen: frozenset[str], progress: Progress) -> None:
    """Take products, logs and records of the archive as if all steps but the chosen ones had run here."""
    contents, scratch = opened.contents, state.folder.state / "seed"
    for step in sorted(contents.records.keys() - chosen):
        record = contents.records[step]
        if not is_inside(contents, record):
            continue  # left out when the archive was made: the step has to run
        files = files_of(contents, record)
        unpack(opened.store, scratch, {name: contents.payload[name] for name in files}, progress=progress)
        for name in files:
            if (scratch / name).exists():  # two names of one log
                state.store.take(scratch / name)
        shutil.rmtree(scratch)
        write_file(state.folder.record_of(record.key), record.to_bytes())


def _compared(opened: Opened, outcome: Outcome, results: tuple[Judged, ...]) -> Comparison:
    """Add to the verdicts what else is not the same; a step that did not run here is as it was recorded."""
    before = opened.contents.records
    return Comparison(
        results=results,
        changes=changed_plan(opened.contents.plan, outcome.plan) + changes(before, {**before, **outcome.records}),
        begins_in=beginnings(before, outcome.records),
        causes=causes(results, archived_probe(opened)),
    )


def _pairs(
    contents: Contents, folder: Folder, outcome: Outcome, chosen: frozenset[str], choices: Choices
) -> list[Pair]:
    """Pair the results; of ``--only``, those of the chosen steps, or all their products if they make no result.

    Found files lie in the replayed folder, where the run has put them; recorded ones are still in the archive.
    """
    recorded = {p.path: p for s, r in contents.records.items() if _counts(s, chosen, choices) for p in r.products}
    found = {p.path: p for s, r in outcome.records.items() if _counts(s, chosen, choices) for p in r.products}
    paths = sorted(recorded.keys() | found.keys())
    results = [path for path in paths if is_result(outcome.plan, path) or is_result(contents.plan, path)]
    pairs = []
    for path in results or paths:
        declared, policy = declared_policy(outcome.plan, path)
        before = Version(pin=pin_of(recorded[path]), file=None) if path in recorded else None
        after = Version(pin=pin_of(found[path]), file=folder.root / path) if path in found else None
        pairs.append(Pair(path=path, declared=declared, policy=policy, recorded=before, found=after))
    return pairs


def _judged(opened: Opened, pairs: list[Pair], dumper: Dumper) -> tuple[Judged, ...]:
    """Take the recorded files out of the archive for as long as it takes to judge."""
    with recorded_files(opened, [pair.path for pair in pairs]) as files, dumper:
        known = archived_versions(opened, files)
        at_hand = [replace(pair, recorded=known[pair.path]) if pair.recorded else pair for pair in pairs]
        return judged([dumper.read(pair) for pair in at_hand])


def _counts(step: str, chosen: frozenset[str], choices: Choices) -> bool:
    return not choices.only or step in chosen
