"""The one form of ZIP that archives have (docs/archive-format.md): all of it follows from names, sizes, CRCs and modes.

Names of fields and section numbers are those of APPNOTE.TXT 6.3.10. Every entry is stored, none has a data descriptor,
a comment or an extra field other than ZIP64's, and that only where a number does not fit in 32 bits (16 for counts).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from preserve.documents.archive import DATA, SIGNATURES, TAG_FILES, TAG_MANIFEST, name_fault

MAX_ENTRIES = 1_000_000
FULL_32 = 0xFFFFFFFF  # "see the ZIP64 field"; hence no number of its own
FULL_16 = 0xFFFF
_FOREIGN = 100  # behind everything that belongs in an archive

_LOCAL = struct.Struct("<4s5H3L2H")  # 4.3.7
_CENTRAL = struct.Struct("<4s6H3L5H2L")  # 4.3.12
_END_64 = struct.Struct("<4sQ2H2L4Q")  # 4.3.14
_LOCATOR_64 = struct.Struct("<4sLQL")  # 4.3.15
_END = struct.Struct("<4s4H2LH")  # 4.3.16
CENTRAL_SIZE = _CENTRAL.size
END_SIZE = _END.size
LONGEST_END = _END_64.size + _LOCATOR_64.size + _END.size
LONGEST_EXTRA = 28
_STORED = (0, 0, 0, 0x21)  # flags, method, time 00:00, date 1980-01-01
_MODES = {False: 0o100644 << 16, True: 0o100755 << 16}
_LOCAL_FIELDS = (
    *("signature", "version needed", "flags", "method", "time", "date", "CRC-32", "compressed size", "size"),
    *("length of the name", "length of the extra field"),
)
_CENTRAL_FIELDS = (
    *("signature", "version made by", "version needed", "flags", "method", "time", "date", "CRC-32"),
    *("compressed size", "size", "length of the name", "length of the extra field", "length of the comment", "disk"),
    *("internal attributes", "mode", "offset"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A file in the ZIP: ``size`` in bytes; its local header stands at ``offset``, its bytes right behind it."""

    name: str
    size: int
    executable: bool = False
    crc: int = 0
    offset: int = 0

    @property
    def start(self) -> int:
        """Offset of its first byte."""
        return self.offset + _LOCAL.size + len(self.name) + (20 if self.size >= FULL_32 else 0)

    @property
    def end(self) -> int:
        """Offset behind its last byte, where the next entry begins."""
        return self.start + self.size


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """What the end of the file says: how many entries, and where the central directory stands (bytes)."""

    count: int
    directory_size: int
    directory_offset: int


def laid_out(files: Iterable[tuple[str, int, bool]]) -> tuple[Entry, ...]:
    """Place files (name, size, executable) one behind the other from the beginning; CRCs are not known yet."""
    entries: list[Entry] = []
    for name, size, executable in files:
        offset = entries[-1].end if entries else 0
        entries.append(Entry(name=name, size=size, executable=executable, offset=offset))
    return tuple(entries)


def local_header(entry: Entry) -> bytes:
    """Give the bytes that stand before the entry's own."""
    extra = struct.pack("<2H2Q", 1, 16, entry.size, entry.size) if entry.size >= FULL_32 else b""
    size, name = min(entry.size, FULL_32), entry.name.encode("ascii")
    numbers = (entry.crc, size, size, len(name), len(extra))
    return _LOCAL.pack(b"PK\x03\x04", _version(entry), *_STORED, *numbers) + name + extra


def central_header(entry: Entry) -> bytes:
    """Give the entry's bytes in the central directory."""
    long = [entry.size, entry.size] if entry.size >= FULL_32 else []
    long += [entry.offset] if entry.offset >= FULL_32 else []
    extra = struct.pack(f"<2H{len(long)}Q", 1, 8 * len(long), *long) if long else b""
    size, name, version = min(entry.size, FULL_32), entry.name.encode("ascii"), _version(entry)
    numbers = (entry.crc, size, size, len(name), len(extra), 0, 0, 0)
    place = (_MODES[entry.executable], min(entry.offset, FULL_32))
    return _CENTRAL.pack(b"PK\x01\x02", 3 << 8 | version, version, *_STORED, *numbers, *place) + name + extra


def end_records(end: End) -> bytes:
    """Give the bytes behind the central directory, with ZIP64's records only where a number needs them."""
    count, size, offset = end.count, end.directory_size, end.directory_offset
    records = b""
    if count >= FULL_16 or size >= FULL_32 or offset >= FULL_32:
        records = _END_64.pack(b"PK\x06\x06", _END_64.size - 12, 3 << 8 | 45, 45, 0, 0, count, count, size, offset)
        records += _LOCATOR_64.pack(b"PK\x06\x07", 0, offset + size, 1)
    count, size, offset = min(count, FULL_16), min(size, FULL_32), min(offset, FULL_32)
    return records + _END.pack(b"PK\x05\x06", 0, 0, count, count, size, offset, 0)


def read_end(tail: bytes) -> End | None:
    """Read the end of a file from its last ``LONGEST_END`` bytes; ``None``: they are not the end of a ZIP."""
    if len(tail) < END_SIZE:
        return None
    signature, _, _, _, count, size, offset, _ = _END.unpack(tail[-END_SIZE:])
    if signature != b"PK\x05\x06":
        return None
    if count == FULL_16 or FULL_32 in (size, offset):
        if len(tail) < LONGEST_END or not tail.startswith(b"PK\x06\x06", len(tail) - LONGEST_END):
            return None
        *_, count, size, offset = _END_64.unpack_from(tail, len(tail) - LONGEST_END)
    return End(count=count, directory_size=size, directory_offset=offset)


def lengths(central: bytes) -> tuple[int, int]:
    """Give the lengths of name and extra field that the fixed part of a central header declares."""
    fields = _CENTRAL.unpack(central)
    return fields[10], fields[11]


def read_central(central: bytes, name: str, extra: bytes, *, offset: int) -> Entry:
    """Read what a central header declares about an entry that must stand at ``offset``; equality is not judged."""
    fields = _CENTRAL.unpack(central)
    size = fields[9]
    if size == FULL_32 and len(extra) >= 12:
        (size,) = struct.unpack_from("<Q", extra, 4)
    return Entry(name=name, size=size, executable=fields[15] == _MODES[True], crc=fields[7], offset=offset)


def difference(expected: bytes, found: bytes) -> tuple[str, str, str]:
    """Say in which field two headers of one kind first differ: its name, the value expected, the value found."""
    form, names = (_LOCAL, _LOCAL_FIELDS) if expected.startswith(b"PK\x03\x04") else (_CENTRAL, _CENTRAL_FIELDS)
    if len(found) < form.size:
        return "length", str(len(expected)), str(len(found))
    ours, theirs = form.unpack_from(expected), form.unpack_from(found)
    for name, our, their in zip(names, ours, theirs, strict=True):
        if our != their:
            return name, _shown(name, our), _shown(name, their)
    return "name or extra field", ascii(expected[form.size :]), ascii(found[form.size :])


def name_problems(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield (name, problem) for names that archives may not have, in the order of the entries.

    Each must fit the grammar, stand in its place, and name one file only, also where case does not count.
    """
    files: dict[str, str] = {}
    last: tuple[int, str] = (-1, "")
    for name in names:
        place = order(name)
        if fault := name_fault(name):
            yield name, f"its name {fault}"
        elif place[0] == _FOREIGN:
            yield name, "is not a file that archives have"
        elif (twin := files.get(name.casefold())) is not None:
            yield name, "stands twice" if twin == name else f"differs from {twin} only by case"
        elif place < last:
            yield name, "does not stand in its place (the order of entries is fixed)"
        last = max(last, place)
        files[name.casefold()] = name
    for name in files.values():
        for folder in _folders(name):
            if (file := files.get(folder.casefold())) is not None:
                yield file, f"is a file, and the folder of {name}"


def _folders(name: str) -> Iterator[str]:
    parts = name.split("/")
    return ("/".join(parts[:length]) for length in range(1, len(parts)))


def order(name: str) -> tuple[int, str]:
    """Give the sort key of an archive's entries: data/, tag files, their manifest, signatures; last what is foreign."""
    if name.startswith(DATA):
        return 0, name
    if name in TAG_FILES:
        return 1 + TAG_FILES.index(name), ""
    if name == TAG_MANIFEST:
        return 1 + len(TAG_FILES), ""
    return (2 + len(TAG_FILES) if name.startswith(SIGNATURES) else _FOREIGN, name)


def _version(entry: Entry) -> int:
    return 45 if entry.size >= FULL_32 or entry.offset >= FULL_32 else 20


def _shown(field: str, value: int | bytes) -> str:
    if isinstance(value, bytes):
        return ascii(value)
    return f"{value >> 16:o}/{value & FULL_16:x}" if field == "mode" else f"0x{value:X}"
