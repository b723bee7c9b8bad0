"""Find and copy images: one file per kind of place.

``BUILT_INS`` names the class of each scheme as ``module:Class``; nothing of them is imported here, since a caller
that only reads a workflow needs neither HTTP nor the Docker client.
"""

from __future__ import annotations

from preserve.errors import UserError

BUILT_INS = {
    "docker": "preserve.transports.registry:RegistryTransport",
    "docker-daemon": "preserve.transports.docker_daemon:DockerDaemonTransport",
    "oci": "preserve.transports.oci_layout:OciLayoutTransport",
    "build": "preserve.transports.recipe.transport:RecipeTransport",
}

# Schemes of skopeo, Apptainer and the web that people will try: better named than taken for an image of that name.
_FOREIGN = frozenset(
    ("oci-archive", "docker-archive", "dir", "containers-storage", "library", "shub", "oras", "sif", "http", "https")
)
_HINT = "write docker://host/name:tag, host/name@sha256:…, docker-daemon:name:tag or oci:folder:tag"


def split_reference(reference: str) -> tuple[str, str]:
    """Split an image reference as written in preserve.yaml into the transport's scheme and what that one reads.

    ``docker://X`` and a bare ``host/name[:tag][@sha256:…]`` give ``docker``; ``docker-daemon:X`` and ``oci:X`` theirs.

    Raises:
        UserError: it is empty, holds white space, or has a scheme that no transport here serves.
    """
    if not reference or any(character.isspace() or not character.isprintable() for character in reference):
        raise UserError(f"{reference!r} is not an image reference", hint=_HINT)
    scheme, colon, rest = reference.partition(":")
    if scheme in ("docker-daemon", "oci") and colon:
        return scheme, _present(rest, reference)
    if scheme == "docker" and rest.startswith("//"):
        return scheme, _present(rest[2:], reference)
    if colon and (scheme in _FOREIGN or rest.startswith("//")):
        raise UserError(f"{reference}: images cannot be had by {scheme!r}", hint=_HINT)
    return "docker", reference


def _present(rest: str, reference: str) -> str:
    if not rest:
        raise UserError(f"{reference!r} names no image", hint=_HINT)
    return rest
