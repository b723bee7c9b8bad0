"""Hash-locked requirements: the part of pip's requirements format that fixes every byte (``--require-hashes``)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from preserve.digest import Digest
from preserve.errors import DocumentError, Fault

_LINE = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?\s*==\s*(?P<version>[A-Za-z0-9.!+_-]+)(?P<rest>.*)")
_HASH = re.compile(r"\s--hash[=\s]sha256:(?P<digits>[0-9a-f]{64})(?=\s|$)")
_HINT = "make it with: pip-compile --generate-hashes --no-emit-index-url (docs/reference/image-recipe.md)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """One distribution: normalised name (``scikit-learn``), version, and the digests its wheel may have."""

    name: str
    version: str
    hashes: tuple[Digest, ...]
    line: int


def normalised(name: str) -> str:
    """A distribution's one spelling (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_requirements(data: bytes, file: str) -> tuple[Requirement, ...]:
    """Read hash-locked requirements, sorted by name.

    Raises:
        DocumentError: a line names no exact version or no digest, or is an option or has a marker, which would mean
            different things on different machines.
    """
    found: dict[str, Requirement] = {}
    faults: list[Fault] = []
    for number, text in _logical_lines(data.decode(errors="replace")):
        requirement, problem = _requirement(text, number)
        if requirement is not None and requirement.name in found:
            requirement, problem = None, f"{requirement.name} stands twice"
        if requirement is None:
            faults.append(Fault(file=file, line=number, column=1, message=problem, hint=_HINT))
        else:
            found[requirement.name] = requirement
    if faults:
        raise DocumentError(tuple(faults))
    return tuple(found[name] for name in sorted(found))


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield lines with continuations joined and comments gone, each with its first line's number."""
    start, joined = 0, ""
    for number, line in enumerate(text.splitlines(), 1):
        start = start or number
        bare = re.sub(r"(^|\s)#.*$", "", line).rstrip()
        joined += bare.removesuffix("\\") + " "
        if not bare.endswith("\\"):
            if joined.strip():
                yield start, joined.strip()
            start, joined = 0, ""
    if joined.strip():
        yield start, joined.strip()


def _requirement(text: str, line: int) -> tuple[Requirement | None, str]:
    match = _LINE.fullmatch(text)
    if text.startswith("-"):
        return None, f"option {text.split()[0]!r}: where packages come from is for this machine's pip configuration to say"
    if not match:
        return None, f"{text.split('--hash')[0].strip()!r} is not of the form name==version"
    if ";" in match["rest"]:
        return None, f"{match['name']}: a marker; the lock must be made for the image's own Python and platform"
    hashes = tuple(Digest("sha256:" + found["digits"]) for found in _HASH.finditer(match["rest"]))
    if not hashes or _HASH.sub("", match["rest"]).strip():
        return None, f"{match['name']}: no --hash=sha256:…, or something that is not one"
    return Requirement(name=normalised(match["name"]), version=match["version"], hashes=hashes, line=line), ""
