"""Where images come from and what runs them, as the command line's settings say."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from preserve import engines, transports
from preserve.documents.lockfile import ImagePin, PackagePin
from preserve.errors import DigestMismatch, MachineError, UserError
from preserve.interfaces import LastingEngine, Progress, Silent, Transport
from preserve.oci import Layout
from preserve.operations.folder import Folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the user's session says: read once by the command line, handed down.

    ``environment`` is what helpers (apt, pip, credential helpers) may be given a part of; ``engine`` is ``None`` for
    the first that answers; ``sif`` makes Apptainer run one file per image instead of an unpacked folder.
    """

    environment: Mapping[str, str] = field(default_factory=dict)
    engine: str | None = None
    sif: bool = False

    @property
    def docker_host(self) -> str | None:
        """Address of the Docker engine; ``None`` for its usual place."""
        return self.environment.get("DOCKER_HOST") or None

    @property
    def ca_file(self) -> Path | None:
        """File of authorities (PEM) to trust besides the system's."""
        name = self.environment.get("SSL_CERT_FILE")
        return Path(name) if name else None

    @property
    def proxies(self) -> Mapping[str, str]:
        """Addresses of proxies by scheme; ``HTTP_PROXY`` is not looked at, since a web server may set it (httpoxy)."""
        names = {"http": ("http_proxy",), "https": ("https_proxy", "HTTPS_PROXY")}
        found = {scheme: [self.environment.get(name, "") for name in each] for scheme, each in names.items()}
        return {scheme: next(filter(None, each)) for scheme, each in found.items() if any(each)}

    @property
    def search_path(self) -> str:
        """Folders in which programs are looked for."""
        return self.environment.get("PATH", "/usr/local/bin:/usr/bin:/bin")


def transport_for(
    reference: str,
    folder: Folder,
    settings: Settings,
    *,
    pins: Mapping[str, tuple[PackagePin, ...]] | None = None,
    update: bool = False,
    progress: Progress | None = None,
) -> Transport:
    """Give the transport for a reference as the lock has it (``build:image/``, ``docker://…``, ``oci:…``).

    ``pins`` are the package versions that recipes must use; ``update`` lets them take newer ones.
    """
    heard = progress or Silent()
    scheme = "build" if reference.startswith("build:") else transports.split_reference(reference)[0]
    module, _, name = transports.BUILT_INS[scheme].partition(":")
    kind = getattr(importlib.import_module(module), name)
    choices: dict[str, dict[str, Any]] = {
        "build": {
            "root": folder.root,
            "cache": folder.state / "cache" / "recipes",
            "environment": settings.environment,
            "pins": pins or {},
            "docker_host": settings.docker_host,
            "update": update,
        },
        "docker": {
            "auth_file": _existing(Path(settings.environment.get("HOME", "/")) / ".docker" / "config.json"),
            "ca_file": settings.ca_file,
            "proxies": settings.proxies,
            "environment": settings.environment,
        },
        "docker-daemon": {"host": settings.docker_host, "scratch": folder.layout},
        "oci": {"root": folder.root},
    }
    made: Transport = kind(**choices[scheme], progress=heard)
    return made


def bring(image: ImagePin, folder: Folder, settings: Settings, progress: Progress) -> None:
    """See that the image's blobs lie in the analysis' OCI layout.

    Raises:
        DigestMismatch: its place gives other bytes than the lock pins.
        MachineError: its place cannot be reached.
    """
    layout = Layout(folder.layout).create()
    try:
        layout.verified_image(image.manifest_digest, image.config_digest, image.diff_ids)
    except DigestMismatch:
        pins = {image.reference: image.packages}
        transport_for(image.reference, folder, settings, pins=pins, progress=progress).copy_to_layout(
            image, folder.layout
        )


def choose_engine(folder: Folder, settings: Settings) -> tuple[LastingEngine, str]:
    """Give the engine asked for, or the first that answers, and why it was chosen.

    Raises:
        MachineError: none answers.
        UserError: there is none of that name.
    """
    names = (settings.engine,) if settings.engine else ("docker", "apptainer")
    problems = []
    for name in names:
        engine = engine_named(name, folder, settings)
        try:
            version = engine.version()
        except MachineError as error:
            problems.append(error)
            continue
        why = "as asked" if settings.engine else ("it answers" if name == names[0] else "no Docker engine answers")
        return engine, f"engine: {name} {version} ({why})"
    if settings.engine:
        raise problems[0]
    raise MachineError(
        "no container engine: " + "; ".join(problem.message for problem in problems),
        hint="install Docker or Apptainer (docs/guide/engines.md); preserve doctor says what is missing",
    )


def engine_named(name: str, folder: Folder, settings: Settings) -> LastingEngine:
    """Give an engine; nothing is contacted yet.

    Raises:
        UserError: there is none of that name.
    """
    cache = folder.state / "images" / name
    if name == "apptainer" and settings.sif:
        return engines.apptainer_engine(cache=cache, form="sif", search_path=settings.search_path)
    if name not in engines.BUILT_IN:
        raise UserError(f"there is no engine {name!r}", hint=f"one of: {', '.join(engines.BUILT_IN)}")
    return engines.BUILT_IN[name](
        host=settings.docker_host, cache=cache, program=None, search_path=settings.search_path
    )


def _existing(path: Path) -> Path | None:
    return path if path.is_file() else None
