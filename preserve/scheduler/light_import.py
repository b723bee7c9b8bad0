"""Import Snakemake without what takes three quarters of the time until it runs jobs, and is of no use here.

A database toolkit serves a way of keeping records of jobs that is not chosen (snakemake_process.py asks for none at
all); a library for files on the web splits the address of the one Snakefile, which is a path. Plug-ins are not looked
for in all folders that Python imports from, three times over: those used are made known by snakemake_process.py, and
what others installed is not run.
Measured, and what it may cost: docs/decisions/0009-snakemake-in-a-process-beside.md.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import IO, Any


def _nothing(*_: object, **__: object) -> None:
    """Stand in for what describes a column of a table."""


def _local(path: str) -> SimpleNamespace:
    """Stand in for what splits an address."""
    return SimpleNamespace(scheme="file", uri_path=path)


def _open(path: str, mode: str, *, encoding: str | None, **_: object) -> IO[Any]:
    """Stand in for what opens an address, with a way to decompress that no path here asks for."""
    return Path(path).open(mode, encoding=encoding)


STAND_INS: Mapping[str, Mapping[str, Any]] = {
    "sqlalchemy": {"Column": _nothing, "JSON": None},
    "sqlmodel": {"SQLModel": object, "Field": _nothing},
    "snakemake.persistence.db": {"DbPersistence": None},
    "smart_open": {"parse_uri": _local, "open": _open},
}


def import_snakemake(stand_ins: Mapping[str, Mapping[str, Any]] = STAND_INS) -> None:
    """Import ``snakemake.api`` with few plug-ins, and with stand-ins for some modules unless they do not do."""
    sys.modules |= {name: module_of(name, **content) for name, content in stand_ins.items()}
    try:
        _import_with_its_own_plug_ins()
    except Exception:  # whatever another version of Snakemake makes of them
        for name in [name for name in sys.modules if name in stand_ins or name.startswith("snakemake")]:
            del sys.modules[name]
        _import_with_its_own_plug_ins()


def _import_with_its_own_plug_ins() -> None:
    registry = importlib.import_module("snakemake_interface_common.plugin_registry").PluginRegistryBase
    registry.collect_plugins = lambda self: setattr(self, "plugins", {})  # what it adds then is Snakemake's own
    importlib.import_module("snakemake.api")


def module_of(name: str, /, **content: Any) -> ModuleType:
    """Give a module that holds ``content``."""
    module = ModuleType(name)
    vars(module).update(content)
    return module
