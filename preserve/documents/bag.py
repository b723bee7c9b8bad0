"""The BagIt side of an archive (RFC 8493): text files ↔ values.

A stricter form than the RFC's: one line per file, sorted by name, LF, lower-case digests, two spaces. Names need no
percent-encoding, for they cannot hold CR, LF or %.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from preserve.digest import Digest
from preserve.documents.archive import BAG_INFO, FORMAT, LEAVABLE, Contents, name_fault
from preserve.errors import DocumentError, Fault

BAGIT_TXT = b"BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"
CONTACT = "Contact-Name"
LEFT_OUT = "Preserve-Left-Out"
LABELS = (  # in this order; those in OPTIONAL may be missing, those in REPEATED stand several times
    "Bag-Software-Agent",
    "Bagging-Date",
    "Payload-Oxum",
    "External-Description",
    CONTACT,
    "Preserve-Format",
    "Preserve-Completeness",
    "Preserve-Without",
    LEFT_OUT,
    "Preserve-Parent",
)
OPTIONAL = (CONTACT, "Preserve-Without", LEFT_OUT, "Preserve-Parent")
REPEATED = (CONTACT, LEFT_OUT)
MAX_FAULTS = 1000  # of one file: nobody reads more, and a stranger chooses how many there are

_LINE = re.compile(r"([0-9a-f]{64})  (\S+)")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def manifest(digests: Mapping[str, Digest]) -> bytes:
    """Give the bytes of a manifest: one line for each name, sorted."""
    return "".join(f"{digests[name].hex}  {name}\n" for name in sorted(digests)).encode()


def read_manifest(data: bytes, file: str) -> tuple[dict[str, Digest], tuple[Fault, ...]]:
    """Read a manifest: digests by name, and all that is wrong with it (``file`` is its name, for the faults)."""
    digests: dict[str, Digest] = {}
    faults: list[Fault] = []
    before = ""
    for number, line in enumerate(_lines(data), 1):
        problem = _line_fault(line, digests, before)
        if problem is None:
            digest, _, before = line[:-1].partition("  ")
            digests[before] = Digest(f"sha256:{digest}")
        else:
            faults.append(_fault(file, number, problem))
        if len(faults) == MAX_FAULTS:
            break
    return digests, tuple(faults)


def bag_info(contents: Contents) -> bytes:
    """Give the bytes of bag-info.txt; white space within a value becomes one space."""
    octets = sum(pin.size for pin in contents.payload.values())
    without = [kind for kind in LEAVABLE if kind in contents.without]
    values = (
        ("Bag-Software-Agent", contents.agent),
        ("Bagging-Date", contents.ended[:10]),
        ("Payload-Oxum", f"{octets}.{len(contents.payload)}"),
        ("External-Description", contents.plan.title),
        *((CONTACT, author.name) for author in contents.plan.authors),
        ("Preserve-Format", FORMAT),
        ("Preserve-Completeness", contents.completeness),
        *((("Preserve-Without", ",".join(without)),) if without else ()),
        *((LEFT_OUT, name) for name in sorted(contents.names[path] for path in contents.left_out)),
        *((("Preserve-Parent", contents.parent),) if contents.parent else ()),
    )
    return "".join(f"{label}: {' '.join(value.split())}\n" for label, value in values).encode()


def read_bag_info(data: bytes, file: str = BAG_INFO) -> dict[str, str]:
    """Read bag-info.txt: values by label; a label that stands several times has one value a line.

    Raises:
        DocumentError: a line, the order or the set of labels is not right: all faults.
    """
    found: dict[str, str] = {}
    faults: list[Fault] = []
    last = -1
    for number, line in enumerate(_lines(data), 1):
        label, colon, value = line.removesuffix("\n").partition(": ")
        place = LABELS.index(label) if label in LABELS else None
        if not colon or not line.endswith("\n") or "\r" in line:
            faults.append(_fault(file, number, "is not Label: value, ended by a line feed alone"))
        elif place is None:
            faults.append(_fault(file, number, f"{label!a} is not a label of archives"))
        elif place < last or (place == last and label not in REPEATED):
            faults.append(_fault(file, number, f"{label} does not stand in its place"))
        else:
            last = place
            found[label] = f"{found[label]}\n{value}" if label in found else value
        if len(faults) == MAX_FAULTS:
            break
    missing = [label for label in LABELS if label not in found and label not in OPTIONAL]
    faults += [_fault(file, 1, f"{label} is missing") for label in missing]
    if faults:
        raise DocumentError(tuple(faults))
    return found


def _lines(data: bytes) -> Iterator[str]:
    start = 0
    while start < len(data):
        end = data.find(b"\n", start) + 1 or len(data)
        yield data[start:end].decode("utf-8", "backslashreplace")
        start = end


def _line_fault(line: str, known: Mapping[str, Digest], before: str) -> str | None:
    found = _LINE.fullmatch(line[:-1]) if line.endswith("\n") else None
    if found is None:
        return _form_fault(line)
    name = found[2]
    if fault := name_fault(name):
        return f"the name {name!a} {fault}"
    if name in known:
        return f"{name} stands twice"
    return f"{name} does not stand in its place: names are sorted" if name < before else None


def _form_fault(line: str) -> str:
    if not line.endswith("\n"):
        return "the last line does not end"
    if line.endswith("\r\n"):
        return "ends with a carriage return: lines end with a line feed alone"
    if not _DIGEST.match(line):
        return "does not begin with a sha256 (64 digits 0-9 a-f)"
    return "is not a sha256, two spaces and a name"


def _fault(file: str, line: int, message: str) -> Fault:
    return Fault(file=file, line=line, column=1, message=message)
