"""Run containers: one file per engine.

Naming an engine costs nothing: docker-py and spython are imported by the constructor that needs them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal, Protocol

from preserve.interfaces import LastingEngine


class Constructor(Protocol):
    """Makes an engine object; each takes what concerns it and ignores the rest."""

    def __call__(self, *, host: str | None, cache: Path, program: str | None, search_path: str) -> LastingEngine:
        """Make the engine; nothing is started, read or contacted yet."""


def docker_engine(*, host: str | None, cache: Path, program: str | None = None, search_path: str = "") -> LastingEngine:
    """Docker (or Podman's service) at ``host``, e.g. ``unix:///var/run/docker.sock`` (``None``: that one).

    ``cache`` holds three small files that its containers see.
    """
    from preserve.engines.docker import DockerEngine  # noqa: PLC0415 - 0.13 s that other engines need not pay

    return DockerEngine(host=host, cache=cache)


def apptainer_engine(
    *,
    host: str | None = None,
    cache: Path,
    program: str | None = None,
    search_path: str,
    form: Literal["folder", "sif"] = "folder",
) -> LastingEngine:
    """Apptainer or Singularity, with prepared images under ``cache``; ``program`` is looked up in ``search_path``."""
    from preserve.engines.apptainer import ApptainerEngine  # noqa: PLC0415 - spython is imported with it

    return ApptainerEngine(cache=cache, form=form, program=program, search_path=search_path)


BUILT_IN: Mapping[str, Constructor] = MappingProxyType({"docker": docker_engine, "apptainer": apptainer_engine})
