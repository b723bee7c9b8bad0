"""preserve archive: one self-contained file of a run."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from preserve import __version__
from preserve.comparators.globs import matcher
from preserve.digest import Digest, FilePin, hash_file
from preserve.documents.archive import (
    BLOBS,
    BUNDLE,
    LOCK,
    PATCH,
    PLAN,
    PROBE,
    TAG_MANIFEST,
    WORKFLOW,
    Contents,
    contents_of,
    expected_files,
    record_name,
)
from preserve.documents.counted import some
from preserve.documents.lockfile import read_lock
from preserve.documents.plan import Plan, read_plan, shown_value
from preserve.documents.reading import read_workflow
from preserve.documents.record import Record, read_record
from preserve.errors import UserError
from preserve.interfaces import Progress
from preserve.oci import Image, Layout
from preserve.operations.derived import is_executable, payload_files, pin_of_bytes, tag_files, tag_manifest
from preserve.operations.fingerprints import find_fingerprint, take_fingerprints
from preserve.operations.folder import Folder
from preserve.operations.judged import refuse_rules_for_nothing, stored_version
from preserve.operations.origin import read_origin
from preserve.operations.places import Settings, bring
from preserve.renderers.wording import size
from preserve.sources import bundle, patch, uncommitted
from preserve.stores.crate_writer import Item, write_crate
from preserve.stores.hashes import HashMemory
from preserve.stores.objects import ObjectStore

RUN_AGAIN = "run: preserve run"


Sources = dict[str, tuple[FilePin, Path | bytes]]  # by name in the archive: content, and where its bytes are


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """Which run (``None``: the last one), what stays outside, and whether code that is not committed is stored too.

    ``without`` is a part of images, inputs, intermediates: these are then known by digest only. ``leave_out`` are
    patterns of products to leave out, results among them: these are known by their fingerprint as well.
    """

    run: str | None = None
    without: frozenset[str] = frozenset()
    leave_out: tuple[str, ...] = ()
    allow_dirty: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Archived:
    """What was written: the file, its id, size in bytes, completeness, and notes for the user."""

    path: Path
    archive_id: Digest
    size: int
    completeness: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """A finished run: its documents as they were written, read and as bytes (by name in the archive)."""

    folder: Path
    plan: Plan
    records: Mapping[str, Record]
    documents: Mapping[str, bytes]


def archive(folder: Folder, settings: Settings, target: Path, choices: Choices, *, progress: Progress) -> Archived:
    """Write the archive of a run to ``target``, which must not exist.

    Raises:
        UserError: nothing has run, the run did not finish, files changed since, code is not committed, or a rule for a
            result matches nothing in it.
        DigestMismatch: a product or an image is no longer what its digest says.
        MachineError: no room.
    """
    if target.exists():
        raise UserError(f"{target} exists already", hint="name another file: -o FILE, or remove it")
    with folder.held():
        hashes = folder.hashes()
        scratch = Path(tempfile.mkdtemp(dir=folder.state, prefix="archive-"))
        try:
            run = _finished_run(folder, choices.run)
            _refuse_changed(folder, run.plan, hashes)
            sources, notes = _code(folder, run, choices.allow_dirty, scratch)
            images = [] if "images" in choices.without else _images(folder, settings, run.plan, progress)
            sources |= _blobs(folder, images)
            contents = _contents(folder, run, choices)
            notes += [*_parameter_notes(run), *_left_out_notes(contents)]
            sources |= _analysis_files(folder, contents, hashes)
            sources |= _fingerprints(folder, contents, folder.store(hashes))
            _refuse_rules_for_nothing(folder, contents, hashes)
            tags = _complete(contents, run, images, sources)
            _write(target, sources, tags, progress)
        finally:
            hashes.save()
            shutil.rmtree(scratch, ignore_errors=True)
    return Archived(
        path=target,
        archive_id=Digest.of(tags[TAG_MANIFEST]),
        size=target.stat().st_size,
        completeness=contents.completeness,
        notes=tuple(notes),
    )


def _finished_run(folder: Folder, name: str | None) -> _Run:
    runs = folder.runs()
    chosen = [path for path in runs if name in (None, path.name)]
    if not chosen:
        names = ", ".join(path.name for path in runs[-5:])
        raise UserError(
            f"there is no run {name}" if name else "nothing has run here yet",
            hint=f"the last runs: {names}" if names else RUN_AGAIN,
        )
    path = chosen[-1]
    plan = read_plan((path / "plan.json").read_bytes(), str(path / "plan.json"))
    files = {step.id: path / "records" / f"{step.id}.json" for step in plan.steps}
    data = {step: file.read_bytes() for step, file in files.items() if file.exists()}
    records = {step: read_record(text, str(files[step])) for step, text in data.items()}
    if undone := [step for step in files if step not in records or records[step].failure is not None]:
        verb = "is" if len(undone) == 1 else "are"
        raise UserError(f"run {path.name} did not finish: {some(undone, 1)} {verb} not done", hint=RUN_AGAIN)
    documents = {
        WORKFLOW: (path / "preserve.yaml").read_bytes(),
        LOCK: (path / "preserve.lock").read_bytes(),
        PLAN: (path / "plan.json").read_bytes(),
        **{record_name(step): text for step, text in data.items()},
        **({PROBE: (path / "probe.json").read_bytes()} if (path / "probe.json").exists() else {}),
    }
    return _Run(folder=path, plan=plan, records=records, documents=documents)


def _refuse_rules_for_nothing(folder: Folder, contents: Contents, hashes: HashMemory) -> None:
    """No replay would accept such a rule."""
    store = folder.store(hashes)
    recorded = {path: stored_version(folder, store, path, contents.pins[path]) for path in contents.results}
    refuse_rules_for_nothing(contents.plan, recorded)


def _refuse_changed(folder: Folder, plan: Plan, hashes: HashMemory) -> None:
    """What the steps started from must still be there: only now is it too late to say so kindly."""
    inputs = {path: pin.sha256 for path, pin in plan.inputs.items()}
    pins = inputs | {path: pin.sha256 for path, pin in plan.sources.items()}
    for path, expected in pins.items():
        try:
            found = hashes.pin(folder.root / path).sha256
        except OSError as error:
            raise UserError(f"{path}, which the run read, cannot be read: {error.strerror}", hint=RUN_AGAIN) from error
        if found != expected:
            raise UserError(f"{path} changed since the run", hint=f"{RUN_AGAIN}, or bring the file back")


def _contents(folder: Folder, run: _Run, choices: Choices) -> Contents:
    origin = read_origin(folder)
    contents = contents_of(
        run.plan,
        read_lock(run.documents[LOCK], "preserve.lock"),
        run.records,
        agent=f"preserve {__version__}",
        without=choices.without,
        parent=origin.archive_id if origin else None,
    )
    return replace(contents, left_out=_left_out(contents, choices.leave_out))


def _left_out(contents: Contents, patterns: Iterable[str]) -> frozenset[str]:
    """Give the products that patterns name (``folder/``: all below it), but those that are not inside anyhow.

    Raises:
        UserError: a pattern names no product.
    """
    inside, found = expected_files(contents), set[str]()
    for pattern in patterns:
        fits = matcher(pattern + "**" if pattern.endswith("/") else pattern)
        named = [path for path in contents.products if fits(path)]
        if not named:
            others = any(map(fits, (*contents.plan.inputs, *contents.plan.sources)))
            hint = f"the products: {some(sorted(contents.products), 8)}"
            raise UserError(
                f"--leave-out {pattern}: no product is called so",
                hint="inputs can only be left out together: --without inputs" if others else hint,
            )
        found.update(path for path in named if contents.names[path] in inside)
    return frozenset(found)


def _parameter_notes(run: _Run) -> list[str]:
    """Say that the run was one with ``-p``: what a reader of preserve.yaml would not think."""
    declared = read_workflow(run.documents[WORKFLOW], "preserve.yaml").parameters
    other = [name for name, value in run.plan.parameters.items() if value != declared.get(name)]
    values = ", ".join(f"{name}={shown_value(run.plan.parameters[name])}" for name in other)
    return [f"this run was made with {values}, which preserve.yaml does not say"] if other else []


def _left_out_notes(contents: Contents) -> list[str]:
    saved = sum(contents.pins[path].size for path in contents.left_out)
    return [f"left out ({size(saved)}): {some(sorted(contents.left_out), 3)}"] if contents.left_out else []


def _fingerprints(folder: Folder, contents: Contents, store: ObjectStore) -> Sources:
    """Give the results' fingerprints; those of runs before there were fingerprints are taken now.

    Raises:
        UserError: a result is left out, and there is neither its fingerprint nor its bytes to take it of.
    """
    take_fingerprints(folder, contents.plan, contents.records.values(), store, look=True)
    found: Sources = {}
    for path, name in contents.fingerprints.items():
        known = find_fingerprint(folder, path, contents.pins[path])
        if known is not None:
            data = known.to_bytes()
            found[name] = (pin_of_bytes(data), data)
        elif path in contents.left_out:
            raise UserError(f"{path} is no longer in the store, and its fingerprint was never taken", hint=RUN_AGAIN)
    return found


def _complete(contents: Contents, run: _Run, images: list[Image], sources: Sources) -> dict[str, bytes]:
    """Add documents and derived files to ``sources``; give the tag files, the tag manifest last."""
    sources |= {name: (pin_of_bytes(data), data) for name, data in run.documents.items()}
    for name, data in payload_files(_with_payload(contents, sources), images).items():
        sources[name] = (pin_of_bytes(data, executable=is_executable(name)), data)
    tags = dict(tag_files(_with_payload(contents, sources)))
    tags[TAG_MANIFEST] = tag_manifest(tags)
    return tags


def _write(target: Path, sources: Sources, tags: Mapping[str, bytes], progress: Progress) -> None:
    items = [Item(name=name, pin=pin, source=source) for name, (pin, source) in sorted(sources.items())]
    items += [Item(name=name, pin=pin_of_bytes(data), source=data) for name, data in tags.items()]
    write_crate(target, items, progress=progress)


def _with_payload(contents: Contents, sources: Sources) -> Contents:
    return replace(contents, payload={name: pin for name, (pin, _) in sorted(sources.items())})


def _analysis_files(folder: Folder, contents: Contents, hashes: HashMemory) -> Sources:
    """Inputs and code from the folder, products and logs from the store."""
    store = folder.store(hashes)
    paths = {name: path for path, name in contents.names.items()}
    products = contents.products
    found: Sources = {}
    for name, pin in expected_files(contents).items():
        path = paths.get(name)
        if path is not None and path not in products:
            found[name] = (pin, folder.root / path)
        elif store.holds(pin):
            found[name] = (pin, store.path(pin))
        else:
            raise UserError(f"{path or name} is no longer in the store", hint="run: preserve run")
    return found


def _code(folder: Folder, run: _Run, allow_dirty: bool, scratch: Path) -> tuple[Sources, list[str]]:
    """Give the history of the code, and what of it was not committed when it was locked."""
    plan = run.plan
    if plan.source is None:
        return {}, ["the analysis is not under git: the archive holds the files that steps read, without their history"]
    origin = read_origin(folder)
    if origin is not None:
        return {name: (origin.code[name], path) for name, path in origin.files.items()}, []
    made = (*plan.inputs, *folder.placed())
    declared = pin_of_bytes(run.documents[WORKFLOW], executable=os.access(folder.workflow_file, os.X_OK))
    files = {**plan.sources, folder.workflow_file.name: declared}
    changed = uncommitted(folder.root, plan.source, files, not_code=made)
    if changed and not allow_dirty:
        verb, it = ("is", "it") if len(changed) == 1 else ("are", "them")
        raise UserError(
            f"{some(changed, 1)} {verb} not what commit {plan.source.commit[:12]} has",
            hint=f"commit {it}, if that is not done, then: preserve lock && preserve run; or store the changes as a "
            "patch: --allow-dirty",
        )
    file = scratch / "code.bundle"
    bundle(folder.root, plan.source.commit, file)
    found: Sources = {BUNDLE: (replace(hash_file(file), executable=False), file)}
    if changed:
        data = patch(folder.root, plan.source.commit, changed)
        found[PATCH] = (pin_of_bytes(data), data)
    return found, [f"uncommitted changes are stored as a patch: {', '.join(changed[:3])}"] if changed else []


def _images(folder: Folder, settings: Settings, plan: Plan, progress: Progress) -> list[Image]:
    layout = Layout(folder.layout)
    used = {step.image for step in plan.steps}
    for name in sorted(used):
        bring(plan.images[name], folder, settings, progress)
    digests = sorted({plan.images[name].manifest_digest for name in used})
    return [layout.image(digest) for digest in digests]


def _blobs(folder: Folder, images: Iterable[Image]) -> Sources:
    layout = Layout(folder.layout)
    return {
        BLOBS + blob.digest.hex: (FilePin(sha256=blob.digest, size=blob.size), layout.blob(blob.digest))
        for image in images
        for blob in image.blobs
    }
