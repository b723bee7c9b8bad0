"""Archives against sha256sum and cp of the same bytes: writing, hashing all entries (as verify does), unpacking.

Every figure comes from a process of its own, so that its peak memory is its own; all of one set of files are measured
one after the other, so that the ratios hold on a machine whose speed drifts. All is on disk (synced) at the end of each
measurement that writes. Needs four times the largest size of disk space.

Usage: python benchmarks/archive.py [GIB ...]     (default: 1 5; in 50 and in 1,000 files, and one file of the largest)
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from preserve.digest import FilePin, hash_file
from preserve.documents import bag
from preserve.documents.archive import BAGIT, MANIFEST, TAG_MANIFEST
from preserve.stores.crate_writer import Item, write_crate
from preserve.stores.crate_zip import CrateZip
from preserve.stores.unpacking import hashed, unpack

GIB = 1 << 30
JUDGES = Path(__file__).resolve().parent.parent / ".judges" / "bin" / "python"  # has bagit.py, after make test


class Measured(NamedTuple):
    """Wall-clock and processor seconds (all its threads), and peak memory (MB) of one process."""

    seconds: float
    processor: float
    memory: float


def make_files(folder: Path, size: int, count: int) -> None:
    """Write ``count`` files of together ``size`` bytes, no two alike."""
    block = os.urandom(1 << 20)
    folder.mkdir()
    for number in range(count):
        left = size // count
        with (folder / f"f{number:04}").open("wb") as stream:
            stream.write(number.to_bytes(8, "big"))
            left -= 8
            while left:
                left -= stream.write(block[: min(left, len(block))])


def items_of(folder: Path, sums: Path) -> list[Item]:
    """Give the folder's files with the digests that sha256sum found, and a bag's tag files."""
    digests, faults = bag.read_manifest(sums.read_bytes(), sums.name)
    assert not faults
    items = []
    for name, digest in digests.items():
        path = folder / name.rpartition("/")[2]
        items.append(Item(name=name, pin=FilePin(sha256=digest, size=path.stat().st_size), source=path))
    tags = {BAGIT: bag.BAGIT_TXT, MANIFEST: bag.manifest(digests)}
    for name, data in tags.items():
        (folder.parent / name).write_bytes(data)
    pins = {name: hash_file(folder.parent / name) for name in tags}
    items += [Item(name=name, pin=pins[name], source=data) for name, data in tags.items()]
    table = bag.manifest({name: pin.sha256 for name, pin in pins.items()})
    (folder.parent / TAG_MANIFEST).write_bytes(table)
    return [*items, Item(name=TAG_MANIFEST, pin=hash_file(folder.parent / TAG_MANIFEST), source=table)]


def write(top: Path) -> None:
    """Write the archive."""
    write_crate(top / "x.crate.zip", items_of(top / "files", top / "sums"))


def show(top: Path) -> None:
    """Open the archive and read its tables."""
    with CrateZip(top / "x.crate.zip") as archive:
        assert len(bag.read_manifest(b"".join(archive.chunks(MANIFEST)), MANIFEST)[0]) + 3 == len(archive.files())


def verify(top: Path) -> None:
    """Check the form and hash every entry."""
    with CrateZip(top / "x.crate.zip") as archive:
        assert not list(archive.check_form())
        found = dict(hashed(archive, list(archive.files())))
        listed, _ = bag.read_manifest(b"".join(archive.chunks(MANIFEST)), MANIFEST)
        for name, digest in listed.items():
            pin = found[name]
            assert isinstance(pin, FilePin)
            assert pin.sha256 == digest


def take_out(top: Path) -> None:
    """Unpack all, hashed on the way."""
    with CrateZip(top / "x.crate.zip") as archive:
        pins = {item.name: item.pin for item in items_of(top / "files", top / "sums")}
        unpack(archive, top / "out", pins)
        os.sync()


OURS = {"write": write, "show": show, "verify": verify, "unpack": take_out}


def measured(*command: str | Path) -> Measured:
    """Run a command with nothing left to be written before it."""
    os.sync()
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command} failed ({process.returncode})")
    return Measured(seconds=seconds, processor=usage.ru_utime + usage.ru_stime, memory=usage.ru_maxrss / 1e3)


def measured_sums(top: Path) -> Measured:
    """Run sha256sum and keep what it says, as a manifest."""
    script = 'cd "$1" && sha256sum * | sed "s,  ,  data/," >../sums'
    return measured("sh", "-c", script, "sh", top / "files")


def line(what: str, ours: Measured, floor: float, of: str) -> None:
    """Print one figure."""
    print(
        f"  {what:8} {ours.seconds:7.2f} s {ours.seconds / floor:6.2f} x {of:24} "
        f"{ours.processor:6.2f} CPU s {ours.memory:5.0f} MB",
        flush=True,
    )


def compare(top: Path, size: int, count: int) -> None:
    """Measure all for one set of files."""
    make_files(top / "files", size, count)
    sums = measured_sums(top)
    copied = measured("cp", "-r", top / "files", top / "copy")
    synced = measured("sh", "-c", 'rm -r "$2"; cp -r "$1" "$2"; sync', "sh", top / "files", top / "copy")
    shutil.rmtree(top / "copy")
    floor = sums.seconds + copied.seconds
    lasting = sums.seconds + synced.seconds
    print(
        f"{size / GIB:g} GiB in {count} files: sha256sum {sums.seconds:.2f} s, cp {copied.seconds:.2f} s "
        f"(cp and sync {synced.seconds:.2f} s)",
        flush=True,
    )
    run = {
        name: measured(sys.executable, __file__, "--do", name, top) for name in ("write", "show", "verify", "unpack")
    }
    line("write", run["write"], lasting, "sha256sum + cp + sync")
    line("", run["write"], floor, "sha256sum + cp, unsynced")
    line("show", run["show"], lasting, "sha256sum + cp + sync")
    line("verify", run["verify"], sums.seconds, "sha256sum")
    line("unpack", run["unpack"], lasting, "sha256sum + cp + sync")
    if JUDGES.exists():
        theirs = measured(JUDGES, "-m", "bagit", "--validate", "--quiet", top / "out")
        line("verify", run["verify"], theirs.seconds, f"bagit.py ({theirs.seconds:.1f} s, {theirs.processor:.1f} CPU)")


def main() -> None:
    """Do one measurement's work, or print all figures."""
    if sys.argv[1:2] == ["--do"]:
        OURS[sys.argv[2]](Path(sys.argv[3]))
        return
    sizes = [float(word) for word in sys.argv[1:]] or [1.0, 5.0]
    for size, count in [*((size, count) for size in sizes for count in (50, 1000)), (max(sizes), 1)]:
        top = Path(tempfile.mkdtemp(prefix="preserve-bench-", dir=Path.cwd()))
        try:
            compare(top, round(size * GIB), count)
        finally:
            shutil.rmtree(top, ignore_errors=True)


if __name__ == "__main__":
    main()
