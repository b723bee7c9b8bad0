"""The program of Apptainer or Singularity on this machine: which it is, and which version."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass

from spython.utils import run_command

from preserve.errors import MachineError

PROGRAMS = ("apptainer", "singularity")
OLDEST = {"apptainer": (1, 1), "singularity": (3, 11)}
INSTALL = "install Apptainer 1.1 or newer (https://apptainer.org/docs/admin/main/installation.html)"
_VERSION = re.compile(r"(?P<name>apptainer|singularity)(?:-ce|-pro)? version v?(?P<text>(\d+)\.(\d+)\S*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """The engine's program: ``flavour`` is apptainer or singularity, ``version`` as the program says it."""

    path: str
    flavour: str
    version: str

    @property
    def told(self) -> str:
        """The version for the user, as ``1.4.5`` or ``singularity 4.1.0``: Apptainer's name is the engine's already."""
        return self.version if self.flavour == "apptainer" else f"{self.flavour} {self.version}"


def find_program(wanted: str | None, search_path: str) -> Program:
    """Find the engine's program and ask its version.

    Raises:
        MachineError: none is found, it does not run, or it is too old.
    """
    names = (wanted,) if wanted else PROGRAMS
    path = next((found for name in names if (found := shutil.which(name, path=search_path))), None)
    if path is None:
        raise MachineError(f"no program {' or '.join(names)} in {search_path}", hint=INSTALL)
    try:
        done = run_command([path, "--version"], quiet=True, environ={"PATH": search_path})
    except OSError as error:
        raise MachineError(f"{path} cannot be run: {error.strerror}", hint=INSTALL) from error
    return read_version(path, "".join(done["message"]))


def read_version(path: str, text: str) -> Program:
    """Read what ``--version`` printed: ``apptainer version 1.4.5``, ``singularity-ce version 4.1.0``.

    Raises:
        MachineError: it is another program's, or the version is too old.
    """
    found = _VERSION.search(text)
    if found is None:
        raise MachineError(f"{path} is neither Apptainer nor Singularity: it says {text.strip()!r}", hint=INSTALL)
    flavour, version = found["name"], found["text"]
    if (int(found[3]), int(found[4])) < OLDEST[flavour]:
        oldest = ".".join(str(number) for number in OLDEST[flavour])
        raise MachineError(f"{path} is {flavour} {version}; {oldest} is the oldest that will do", hint=INSTALL)
    return Program(path=path, flavour=flavour, version=version)
