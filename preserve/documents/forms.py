"""Forms of single values: image references, ORCID iDs, sizes, durations, digests, addresses."""

from __future__ import annotations

import re

from preserve.digest import Digest
from preserve.documents.counted import counted

Problem = tuple[str, str]

_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?"
_NAME = re.compile(rf"(?:{_HOST}/)?{_PART}(?:/{_PART})*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?")
_DIGEST = re.compile(r"(sha256:)?[0-9a-f]{64}")
_SCHEME = re.compile(r"([a-z][a-z0-9+-]*)://|(docker-daemon|docker-archive|oci-archive|oci|docker|dir|build|sif):")
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-zµ]+)")
_MEMORY = {
    "B": 1,
    **{f"{letter}B": 1000 ** (i + 1) for i, letter in enumerate("kMGT")},
    **{f"{letter}iB": 1024 ** (i + 1) for i, letter in enumerate("KMGT")},
}
_TIME = {"s": 1, "min": 60, "h": 3600, "d": 86400}
_URL = re.compile(r"(https?|roots?|xroots?)://[^\s/]+(/\S*)?|file:\S+")


def problem_of_reference(reference: str) -> Problem | None:
    """Give what is wrong with an image reference, or ``None``: any of the forms in docs/reference/preserve-yaml.md."""
    if re.search(r"\s", reference):
        return "an image reference contains white space", "write it as for docker pull"
    scheme = _SCHEME.match(reference)
    place = (scheme[1] or scheme[2]) if scheme else "docker"
    rest = reference[scheme.end() :] if scheme else reference
    if place not in ("docker", "docker-daemon", "oci") or (scheme and scheme[1] in ("docker-daemon", "oci")):
        hint = "write docker://host/name:tag, docker-daemon:name:tag, oci:path, or {build: folder/}"
        return f'no images are found by "{scheme[0] if scheme else reference}"', hint
    if place == "docker-daemon" and _DIGEST.fullmatch(rest):
        return None
    return _problem_of_digest(rest) or _problem_of_name(rest.partition("@")[0], place)


def _problem_of_digest(rest: str) -> Problem | None:
    _, at, digest = rest.partition("@")
    if not at or re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        return None
    digits = digest.removeprefix("sha256:")
    if digest.startswith("sha256:") and re.fullmatch(r"[0-9a-fA-F]*", digits):
        found = f"it has {counted(len(digits), 'digit')}" if len(digits) != 64 else "it has capital letters"
    else:
        found = f'found "{digest[:40]}"'
    return f"the digest of an image reference is malformed: {found}", "write @sha256: and 64 digits 0-9a-f"


def _problem_of_name(name: str, place: str) -> Problem | None:
    if place == "oci":
        return None if name else ("no path after oci:", "write oci:path of the layout's folder")
    if _NAME.fullmatch(name):
        return None
    hint = f'names are in lower case: "{name.lower()}"' if _NAME.fullmatch(name.lower()) else "write host/name:tag"
    if name.endswith("/"):
        hint = f"write {{build: {name}}} for a recipe in this folder, or host/name:tag"
    return f'"{name}" is no image name', hint


def problem_of_orcid(orcid: str) -> Problem | None:
    """Give what is wrong with an ORCID iD, or ``None``: four groups of four, the last digit by ISO 7064 mod 11-2."""
    if not re.fullmatch(r"\d{4}-\d{4}-\d{4}-\d{3}[\dX]", orcid, re.ASCII):
        return f'"{orcid}" is no ORCID iD', "write its 16 digits in four groups: 0000-0002-1825-0097"
    total = 0
    for digit in orcid.replace("-", "")[:-1]:
        total = (total + int(digit)) * 2
    check = "0123456789X"[(12 - total % 11) % 11]
    if orcid[-1] != check:
        return f'the check digit of the ORCID iD "{orcid}" is wrong', "look for a typing error"
    return None


def memory(text: str) -> int | None:
    """Bytes of ``2 GB`` (kB, MB, GB, TB are powers of 1000; KiB, MiB, GiB, TiB of 1024), or ``None``."""
    return _quantity(text, _MEMORY)


def duration(text: str) -> int | None:
    """Seconds of ``10 min`` (s, min, h, d), rounded up, or ``None``."""
    return _quantity(text, _TIME)


def digest(text: str) -> Digest | None:
    """Digest of 64 hexadecimal digits with or without ``sha256:`` before them, or ``None``."""
    return Digest("sha256:" + text.removeprefix("sha256:")) if _DIGEST.fullmatch(text) else None


def is_address(text: str) -> bool:
    """Whether data can be fetched from it: http(s), root(s), xroot(s) or file."""
    return _URL.fullmatch(text) is not None


def _quantity(text: str, units: dict[str, int]) -> int | None:
    match = _QUANTITY.fullmatch(text.strip())
    if not match or match[2] not in units or len(match[1]) > 20:
        return None
    amount = -int(-float(match[1]) * units[match[2]] // 1)
    return amount if amount > 0 else None
