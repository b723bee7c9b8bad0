"""Hash-locked requirements: the part of pip's requirements format that fixes every byte (``--require-hashes``)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from preserve.digest import Digest
from preserve.documents.faults import Faults
from preserve.documents.workflow import Position
from preserve.documents.yaml12 import decode

_LINE = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?\s*==\s*(?P<version>[A-Za-z0-9.!+_-]+)(?P<rest>.*)"
)
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
    faults = Faults(file)
    for number, text in _logical_lines(decode(data, faults)):
        place = Position(line=number, column=1)
        requirement = _requirement(text, place, faults)
        if requirement and found.setdefault(requirement.name, requirement) is not requirement:
            faults.add(place, f"{requirement.name} stands twice", f"first in line {found[requirement.name].line}")
    faults.raise_any()
    return tuple(found[name] for name in sorted(found))


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield lines with continuations joined and comments gone, each with its first line's number."""
    start, joined = 0, ""
    for number, line in enumerate([*text.splitlines(), ""], 1):
        start = start or number
        bare = re.sub(r"(^|\s)#.*$", "", line).rstrip()
        joined += bare.removesuffix("\\") + " "
        if not bare.endswith("\\"):
            if joined.strip():
                yield start, joined.strip()
            start, joined = 0, ""


def _requirement(text: str, place: Position, faults: Faults) -> Requirement | None:
    match = _LINE.fullmatch(text)
    if match is None:
        faults.add(place, *_not_locked(text))
        return None
    if ";" in match["rest"]:
        hint = "make the lock for the image's own Python and platform (docs/reference/image-recipe.md)"
        faults.add(place, f"{match['name']} has a marker, which machines may judge differently", hint)
        return None
    hashes = tuple(Digest("sha256:" + found["digits"]) for found in _HASH.finditer(match["rest"]))
    if not hashes or _HASH.sub("", match["rest"]).strip():
        faults.add(place, f"{match['name']}=={match['version']} has no --hash=sha256:…, or another option", _HINT)
        return None
    return Requirement(name=normalised(match["name"]), version=match["version"], hashes=hashes, line=place.line)


def _not_locked(text: str) -> tuple[str, str]:
    word = text.split(maxsplit=1)[0]
    if word.startswith("-"):
        return (
            f"the option {word} is refused",
            "where packages come from is for this machine's pip configuration to say",
        )
    return f'"{word}" is not of the form name==version', _HINT
