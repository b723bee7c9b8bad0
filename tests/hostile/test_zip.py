"""Archives from strangers: what a ZIP can hide, each in a real file, each refused.

Many of these are read without complaint, or differently, by unzip and by Python's zipfile.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from preserve.digest import Digest, FilePin
from preserve.documents import bag
from preserve.stores.crate_writer import Item, write_crate
from preserve.stores.crate_zip import CrateZip
from preserve.stores.damage import Damaged
from preserve.stores.unpacking import unpack
from preserve.stores.zip_form import End, Entry, central_header, end_records, local_header

FILES = {
    "data/inputs/masses.txt": b"91.2\n90.8\n",
    "data/replay.sh": b"#!/bin/sh\n",
    "README.md": b"read me",
}


def archive_of(files: dict[str, bytes], path: Path) -> bytes:
    """Write a small bag; give its bytes."""
    manifest = bag.manifest({name: Digest.of(data) for name, data in files.items()})
    items = [Item(name=name, pin=pin(data), source=data) for name, data in files.items()]
    items.append(Item(name="tagmanifest-sha256.txt", pin=pin(manifest), source=manifest))
    write_crate(path, items)
    return path.read_bytes()


def pin(data: bytes) -> FilePin:
    """What a manifest says about bytes."""
    return FilePin(sha256=Digest.of(data), size=len(data))


def read_all(path: Path) -> dict[str, bytes]:
    """All files of an archive, everything about it checked.

    Raises:
        Damaged: anything is wrong.
    """
    with CrateZip(path) as archive:
        for finding in archive.check_form():
            raise Damaged(finding)
        files = {name: b"".join(archive.chunks(name)) for name in archive.files()}
    digests, faults = bag.read_manifest(files["tagmanifest-sha256.txt"], "tagmanifest-sha256.txt")
    assert faults == ()
    assert all(Digest.of(files[name]) == digest for name, digest in digests.items())
    return files


def test_every_single_bit_counts(tmp_path: Path) -> None:
    path = tmp_path / "x.crate.zip"
    good = archive_of(FILES, path)
    assert FILES.items() <= read_all(path).items()
    accepted = []
    with path.open("r+b", buffering=0) as stream:
        for place, byte in enumerate(good):
            for bit in range(8):
                stream.seek(place)
                stream.write(bytes([byte ^ 1 << bit]))
                try:
                    read_all(path)
                except Damaged:
                    continue
                accepted.append((place, bit))
            stream.seek(place)
            stream.write(bytes([byte]))
    assert accepted == []
    assert path.read_bytes() == good
    assert FILES.items() <= read_all(path).items()


def test_every_shortening_counts(tmp_path: Path) -> None:
    path = tmp_path / "x.crate.zip"
    good = archive_of(FILES, path)
    for length in range(len(good)):
        path.write_bytes(good[:length])
        with pytest.raises(Damaged):
            read_all(path)
        path.write_bytes(good[length:] if length else b"")
        with pytest.raises(Damaged):
            read_all(path)


# ---- headers by hand


@dataclass(frozen=True, kw_only=True)
class Raw:
    """An entry as its bytes stand in a file: each part may lie."""

    local: bytes
    data: bytes
    central: bytes
    after: bytes = b""
    before: bytes = field(default=b"")


def raw(name: str, data: bytes, offset: int = 0, **lies: object) -> Raw:
    """An honest entry, or one whose ``Entry`` says otherwise in both headers."""
    entry = replace(Entry(name=name, size=len(data), crc=zlib.crc32(data), offset=offset), **lies)  # type: ignore[arg-type]
    return Raw(local=local_header(entry), data=data, central=central_header(entry))


def built(entries: Sequence[Raw], *, end: Callable[[End], bytes] = end_records, offsets: bool = True) -> bytes:
    """A ZIP of these entries; ``offsets`` puts the true ones into the directory."""
    body, directory = b"", b""
    for entry in entries:
        body += entry.before
        central = bytearray(entry.central)
        if offsets:
            struct.pack_into("<L", central, 42, len(body))
        body += entry.local + entry.data + entry.after
        directory += central
    return body + directory + end(End(count=len(entries), directory_size=len(directory), directory_offset=len(body)))


def honest() -> list[Raw]:
    """What the writer makes of two files."""
    return [raw("data/a", b"aaaa"), raw("data/b", b"bb")]


def test_what_is_built_by_hand_is_what_is_written(tmp_path: Path) -> None:
    path = tmp_path / "x"
    items = [Item(name=name, pin=pin(data), source=data) for name, data in (("data/a", b"aaaa"), ("data/b", b"bb"))]
    write_crate(path, items)
    assert built(honest()) == path.read_bytes()


def patched(data: bytes, at: int, form: str, *values: int) -> bytes:
    """Bytes with numbers put in."""
    changed = bytearray(data)
    struct.pack_into(form, changed, at, *values)
    return bytes(changed)


def both(entry: Raw, local_at: int, central_at: int, form: str, *values: int) -> Raw:
    """The same number in both headers."""
    local, central = patched(entry.local, local_at, form, *values), patched(entry.central, central_at, form, *values)
    return replace(entry, local=local, central=central)


def with_extra(entry: Raw, extra: bytes, *, local: bool = True, central: bool = True) -> Raw:
    """An entry with an extra field."""
    if local:
        entry = replace(entry, local=patched(entry.local, 28, "<H", len(extra)) + extra)
    if central:
        entry = replace(entry, central=patched(entry.central, 30, "<H", len(extra)) + extra)
    return entry


def deflated(name: str, data: bytes) -> Raw:
    """An entry that is compressed."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    small = packer.compress(data) + packer.flush()
    entry = both(raw(name, data), 8, 10, "<H", 8)
    return replace(both(entry, 18, 20, "<L", len(small)), data=small)


A, B = honest()
UNICODE_PATH = struct.pack("<2HBL", 0x7075, 5 + 6, 1, zlib.crc32(b"data/a")) + b"data/z"
LONG = struct.pack("<2H2Q", 1, 16, 4, 4)

STRUCTURES: dict[str, bytes] = {
    "nothing": b"",
    "junk before": b"#!/bin/sh\n" + built(honest()),
    "junk before, offsets moved": built([replace(A, before=b"#!/bin/sh\n"), B]),
    "junk behind": built(honest()) + b"\0",
    "a comment": patched(built(honest()), len(built(honest())) - 2, "<H", 4) + b"evil",
    "a comment that is an end of its own": patched(built(honest()), len(built(honest())) - 2, "<H", 22)
    + built([])[-22:],
    "two ends": built(honest()) + built([A])[-22:],
    "two archives": built(honest()) + built([A]),
    "an end without its directory": built([])[-22:][:16] + struct.pack("<LH", 1000, 0),
    "hidden bytes between entries": built([replace(A, after=b"hidden"), B]),
    "hidden bytes before the directory": built([A, replace(B, after=b"hidden")]),
    "a hidden local entry": built([replace(A, after=raw("data/h", b"h").local + b"h"), B]),
    "a hidden entry of the directory": built([A, B], end=lambda end: end_records(replace(end, count=1))),
    "hidden bytes in the directory": built([A, replace(B, central=B.central + b"hidden")]),
    "hidden bytes behind the directory": built(
        honest(), end=lambda end: b"hidden" + end_records(replace(end, directory_size=end.directory_size))
    ),
    "the same name twice": built([A, raw("data/a", b"evil")]),
    "the same name twice, apart": built([A, B, raw("data/a", b"evil")]),
    "another name in the local header": built([replace(A, local=raw("data/z", b"aaaa").local), B]),
    "another size in the local header": built([replace(A, local=patched(A.local, 18, "<2L", 2, 2)), B]),
    "another CRC in the local header": built([replace(A, local=patched(A.local, 14, "<L", 1)), B]),
    "another CRC in the directory": built([replace(A, central=patched(A.central, 16, "<L", 1)), B]),
    "the same wrong CRC in both": built([both(A, 14, 16, "<L", 1), B]),
    "another flag in the local header": built([replace(A, local=patched(A.local, 6, "<H", 0x800)), B]),
    "the encrypted flag": built([both(A, 6, 8, "<H", 1), B]),
    "the UTF-8 flag": built([both(A, 6, 8, "<H", 0x800), B]),
    "masked local headers": built([both(A, 6, 8, "<H", 0x2000), B]),
    "a data descriptor": built(
        [
            replace(
                replace(both(A, 6, 8, "<H", 8), local=patched(patched(A.local, 6, "<H", 8), 14, "<3L", 0, 0, 0)),
                after=struct.pack("<4s3L", b"PK\x07\x08", zlib.crc32(b"aaaa"), 4, 4),
            ),
            B,
        ]
    ),
    "a compressed entry": built([deflated("data/a", b"a" * 100_000), B]),
    "an unknown method": built([both(A, 8, 10, "<H", 99), B]),
    "a time": built([both(A, 10, 12, "<2H", 0x6000, 0x5A21), B]),
    "a newer version needed": built([both(A, 4, 6, "<H", 63), B]),
    "made on DOS": built([replace(A, central=patched(A.central, 4, "<H", 20)), B]),
    "made on a Mac": built([replace(A, central=patched(A.central, 4, "<H", 7 << 8 | 20)), B]),
    "a comment of an entry": built([replace(A, central=patched(A.central, 32, "<H", 4) + b"evil"), B]),
    "another disk": built([replace(A, central=patched(A.central, 34, "<H", 1)), B]),
    "internal attributes": built([replace(A, central=patched(A.central, 36, "<H", 1)), B]),
    **{
        f"mode {mode:o}": built([replace(A, central=patched(A.central, 38, "<L", mode << 16)), B])
        for mode in (0, 0o120777, 0o104755, 0o102755, 0o101777, 0o40755, 0o60644, 0o20644, 0o10644, 0o140755, 0o100777)
    },
    "a DOS folder attribute": built([replace(A, central=patched(A.central, 38, "<L", 0o100644 << 16 | 0x10)), B]),
    "an extra field": built([with_extra(A, struct.pack("<2HL", 0x5455, 4, 0)), B]),
    "an extra field in the local header only": built([with_extra(A, b"\x99\x99\0\0", central=False), B]),
    "an extra field in the directory only": built([with_extra(A, b"\x99\x99\0\0", local=False), B]),
    "a Unicode path in an extra field": built([with_extra(A, UNICODE_PATH), B]),
    "ZIP64 where it is not needed": built([with_extra(both(A, 18, 20, "<2L", *(0xFFFFFFFF,) * 2), LONG), B]),
    "ZIP64 with sizes that differ": built(
        [
            with_extra(both(A, 18, 20, "<2L", *(0xFFFFFFFF,) * 2), struct.pack("<2H2Q", 1, 16, 1 << 32, 4)),
            B,
        ]
    ),
    "ZIP64 with a size beyond the file": built([raw("data/a", b"aaaa", size=1 << 40), B]),
    "ZIP64 with a size of 2^64 - 1": built([raw("data/a", b"aaaa", size=(1 << 64) - 1), B]),
    "ZIP64 without its field": built([both(A, 18, 20, "<2L", *(0xFFFFFFFF,) * 2), B]),
    "a size beyond the file": built([raw("data/a", b"aaaa", size=1 << 20), B]),
    "a size that swallows the next entry": built([raw("data/a", b"aaaa", size=4 + len(B.local) + 2), B]),
    "overlapping entries": built(
        [A, replace(B, local=b"", data=b"", central=raw("data/b", b"aaaa").central)], offsets=False
    ),
    "entries in another order in the directory": built(
        [replace(A, central=raw("data/b", b"bb", len(A.local) + 4).central), replace(B, central=A.central)],
        offsets=False,
    ),
    "an offset beyond the file": built([A, raw("data/b", b"bb", 1 << 30)], offsets=False),
    "a ZIP64 offset": built([A, raw("data/b", b"bb", 1 << 33)], offsets=False),
    "a count too low": built(honest(), end=lambda end: end_records(replace(end, count=1))),
    "a count too high": built(honest(), end=lambda end: end_records(replace(end, count=3))),
    "a count of 65535": built(honest(), end=lambda end: patched(end_records(end), 8, "<2H", 0xFFFF, 0xFFFF)),
    "a ZIP64 count of 2^64 - 1": built(honest(), end=lambda end: end_records(replace(end, count=(1 << 64) - 1))),
    "a ZIP64 count of two million": built(honest(), end=lambda end: end_records(replace(end, count=2_000_000))),
    "counts that differ": built(honest(), end=lambda end: patched(end_records(end), 8, "<2H", 1, 2)),
    "a directory that begins elsewhere": built(
        honest(), end=lambda end: end_records(replace(end, directory_offset=end.directory_offset - 1))
    ),
    "a directory of another length": built(
        honest(), end=lambda end: end_records(replace(end, directory_size=end.directory_size + 1))
    ),
    "a directory of 2^63 bytes": built(honest(), end=lambda end: end_records(replace(end, directory_size=1 << 63))),
    "a directory that would end beyond 2^64": (
        struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 3 << 8 | 45, 45, 0, 0, 0, 0, (1 << 64) - 1, (1 << 64) - 1)
        + struct.pack("<4sLQL", b"PK\x06\x07", 0, 0, 1)
        + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0, 0, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    ),
    "a directory on another disk": built(honest(), end=lambda end: patched(end_records(end), 4, "<H", 1)),
    "ZIP64's end where it is not needed": built(
        honest(),
        end=lambda end: end_records(replace(end, count=0x10000))[:-22] + end_records(end),
    ),
    "no entries and a long body": b"x" * 100 + end_records(End(count=0, directory_size=0, directory_offset=100)),
    "entries that archives do not have": built([A, raw("evil.txt", b"")]),
    "an order that archives do not have": built([B, A]),
    "tag files before data": built([raw("README.md", b""), A]),
}


@pytest.mark.parametrize("structure", STRUCTURES)
def test_another_form_is_refused(tmp_path: Path, structure: str) -> None:
    path = tmp_path / "x.crate.zip"
    path.write_bytes(STRUCTURES[structure])
    assert STRUCTURES[structure] != built(honest())
    with pytest.raises(Damaged) as caught:
        read_all(path)
    assert caught.value.finding.path
    assert caught.value.finding.problem
    assert caught.value.exit_code == 5


NAMES = [
    *("../evil", "data/../../evil", "data/..", "data/.", "./data/a", "data/./a", "..", "."),
    *("/etc/passwd", "//host/share", "data//a", "data/a/", "data/", "/", ""),
    *("C:\\evil", "C:/evil", "data\\a", "data\\..\\..\\evil", "\\\\host\\share", "data/a:stream", "data/aux "),
    *("data/a\0.txt", "data/a\nb", "data/a\rb", "data/a\tb", "data/\x1b[2J", "data/\x7f", "data/\x80", "data/\xe9"),
    *("data/a b", "data/~", "data/$HOME", "data/`id`", "data/a;b", "data/a|b", "data/*", "data/a%2e", "data/'a'"),
    *("data/" + "a" * 236, "data/" + "a/" * 120, "a" * 65535),
]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name)[:30])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    path, target = tmp_path / "x.crate.zip", tmp_path / "out" / "in"
    stand_in = "n" * len(name)
    entry = raw(stand_in, b"evil")
    raw_name = name.encode("latin-1")
    hostile = replace(
        entry,
        local=entry.local.replace(stand_in.encode(), raw_name) if name else entry.local,
        central=entry.central.replace(stand_in.encode(), raw_name) if name else entry.central,
    )
    path.write_bytes(built([hostile]))
    with pytest.raises(Damaged) as caught, CrateZip(path) as archive:
        unpack(archive, target, {name: pin(b"evil")})
    assert str(caught.value).isprintable()
    assert sorted(found.name for found in tmp_path.iterdir()) == ["x.crate.zip"]


@pytest.mark.parametrize(
    "names",
    [
        ("data/A", "data/a"),
        ("data/masses.TXT", "data/masses.txt"),
        ("data/a", "data/a/b"),
        ("data/a", "data/a/b/c"),
        ("data/A", "data/a/b"),
        ("data/A/b", "data/a"),
        ("data/A/b/c", "data/a/B"),
    ],
)
def test_names_that_are_one_on_other_systems_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    path = tmp_path / "x.crate.zip"
    path.write_bytes(built([raw(name, b"x") for name in names]))
    with pytest.raises(Damaged, match=r"only by case|is a file, and the folder of"):
        CrateZip(path)


def by_zipfile(**how: object) -> bytes:
    """What Python's zipfile writes."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", **how) as made:  # type: ignore[call-overload]
        made.writestr(zipfile.ZipInfo("data/a", (1980, 1, 1, 0, 0, 0)), b"aaaa")
    return target.getvalue()


def test_the_same_files_in_another_program_s_form_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.crate.zip"
    path.write_bytes(by_zipfile())
    with pytest.raises(Damaged, match=r"data/a: its entry in the directory is not canonical \(mode\)"):
        CrateZip(path)


def test_local_headers_are_looked_at_when_an_entry_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "x.crate.zip"
    path.write_bytes(STRUCTURES["another name in the local header"])
    with CrateZip(path) as archive:
        assert b"".join(archive.chunks("data/b")) == b"bb"
        for read in (archive.open, lambda name: list(archive.chunks(name))):
            with pytest.raises(Damaged, match=r"data/a: its local header is not canonical \(name or extra field\)"):
                read("data/a")
        assert [finding.path for finding in archive.check_form()] == ["data/a"]


def test_a_directory_of_a_million_names_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path, count = tmp_path / "x.crate.zip", 1_000_001
    with path.open("wb") as stream:
        stream.truncate(count * 100)
        stream.seek(0, 2)
        stream.write(end_records(End(count=count, directory_size=count * 100, directory_offset=0)))
    with pytest.raises(Damaged, match="too many entries: expected at most 1000000; found 1000001"):
        CrateZip(path)


@settings(max_examples=300, deadline=None)
@given(
    changes=st.lists(
        st.tuples(st.integers(0, 10_000), st.binary(max_size=4), st.integers(0, 4)), min_size=1, max_size=3
    )
)
def test_any_change_is_refused_with_a_reason(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, bytes, int]]
) -> None:
    good = built(honest())
    data = good
    for place, new, length in changes:
        at = place % (len(data) + 1)
        data = data[:at] + new + data[at + length :]
    assume(data != good)
    path = tmp_path_factory.getbasetemp() / "changed.zip"
    path.write_bytes(data)
    with pytest.raises(Damaged), CrateZip(path) as archive:
        for finding in archive.check_form():
            raise Damaged(finding)
        for name in archive.files():
            list(archive.chunks(name))
