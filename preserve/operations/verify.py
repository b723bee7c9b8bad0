"""preserve verify: is an archive intact, complete, signed? Needs no engine and no network."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Set
from dataclasses import dataclass, field
from pathlib import Path

from preserve import signatures
from preserve.digest import Digest, FilePin
from preserve.documents import bag
from preserve.documents.archive import (
    BAG_INFO,
    BLOBS,
    BUNDLE,
    DATA,
    LOCK,
    MANIFEST,
    PATCH,
    PLAN,
    PROBE,
    SIGNATURES,
    TAG_FILES,
    TAG_MANIFEST,
    WORKFLOW,
    Contents,
    expected_files,
    record_name,
)
from preserve.documents.consistency import contradictions, missing_files, other_plan, shown_content
from preserve.documents.fingerprint import read_fingerprint
from preserve.documents.probe import read_probe
from preserve.documents.verification import Finding, Verification
from preserve.errors import DigestMismatch, MachineError, PreserveError
from preserve.interfaces import Progress
from preserve.oci import Image
from preserve.operations.derived import is_executable, payload_files, pin_of_bytes, tag_files
from preserve.operations.opened import open_store, read, read_contents
from preserve.sources import check_bundle
from preserve.stores.crate_zip import CrateZip
from preserve.stores.damage import Damaged, damaged
from preserve.stores.image_graph import archived_images, layer_faults
from preserve.stores.unpacked import UnpackedArchive
from preserve.stores.unpacking import hashed

MAX_SIGNATURES = 100  # each costs a process or two of ssh-keygen


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """How closely to look, and whose signatures count.

    ``deep`` unpacks image layers and the code's history; ``allowed_signers`` is a file as ssh-keygen(1) describes it;
    ``search_path`` is where programs (ssh-keygen, git) are looked for.
    """

    deep: bool = False
    allowed_signers: Path | None = None
    require_signature: bool = False
    search_path: str = ""


@dataclass(slots=True)
class _Inspection:
    """An archive under inspection: what is known of it so far."""

    store: CrateZip | UnpackedArchive
    choices: Choices
    progress: Progress
    pins: dict[str, FilePin] = field(default_factory=dict)  # of all files, as they are
    contents: Contents | None = None
    signed_by: tuple[str, ...] = ()


def verify(path: Path, choices: Choices, *, progress: Progress) -> Verification:
    """Look at every byte of an archive (or of the folder it was unpacked to), and name every fault.

    Raises:
        UserError: there is no such file.
        MachineError: it cannot be read.
    """
    try:
        store = open_store(path)
    except Damaged as error:
        return Verification(archive_id=None, completeness="unknown", findings=(error.finding,))
    with store:
        inspection = _Inspection(store=store, choices=choices, progress=progress)
        findings = tuple(dict.fromkeys(_findings(inspection)))
        found, contents = inspection.pins.get(TAG_MANIFEST), inspection.contents
        return Verification(
            archive_id=found.sha256 if found else None,
            completeness=contents.completeness if contents else "unknown",
            left_out=tuple(sorted(contents.left_out)) if contents else (),
            findings=findings,
            signed_by=inspection.signed_by,
            signers_given=choices.allowed_signers is not None,
            signatures=sum(name.startswith(SIGNATURES) for name in store.files()),
        )


def require_intact(path: Path, verification: Verification, *, done: str) -> None:
    """Go no further with an archive that has findings; ``done`` is what was not done with it (run, signed).

    Raises:
        DigestMismatch: it is damaged, or not signed as required; the message has the first findings.
    """
    if verification.intact:
        return
    lines = [str(finding) for finding in verification.findings[:10]]
    more = len(verification.findings) - len(lines)
    if more > 0:
        lines.append(f"and {more} more")
    again, sign = "get the archive again from where it came from", "preserve verify --allowed-signers F says who signed"
    raise DigestMismatch(
        f"{path} is refused ({verification.trust}); nothing was {done}\n" + "\n".join(lines),
        hint=again if verification.damaged else sign,
    )


def _findings(inspection: _Inspection) -> Iterator[Finding]:
    """Yield the faults; what only follows from one that was named is not named again."""
    damage = (*inspection.store.check_form(), *_hash_all(inspection), *_check_bag(inspection))
    yield from damage
    named = {finding.path for finding in damage}
    yield from (finding for finding in _check_documents(inspection, named) if finding.path not in named)
    yield from _check_signatures(inspection)


def _hash_all(inspection: _Inspection) -> Iterator[Finding]:
    """Hash every file; what is found stays for all that follows."""
    for name, result in hashed(inspection.store, tuple(inspection.store.files()), progress=inspection.progress):
        if isinstance(result, Damaged):
            yield result.finding
        else:
            inspection.pins[name] = result


def _check_bag(inspection: _Inspection) -> Iterator[Finding]:
    """Compare the two manifests with the files that are there."""
    files = inspection.store.files()
    tags = {name for name in files if not name.startswith((DATA, SIGNATURES)) and name != TAG_MANIFEST}
    yield from _check_manifest(inspection, TAG_MANIFEST, tags | set(TAG_FILES))
    yield from _check_manifest(inspection, MANIFEST, {name for name in files if name.startswith(DATA)})


def _check_manifest(inspection: _Inspection, table: str, wanted: set[str]) -> Iterator[Finding]:
    if table not in inspection.store.files():
        yield Finding(path=table, problem="is not in the archive")
        return
    try:
        listed, faults = bag.read_manifest(_read_again(inspection, table), table)
    except Damaged as error:
        yield error.finding
        return
    for fault in faults:
        yield Finding(path=table, problem=f"line {fault.line}: {fault.message}")
    files = inspection.store.files()
    for name in sorted(listed.keys() | wanted):
        found = inspection.pins.get(name)
        if name not in listed:
            yield Finding(path=name, problem=f"is not listed in {table}")
        elif name not in files:
            yield Finding(path=name, problem="is not in the archive", expected=listed[name])
        elif found is not None and found.sha256 != listed[name]:
            yield Finding(
                path=name, problem="has other content than the manifest says", expected=listed[name], found=found.sha256
            )


def _read_again(inspection: _Inspection, name: str) -> bytes:
    """Read a file that was hashed before: what is judged must be what was hashed.

    Raises:
        Damaged: it cannot be read, or is another now.
    """
    data, hashed_before = read(inspection.store, name), inspection.pins.get(name)
    if hashed_before is not None and Digest.of(data) != hashed_before.sha256:
        raise damaged(name, "changed while it was verified", hashed_before.sha256, Digest.of(data))
    return data


def _check_documents(inspection: _Inspection, named: Collection[str]) -> Iterator[Finding]:
    """Read plan, lock and records; check them, what they call for, and what is derived from them.

    ``named`` files are known to be damaged: with one of the payload among them there is nothing to derive from.
    """
    store = inspection.store
    payload = {name: pin for name, pin in inspection.pins.items() if name.startswith(DATA)}
    try:
        inspection.contents = contents = read_contents(store, payload)
    except Damaged as error:
        yield error.finding
        return
    except PreserveError as error:
        yield Finding(path=BAG_INFO, problem=error.message)
        return
    if found := (*_check_workflow(inspection, contents), *contradictions(contents)):
        yield from found  # nothing can be derived from documents that do not go together
        return
    yield from missing_files(contents)
    yield from _check_probe(inspection, contents)
    yield from _check_fingerprints(inspection, contents)
    pins = {step.image: contents.plan.images[step.image] for step in contents.plan.steps}
    images: list[Image] = []
    if "images" not in contents.without:
        images, faults = archived_images(store, pins.values(), payload)
        yield from faults
    if inspection.choices.deep:
        yield from layer_faults(store, images)
        yield from _check_code(inspection, contents)
    if not any(name.startswith(DATA) for name in named):
        yield from _check_derived(inspection, contents, images)


def _check_workflow(inspection: _Inspection, contents: Contents) -> Iterator[Finding]:
    try:
        yield from other_plan(contents, _read_again(inspection, WORKFLOW))
    except Damaged as error:
        yield error.finding


def _check_probe(inspection: _Inspection, contents: Contents) -> Iterator[Finding]:
    """Read the probe, if there is one: it must be of this plan, in the one form that it has."""
    if PROBE not in contents.payload:
        return
    try:
        data = _read_again(inspection, PROBE)
        probe = read_probe(data, PROBE)
    except Damaged as error:
        yield error.finding
        return
    except PreserveError as error:
        yield Finding(path=PROBE, problem=error.message)
        return
    planned = {step.id for step in contents.plan.steps}
    if strange := [step.step for step in probe.steps if step.step not in planned]:
        yield Finding(path=PROBE, problem=f"probes a step that the plan has not: {strange[0]}")
    if probe.to_bytes() != data:
        yield Finding(path=PROBE, problem="is not in the form that preserve writes")


def _check_fingerprints(inspection: _Inspection, contents: Contents) -> Iterator[Finding]:
    """Read the results' fingerprints: each must be of the content that the record names, in the one form they have."""
    for path, name in contents.fingerprints.items():
        if name not in contents.payload:
            if path in contents.left_out:
                yield Finding(path=name, problem="is not in the archive, and the result was left out")
            continue
        try:
            found = read_fingerprint(_read_again(inspection, name), name)
        except Damaged as error:
            yield error.finding
        except PreserveError as error:
            yield Finding(path=name, problem=error.message.removeprefix(f"{name}: "))
        else:
            pin = contents.pins[path]
            if (found.sha256, found.size) != (pin.sha256, pin.size):
                problem = "is the fingerprint of another content than the record names"
                expected, other = (f"{one.sha256} ({one.size} bytes)" for one in (pin, found))
                yield Finding(path=name, problem=problem, expected=expected, found=other)


def _check_code(inspection: _Inspection, contents: Contents) -> Iterator[Finding]:
    """Look into the code's history with git, in a repository that is thrown away."""
    source = contents.plan.source
    if contents.bundled and source is not None:
        with inspection.store.open(BUNDLE) as stream:
            yield from check_bundle(stream, source, search_path=inspection.choices.search_path)


def _check_derived(inspection: _Inspection, contents: Contents, images: list[Image]) -> Iterator[Finding]:
    """Make again what the archive has for readers, and compare; then look at what was not compared with anything."""
    made = payload_files(contents, images)
    tags = tag_files(contents)
    for name, data in (*made.items(), *tags.items()):
        expected = pin_of_bytes(data, executable=is_executable(name))
        found = inspection.pins.get(name)
        if name not in inspection.store.files():
            yield Finding(path=name, problem="is not in the archive", expected=expected.sha256)
        elif found is not None and found != expected:
            yield Finding(
                path=name,
                problem="is not what plan, lock and records give",
                expected=shown_content(expected),
                found=shown_content(found),
            )
    compared = {*made, *tags, *expected_files(contents)}
    yield from _check_strays(contents, compared)
    for name, pin in inspection.pins.items():
        if pin.executable and name not in compared:
            yield Finding(path=name, problem="is marked as a program, and is none")


def _check_strays(contents: Contents, compared: Set[str]) -> Iterator[Finding]:
    """Look for files that nothing calls for, beyond those that were compared with what they must be."""
    called_for = {*compared, WORKFLOW, LOCK, PLAN, PROBE, *(record_name(step) for step in contents.records)}
    called_for |= {BUNDLE, PATCH} if contents.plan.source else set()
    called_for |= set(contents.fingerprints.values())
    followed = "images" not in contents.without  # blobs, from the images on
    for name in sorted(contents.payload.keys() - called_for):
        if not (followed and name.startswith(BLOBS)):
            yield Finding(path=name, problem="nothing in the archive calls for this file")


def _check_signatures(inspection: _Inspection) -> Iterator[Finding]:
    """Check each signature over the tag manifest; whose it is matters only if allowed signers are named."""
    store, choices = inspection.store, inspection.choices
    names = [name for name in store.files() if name.startswith(SIGNATURES)]
    if len(names) > MAX_SIGNATURES:
        yield Finding(path=SIGNATURES, problem=f"has more than {MAX_SIGNATURES} signatures: the rest is not looked at")
    signers = []
    for name in names[:MAX_SIGNATURES] if TAG_MANIFEST in store.files() else ():
        try:
            signature = _read_again(inspection, name)
            if (expected := signatures.read_signature(signature).name) != name:
                yield Finding(path=name, problem="is not named after its key", expected=expected)
            found = signatures.check(
                _read_again(inspection, TAG_MANIFEST),
                signature,
                choices.allowed_signers,
                search_path=choices.search_path,
            )
        except DigestMismatch as error:
            yield Finding(path=name, problem=error.message)
            continue
        except MachineError:  # no ssh-keygen here: the signature stays one that nobody checked
            if choices.allowed_signers is not None:
                raise
            continue
        if found is not None:
            signers.append(found)
    inspection.signed_by = tuple(dict.fromkeys(signers))
    if choices.require_signature and not signers:
        yield Finding(path=SIGNATURES, problem="there is no good signature of an allowed signer")
