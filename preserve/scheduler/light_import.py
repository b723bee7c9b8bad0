"""Import Snakemake without the database toolkit that takes more than half of its time.

The toolkit serves a way of keeping records of jobs that is not chosen here (snakemake_process.py asks for none at all).
Measured, and what it may cost: docs/decisions/0009-snakemake-in-a-process-beside.md.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any


def _nothing(*_: object, **__: object) -> None:
    """Stand in for what describes a column of a table."""


STAND_INS: Mapping[str, Mapping[str, Any]] = {
    "sqlalchemy": {"Column": _nothing, "JSON": None},
    "sqlmodel": {"SQLModel": object, "Field": _nothing},
    "snakemake.persistence.db": {"DbPersistence": None},
}


def import_snakemake(stand_ins: Mapping[str, Mapping[str, Any]] = STAND_INS) -> None:
    """Import ``snakemake.api`` with stand-ins for some modules; where they do not do, as it is."""
    before = set(sys.modules)
    for name, content in stand_ins.items():
        sys.modules[name] = module_of(name, **content)
    try:
        importlib.import_module("snakemake.api")
    except Exception:  # whatever another version of Snakemake makes of them
        for name in set(sys.modules) - before:
            del sys.modules[name]
        importlib.import_module("snakemake.api")


def module_of(name: str, /, **content: Any) -> ModuleType:
    """Give a module that holds ``content``."""
    module = ModuleType(name)
    vars(module).update(content)
    return module
