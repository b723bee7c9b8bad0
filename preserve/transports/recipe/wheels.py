"""An image's Python part: hash-locked wheels, fetched by pip and unpacked here, for the image's own Python."""

from __future__ import annotations

import base64
import configparser
import csv
import hashlib
import io
import re
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from preserve.documents.counted import counted
from preserve.documents.lockfile import PackagePin
from preserve.documents.requirements import Requirement
from preserve.errors import DigestMismatch, MachineError, UserError
from preserve.transports.recipe.child import allowed, call, said
from preserve.transports.recipe.parcels import Parcels
from preserve.transports.recipe.tree import FILE, PROGRAM, Tree

KIND = "python"
_SHEBANG = b"#!/usr/bin/python3\n"
_WRONG_HASH = re.compile(
    r"^\s+(\S+) from (.*?):?\n\s*Expected sha256.*?([0-9a-f]{64})(?s:.)*?Got\s+([0-9a-f]{64})", re.MULTILINE
)
_LEGACY = {5: "manylinux1", 12: "manylinux2010", 17: "manylinux2014"}  # PEP 600: names of glibc 2.5, 2.12 and 2.17


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What wheels are for: Python ``3.11``, the image's glibc (``2, 36``), and the machine (``x86_64``)."""

    python: str
    glibc: tuple[int, int]
    machine: str

    @property
    def packages(self) -> str:
        """Where wheels are unpacked, relative to the root: Debian's folder for what is not its own."""
        return f"usr/local/lib/python{self.python}/dist-packages"

    def tags(self) -> tuple[str, ...]:
        """Platform tags of wheels that run there, best first."""
        tags: list[str] = []
        for minor in range(self.glibc[1], 4, -1):
            tags.append(f"manylinux_2_{minor}_{self.machine}")
            tags.extend(f"{name}_{self.machine}" for old, name in _LEGACY.items() if old == minor)
        return (*tags, f"linux_{self.machine}")


def target_of(pins: Iterable[PackagePin], *, machine: str) -> Target | None:
    """What wheels the image's Debian packages need; ``None`` without a Python among them."""
    versions = {pin.name: pin.version for pin in pins}
    pythons = [match[1] for name in versions if (match := re.fullmatch(r"python(3\.\d+)-minimal", name))]
    glibc = re.match(r"2\.(\d+)", versions.get("libc6", ""))
    if len(pythons) != 1 or glibc is None:
        return None
    return Target(python=pythons[0], glibc=(2, int(glibc[1])), machine=machine)


def choose_wheels(
    requirements: tuple[Requirement, ...],
    pins: Iterable[PackagePin],
    parcels: Parcels,
    *,
    target: Target,
    environment: Mapping[str, str],
    what: str,
) -> tuple[PackagePin, ...]:
    """Give one wheel for each requirement, all of them here as files; those of the lock where it has one.

    ``what`` names the file of requirements in messages.

    Raises:
        MachineError: pip is missing or cannot fetch one.
        DigestMismatch: what pip fetched has none of the requirement's digests.
    """
    locked = {(pin.name, pin.version): pin.sha256 for pin in pins if pin.kind == KIND}
    wanted = {}
    for each in requirements:
        digest = locked.get((each.name, each.version))
        wanted[each.name] = (digest,) if digest in each.hashes and digest is not None else each.hashes
    missing = [each for each in requirements if len(wanted[each.name]) > 1 or not parcels.has(wanted[each.name][0])]
    if missing:
        lines = (
            f"{each.name}=={each.version} " + " ".join(f"--hash={digest}" for digest in wanted[each.name])
            for each in missing
        )
        fetched = _download("\n".join(lines) + "\n", parcels, target, environment, what)
        for each in missing:
            found = tuple(digest for digest in wanted[each.name] if digest in fetched)
            if len(found) != 1:
                raise DigestMismatch(
                    f"{what}: pip fetched {counted(len(found), 'file')} for {each.name}=={each.version}"
                )
            wanted[each.name] = found
    return tuple(
        PackagePin(kind=KIND, name=each.name, version=each.version, sha256=wanted[each.name][0])
        for each in requirements
    )


def _download(
    requirements: str, parcels: Parcels, target: Target, environment: Mapping[str, str], what: str
) -> frozenset[str]:
    with tempfile.TemporaryDirectory(dir=parcels.folder, prefix=".wheels-") as name:
        place = Path(name)
        (place / "requirements.txt").write_text(requirements)
        (place / "wheels").mkdir()
        options = ("--require-hashes", "--only-binary", ":all:", "--no-deps", "--no-cache-dir", "--no-input")
        platforms = tuple(option for tag in target.tags() for option in ("--platform", tag))
        process = call(
            (
                *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", *options),
                *("--implementation", "cp", "--python-version", target.python, *platforms),
                *("--dest", str(place / "wheels"), "--requirement", str(place / "requirements.txt")),
            ),
            environment=allowed(environment),
            folder=place,
        )
        if process.returncode != 0:
            raise _refusal(process.stderr.decode(errors="replace"), said(process, prefix="ERROR:"), what)
        return frozenset(parcels.put(file) for file in (place / "wheels").iterdir())


def _refusal(everything: str, summary: str, what: str) -> MachineError | DigestMismatch:
    if "No module named pip" in everything:
        return MachineError(f"{what}: pip is missing beside {sys.executable}", hint="install it: python -m ensurepip")
    wrong = _WRONG_HASH.search(everything)
    if wrong:
        return DigestMismatch(
            f"{what}: the wheel of {wrong[1]} is not the locked: expected sha256:{wrong[3]}, found sha256:{wrong[4]}",
            hint="lock the requirements again, or find out who changed the file",
        )
    return MachineError(
        f"{what}: pip cannot fetch the wheels:\n{summary}",
        hint="each needs a wheel for the image's Python and glibc; see that this machine's pip reaches its index",
    )


class _Installation:
    """One wheel's way into a tree; collects the RECORD."""

    def __init__(self, tree: Tree, target: Target, origin: str) -> None:
        self._tree, self._target, self._origin = tree, target, origin
        self._rows: list[tuple[str, str, str]] = []

    def put(self, path: str, data: bytes, *, executable: bool) -> None:
        """Write a file (path relative to the root) and its row."""
        if path in self._tree.entries and self._tree.entries[path].is_folder:
            raise UserError(f"wheel {self._origin}: /{path} is a folder")
        self._tree.file(path, data, mode=PROGRAM if executable else FILE, origin=self._origin)
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        self._rows.append((self._from_packages(path), f"sha256={digest}", str(len(data))))

    def finish(self, record: str) -> None:
        """Write RECORD, sorted, with a row of its own."""
        text = io.StringIO()
        rows = sorted([*self._rows, (self._from_packages(record), "", "")])
        csv.writer(text, lineterminator="\n").writerows(rows)
        self._tree.file(record, text.getvalue().encode(), origin=self._origin)

    def _from_packages(self, path: str) -> str:
        base = self._target.packages
        if path.startswith(base + "/"):
            return path[len(base) + 1 :]
        return "../../../" + path.removeprefix("usr/local/")


def unpack_wheel(wheel: Path, tree: Tree, *, target: Target, origin: str) -> None:
    """Install a wheel into ``tree`` (PEP 427): its files, its scripts, its entry points, and a RECORD that is true.

    Raises:
        UserError: it is no wheel, or has paths that leave its folder.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            infos = sorted((info for info in archive.infolist() if not info.is_dir()), key=lambda info: info.filename)
            metadata = {info.filename.split("/")[0] for info in infos if info.filename.count("/") == 1}
            folder = next((name for name in sorted(metadata) if name.endswith(".dist-info")), None)
            if folder is None:
                raise UserError(f"{origin}: its file is not a wheel")
            _install(archive, infos, _Installation(tree, target, origin), folder, target)
    except zipfile.BadZipFile as error:
        raise UserError(f"{origin}: its file is not a wheel: {error}") from error


def _install(
    archive: zipfile.ZipFile, infos: list[zipfile.ZipInfo], installation: _Installation, folder: str, target: Target
) -> None:
    name = folder.removesuffix(".dist-info").partition("-")[0]
    entry_points = f"{folder}/entry_points.txt"
    for info in infos:
        path = _place(info.filename, folder, target, name)
        if path is None:
            continue
        data = archive.read(info)
        script = path.startswith("usr/local/bin/")
        if script and data.startswith(b"#!python"):
            data = _SHEBANG + data.partition(b"\n")[2]
        installation.put(path, data, executable=script or bool(info.external_attr >> 16 & 0o111))
        if info.filename == entry_points:
            for script_name, text in _scripts(data.decode()):
                installation.put(f"usr/local/bin/{script_name}", text, executable=True)
    installation.put(f"{target.packages}/{folder}/INSTALLER", b"preserve\n", executable=False)
    installation.finish(f"{target.packages}/{folder}/RECORD")


def _place(name: str, folder: str, target: Target, distribution: str) -> str | None:
    """Where a wheel's file belongs; ``None`` for bytecode and for what is written anew."""
    parts = name.split("/")
    if "" in parts or ".." in parts or name.startswith("/"):
        raise UserError(f"{folder}: the path {name!r} leaves the wheel")
    if name.endswith(".pyc") or name in {f"{folder}/RECORD", f"{folder}/INSTALLER", f"{folder}/direct_url.json"}:
        return None
    if not parts[0].endswith(".data") or len(parts) < 3:
        return f"{target.packages}/{name}"
    bases = {
        "purelib": target.packages,
        "platlib": target.packages,
        "scripts": "usr/local/bin",
        "data": "usr/local",
        "headers": f"usr/local/include/python{target.python}/{distribution}",
    }
    if parts[1] not in bases:
        raise UserError(f"{folder}: {name!r} is of an unknown kind")
    return "/".join([bases[parts[1]], *parts[2:]])


def _scripts(entry_points: str) -> Iterable[tuple[str, bytes]]:
    """Yield the scripts of console and graphical entry points, as pip writes them."""
    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(entry_points)
    for section in ("console_scripts", "gui_scripts"):
        for name, value in sorted(parser.items(section)) if parser.has_section(section) else ():
            module, _, attribute = value.partition("[")[0].strip().partition(":")
            first = attribute.strip().partition(".")[0]
            code = f"import sys\nfrom {module.strip()} import {first}\nsys.exit({attribute.strip()}())\n"
            if not re.fullmatch(r"[\w.-]+", name):
                raise UserError(f"the entry point {name!r} has no name of a program")
            yield name, _SHEBANG + code.encode()
