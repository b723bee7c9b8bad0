"""What an archive holds and how its parts are named (docs/archive-format.md): rules, no files.

The archive's documents (plan, lock, records) say which files it must hold; everything that is made for readers
(crate, README, replay.sh, the bag's own files) is derived from them, so that it can be derived again and compared.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from preserve.digest import Digest, FilePin
from preserve.documents.lockfile import Lock
from preserve.documents.plan import Plan
from preserve.documents.record import Artifact, Record

FORMAT = "preserve/archive/1"
DATA = "data/"
WORKFLOW = DATA + "workflow/preserve.yaml"
LOCK = DATA + "workflow/preserve.lock"
PLAN = DATA + "workflow/plan.json"
REPLAY = DATA + "replay.sh"
BUNDLE = DATA + "code/code.bundle"
PATCH = DATA + "code/uncommitted.patch"
RECORDS = DATA + "records/"
PROBE = DATA + "probe.json"
FINGERPRINTS = DATA + "fingerprints/"
OCI = DATA + "oci/"
BLOBS = OCI + "blobs/sha256/"
BAGIT = "bagit.txt"
BAG_INFO = "bag-info.txt"
MANIFEST = "manifest-sha256.txt"
TAG_MANIFEST = "tagmanifest-sha256.txt"
CRATE = "ro-crate-metadata.json"
PREVIEW = "ro-crate-preview.html"
README = "README.md"
CITATION = "CITATION.cff"
SIGNATURES = "signatures/"
TAG_FILES = (CITATION, README, BAG_INFO, BAGIT, MANIFEST, CRATE, PREVIEW)  # in the tag manifest; sorted
LEAVABLE = ("images", "inputs", "intermediates")  # what --without knows
MAX_NAME = 240  # bytes

_NAME = re.compile(r"[A-Za-z0-9._+=@-]+(?:/[A-Za-z0-9._+=@-]+)*")
_UNFIT = re.compile(rb"[^A-Za-z0-9._+@/-]")  # "=" begins an escape


def name_fault(name: str) -> str | None:
    """Why ``name`` may not be the name of a file in an archive; ``None``: it may."""
    if not _NAME.fullmatch(name):
        return "has characters other than A-Z a-z 0-9 . _ + = @ - /, or an empty part"
    if any(part in (".", "..") for part in name.split("/")):
        return "has a part . or .."
    if len(name) > MAX_NAME:
        return f"has more than {MAX_NAME} bytes"
    return None


def archived_names(paths: Iterable[str]) -> dict[str, str]:
    """Give each path a name that archives allow, itself where possible; no two are equal under casefold.

    Other bytes are written ``=XX`` (hexadecimal); what is still too long, or differs from an earlier path (in sorted
    order) or a folder only by case, ends in ``=`` and twelve digits of the path's sha256.
    """
    escaped = {path: _escaped(path) for path in sorted(set(paths))}
    names: dict[str, str] = {}
    taken = {name[:end].casefold() for name in escaped.values() for end, sign in enumerate(name) if sign == "/"}
    for path, own in escaped.items():
        name, digest = own, Digest.of(path.encode())
        if len(own) > MAX_NAME - 40 or own.casefold() in taken:
            name = f"{own[: MAX_NAME - 60]}={digest.short}"
        if name.casefold() in taken:  # somebody looked for two paths whose digests begin alike
            name = f"{own[: MAX_NAME // 2]}={digest.hex}"
        taken.add(name.casefold())
        names[path] = name
    return names


def _escaped(path: str) -> str:
    return _UNFIT.sub(lambda found: b"=%02X" % found[0][0], path.encode()).decode("ascii")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """An archive as its documents describe it; everything for readers is derived from this.

    ``records`` is by step id; ``names`` gives the name in the archive of every file of the analysis that the archive
    knows (inputs, code that steps read, products), by its path, whether its bytes are inside or not; ``pins`` gives
    their content, also by path. ``without`` names what was left out (of ``LEAVABLE``), ``left_out`` are the paths of
    products that were left out one by one; ``payload`` maps the names of all files below data/ to their content;
    ``agent`` is the program that wrote it (``preserve 0.1.0``); ``parent`` is the id of the archive that this one is a
    recast of. ``bundled``: the code's history is inside; ``patched``: so are changes that were not committed.
    """

    plan: Plan
    lock: Lock
    records: Mapping[str, Record]
    names: Mapping[str, str]
    pins: Mapping[str, FilePin]
    payload: Mapping[str, FilePin] = field(default_factory=dict)
    without: frozenset[str] = frozenset()
    left_out: frozenset[str] = frozenset()
    agent: str
    parent: Digest | None = None

    @property
    def completeness(self) -> str:
        """``full`` (images and inputs are inside), ``no-images``, ``no-inputs`` or ``no-images,no-inputs``."""
        missing = [f"no-{kind}" for kind in ("images", "inputs") if kind in self.without]
        return ",".join(missing) or "full"

    @property
    def ended(self) -> str:
        """When the last step ended (UTC): the only date that an archive has."""
        return max(record.ended for record in self.records.values())

    @property
    def results(self) -> tuple[str, ...]:
        """Paths of the products that are results, folders file by file; sorted."""
        return tuple(path for path in sorted(self.products) if is_result(self.plan, path))

    @property
    def fingerprints(self) -> Mapping[str, str]:
        """Names in the archive of the results' fingerprints, by the results' paths, whether they are inside or not."""
        names = archived_names(f"{path}.json" for path in self.results)
        return {path: FINGERPRINTS + names[f"{path}.json"] for path in self.results}

    @property
    def products(self) -> Mapping[str, Artifact]:
        """All products by path."""
        return {product.path: product for record in self.records.values() for product in record.products}

    @property
    def bundled(self) -> bool:
        """Whether the git history of the code is inside."""
        return BUNDLE in self.payload

    @property
    def patched(self) -> bool:
        """Whether changes that were not committed are inside."""
        return PATCH in self.payload

    def holds(self, path: str) -> bool:
        """Whether the bytes of an input or product are inside."""
        return self.names[path] in self.payload


def contents_of(
    plan: Plan,
    lock: Lock,
    records: Mapping[str, Record],
    *,
    agent: str,
    without: frozenset[str] = frozenset(),
    left_out: frozenset[str] = frozenset(),
    parent: Digest | None = None,
) -> Contents:
    """Give the contents that the documents call for, the payload still empty."""
    # the lock does not pin whether input data may be executed; the records say with what the steps ran
    programs = {read.path for record in records.values() for read in record.materials if read.executable}
    inputs = {
        path: FilePin(sha256=pin.sha256, size=pin.size, executable=path in programs)
        for path, pin in plan.inputs.items()
    }
    inputs |= plan.sources
    products = {
        product.path: FilePin(sha256=product.sha256, size=product.size, executable=product.executable)
        for record in records.values()
        for product in record.products
    }
    results = [path for path in products if is_result(plan, path)]
    others = [path for path in products if path not in set(results)]
    names = {path: f"{DATA}inputs/{name}" for path, name in archived_names(inputs).items()}
    names |= {path: f"{DATA}results/{name}" for path, name in archived_names(results).items()}
    names |= {path: f"{DATA}products/{name}" for path, name in archived_names(others).items()}
    return Contents(
        plan=plan,
        lock=lock,
        records=records,
        names=names,
        pins={**inputs, **products},
        without=without,
        left_out=left_out,
        agent=agent,
        parent=parent,
    )


def is_result(plan: Plan, path: str) -> bool:
    """Whether a product is (a file of) a declared result."""
    return result_of(plan, path) is not None


def result_of(plan: Plan, path: str) -> str | None:
    """Give the entry under ``results:`` that a product belongs to: itself, else the innermost folder around it."""
    folders = (path[: end + 1] for end, sign in reversed(tuple(enumerate(path))) if sign == "/")
    return next((name for name in (path, *folders) if name in plan.results), None)


def rule_of(plan: Plan, path: str) -> str | None:
    """Give the rule (canonical JSON) by which a product is judged; ``None``: it is no result."""
    result = result_of(plan, path)
    return None if result is None else plan.results[result]


def expected_files(contents: Contents) -> dict[str, FilePin]:
    """Give the files of the analysis (inputs, code, products, logs) whose bytes must be inside, by archive name."""
    wanted = {path for path in contents.pins if _is_inside(contents, path)}
    files = {contents.names[path]: contents.pins[path] for path in wanted}
    for record in contents.records.values():
        for log in record.logs.values():
            files[DATA + log.path] = FilePin(sha256=log.sha256, size=log.size)
    return files


def record_name(step: str) -> str:
    """Name of a step's record in the archive."""
    return f"{RECORDS}{step}.json"


def _is_inside(contents: Contents, path: str) -> bool:
    if path in contents.plan.inputs:
        return "inputs" not in contents.without
    if path in contents.left_out:
        return False
    if path in contents.plan.sources or is_result(contents.plan, path):
        return True
    return "intermediates" not in contents.without
