"""Apt with a state of its own: resolves and downloads as an ordinary user, blind to what this machine has installed.

Where the mirrors are is this machine's own apt configuration's to say; signatures are checked against Debian's keys.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from preserve.documents.recipe import DebianPart
from preserve.errors import MachineError, UserError
from preserve.transports.recipe.child import allowed, call, said
from preserve.transports.recipe.deb import Control, read_control

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_POCKETS = ("", "-updates", "-security")
_FIELDS = ("$(SITE)", "$(RELEASE)", "$(CODENAME)", "$(COMPONENT)", "$(ORIGIN)")
_NETWORK = re.compile(r"Acquire::(http|https|socks|ftp|Retries|ForceIPv[46]|ProxyAutoDetect|Proxy-Auto-Detect)\b")
_ELSEWHERE = "use an image of a registry, a Dockerfile, or .preserve/images of a machine that has built it"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Mirror:
    """A place that this machine's apt gets packages from: ``site`` as in sources.list, release and component."""

    site: str
    release: str
    component: str


class Apt:
    """One suite's packages for one architecture (Debian's name: ``amd64``), with its lists below ``folder``."""

    def __init__(self, folder: Path, *, suite: str, architecture: str, environment: Mapping[str, str]) -> None:
        self.suite, self._architecture = suite, architecture
        self._folder = folder.resolve() / f"{suite}-{architecture}"
        self._caller = allowed(environment)
        self._environment = {**self._caller, "APT_CONFIG": str(self._folder / "apt.conf")}
        self._fresh = False

    def resolve(self, part: DebianPart, keep: Mapping[str, str]) -> tuple[Control, ...]:
        """Choose packages and all that they need; ``keep`` gives versions that are wanted again.

        Raises:
            UserError: there is no such package, or they cannot stand together.
            MachineError: the mirrors cannot be reached.
        """
        self._update()
        wanted = (f"Package: {name}\nPin: version {version}\nPin-Priority: 1001\n" for name, version in keep.items())
        (self._folder / "preferences").write_text("\n".join(wanted))
        process = self._apt("apt-get", "-qq", "--simulate", "install", "--", *part.packages)
        if process.returncode != 0:
            raise UserError(
                f"apt cannot choose the packages for {self.suite}:\n{said(process, prefix='E:')}",
                hint="see that the names are those of this suite (apt-cache policy NAME)",
            )
        chosen = re.findall(r"^Inst (\S+) \((\S+) ", process.stdout.decode(), re.MULTILINE)
        return tuple(self.show(f"{name.partition(':')[0]}={version}" for name, version in chosen))

    def offers(self, names: tuple[str, ...]) -> Mapping[str, tuple[Control, ...]]:
        """Every version that the mirrors have of each package now.

        Raises:
            MachineError: the mirrors cannot be reached.
        """
        self._update()
        found: dict[str, tuple[Control, ...]] = dict.fromkeys(names, ())
        for control in self.show(names):
            if control["Package"] in found:
                found[control["Package"]] += (control,)
        return found

    def show(self, names: Iterator[str] | tuple[str, ...]) -> Iterator[Control]:
        """Yield the packages' entries in the index; unknown names give nothing."""
        process = self._apt("apt-cache", "show", "--", *names)
        yield from read_control(process.stdout.decode())

    def download(self, packages: tuple[str, ...], folder: Path) -> None:
        """Download ``name=version`` each into ``folder``; apt checks size and digest.

        Raises:
            MachineError: the mirrors cannot be reached or no longer have one.
        """
        process = self._apt("apt-get", "-qq", "download", "--", *packages, folder=folder)
        if process.returncode != 0:
            raise MachineError(f"Debian packages cannot be downloaded:\n{said(process, prefix='E:')}")

    def _update(self) -> None:
        if self._fresh:
            return
        self._configure()
        process = self._apt("apt-get", "-qq", "update", "-o", "APT::Update::Error-Mode=any")
        if process.returncode != 0:
            raise MachineError(
                f"the package lists of {self.suite} cannot be fetched:\n{said(process, prefix='E:')}",
                hint=f"see that {self.suite} is a suite of Debian's, and that apt-get update works on this machine",
            )
        self._fresh = True

    def _configure(self) -> None:
        if not KEYRING.is_file():
            raise MachineError(
                f"{KEYRING} is missing: packages could not be verified", hint=f"install it, or {_ELSEWHERE}"
            )
        for name in ("state/lists/partial", "cache/archives/partial", "empty"):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        mirrors = mirrors_for(self.suite, machine_mirrors(self._caller, self._folder))
        options = f"[signed-by={KEYRING} arch={self._architecture}]"
        sources = "".join(f"deb {options} {m.site} {m.release} {m.component}\n" for m in mirrors)
        for name, text in (("status", ""), ("preferences", ""), ("sources.list", sources)):
            (self._folder / name).write_text(text)
        (self._folder / "apt.conf").write_text(self._configuration())

    def _configuration(self) -> str:
        folder = str(self._folder)
        if '"' in folder or "\n" in folder:
            raise MachineError(
                f"apt cannot work in a folder of this name: {folder!r}", hint="choose another cache folder"
            )
        settings = {
            "Dir::State": f"{folder}/state",
            "Dir::State::status": f"{folder}/status",
            "Dir::Cache": f"{folder}/cache",
            "Dir::Etc::sourcelist": f"{folder}/sources.list",
            "Dir::Etc::sourceparts": f"{folder}/empty",
            "Dir::Etc::preferences": f"{folder}/preferences",
            "Dir::Etc::preferencesparts": f"{folder}/empty",
            "Dir::Etc::main": f"{folder}/empty/none",
            "Dir::Etc::parts": f"{folder}/empty",
            "Dir::Log": f"{folder}/empty",
            "APT::Architecture": self._architecture,
            "APT::Architectures": self._architecture,
            "APT::Install-Recommends": "false",
            "APT::Install-Suggests": "false",
            "APT::Sandbox::User": "root",  # that is: whoever calls; apt has no other user to become
            "Acquire::Languages": "none",
            "Acquire::Check-Valid-Until": "false",  # a mirror of old packages is what a pin asks for
            "Acquire::Check-Date": "false",
        }
        lines = [f'{name} "{value}";\n' for name, value in settings.items()]
        return "".join([*lines, *_network_settings(self._caller, self._folder)])

    def _apt(self, *argv: str, folder: Path | None = None) -> subprocess.CompletedProcess[bytes]:
        return call(argv, environment=self._environment, folder=folder or self._folder)


def machine_mirrors(environment: Mapping[str, str], folder: Path) -> tuple[Mirror, ...]:
    """Mirrors of Debian in this machine's own apt configuration, in one order whatever the file's.

    Raises:
        MachineError: there is no apt here, or it has no mirror of Debian.
    """
    if shutil.which("apt-get", path=environment["PATH"]) is None:
        raise MachineError("apt-get is missing: Debian packages can only be had on a Debian machine", hint=_ELSEWHERE)
    line = "|".join(_FIELDS)
    process = call(
        ("apt-get", "indextargets", "--format", line, "Created-By: Packages"), environment=environment, folder=folder
    )
    rows = {tuple(row.split("|")) for row in process.stdout.decode().splitlines()}
    # Before the first apt-get update the origin is not known and stays as written; signatures decide anyway.
    found = {
        Mirror(site=row[0], release=row[2] if "$" not in row[2] else row[1], component=row[3])
        for row in rows
        if len(row) == len(_FIELDS) and row[4] in ("Debian", "$(ORIGIN)", "")
    }
    if not found:
        raise MachineError(
            "this machine's apt has no mirror of Debian", hint=f"add one to its sources, or {_ELSEWHERE}"
        )
    return tuple(sorted(found))


def mirrors_for(suite: str, machine: tuple[Mirror, ...]) -> tuple[Mirror, ...]:
    """Mirrors for a suite and its -updates and -security: this machine's, or the same sites when it is of another.

    Raises:
        MachineError: there is no mirror at all.
    """
    own = [mirror for mirror in machine if mirror.release in {suite + pocket for pocket in _POCKETS}]
    if any(mirror.release == suite for mirror in own):
        return tuple(sorted(own))
    found = {
        Mirror(site=mirror.site, release=suite + _pocket(mirror.release), component=mirror.component)
        for mirror in machine
        if _pocket(mirror.release) in _POCKETS
    }
    if not found:
        raise MachineError(f"this machine's apt has no mirror for the suite {suite}", hint=_ELSEWHERE)
    return tuple(sorted(found))


def _pocket(release: str) -> str:
    """``-security`` of ``bookworm-security``; empty for the suite itself."""
    _, dash, pocket = release.partition("-")
    return dash + pocket


def _network_settings(environment: Mapping[str, str], folder: Path) -> list[str]:
    """Proxies and the like from this machine's apt configuration, which otherwise has no say."""
    process = call(("apt-config", "dump"), environment=environment, folder=folder)
    return [line + "\n" for line in process.stdout.decode().splitlines() if _NETWORK.match(line)]
