"""Debian packages as files: ``ar`` archives (deb(5)) of control data and a tar of what the package installs."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from preserve.errors import MachineError
from preserve.transports.recipe.tree import FILE, MERGED, PROGRAM, STICKY, Entry, Extent, Tree, merged, pointed_to

_MAGIC = b"!<arch>\n"
_OPENERS = {"": "r:", ".gz": "r:gz", ".xz": "r:xz", ".bz2": "r:bz2"}  # what every Python has; zstd is Ubuntu's
_DROPPED = re.compile(
    r"usr/share/(man|info|locale|lintian|bug|doc-base|linda)(/|$)|etc/(cron\.[a-z]+|logrotate\.d)(/|$)"
    r"|var/(lib/dpkg|log|cache/debconf)(/|$)|dev/.|usr/share/doc/[^/]+/(?!copyright$)"
)

Control = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """One package name that would satisfy a dependency; ``clause`` is the dependency as written."""

    names: tuple[str, ...]
    clause: str


def read_control(text: str) -> Iterator[Control]:
    """Yield the stanzas of a control file or of apt-cache's output; continuation lines stay with their field."""
    for block in re.split(r"\n\s*\n", text):
        stanza: dict[str, str] = {}
        field = ""
        for line in block.splitlines():
            if line[:1] in (" ", "\t"):
                stanza[field] = stanza.get(field, "") + "\n" + line
            elif ":" in line:
                field, _, value = line.partition(":")
                stanza[field] = value.strip()
        if stanza:
            yield stanza


def dependencies(control: Control) -> Iterator[Alternative]:
    """Yield what a package needs; versions and architectures are left to apt, which has judged them."""
    for field in ("Pre-Depends", "Depends"):
        for clause in filter(None, (part.strip() for part in control.get(field, "").split(","))):
            yield Alternative(names=tuple(_bare(name) for name in clause.split("|")), clause=clause)


def provided(control: Control) -> tuple[str, ...]:
    """Names that a package answers to, its own first."""
    virtual = (_bare(name) for name in control.get("Provides", "").split(",") if name.strip())
    return (control["Package"], *virtual)


def replaces(control: Control) -> frozenset[str]:
    """Packages whose files this one may overwrite."""
    return frozenset(_bare(name) for name in control.get("Replaces", "").split(",") if name.strip())


def control_of(package: Path, what: str) -> Control:
    """Control data of a .deb file; ``what`` names it in messages.

    Raises:
        MachineError: it is not a Debian package, or compressed in a way that Python cannot read.
    """
    with _tar(package, "control.tar", what) as tar:
        for member in tar:
            if member.name.removeprefix("./") == "control" and (stream := tar.extractfile(member)):
                return next(read_control(stream.read().decode(errors="replace")))
    raise MachineError(f"{what}: its control data are missing")


def unpack(package: Path, tree: Tree, *, origin: str) -> Iterator[str]:
    """Put a package's files into ``tree`` and yield the paths that were there already, so that the caller judges.

    No maintainer script runs; manuals, translations and documentation other than copyright are left out.

    Raises:
        MachineError: it is not a Debian package, or compressed in a way that Python cannot read.
    """
    contents: dict[str, Extent] = {}
    with _tar(package, "data.tar", origin) as tar:
        for member in tar:
            path = member.name.removeprefix("./").strip("/")
            if not path or ".." in path.split("/") or _DROPPED.match(merged(path)):
                continue
            if path in MERGED and not member.isdir():
                continue  # base-files' own link bin -> usr/bin
            path = f"usr/{path}" if path in MERGED else path
            entry = _entry(member, tar, tree, contents, origin)
            if entry is None or (entry.target is not None and merged(pointed_to(path, entry.target)) == merged(path)):
                continue  # a device, or a link that the usr-merge would let point at itself
            there = tree.get(path)
            if there is None or not (there.is_folder and entry.is_folder):
                if there is not None:
                    yield path
                tree.add(path, entry)


def _entry(
    member: tarfile.TarInfo, tar: tarfile.TarFile, tree: Tree, contents: dict[str, Extent], origin: str
) -> Entry | None:
    name = member.name.removeprefix("./")
    if member.isdir():
        return Entry(mode=STICKY if member.mode & 0o1000 else 0o755, origin=origin)
    if member.issym():
        return Entry(mode=0o777, target=_moved_target(name, member.linkname), origin=origin)
    mode = PROGRAM if member.mode & 0o111 else FILE
    if member.islnk():
        return Entry(mode=mode, content=contents[member.linkname.removeprefix("./")], origin=origin)
    stream = tar.extractfile(member)
    if stream is None:
        return None
    contents[name] = tree.spool.add(stream)
    return Entry(mode=mode, content=contents[name], origin=origin)


def _moved_target(path: str, target: str) -> str:
    """A relative link that the usr-merge takes one folder down, and that climbs, is written from the root."""
    if merged(path) != path and target.startswith(".."):
        return "/" + pointed_to(path, target)
    return target


def _tar(package: Path, wanted: str, what: str) -> tarfile.TarFile:
    with package.open("rb") as stream:
        for name, size in _members(stream, what):
            if name.startswith(wanted):
                opener = _OPENERS.get(name.removeprefix(wanted))
                if opener is None:
                    raise MachineError(
                        f"{what}: {name} is compressed in a way that is not read here",
                        hint="Debian's own packages are of xz or gz; is the mirror that of another distribution?",
                    )
                try:
                    return tarfile.open(fileobj=io.BytesIO(stream.read(size)), mode=opener)  # type: ignore[call-overload,no-any-return]
                except tarfile.TarError as error:
                    raise MachineError(f"{what}: {name} is damaged: {error}") from error
            stream.seek(size + size % 2, io.SEEK_CUR)
    raise MachineError(f"{what}: not a Debian package: it has no {wanted}")


def _members(stream: BinaryIO, what: str) -> Iterator[tuple[str, int]]:
    """Yield name and size of each member with ``stream`` at its first byte; the caller moves on to the next header."""
    if stream.read(len(_MAGIC)) != _MAGIC:
        raise MachineError(f"{what}: not a Debian package: it does not begin as an ar archive does")
    while len(header := stream.read(60)) == 60:
        try:
            yield header[:16].decode().strip().rstrip("/"), int(header[48:58])
        except ValueError as error:
            raise MachineError(f"{what}: not a Debian package: {error}") from error


def _bare(name: str) -> str:
    """A package's name without version, architecture or qualifier: ``libc6 (>= 2.36)``, ``python3:any``."""
    return re.split(r"[\s(:\[<]", name.strip(), maxsplit=1)[0]
