"""What every form of an archive keeps to (interfaces.Archive): the one file, and the folder that it was unpacked to."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from preserve.digest import CHUNK, Digest, FilePin
from preserve.errors import DigestMismatch
from preserve.interfaces import Archive
from preserve.stores.crate_writer import Item, write_crate
from preserve.stores.crate_zip import CrateZip
from preserve.stores.unpacked import UnpackedArchive

FILES = {
    "data/inputs/large": bytes(range(256)) * 10_000,
    "data/inputs/none": b"",
    "data/replay.sh": b"#!/bin/sh\n",
    "CITATION.cff": b"cff",
    "README.md": b"read me",
    "bagit.txt": b"bag",
    "tagmanifest-sha256.txt": b"table",
    "signatures/a.sig": b"sig",
}
PROGRAM = "data/replay.sh"


def packed(top: Path) -> CrateZip:
    """The one file."""
    pins = {n: FilePin(sha256=Digest.of(d), size=len(d), executable=n == PROGRAM) for n, d in FILES.items()}
    write_crate(top / "x.crate.zip", [Item(name=name, pin=pins[name], source=data) for name, data in FILES.items()])
    return CrateZip(top / "x.crate.zip")


def unpacked(top: Path) -> UnpackedArchive:
    """The same as a folder."""
    for name, data in FILES.items():
        path = top / "x" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o755 if name == PROGRAM else 0o644)
    return UnpackedArchive(top / "x")


@pytest.fixture(params=[packed, unpacked])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Archive:
    """Each form in turn."""
    made: Callable[[Path], Archive] = request.param
    return made(tmp_path)


def test_files_have_their_sizes_in_the_archive_s_order(archive: Archive) -> None:
    assert list(archive.files().items()) == [(name, len(data)) for name, data in FILES.items()]


def test_only_programs_may_be_executed(archive: Archive) -> None:
    assert [name for name in archive.files() if archive.executable(name)] == [PROGRAM]


@pytest.mark.parametrize("name", FILES)
def test_chunks_are_the_bytes_of_one_file_and_never_large(archive: Archive, name: str) -> None:
    chunks = list(archive.chunks(name))
    assert b"".join(chunks) == FILES[name]
    assert all(0 < len(chunk) <= CHUNK for chunk in chunks)


@pytest.mark.parametrize("name", FILES)
def test_a_reader_sees_one_file_only(archive: Archive, name: str) -> None:
    with archive.open(name) as stream:
        assert stream.read() == FILES[name]
        assert stream.seek(0, 2) == len(FILES[name])
        assert stream.read(1) == b""
        stream.seek(len(FILES[name]) // 2)
        assert stream.read() == FILES[name][len(FILES[name]) // 2 :]


@pytest.mark.parametrize("name", ["", "data", "data/none", "../x", "/etc/passwd", "data/inputs/LARGE", "data\0"])
def test_what_is_not_there_is_named(archive: Archive, name: str) -> None:
    for read in (archive.executable, archive.open, lambda missing: list(archive.chunks(missing))):
        with pytest.raises(DigestMismatch, match="is not in the archive"):
            read(name)


def test_threads_read_at_once(archive: Archive) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda name: (name, b"".join(archive.chunks(name))), [*FILES] * 8))
    assert found == [*FILES.items()] * 8


def test_a_reader_outlives_the_archive_s_variable(tmp_path: Path) -> None:
    for form in (packed, unpacked):
        with form(tmp_path).open("README.md") as stream:
            assert stream.read() == b"read me"


def test_a_file_that_is_cut_short_meanwhile_is_noticed(archive: Archive, tmp_path: Path) -> None:
    chunks = archive.chunks("data/inputs/large")
    assert next(chunks) == FILES["data/inputs/large"][:CHUNK]
    for path in (tmp_path / "x.crate.zip", tmp_path / "x/data/inputs/large"):
        if path.exists():
            with path.open("r+b") as stream:
                stream.truncate(2 * CHUNK)
    with pytest.raises(DigestMismatch, match="data/inputs/large"):
        list(chunks)
