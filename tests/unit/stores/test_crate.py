"""Writing an archive and reading it again; what can go wrong in between."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preserve.digest import Digest, FilePin, hash_file
from preserve.errors import DigestMismatch, MachineError, UserError
from preserve.interfaces import Silent
from preserve.stores import beside, crate_writer, crate_zip
from preserve.stores.crate_writer import Item, write_crate
from preserve.stores.crate_zip import CrateZip
from preserve.stores.damage import Damaged
from preserve.stores.unpacked import UnpackedArchive
from preserve.stores.unpacking import hashed, unpack
from preserve.stores.zip_form import End, central_header, end_records, laid_out, local_header

PART = st.text("abXY09._+=@-", min_size=1, max_size=8).filter(lambda part: part not in (".", ".."))
NAME = st.lists(PART, min_size=1, max_size=3).map(lambda parts: "data/" + "/".join(parts))
CONTENT = st.one_of(
    st.binary(max_size=50),
    st.integers(crate_writer.SMALL - 1, crate_writer.SMALL + 1).map(lambda size: b"s" * size),
    st.sampled_from([1 << 20, (1 << 20) + 1, 9 << 20]).map(lambda size: b"l" * size),
)
FILES = st.dictionaries(NAME, st.tuples(CONTENT, st.booleans()), max_size=12)
MEBIBYTE = 1 << 20


def item(name: str, data: bytes, source: Path | None = None, *, executable: bool = False) -> Item:
    """A file to archive, from memory or from ``source``."""
    pin = FilePin(sha256=Digest.of(data), size=len(data), executable=executable)
    return Item(name=name, pin=pin, source=data if source is None else source)


def fitting(files: dict[str, tuple[bytes, bool]]) -> dict[str, tuple[bytes, bool]]:
    """Those of the files whose names go together, also where case does not count."""
    found: dict[str, tuple[bytes, bool]] = {}
    for name in sorted(files):
        ours, others = f"{name}/".lower(), [f"{other}/".lower() for other in found]
        if not any(ours.startswith(other) or other.startswith(ours) for other in others):
            found[name] = files[name]
    return found


@pytest.fixture
def crate(tmp_path: Path) -> Path:
    """A small archive: two files, one large enough for both threads."""
    path = tmp_path / "small.crate.zip"
    write_crate(path, small_items())
    return path


def small_items() -> list[Item]:
    """What is in it."""
    return [
        item("data/code/run", b"#!/bin/sh\n", executable=True),
        item("data/inputs/masses.txt", b"91.2\n" * 100_000),
        item("data/inputs/none", b""),
        item("README.md", b"read me"),
        item("tagmanifest-sha256.txt", b"tags"),
    ]


def left_in(folder: Path) -> list[str]:
    """Names of all files in a folder."""
    return sorted(path.name for path in folder.iterdir())


@settings(max_examples=40, deadline=None)
@given(files=FILES, more=st.dictionaries(st.sampled_from(["a", "b", "c"]), st.binary(max_size=9)))
def test_what_is_written_is_read_by_us_and_by_zipfile(
    files: dict[str, tuple[bytes, bool]], more: dict[str, bytes]
) -> None:
    files = fitting(files)
    with tempfile.TemporaryDirectory() as folder:
        path, signed = Path(folder, "x.zip"), Path(folder, "signed.zip")
        write_crate(path, [item(name, data, executable=x) for name, (data, x) in files.items()])
        crate_writer.write_more(path, signed, [(f"signatures/{name}", data) for name, data in more.items()])
        with CrateZip(signed) as archive, zipfile.ZipFile(signed) as theirs:
            assert list(archive.check_form()) == []
            found = {name: b"".join(archive.chunks(name)) for name in archive.files()}
            assert found == {name: theirs.read(name) for name in theirs.namelist()}
            assert list(found) == [*files, *(f"signatures/{name}" for name in sorted(more))]
            modes = {name: (theirs.getinfo(name).external_attr >> 16) for name in files}
            assert modes == {name: 0o100755 if x else 0o100644 for name, (_, x) in files.items()}
            pins = dict(hashed(archive, list(found)))
            unpack(archive, Path(folder, "out"), {name: pin for name, pin in pins.items() if isinstance(pin, FilePin)})
        whole = signed.read_bytes()
        data_end = path.stat().st_size if not more else whole.index(b"signatures/") - 30
        assert path.read_bytes()[:data_end] == whole[:data_end]
        with UnpackedArchive(Path(folder, "out")) as unpacked:
            assert dict(hashed(unpacked, list(unpacked.files()))) == pins
            assert list(unpacked.files()) == list(found)


def test_unzip_finds_nothing_wrong_and_unpacks_the_same(crate: Path, tmp_path: Path) -> None:
    done = subprocess.run(["unzip", "-t", crate], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "No errors detected" in done.stdout
    subprocess.run(["unzip", "-q", crate, "-d", tmp_path / "theirs"], check=True)
    with CrateZip(crate) as packed, UnpackedArchive(tmp_path / "theirs") as unpacked:
        assert dict(hashed(packed, list(packed.files()))) == dict(hashed(unpacked, list(unpacked.files())))


@pytest.mark.parametrize("variables", [{"TZ": "Asia/Kathmandu", "LC_ALL": "C"}, {"TZ": "UTC+12", "LC_ALL": "C.UTF-8"}])
@pytest.mark.parametrize("umask", [0, 0o077])
def test_the_bytes_depend_on_nothing_else(crate: Path, tmp_path: Path, variables: dict[str, str], umask: int) -> None:
    script = (
        "import os, sys; sys.path[:0] = sys.argv[1:2]; os.umask(int(sys.argv[3])); from pathlib import Path\n"
        "from test_crate import small_items; from preserve.stores.crate_writer import write_crate\n"
        "write_crate(Path(sys.argv[2]), small_items())"
    )
    path = tmp_path / "again.zip"
    subprocess.run([sys.executable, "-c", script, Path(__file__).parent, path, str(umask)], env=variables, check=True)
    assert path.read_bytes() == crate.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_part_of_an_entry_is_read_from_anywhere(crate: Path) -> None:
    with CrateZip(crate) as archive, archive.open("data/inputs/masses.txt") as stream:
        assert stream.seek(-5, os.SEEK_END) == 499_995
        assert stream.read() == b"91.2\n"
        assert stream.seek(5) == 5
        assert stream.read(4) == b"91.2"
        assert isinstance(io.TextIOWrapper(stream).readline(), str)


def test_several_threads_read_at_once(crate: Path) -> None:
    with CrateZip(crate) as archive:
        found: list[bytes] = []
        threads = [
            threading.Thread(target=lambda: found.append(b"".join(archive.chunks("data/inputs/masses.txt"))))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [b"91.2\n" * 100_000] * 8


def test_a_closed_archive_reads_no_other_file(crate: Path) -> None:
    archive = CrateZip(crate)
    stream = archive.open("README.md")
    archive.close()
    with crate.open("rb"), pytest.raises(ValueError, match="closed"):
        stream.read()


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, bytes]:
    """An archive with a file that counts as large, and that file's bytes."""
    monkeypatch.setattr(crate_zip, "LARGE", MEBIBYTE)
    path, data = tmp_path / "x.zip", b"l" * 9 * MEBIBYTE + b"rest!"
    write_crate(path, [item("data/a", data)])
    return path, data


def test_a_large_file_is_read_whole(large: tuple[Path, bytes]) -> None:
    path, data = large
    with CrateZip(path) as archive:
        assert b"".join(archive.chunks("data/a")) == data


@pytest.mark.parametrize("changed", [0, 4 * MEBIBYTE, 9 * MEBIBYTE + 4])
def test_a_large_file_is_checked_to_its_last_byte(large: tuple[Path, bytes], changed: int) -> None:
    path, _ = large
    with path.open("r+b") as stream:
        stream.seek(30 + len("data/a") + changed)
        stream.write(b"X")
    with CrateZip(path) as archive, pytest.raises(Damaged, match="data/a: has other bytes than its CRC says"):
        list(archive.chunks("data/a"))


@pytest.mark.parametrize("name", ["data/none", "data", "../x", ""])
def test_what_is_not_inside_is_said(crate: Path, name: str) -> None:
    with CrateZip(crate) as archive:
        for read in (archive.open, archive.executable, lambda n: list(archive.chunks(n))):
            with pytest.raises(Damaged, match="is not in the archive"):
                read(name)


def test_no_archive_at_all(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no archive"):
        CrateZip(tmp_path / "none")
    with pytest.raises(UserError, match="there is no folder"):
        UnpackedArchive(tmp_path / "none")
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", Path("/dev/zero")):
        with pytest.raises(Damaged, match="does not end as a ZIP"):
            CrateZip(path)


@pytest.mark.parametrize("names", [["data/b", "data/a"], ["data/a", "data/a"], ["evil"], ["data/../a"]])
def test_names_that_archives_do_not_have_are_not_written(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(ValueError, match=names[-1]):
        write_crate(tmp_path / "x", [item(name, b"") for name in names])
    assert left_in(tmp_path) == []


# ---- files that change


CHANGES: dict[str, Callable[[Path], object]] = {
    "same length": lambda path: path.write_bytes(b"X" + path.read_bytes()[1:]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"X"),
    "shorter": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "empty": lambda path: path.write_bytes(b""),
    "a fifo": lambda path: (path.unlink(), os.mkfifo(path)),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("size", [10, 3 * MEBIBYTE])
@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_is_not_what_was_pinned_is_named(tmp_path: Path, change: str, size: int) -> None:
    source, out = tmp_path / "masses.txt", tmp_path / "out"
    out.mkdir()
    source.write_bytes(b"s" * size)
    pinned = item("data/inputs/m", source.read_bytes(), source)
    CHANGES[change](source)
    with pytest.raises((DigestMismatch, MachineError), match=r"masses\.txt"):
        write_crate(out / "x.zip", [pinned])
    assert left_in(out) == []


@pytest.mark.parametrize("change", ["longer", "shorter"])
def test_a_file_that_changes_while_it_is_copied_is_named(tmp_path: Path, change: str) -> None:
    source, out = tmp_path / "masses.txt", tmp_path / "out"
    out.mkdir()
    source.write_bytes(b"s" * 3 * MEBIBYTE)

    class Change(Silent):
        def bytes_done(self, what: str, done: int, total: int | None) -> None:
            if done == MEBIBYTE:
                CHANGES[change](source)

    with pytest.raises(DigestMismatch, match=r"data/inputs/m .*masses\.txt.* changed"):
        write_crate(out / "x.zip", [item("data/inputs/m", source.read_bytes(), source)], progress=Change())
    assert left_in(out) == []


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"cannot read .*gone: No such file"):
        write_crate(tmp_path / "x.zip", [item("data/a", b"", tmp_path / "gone")])
    assert left_in(tmp_path) == []


def test_bytes_in_memory_are_compared_too(tmp_path: Path) -> None:
    wrong = Item(name="data/a", pin=FilePin(sha256=Digest.of(b"a"), size=1), source=b"b")
    with pytest.raises(DigestMismatch, match="data/a changed"):
        write_crate(tmp_path / "x.zip", [wrong])


# ---- places that refuse


def test_without_room_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "_free", lambda folder: 1000)
    with pytest.raises(MachineError, match=r"no room for x\.zip: 3\.1 MB are needed, 0\.0 MB are free") as caught:
        write_crate(tmp_path / "x.zip", [item("data/a", b"a" * 3 * MEBIBYTE)])
    assert caught.value.hint
    assert left_in(tmp_path) == []


WRITE = (
    "import resource, sys; from pathlib import Path; from preserve.errors import PreserveError\n"
    "from preserve.digest import hash_file; from preserve.stores.crate_writer import Item, write_crate\n"
    "resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000)); source = Path(sys.argv[1])\n"
    "try: write_crate(Path(sys.argv[2]), [Item(name='data/a', pin=hash_file(source), source=source)])\n"
    "except PreserveError as error: print(type(error).__name__, error.message)\n"
)


def test_a_write_that_the_system_refuses_leaves_nothing(tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    out.mkdir()
    source.write_bytes(bytes(5_000_000))
    done = subprocess.run([sys.executable, "-c", WRITE, source, out / "x.zip"], check=True, capture_output=True)
    assert done.stdout.decode().strip() == f"MachineError cannot write {out / 'x.zip'}: File too large"
    assert left_in(out) == []


@pytest.mark.parametrize("size", [10, 3 * MEBIBYTE])  # written by the caller's thread, and by the other
def test_a_disk_that_fills_meanwhile_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(MachineError, match=r"no room for x\.zip: .* MB are needed, .* MB are free"):
        write_crate(tmp_path / "x.zip", [item("data/a", b"a" * size)])
    assert left_in(tmp_path) == []


KILLED = (
    "import os, signal, sys; from pathlib import Path; from preserve.interfaces import Silent\n"
    "from preserve.digest import hash_file; from preserve.stores.crate_writer import Item, write_crate\n"
    "class Kill(Silent):\n"
    "    def bytes_done(self, what, done, total):\n"
    "        if done == 2 << 20: os.kill(os.getpid(), signal.SIGKILL)\n"
    "source = Path(sys.argv[1])\n"
    "write_crate(Path(sys.argv[2]), [Item(name='data/a', pin=hash_file(source), source=source)], progress=Kill())\n"
)


def test_a_killed_writer_leaves_no_archive_and_the_next_one_tidies(tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    out.mkdir()
    source.write_bytes(bytes(5_000_000))
    done = subprocess.run([sys.executable, "-c", KILLED, source, out / "x.zip"], check=False)
    assert done.returncode == -signal.SIGKILL
    assert "x.zip" not in left_in(out)
    write_crate(out / "x.zip", [Item(name="data/a", pin=hash_file(source), source=source)])
    assert left_in(out) == ["x.zip"]
    with CrateZip(out / "x.zip") as archive:
        assert list(archive.check_form()) == []
        assert sum(map(len, archive.chunks("data/a"))) == 5_000_000


def test_without_a_disk_that_keeps_it_there_is_no_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(MachineError, match=r"cannot write .*x\.zip: Input/output error"):
        write_crate(tmp_path / "x.zip", [item("data/a", b"a")])
    assert left_in(tmp_path) == []


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    class Interrupt(Silent):
        def bytes_done(self, what: str, done: int, total: int | None) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_crate(tmp_path / "x.zip", [item("data/a", b"a" * 3 * MEBIBYTE)], progress=Interrupt())
    assert left_in(tmp_path) == []


def test_an_older_file_stays_until_the_new_one_is_whole(tmp_path: Path, crate: Path) -> None:
    before = crate.read_bytes()
    with pytest.raises(DigestMismatch):
        write_crate(crate, [Item(name="data/a", pin=FilePin(sha256=Digest.of(b"a"), size=1), source=b"b")])
    assert crate.read_bytes() == before
    write_crate(crate, [item("data/a", b"a")])
    assert crate.read_bytes() != before


def test_two_writers_of_one_file_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"

    class Second(Silent):
        def bytes_done(self, what: str, done: int, total: int | None) -> None:
            if done == 1:
                with pytest.raises(MachineError, match="another process is writing"):
                    write_crate(path, [item("data/b", b"b")])

    write_crate(path, [item("data/a", b"a"), item("data/c", b"c")], progress=Second())
    with CrateZip(path) as archive:
        assert list(archive.files()) == ["data/a", "data/c"]


def test_a_link_in_the_way_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / ".x.zip.writing").symlink_to(tmp_path / "precious")
    with pytest.raises(MachineError, match="cannot write"):
        write_crate(tmp_path / "x.zip", [item("data/a", b"a")])
    assert not (tmp_path / "precious").exists()


# ---- signatures


def test_signatures_are_added_without_touching_the_rest(crate: Path, tmp_path: Path) -> None:
    before, target = crate.read_bytes(), tmp_path / "signed.zip"
    crate_writer.write_more(crate, target, [("signatures/b.sig", b"bbb")])
    crate_writer.write_more(target, target, [("signatures/a.sig", b"a")])
    assert crate.read_bytes() == before
    with CrateZip(crate) as unsigned, CrateZip(target) as signed:
        assert list(signed.check_form()) == []
        assert list(signed.files())[-2:] == ["signatures/a.sig", "signatures/b.sig"]
        assert signed.entries()[:-2] == unsigned.entries()
        assert target.read_bytes()[: unsigned.directory_offset] == before[: unsigned.directory_offset]
        assert b"".join(signed.chunks("signatures/b.sig")) == b"bbb"
    write_crate(
        tmp_path / "at-once", [*small_items(), item("signatures/a.sig", b"a"), item("signatures/b.sig", b"bbb")]
    )
    assert (tmp_path / "at-once").read_bytes() == target.read_bytes()


def test_a_signature_is_not_replaced(crate: Path) -> None:
    crate_writer.write_more(crate, crate, [("signatures/a.sig", b"a")])
    before = crate.read_bytes()
    with pytest.raises(UserError, match=r"signatures/a\.sig is there already"):
        crate_writer.write_more(crate, crate, [("signatures/a.sig", b"b")])
    with pytest.raises(ValueError, match=r"README\.md stands twice"):
        crate_writer.write_more(crate, crate, [("README.md", b"b")])
    assert crate.read_bytes() == before


def test_where_the_kernel_cannot_copy_it_is_done_by_hand(
    crate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(18, "Invalid cross-device link")

    crate_writer.write_more(crate, tmp_path / "one", [("signatures/a", b"a")])
    monkeypatch.setattr(os, "copy_file_range", refuse)
    crate_writer.write_more(crate, tmp_path / "other", [("signatures/a", b"a")])
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


# ---- many entries


def test_zip64_counts_entries_only_where_16_bits_do_not(tmp_path: Path) -> None:
    path = tmp_path / "many.zip"
    items = [item(f"data/{number:06}", b"") for number in range(0xFFFF)]
    for count, long in ((0xFFFE, False), (0xFFFF, True)):
        write_crate(path, items[:count])
        assert (b"PK\x06\x06" in path.read_bytes()[-98:]) is long
        with CrateZip(path) as archive, zipfile.ZipFile(path) as theirs:
            assert list(archive.files()) == theirs.namelist()
            assert len(archive.files()) == count


def test_a_file_beyond_4_gib_and_what_comes_behind_it_are_read(tmp_path: Path) -> None:
    path, size = tmp_path / "large.zip", 5 << 30
    entries = laid_out([("data/large", size, False), ("data/small", 4, False)])
    last = replace(entries[1], crc=zlib.crc32(b"91.2"))
    with path.open("wb") as stream:  # the large file is a hole: reading all of it is for benchmarks/archive.py
        for entry, data in ((entries[0], b""), (last, b"91.2")):
            stream.seek(entry.offset)
            stream.write(local_header(entry) + data)
        directory = central_header(entries[0]) + central_header(last)
        stream.write(directory + end_records(End(count=2, directory_size=len(directory), directory_offset=last.end)))
    with CrateZip(path) as archive, zipfile.ZipFile(path) as theirs:
        assert list(archive.check_form()) == []
        assert dict(archive.files()) == {one.filename: one.file_size for one in theirs.infolist()}
        assert b"".join(archive.chunks("data/small")) == theirs.read("data/small") == b"91.2"
        with archive.open("data/large") as stream:
            stream.seek(size - 3)
            assert stream.read() == b"\0\0\0"


# ---- unpacking


class Forged:
    """An archive that gives any bytes under any name: what unpacking must not rely on."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self._files = files

    def files(self) -> dict[str, int]:
        """Sizes by name."""
        return {name: len(data) for name, data in self._files.items()}

    def executable(self, name: str) -> bool:
        """None is."""
        return False

    def open(self, name: str) -> io.BytesIO:
        """A reader."""
        return io.BytesIO(self._files[name])

    def chunks(self, name: str) -> Iterator[bytes]:
        """All bytes, one at a time."""
        for byte in self._files[name]:
            yield bytes([byte])


def pin(data: bytes, *, executable: bool = False) -> FilePin:
    """What a manifest says."""
    return FilePin(sha256=Digest.of(data), size=len(data), executable=executable)


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../x", "a//x", "", ".", "a/.", "a\0b", "a/"])
def test_nothing_is_put_outside_the_folder(tmp_path: Path, path: str) -> None:
    with pytest.raises(UserError, match="not below the folder"):
        unpack(Forged({"data/a": b"a"}), tmp_path / "out", {"data/a": pin(b"a")}, places={"data/a": path})
    with pytest.raises(UserError, match="not below the folder"):
        unpack(Forged({path: b"a"}), tmp_path / "out", {path: pin(b"a")})
    assert left_in(tmp_path) == []


def test_no_link_is_followed(tmp_path: Path) -> None:
    out, outside = tmp_path / "out", tmp_path / "outside"
    out.mkdir()
    outside.mkdir()
    (out / "data").symlink_to(outside)
    (out / "file").symlink_to(outside / "made")
    wanted = {"data/a": pin(b"a"), "file": pin(b"f")}
    for name, expected in wanted.items():
        with pytest.raises(UserError, match="something stands there already"):
            unpack(Forged({"data/a": b"a", "file": b"f"}), out, {name: expected})
    assert left_in(outside) == []


def test_no_file_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"mine")
    with pytest.raises(UserError, match="something stands there already"):
        unpack(Forged({"a": b"a"}), tmp_path, {"a": pin(b"a")})
    assert (tmp_path / "a").read_bytes() == b"mine"


@pytest.mark.parametrize("found", [b"b", b"", b"aa", b"a" * 100])
def test_other_bytes_than_the_digest_says_do_not_stay(tmp_path: Path, found: bytes) -> None:
    with pytest.raises(Damaged, match="data/a"):
        unpack(Forged({"data/a": found}), tmp_path, {"data/a": pin(b"a")})
    assert left_in(tmp_path / "data") == []


def test_modes_are_those_of_the_pins_under_any_umask(tmp_path: Path) -> None:
    before = os.umask(0o777)
    try:
        unpack(Forged({"a": b"a", "b": b"b"}), tmp_path, {"a": pin(b"a"), "b": pin(b"b", executable=True)})
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o7777 for name in "ab"] == [0o644, 0o755]


def test_original_paths_may_have_any_characters(tmp_path: Path) -> None:
    path = "my data/Zµµ: 91 GeV\n.txt"
    unpack(
        Forged({"data/inputs/m": b"a"}), tmp_path / "out", {"data/inputs/m": pin(b"a")}, places={"data/inputs/m": path}
    )
    assert (tmp_path / "out" / path).read_bytes() == b"a"


def test_unpacking_asks_for_room_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "_free", lambda folder: 2)
    with pytest.raises(MachineError, match="no room for unpacking"):
        unpack(Forged({"a": b"aaa"}), tmp_path / "out", {"a": pin(b"aaa")})
    assert left_in(tmp_path / "out") == []


def test_hashing_goes_on_after_a_damaged_file(crate: Path) -> None:
    with crate.open("r+b") as stream:
        stream.seek(crate.read_bytes().index(b"91.2"))
        stream.write(b"92")
    with CrateZip(crate) as archive:
        found = dict(hashed(archive, [*archive.files(), "data/none"]))
    bad = {name: str(value) for name, value in found.items() if isinstance(value, Damaged)}
    right, wrong = (zlib.crc32(b"91.2\n" * 100_000), zlib.crc32(b"92.2\n" + b"91.2\n" * 99_999))
    assert bad == {
        "data/inputs/masses.txt": "data/inputs/masses.txt: has other bytes than its CRC says: "
        f"expected {right:08x}; found {wrong:08x}",
        "data/none": "data/none: is not in the archive",
    }
    assert found["README.md"] == pin(b"read me")


def test_progress_counts_every_byte_once(crate: Path, tmp_path: Path) -> None:
    class Heard(Silent):
        def __init__(self) -> None:
            self.last: dict[str, tuple[int, int | None]] = {}

        def bytes_done(self, what: str, done: int, total: int | None) -> None:
            assert done >= self.last.get(what, (0, 0))[0]
            self.last[what] = done, total

    heard = Heard()
    write_crate(tmp_path / "x.zip", small_items(), progress=heard)
    with CrateZip(tmp_path / "x.zip") as archive:
        pins = dict(hashed(archive, list(archive.files()), progress=heard))
        unpack(archive, tmp_path / "out", {n: p for n, p in pins.items() if isinstance(p, FilePin)}, progress=heard)
    payload = sum(one.pin.size for one in small_items())
    size = (tmp_path / "x.zip").stat().st_size
    assert heard.last == {"archive": (size, size), "verify": (payload, payload), "unpack": (payload, payload)}
