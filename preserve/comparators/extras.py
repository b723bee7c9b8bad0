"""Libraries that a reader needs and a plain installation lacks."""

from __future__ import annotations

import importlib
from typing import Any

from preserve.comparators.leaves import MissingExtra


def library(module: str, extra: str) -> Any:
    """Import a module of an extra.

    Raises:
        MissingExtra: it is not installed; the message says what to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        raise MissingExtra(f"{name} is not installed: pip install 'hep-preserve[{extra}]'") from error
