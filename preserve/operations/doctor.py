"""preserve doctor: what this machine can do, what is missing and how to get it."""

from __future__ import annotations

import importlib
from dataclasses import asdict
from typing import Any

from preserve.operations.places import Settings


def doctor(settings: Settings) -> dict[str, dict[str, Any]]:
    """Give what was found of each engine; ``problem`` is ``None`` where it can be used."""
    docker = importlib.import_module("preserve.engines.docker").facts(settings.docker_host)
    apptainer = importlib.import_module("preserve.engines.apptainer").facts(None, settings.search_path)
    return {"docker": asdict(docker), "apptainer": asdict(apptainer)}
