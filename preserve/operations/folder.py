"""The analysis folder: preserve.yaml and preserve.lock, and what preserve keeps below .preserve/."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from preserve.digest import Digest, FilePin
from preserve.documents.lockfile import Lock, read_lock
from preserve.documents.plan import Plan, PlannedStep
from preserve.documents.planning import Draft, make_plan
from preserve.documents.reading import read_workflow
from preserve.documents.record import Artifact, Record, read_record
from preserve.documents.workflow import Value, Workflow
from preserve.errors import DigestMismatch, MachineError, UserError
from preserve.sources import Sources, read_sources
from preserve.stores.hashes import HashMemory
from preserve.stores.objects import ObjectStore
from preserve.transports.recipe.folder import recipe_digest, recipe_suite

PLATFORM = "linux/amd64"  # of the images that are resolved and built


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """Paths of an analysis. ``root`` is absolute and holds preserve.yaml."""

    root: Path

    @property
    def workflow_file(self) -> Path:
        """Give preserve.yaml."""
        return self.root / "preserve.yaml"

    @property
    def lock_file(self) -> Path:
        """Give preserve.lock."""
        return self.root / "preserve.lock"

    @property
    def state(self) -> Path:
        """Give .preserve/, made (invisible to git) when missing."""
        path = self.root / ".preserve"
        if not path.is_dir():
            path.mkdir()
            (path / ".gitignore").write_text("*\n")
        return path

    @property
    def layout(self) -> Path:
        """Give the OCI layout with the images."""
        return self.state / "images" / "oci"

    def workflow(self) -> Workflow:
        """Read preserve.yaml.

        Raises:
            UserError: it is not there, or faulty.
        """
        try:
            data = self.workflow_file.read_bytes()
        except FileNotFoundError as error:
            raise _no_workflow(self.root) from error
        return read_workflow(data, "preserve.yaml")

    def lock(self) -> Lock:
        """Read preserve.lock.

        Raises:
            UserError: it is not there, or damaged.
        """
        try:
            return read_lock(self.lock_file.read_bytes(), "preserve.lock")
        except FileNotFoundError as error:
            raise UserError("there is no preserve.lock", hint="run: preserve lock") from error

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep other commands that write from this folder; the kernel frees it when a process dies.

        Raises:
            MachineError: another command holds it, or its file system has no locks.
        """
        with (self.state / "busy").open("a+") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                stream.seek(0)
                raise MachineError(
                    f"another preserve works in this folder (process {stream.read().strip() or 'unknown'})",
                    hint="wait for it, or end it",
                ) from error
            except OSError as error:
                raise MachineError(
                    f"{self.root} cannot be locked for one run at a time: {error.strerror}",
                    hint="work on a file system with locks: a local disk; a cluster's may be mounted with flock",
                ) from error
            stream.seek(0)
            stream.truncate()
            stream.write(str(os.getpid()))
            stream.flush()
            yield

    def is_held(self) -> bool:
        """Whether a run is under way here."""
        with (self.state / "busy").open("a+") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            except OSError:  # a file system without locks: nothing runs there
                return False
        return False

    def hashes(self, *, anew: bool = False) -> HashMemory:
        """Open the memory of hashes; ``anew``: each file is read again before it is trusted."""
        return HashMemory(self.state / "hashes.json", anew=anew)

    def store(self, hashes: HashMemory) -> ObjectStore:
        """Open the store of products."""
        return ObjectStore(self.state / "objects", hashes)

    def record_of(self, key: str) -> Path:
        """Path of the record of the last successful run of a step with this key (``sha256:…``)."""
        return self.state / "records" / key[7:9] / f"{key[9:]}.json"

    def find_record(self, key: str) -> Record | None:
        """Read the record for a key, if a step with it has run.

        One that cannot be read (of an earlier version of preserve; cut short) is none: the step runs again.
        """
        path = self.record_of(key)
        try:
            return read_record(path.read_bytes(), str(path))
        except (FileNotFoundError, UserError):
            return None

    def placed(self) -> dict[str, str]:
        """Products that runs have put (or were about to put, then without digest) into the folder, by path."""
        return read_json(self.state / "placed.json")

    def sources(self, workflow: Workflow, *, products: tuple[str, ...] = ()) -> Sources:
        """Look at the code; input data and products are none.

        Raises:
            MachineError: git is missing or refuses.
        """
        return read_sources(self.root, not_code=frozenset((*workflow.inputs, *self.placed(), *products)))

    def runs(self) -> list[Path]:
        """Folders of the runs, oldest first."""
        return sorted((self.state / "runs").glob("[0-9]*"))


def find_folder(start: Path) -> Folder:
    """Give the analysis that ``start`` (absolute) lies in: the nearest folder with preserve.yaml, there or above.

    Above, it is looked for as git does, up to the top of a git work tree or of the file system; and only where folder
    and file have the owner that ``start`` has, so that nobody is handed a stranger's preserve.yaml out of /tmp.

    Raises:
        UserError: there is none.
    """
    if (start / "preserve.yaml").exists():
        return Folder(root=start)
    found = folder_above(start, owner=start.stat().st_uid)
    if found is None:
        raise _no_workflow(start, "or a folder above it")
    return Folder(root=found)


def named_folder(root: Path) -> Folder:
    """Give the analysis in ``root`` (absolute), which somebody named: it is there and nowhere else.

    Raises:
        UserError: there is no such folder, or no analysis in it.
    """
    if not root.is_dir():
        what = f"{root} is no folder" if root.exists() else f"there is no folder {root}"
        raise UserError(what, hint="-C FOLDER names the folder that has preserve.yaml")
    if not (root / "preserve.yaml").exists():
        raise _no_workflow(root)
    return Folder(root=root)


def folder_above(start: Path, *, owner: int) -> Path | None:
    """Give the nearest folder above ``start`` that has preserve.yaml, both of the user ``owner`` (uid)."""
    for below, place in zip((start, *start.parents), start.parents, strict=False):
        other_disk = place.stat().st_dev != start.stat().st_dev
        if (below / ".git").exists() or other_disk or place.stat().st_uid != owner:
            return None
        file = place / "preserve.yaml"
        if file.is_file() and file.stat().st_uid == owner:
            return place
    return None


def _no_workflow(root: Path, elsewhere: str = "") -> UserError:
    """What to say where preserve.yaml is missing."""
    above = folder_above(root, owner=root.stat().st_uid) if root.is_dir() else None
    hint = f"there is one above: -C {above}" if above else "go to the analysis' folder, or name it: -C FOLDER"
    return UserError(f"there is no preserve.yaml in {root} {elsewhere}".rstrip(), hint=hint)


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """An analysis ready to be run: its plan, the documents it was made of, pins of the files that it starts from."""

    plan: Plan
    documents: Mapping[str, bytes]
    pins: Mapping[str, FilePin]


def look(folder: Folder, hashes: HashMemory, parameters: Mapping[str, Value]) -> Situation:
    """Read workflow, lock and code, hash what the steps start from, and make the plan.

    Raises:
        UserError: a document is faulty, or lock and workflow do not agree.
        DigestMismatch: an input is not what the lock pins.
    """
    workflow, lock = folder.workflow(), folder.lock()
    sources = folder.sources(workflow)
    _refuse_changed_recipes(folder, workflow, lock)
    draft = make_plan(workflow, lock, tracked=sources.tracked, parameters=parameters)
    pins = {path: _pin(folder, hashes, path) for path in draft.sources}
    plan = draft.pinned(pins)
    inputs = {path: _checked(folder, hashes, path, plan) for path in _used_inputs(draft, plan)}
    documents = {"preserve.yaml": workflow.data, "preserve.lock": folder.lock_file.read_bytes()}
    return Situation(plan=plan, documents=documents, pins={**pins, **inputs})


def recipes_of(folder: Folder, workflow: Workflow) -> dict[str, Digest]:
    """Give the digests of the recipes that are in the folder, by the names of their images.

    Raises:
        UserError: a recipe is faulty.
    """
    return {name: recipe_digest(path, build, PLATFORM) for name, (path, build) in _builds(folder, workflow).items()}


def suites_of(folder: Folder, workflow: Workflow) -> dict[str, str]:
    """Give the Debian suites of the recipes that are in the folder, by the names of their images.

    Raises:
        UserError: a recipe is faulty.
    """
    builds = _builds(folder, workflow)
    return {name: suite for name, (path, build) in builds.items() if (suite := recipe_suite(path, build)) is not None}


def _builds(folder: Folder, workflow: Workflow) -> dict[str, tuple[Path, str]]:
    """Give recipe folders, on disk and as written; of a replayed archive there are the images, but not the recipes."""
    builds = {name: image.build for name, image in workflow.images.items() if image.build is not None}
    there = {name: (folder.root / build, build) for name, build in builds.items()}
    return {name: (path, build) for name, (path, build) in there.items() if path.is_dir()}


def _refuse_changed_recipes(folder: Folder, workflow: Workflow, lock: Lock) -> None:
    if not lock.recipes:
        return
    for name, digest in recipes_of(folder, workflow).items():
        if lock.recipes.get(name, digest) != digest:
            raise UserError(
                f"the recipe {workflow.images[name].build} of image {name} changed since it was locked",
                hint="run: preserve lock",
            )


def _used_inputs(draft: Draft, plan: Plan) -> tuple[str, ...]:
    return tuple(path for path in plan.inputs if path not in draft.sources)


def _pin(folder: Folder, hashes: HashMemory, path: str) -> FilePin:
    try:
        return hashes.pin(folder.root / path)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read: {error.strerror}", hint=f"restore it: git checkout -- {path}"
        ) from error


def _checked(folder: Folder, hashes: HashMemory, path: str, plan: Plan) -> FilePin:
    expected = plan.inputs[path]
    try:
        found = hashes.pin(folder.root / path)
    except OSError as error:
        hint = "run: preserve lock (it fetches it again)" if expected.url else "put the file back"
        raise UserError(f"input {path} is not there: {error.strerror}", hint=hint) from error
    if found.sha256 != expected.sha256:
        raise DigestMismatch(
            f"input {path} is not what preserve.lock pins: expected {expected.sha256}, found {found.sha256}",
            hint="restore the file, or, if the change is meant, run: preserve lock",
        )
    return found


def materials(step: PlannedStep, known: Mapping[str, FilePin]) -> tuple[Artifact, ...] | None:
    """Give what a step reads by path and digest; ``None`` while a product it reads is not there yet.

    ``known`` pins files by path; the files of a folder product stand there one by one.
    """
    found: list[Artifact] = []
    for wanted in step.inputs:
        paths = [wanted.path] if not wanted.path.endswith("/") else [p for p in known if p.startswith(wanted.path)]
        if not paths or any(path not in known for path in paths):
            return None
        found += [artifact(path, known[path]) for path in paths]
    return tuple(sorted(found, key=lambda a: a.path))


def artifact(path: str, pin: FilePin) -> Artifact:
    """Give a file's path with its pin."""
    return Artifact(path=path, sha256=pin.sha256, size=pin.size, executable=pin.executable)


def pin_of(product: Artifact) -> FilePin:
    """Give an artifact's pin without the path."""
    return FilePin(sha256=product.sha256, size=product.size, executable=product.executable)


def read_json(path: Path) -> dict[str, str]:
    """Read a small file of ours that can be made again; empty when missing or damaged."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def write_file(path: Path, data: bytes) -> None:
    """Write beside, fsync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".writing")
    with beside.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    beside.replace(path)


def link_file(source: Path, path: Path) -> None:
    """Have what ``write_file`` wrote to ``source`` at ``path`` too; written again only where no link can be made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".linking")  # not ``write_file``'s, which writes over what it finds there
    beside.unlink(missing_ok=True)
    try:
        beside.hardlink_to(source)
    except OSError:  # a file system without them
        write_file(path, source.read_bytes())
    else:
        beside.replace(path)
