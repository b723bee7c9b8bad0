"""An image's Debian part: which packages, at which versions, and the files they make together."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from preserve.digest import Digest
from preserve.documents.lockfile import PackagePin
from preserve.documents.recipe import DebianPart, Recipe
from preserve.errors import DigestMismatch, MachineError, UserError
from preserve.interfaces import Progress
from preserve.transports.recipe.apt import Apt
from preserve.transports.recipe.child import call
from preserve.transports.recipe.deb import Control, control_of, dependencies, provided, replaces, unpack
from preserve.transports.recipe.parcels import Parcels
from preserve.transports.recipe.tree import LINK, MERGED, PROGRAM, STICKY, Entry, Tree

KIND = "debian"
_FOLDERS = (
    "dev",
    "etc",
    "home",
    "mnt",
    "opt",
    "proc",
    "root",
    "run",
    "srv",
    "sys",
    "usr/local/bin",
    "var/cache",
    "work",
)
_FILES = {
    "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/sh\n",
    "etc/group": b"root:x:0:\nnogroup:x:65534:\n",
    **dict.fromkeys(("etc/hostname", "etc/hosts", "etc/localtime", "etc/resolv.conf"), b""),  # engines bind theirs
}
# What update-alternatives would link, for the commands and libraries that programs expect: first come, first served.
_ALTERNATIVES = {
    "usr/bin/awk": ("gawk", "original-awk", "mawk"),
    "usr/bin/c++": ("g++", "clang++"),
    "usr/bin/cc": ("gcc", "clang"),
    "usr/bin/f77": ("gfortran",),
    "usr/bin/f95": ("gfortran",),
}
_LIBRARIES = {
    "libblas.so.3": ("openblas-pthread", "openblas-serial", "blas"),
    "liblapack.so.3": ("openblas-pthread", "openblas-serial", "lapack"),
}
_TRIPLET = re.compile(r"usr/lib/[a-z0-9_]+-linux-gnu")
_CERTIFICATES = "usr/share/ca-certificates/mozilla/"


def needed(requested: tuple[str, ...], controls: Mapping[str, Control]) -> tuple[frozenset[str], tuple[str, ...]]:
    """Which of the packages the requested ones need, and what they need that is not among them."""
    answers: dict[str, set[str]] = {}
    for name, control in controls.items():
        for answered in provided(control):
            answers.setdefault(answered, set()).add(name)
    found: set[str] = set()
    missing: list[str] = [name for name in requested if name not in controls]
    waiting = [name for name in requested if name in controls]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        for alternative in dependencies(controls[name]):
            satisfying = set().union(*(answers.get(other, set()) for other in alternative.names))
            waiting.extend(satisfying - found)
            if not satisfying:
                missing.append(alternative.clause)
    return frozenset(found), tuple(sorted(missing))


class DebianPackages:
    """Chooses and fetches packages: those of the lock as long as they suffice, else what the mirrors have now."""

    def __init__(self, apt: Apt, parcels: Parcels, *, image: str, progress: Progress) -> None:
        self._apt, self._parcels, self._image, self._progress = apt, parcels, image, progress

    def choose(self, recipe: Recipe, pins: Iterable[PackagePin]) -> tuple[PackagePin, ...]:
        """Give the packages of the recipe, all of them here as files.

        With pins nothing else is taken than what they say; a recipe that asks for more gets the rest from the mirrors.

        Raises:
            UserError: there is no such package.
            MachineError: the mirrors cannot be reached, or no longer have a pinned version.
            DigestMismatch: they have another package of that name and version.
        """
        pinned = {pin.name: pin for pin in pins if pin.kind == KIND}
        if pinned:
            self._fetch(tuple(pinned.values()))
            controls = {name: self._control(pin) for name, pin in pinned.items()}
            found, missing = needed(recipe.debian.packages, controls)
            if not missing:
                return tuple(pinned[name] for name in sorted(found))
        chosen = self._chosen(recipe.debian, pinned)
        self._fetch(chosen)
        return chosen

    def _chosen(self, part: DebianPart, pinned: Mapping[str, PackagePin]) -> tuple[PackagePin, ...]:
        controls = self._apt.resolve(part, {name: pin.version for name, pin in pinned.items()})
        chosen = tuple(sorted(_pin(control) for control in controls))
        for pin in chosen:
            if pin.name in pinned and pin != pinned[pin.name]:
                raise self._gone(pinned[pin.name], (pin.version,))
        return chosen

    def _control(self, pin: PackagePin) -> Control:
        return control_of(self._parcels.path(pin.sha256, pin.name), pin.name)

    def _fetch(self, pins: tuple[PackagePin, ...]) -> None:
        missing = tuple(pin for pin in pins if not self._parcels.has(pin.sha256))
        if not missing:
            return
        self._check_offered(missing)
        what = f"Debian packages of {self._image}"
        self._progress.bytes_done(what, 0, None)
        with tempfile.TemporaryDirectory(dir=self._parcels.folder, prefix=".debs-") as place:
            self._apt.download(tuple(f"{pin.name}={pin.version}" for pin in missing), Path(place))
            for file in sorted(Path(place).glob("*.deb")):
                self._parcels.put(file)
        for pin in missing:
            self._parcels.path(pin.sha256, f"Debian package {pin.name} {pin.version}")
        size = sum(self._parcels.path(pin.sha256, pin.name).stat().st_size for pin in missing)
        self._progress.bytes_done(what, size, size)

    def _check_offered(self, pins: tuple[PackagePin, ...]) -> None:
        offers = self._apt.offers(tuple(pin.name for pin in pins))
        for pin in pins:
            digests = {control["Version"]: control.get("SHA256", "") for control in offers[pin.name]}
            if pin.version not in digests:
                raise self._gone(pin, tuple(digests))
            if digests[pin.version] != pin.sha256.hex:
                raise DigestMismatch(
                    f"Debian package {pin.name} {pin.version} of {self._image}: expected {pin.sha256}, "
                    f"the mirrors have sha256:{digests[pin.version]}",
                    hint=self._update_hint(),
                )

    def _gone(self, pin: PackagePin, offered: tuple[str, ...]) -> MachineError:
        now = " and ".join(offered) or "no version of it"
        return MachineError(
            f"Debian package {pin.name} of {self._image} is pinned to {pin.version}, the mirrors of {self._apt.suite} "
            f"now offer {now}",
            hint=f"{self._update_hint()}; or copy .preserve/images from a machine that has built it",
        )

    def _update_hint(self) -> str:
        return f"take the present versions with: preserve lock --update IMAGE (the image of {self._image})"


def _pin(control: Control) -> PackagePin:
    digest = Digest("sha256:" + control["SHA256"])
    return PackagePin(kind=KIND, name=control["Package"], version=control["Version"], sha256=digest)


def assemble(pins: tuple[PackagePin, ...], parcels: Parcels, tree: Tree, *, scratch: Path) -> None:
    """Put all packages' files into ``tree``, with the few that installation would have made.

    Raises:
        UserError: two packages have the same file, or there is no shell among them.
        DigestMismatch: a package's file is not here.
    """
    for folder in _FOLDERS:
        tree.folder(folder)
    for folder in ("tmp", "var/tmp"):
        tree.folder(folder, mode=STICKY)
    for name in sorted(MERGED - {"lib32", "libx32"}):
        tree.folder(f"usr/{name}")
        tree.entries[name] = Entry(mode=LINK, target=f"usr/{name}")
    controls: dict[str, Control] = {}
    for pin in pins:
        package = parcels.path(pin.sha256, pin.name)
        controls[pin.name] = control_of(package, pin.name)
        _merge(package, tree, controls, pin.name)
    _finish(tree, scratch)


def _merge(package: Path, tree: Tree, controls: Mapping[str, Control], name: str) -> None:
    """Packages come sorted by name, whoever may overwrite whom: that is for their control data to say."""
    own = Tree(tree.spool)
    for twice in unpack(package, own, origin=name):
        raise UserError(f"Debian package {name} has /{twice} twice")
    for path, entry in own.entries.items():
        there = tree.get(path)
        if there is None or (there.is_folder and entry.is_folder):
            tree.entries.setdefault(path, entry)
        elif name in replaces(controls[there.origin]):
            continue
        elif there.origin in replaces(controls[name]):
            tree.add(path, entry)
        elif not _same(there, entry, tree):
            raise UserError(
                f"Debian packages {there.origin} and {name} both have /{path}", hint="leave one of them out"
            )


def _same(one: Entry, other: Entry, tree: Tree) -> bool:
    if one.content is None or other.content is None:
        return one.target is not None and one.target == other.target
    return tree.spool.read(one.content) == tree.spool.read(other.content)


def _finish(tree: Tree, scratch: Path) -> None:
    for path, data in _FILES.items():
        if path not in tree:
            tree.file(path, data)
    for path, programs in _ALTERNATIVES.items():
        _link_first(tree, path, programs)
    for folder in [path for path in tree.entries if _TRIPLET.fullmatch(path)]:
        for library, places in _LIBRARIES.items():
            _link_first(tree, f"{folder}/{library}", tuple(f"{place}/{library}" for place in places))
    bundle = [tree.read(path) for path in sorted(tree.entries) if path.startswith(_CERTIFICATES)]
    if bundle:
        tree.file("etc/ssl/certs/ca-certificates.crt", b"".join(bundle))
    if "usr/bin/busybox" in tree:
        _link_applets(tree, scratch)
    if "usr/bin/sh" not in tree:
        raise UserError("the image would have no /bin/sh", hint="add busybox-static or dash to the Debian packages")


def _link_first(tree: Tree, path: str, targets: tuple[str, ...]) -> None:
    """Link to the first target that is there, unless a package has the path itself."""
    folder = path.rpartition("/")[0]
    found = next((target for target in targets if f"{folder}/{target}" in tree), None)
    if found and path not in tree:
        tree.link(path, found)


def _link_applets(tree: Tree, scratch: Path) -> None:
    """Link what BusyBox can do and no package does; it says itself what that is."""
    program = scratch / "busybox"
    program.write_bytes(tree.read("usr/bin/busybox"))
    program.chmod(PROGRAM)
    listed = call((str(program), "--list-full"), environment={}, folder=scratch)
    if listed.returncode != 0 or not listed.stdout:
        raise MachineError("the image's busybox does not run on this machine", hint="busybox-static runs on its own")
    for path in listed.stdout.decode().split():
        name = path.rpartition("/")[2]
        if not any(f"usr/{folder}/{name}" in tree for folder in ("bin", "sbin")):
            tree.link(path, "/usr/bin/busybox")
