"""What can be compared: runs, archives, folders, files; each as files by path, with plan and records if it has some."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from preserve.digest import hash_file
from preserve.documents.archive import PLAN, PROBE, is_result
from preserve.documents.plan import Plan, read_plan
from preserve.documents.probe import Probe, read_probe
from preserve.documents.record import Artifact, Record, read_record
from preserve.errors import UserError
from preserve.operations.folder import Folder, pin_of
from preserve.operations.judged import Version, archived_versions, named, recorded_files, stored_version
from preserve.operations.opened import Opened, open_archive, read

UNCOMPARED = (".git", ".preserve")  # folders of git's and ours, in a folder that is compared


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the two things that are compared: its files by path; plan, records and probe, of a run or an archive."""

    name: str
    files: Mapping[str, Version]
    plan: Plan | None = None
    records: Mapping[str, Record] = field(default_factory=dict)
    probe: Probe | None = None


def open_side(given: Path, folder: Folder, stack: ExitStack) -> Side:
    """Open what ``given`` names: a file, a folder, an archive, an analysis folder (its last run), or a run by name.

    ``folder`` is where names of runs are looked for; ``stack`` keeps files at hand until it is closed.

    Raises:
        UserError: it is nothing of these.
        DigestMismatch: it is an archive, and damaged.
    """
    named = folder.root / ".preserve" / "runs" / given
    if not given.exists() and not named.is_dir():
        raise UserError(f"there is no {given}", hint="name a file, a folder, an archive, or a run (preserve status)")
    path = given if given.exists() else named
    if _is_archive(path):
        return _archive(path, stack)
    if path.is_file():
        return Side(name=str(given), files={path.name: _version(path)})
    if not path.is_dir():
        raise UserError(f"{given} is neither a file nor a folder")
    run = _run_folder(path)
    return _run(run, stack) if run is not None else _plain(path)


def _is_archive(path: Path) -> bool:
    if not path.is_file():
        return (path / PLAN).is_file()
    if path.name.endswith(".crate.zip"):
        return True
    try:
        with zipfile.ZipFile(path) as opened:
            return PLAN in opened.namelist()
    except (zipfile.BadZipFile, OSError, NotImplementedError, UnicodeDecodeError):  # the last of its names
        return False


def archived_probe(opened: Opened) -> Probe | None:
    """Read an archive's probe, if it has one.

    Raises:
        UserError: it is damaged.
    """
    return read_probe(read(opened.store, PROBE), PROBE) if PROBE in opened.contents.payload else None


def _run_folder(path: Path) -> Path | None:
    """Give the folder of the run that is meant; ``None``: it is a plain folder."""
    if (path / "plan.json").is_file() and (path / "records").is_dir():
        return path
    runs = sorted((path / ".preserve" / "runs").glob("[0-9]*")) if (path / "preserve.yaml").is_file() else []
    return runs[-1] if runs else None


def _archive(path: Path, stack: ExitStack) -> Side:
    opened = stack.enter_context(open_archive(path))
    contents = opened.contents
    files = stack.enter_context(recorded_files(opened, contents.results))
    known = archived_versions(opened, files)
    versions = {name: known[name] for name in contents.results}
    return Side(
        name=str(path), files=versions, plan=contents.plan, records=contents.records, probe=archived_probe(opened)
    )


def _run(run: Path, stack: ExitStack) -> Side:
    plan = read_plan((run / "plan.json").read_bytes(), str(run / "plan.json"))
    files = {step.id: run / "records" / f"{step.id}.json" for step in plan.steps}
    records = {step: read_record(file.read_bytes(), str(file)) for step, file in files.items() if file.exists()}
    products = [p for record in records.values() for p in record.products if is_result(plan, p.path)]
    scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="preserve-run-")))
    folder = Folder(root=run.absolute().parents[2])
    found = run / "probe.json"
    probe = read_probe(found.read_bytes(), str(found)) if found.exists() else None
    return Side(name=str(run), files=named(_stored(folder, products), scratch), plan=plan, records=records, probe=probe)


def _stored(folder: Folder, products: list[Artifact]) -> dict[str, Version]:
    """Find products in the store, as far as they are still there."""
    store = folder.store(folder.hashes())
    pins = {product.path: pin_of(product) for product in products}
    return {path: stored_version(folder, store, path, pin) for path, pin in pins.items()}


def _plain(path: Path) -> Side:
    """All files below a folder, but git's and preserve's own; pipes and devices are none."""
    files = {file.relative_to(path).as_posix(): file for file in sorted(path.rglob("*")) if file.is_file()}
    ours = {name: file for name, file in files.items() if name.split("/")[0].casefold() not in UNCOMPARED}
    return Side(name=str(path), files={name: _version(file) for name, file in ours.items()})


def _version(path: Path) -> Version:
    try:
        return Version(pin=hash_file(path), file=path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
